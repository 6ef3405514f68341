"""HDF5 with a group for each episode: the layout of robomimic.

data/demo_<n> holds obs/<camera> uint8 [T, h, w, C], actions [T, A], rewards and dones [T]; actions[t] was taken at
obs[t]. Where next_obs/<camera> is there, its last frame closes the episode, else the last action is left out. dones
mark success or just the end, as a file's maker chose: termination is read from `terminal_key=dones` only if one says
so. What our writer adds, others overlook: final_obs/<camera> [1, h, w, C], env_steps [T + 1], terminal, and the spec.
"""

import json
import re
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.formats import h5
from datamodules.formats.assemble import Convention, assemble, ends_by_termination, side_by_side
from datamodules.formats.guard import spec_from
from datamodules.formats.protocol import FormatError
from datamodules.trajectory import Trajectory
from worldmodel.spec import EnvSpec

ALIGNMENT = "departure"
CAMERA, SPEC = "image", "worldmodel_spec"


def is_demos(file: Any, name: str) -> bool:
    """Whether the file has a group `data`."""
    return "data" in h5.names(file, name)


def find_episodes(file: Any, name: str, *, image_key: str, terminal_key: str) -> list[tuple[str, int, Any]]:
    """Each episode's name, its rows, and what reads it given the file and a Convention; raises FormatError."""
    matches = [re.fullmatch(r"demo_(\d{1,12})", each) for each in h5.names(h5.member(file, "data", name), name)]
    numbers = sorted((int(match[1]), match[0]) for match in matches if match)
    options = {"image_key": image_key, "terminal_key": terminal_key}
    return [
        (f"{name} {demo}", _rows(file, demo), partial(_read, label=f"{name} {demo}", demo=demo, **options))
        for _, demo in numbers
    ]


def _rows(file: Any, demo: str) -> int:
    try:
        return int(h5.member(file, f"data/{demo}/actions", demo).shape[0]) + 1
    except (FormatError, AttributeError, IndexError, TypeError):
        return 0  # it is left out, and named, when it is read


def stored_spec(file: Any, name: str) -> EnvSpec | None:
    """The spec that our writer left; raises FormatError where it is no spec."""
    data = h5.member(file, "data", name)
    if SPEC not in h5.names(data, name):
        return None
    text = h5.read(h5.member(data, SPEC, name), f"{name} {SPEC}").tobytes()
    try:
        return spec_from(json.loads(text), name)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} {SPEC}: expected JSON, got {error}") from error


def _read(file: Any, convention: Convention, *, label: str, demo: str, image_key: str, terminal_key: str) -> Trajectory:
    group = h5.member(file, f"data/{demo}", label)
    keys = h5.names(group, label)
    cameras = image_key.split(",") if image_key else [_camera(h5.member(group, "obs", label), label)]
    arrays = {key: h5.read(h5.member(group, key, label), f"{label} {key}") for key in ("actions", "rewards")}
    closes = convention.alignment == ALIGNMENT and next((key for key in ("final_obs", "next_obs") if key in keys), None)
    films = []
    for camera in cameras:
        film = h5.read(h5.member(group, f"obs/{camera}", label), f"{label} {camera}")
        later = h5.member(group, f"{closes}/{camera}", label) if closes else None
        films.append(_with_last(film, later, f"{label} {closes}") if closes else film)
    terminal = False
    if terminal_key or "terminal" in keys:
        ends = h5.read(h5.member(group, terminal_key or "terminal", label), f"{label} termination")
        terminal = ends_by_termination(label, ends.reshape(-1)) if ends.size else False
    steps = h5.read(h5.member(group, "env_steps", label), f"{label} env_steps") if "env_steps" in keys else None
    return assemble(
        label,
        pixels=side_by_side(label, films),
        action=arrays["actions"],
        reward=arrays["rewards"],
        terminal=terminal,
        convention=convention,
        env_steps=steps,
    )


def _camera(observations: Any, label: str) -> str:
    """The only observation that is a film of uint8."""
    films = {key: h5.member(observations, key, label) for key in h5.names(observations, label)}
    found = [key for key, film in films.items() if getattr(film, "dtype", None) == np.uint8 and film.ndim == 4]
    if len(found) != 1:
        raise FormatError(f"{label} obs: expected one film, got {', '.join(found) or 'none'}: say ?image_key=...")
    return found[0]


def _with_last(pixels: NDArray[Any], later: Any, label: str) -> NDArray[Any]:
    count = getattr(later, "shape", (0,))[0] if getattr(later, "shape", ()) else 0
    last = h5.read(later, label, slice(max(0, count - 1), count))
    if len(last) != 1 or last.shape[1:] != pixels.shape[1:] or last.dtype != pixels.dtype:
        raise FormatError(
            f"{label}: expected frames of {pixels.dtype} {pixels.shape[1:]}, got {last.dtype} {last.shape}"
        )
    return np.concatenate([pixels, last])


def write_spec(file: Any, spec: EnvSpec) -> None:
    """The group `data` of a new file, as robomimic's and with our spec."""
    data = file.create_group("data")
    text = json.dumps(spec.to_json())
    data.attrs["env_args"] = json.dumps({"env_name": spec.task, "type": 2, "env_kwargs": {}})
    data.attrs["total"] = 0
    data.create_dataset(SPEC, data=np.frombuffer(text.encode(), np.uint8))


def write_episode(file: Any, number: int, trajectory: Trajectory) -> None:
    """Add `data/demo_<number>`."""
    frames = np.ascontiguousarray(trajectory.pixels.transpose(0, 2, 3, 1))
    steps = len(frames) - 1
    arrays = {
        f"obs/{CAMERA}": frames[:-1],
        f"final_obs/{CAMERA}": frames[-1:],
        "actions": trajectory.action[1:],
        "rewards": trajectory.reward[1:],
        "dones": (np.arange(steps) == steps - 1).astype(np.int64),
        "env_steps": trajectory.env_steps,
        "terminal": np.uint8(trajectory.terminal),
    }
    group = file["data"].create_group(f"demo_{number}")
    group.attrs["num_samples"] = steps
    for key, values in arrays.items():
        group.create_dataset(key, data=values)
    file["data"].attrs["total"] += steps
