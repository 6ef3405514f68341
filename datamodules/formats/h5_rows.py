"""HDF5 with all episodes in one table: V-D4RL's 84-pixel data.

observation uint8 [N, C, h, w] or [N, h, w, C], action, reward, discount and step_type (0 first, 1 mid, 2 last) [N];
action[t] led to observation[t]. Also read: is_first and is_terminal, an image key of any name.
"""

from functools import partial
from typing import Any

from datamodules.formats import h5
from datamodules.formats.assemble import Convention, assemble, ends_by_termination, episodes, flags
from datamodules.formats.protocol import FormatError
from datamodules.trajectory import Trajectory

ALIGNMENT = "arrival"
_IMAGE_KEYS = ("observation", "image", "observations")
_FLAGS = ("step_type", "is_first", "is_terminal", "discount", "terminal")


def find_episodes(file: Any, name: str, *, image_key: str, terminal_key: str) -> list[tuple[str, int, Any]]:
    """Each episode's name, its rows, and what reads it given the file and a Convention; raises FormatError."""
    keys = h5.names(file, name)
    image = next((key for key in ((image_key,) if image_key else _IMAGE_KEYS) if key in keys), None)
    if image is None or not {"step_type", "is_first"} & set(keys):
        expected = image_key or " or ".join(_IMAGE_KEYS)
        raise FormatError(f"{name}: expected data/demo_*, or {expected} with step_type or is_first, got {keys[:20]}")
    arrays = {key: h5.read(h5.member(file, key, name), f"{name} {key}") for key in _FLAGS if key in keys}
    if terminal_key:
        arrays["is_terminal"] = h5.read(h5.member(file, terminal_key, name), f"{name} {terminal_key}")
    rows = (getattr(h5.member(file, image, name), "shape", None) or (0,))[0]
    first, terminal = flags(name, arrays, rows)
    found = []
    for part in episodes(name, first):
        label = f"{name} rows {part.start} to {part.stop - 1}"
        read = partial(_read, label=label, image=image, part=part, terminal=terminal[part])
        found.append((label, part.stop - part.start, read))
    return found


def _read(file: Any, convention: Convention, *, label: str, image: str, part: slice, terminal: Any) -> Trajectory:
    arrays = {
        key: h5.read(h5.member(file, name, label), f"{label} {name}", part)
        for key, name in (("pixels", image), ("action", "action"), ("reward", "reward"))
    }
    ends = ends_by_termination(f"{label} is_terminal", terminal)
    return assemble(label, terminal=ends, convention=convention, **arrays)
