"""What is observed of a Gymnasium environment: its own images and vectors by name, or a frame that it draws."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadObservation, BadOption, BadSpace
from datamodules.envs.images import LEAST_SIDE, ImageReader, as_image_name, judge_image, leaves, value_at
from datamodules.observation import Observation

MODES = ("auto", "pixels", "state", "pixels+state")
# of a space that is one vector
STATE = "state"


@dataclass(frozen=True, slots=True)
class VectorReader:
    """Reads the part of an observation under `path` as float32 [size]; `counts`: of categories, each one-hot."""

    path: tuple[str, ...]
    size: int
    shape: tuple[int, ...]
    counts: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    def read(self, observation: Any, lane: int | None = None) -> NDArray[np.float32]:
        """The vector of an observation, or of a lane in a batch of them; raises BadObservation for another shape."""
        values = np.asarray(value_at(observation, self.path, lane))
        if values.shape != self.shape or values.dtype.kind not in "biuf":
            got = f"{values.dtype} {values.shape}"
            raise BadObservation(f"{as_image_name(self.path)}: expected numbers {self.shape}, got {got}")
        if not self.counts:
            return values.astype(np.float32).reshape(-1)
        out = np.zeros(self.size, np.float32)
        begins = np.cumsum((0, *self.counts[:-1]))
        for begin, count, start, value in zip(begins, self.counts, self.starts, values.reshape(-1), strict=True):
            if not 0 <= value - start < count:
                expected = f"{start}..{start + count - 1}"
                raise BadObservation(f"{as_image_name(self.path)}: expected {expected}, got {value}")
            out[begin + int(value - start)] = 1
        return out


@dataclass(frozen=True, slots=True)
class Observer:
    """What is read: `images` by name, None for the frame that the environment draws, and `vectors`."""

    images: Mapping[str, ImageReader | None]
    vectors: Mapping[str, VectorReader]
    notes: tuple[str, ...] = ()

    @property
    def draws(self) -> bool:
        """Whether the environment has to draw."""
        return None in self.images.values()

    def read(
        self, observation: Any, draw: Callable[[], NDArray[np.uint8]], lane: int | None = None
    ) -> tuple[dict[str, NDArray[np.uint8]], Observation]:
        """Images [h, w, C] as they come, and vectors: copies, of an observation, or of a lane in a batch of them."""
        images = {
            name: draw() if reader is None else reader.read(observation, lane).copy()
            for name, reader in self.images.items()
        }
        return images, {name: reader.read(observation, lane) for name, reader in self.vectors.items()}

    def shapes(self, size: int | Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
        """(C, size, size) of every image; raises BadOption for a size of another name, or none of one."""
        if isinstance(size, Mapping) and set(size) != set(self.images):
            raise BadOption(f"expected a size for each of {list(self.images)}, got {dict(size)}", key="size")
        sides = {name: size[name] if isinstance(size, Mapping) else size for name in self.images}
        return {
            name: (3 if reader is None else reader.channels, sides[name], sides[name])
            for name, reader in self.images.items()
        }


def choose_observer(
    space: Any,
    render_mode: str | None,
    *,
    observe: str | Sequence[str] = "auto",
    pixels: str = "auto",
    image_key: str | None = None,
) -> Observer:
    """What is observed of a space; raises BadOption or BadSpace.

    Args:
        space: a Gymnasium observation space; Dict and Tuple are taken apart, names of their parts joined by dots.
        render_mode: of the environment, which draws where it is "rgb_array".
        observe: "pixels", "state" (its vectors), both, or the names of parts; "auto" is all of a space that has an
            image, and else the drawn frame.
        pixels: "observation" or "render" where frames have to come from there.
        image_key: the only image that is looked at, under the name "pixels".
    """
    parts = leaves(space)
    judged = {path: judge_image(path, part) for path, part in parts.items()}
    vectors = {path: reader for path, part in parts.items() if (reader := _vector(path, part, judged[path]))}
    images = {} if pixels == "render" else {p: r for p, r in judged.items() if isinstance(r, ImageReader)}
    if not isinstance(observe, str):
        return _named(observe, parts, images, vectors)
    if observe not in MODES:
        raise BadOption(f"expected one of {', '.join(MODES)} or a list of names, got {observe!r}", key="observe")
    if image_key is not None and pixels != "render":
        images = _only(image_key, parts, judged)
    if observe == STATE:
        images = {}
    elif not images:
        hint = "; observe=state reads its numbers" if vectors else ""
        _require_drawn(space, render_mode, pixels, [r for r in judged.values() if isinstance(r, str)], hint)
    whole = observe in (STATE, "pixels+state") or (observe == "auto" and bool(images) and image_key is None)
    read = vectors if whole else {}
    if observe == STATE and not read:
        raise BadSpace(f"observation: expected numbers for observe=state, got {space}")
    plain = image_key is not None or (len(images) == 1 and not read)
    chosen: dict[str, ImageReader | None] = {"pixels" if plain else _name(p, "pixels"): r for p, r in images.items()}
    if not chosen and observe != STATE:
        chosen = {"pixels": None}
    names = {_name(path, STATE): reader for path, reader in read.items()}
    if clash := chosen.keys() & names.keys():
        raise BadOption(f"expected other names of vectors than of images, got {sorted(clash)}", key="observe")
    # what is drawn by default looks at the world, not at the observation: nothing is left out of a view
    unread = [] if None in chosen.values() and observe == "auto" else [*(parts.keys() - images.keys() - read.keys())]
    return Observer(chosen, names, _notes(sorted(unread), parts))


def _named(
    names: Sequence[str],
    parts: Mapping[tuple[str, ...], Any],
    images: Mapping[tuple[str, ...], ImageReader],
    vectors: Mapping[tuple[str, ...], VectorReader],
) -> Observer:
    known = {".".join(path): path for path in parts if path in images or path in vectors}
    if not names or not set(names) <= known.keys():
        raise BadOption(f"expected names of {list(known)}, got {list(names)}", key="observe")
    paths = [known[name] for name in names]
    unread = sorted(parts.keys() - set(paths))
    return Observer(
        {_name(path, "pixels"): images[path] for path in paths if path in images},
        {_name(path, STATE): vectors[path] for path in paths if path in vectors},
        _notes(unread, parts),
    )


def _only(
    key: str, parts: Mapping[tuple[str, ...], Any], judged: Mapping[tuple[str, ...], Any]
) -> dict[tuple[str, ...], ImageReader]:
    path = tuple(key.split("/")) if tuple(key.split("/")) in parts else tuple(key.split("."))
    if path not in parts or not getattr(parts[path], "shape", None):
        names = ["/".join(p) for p, part in parts.items() if getattr(part, "shape", None)]
        raise BadOption(f"expected one of {names}, got {key!r}", key="image_key")
    reader = judged[path]
    if isinstance(reader, str):
        raise BadSpace(f"{reader}; pixels=render draws the environment instead")
    if reader is None:
        raise BadSpace(
            f"{as_image_name(path)}: expected an image of at least {LEAST_SIDE}x{LEAST_SIDE}, got {parts[path].shape}"
        )
    return {path: reader}


def _require_drawn(space: Any, render_mode: str | None, pixels: str, unclear: Sequence[str], hint: str) -> None:
    if pixels == "observation" and not unclear:
        raise BadSpace(f"observation: expected an image, got {space}{hint}")
    if unclear and pixels != "render":
        raise BadSpace(f"{unclear[0]}; pixels=render draws the environment instead")
    if render_mode != "rgb_array":
        wanted = "an image, or an environment with render_mode 'rgb_array'"
        raise BadSpace(f"observation: expected {wanted}, got {space}{hint}")


def _vector(path: tuple[str, ...], part: Any, judged: ImageReader | str | None) -> VectorReader | None:
    from gymnasium import spaces

    if isinstance(part, spaces.Discrete):
        return VectorReader(path, int(part.n), (), (int(part.n),), (int(part.start),))
    if isinstance(part, spaces.MultiDiscrete):
        counts = tuple(int(count) for count in part.nvec.reshape(-1))
        starts = tuple(int(start) for start in np.asarray(part.start).reshape(-1))
        return VectorReader(path, sum(counts), part.shape, counts, starts)
    if judged is None and isinstance(part, spaces.Box | spaces.MultiBinary) and math.prod(part.shape) > 0:
        return VectorReader(path, math.prod(part.shape), tuple(part.shape))
    return None


def _name(path: tuple[str, ...], whole: str) -> str:
    return ".".join(path) or whole


def _notes(unread: Sequence[tuple[str, ...]], parts: Mapping[tuple[str, ...], Any]) -> tuple[str, ...]:
    names = [f"{_name(path, STATE)} ({type(parts[path]).__name__})" for path in unread]
    return (f"not read of the observation: {', '.join(names)}; task.env.observe says what is",) if names else ()
