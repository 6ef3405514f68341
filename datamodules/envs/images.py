"""Images out of a Gymnasium observation space: which part is one, how it is laid out, and as uint8 frames."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadObservation

# an axis is one of channels if it is shorter than this, one of the image if it is not
LEAST_SIDE = 16
# what the largest value of a range is divided by to give 255
_SCALES = {("f", 1.0): 1 / 255, ("f", 255.0): 1.0, ("i", 255.0): 1.0, ("u", 255.0): 1.0, ("u", 65535.0): 257.0}
_EXPECTED = "uint8 0..255, uint16 0..65535, float 0..1 or float 0..255"


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Reads the part of an observation under `path` (keys of nested dicts) as uint8 [h, w, C]."""

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    layout: Literal["HWC", "CHW", "HW"]
    scale: float

    @property
    def channels(self) -> int:
        """C, 1 for grey."""
        return {"HWC": self.shape[-1], "CHW": self.shape[0], "HW": 1}[self.layout]

    def read(self, observation: Any, lane: int | None = None) -> NDArray[np.uint8]:
        """The image as uint8 [h, w, C]; raises BadObservation for another shape, type or range than the space's.

        lane: whose image is read, where the observation is a batch.
        """
        values = np.asarray(value_at(observation, self.path, lane))
        if values.shape != self.shape or values.dtype.kind != self.dtype.kind:
            expected, got = f"{self.dtype} {self.shape}", f"{values.dtype} {values.shape}"
            raise BadObservation(f"{as_image_name(self.path)}: expected {expected}, got {got}")
        if self.layout == "CHW":
            values = values.transpose(1, 2, 0)
        return self._as_bytes(values[..., None] if self.layout == "HW" else values)

    def _as_bytes(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        if values.dtype == np.uint8:
            return values
        low, high = float(values.min()), float(values.max())
        limit = 255 * self.scale
        # NaN fails this too
        if not 0 <= low <= high <= limit:
            raise BadObservation(f"{as_image_name(self.path)}: expected values in 0..{limit:g}, got {low:g}..{high:g}")
        return np.rint(values / self.scale).astype(np.uint8)


def area_resized(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Frames [C, height, width]: the mean over the covered area where they shrink, the nearest pixel where they grow.

    The sides are scaled each for itself: a frame that is not square is squeezed.
    """
    from PIL import Image

    if pixels.shape[1:] == (height, width):
        return np.ascontiguousarray(pixels)
    return np.stack([np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BOX)) for c in pixels])


def as_colour(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image [h, w, C] as uint8 [size, size, 3]: its last three channels, or its last one as grey."""
    newest = image[..., -3:] if image.shape[-1] >= 3 else image[..., -1:].repeat(3, axis=-1)
    return np.ascontiguousarray(area_resized(newest.transpose(2, 0, 1), size, size).transpose(1, 2, 0))


def leaves(space: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The parts of nested Dict and Tuple spaces by their keys."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return {k: leaf for key, part in items for k, leaf in leaves(part, (*path, str(key))).items()}
    return {path: space}


def value_at(observation: Any, path: tuple[str, ...], lane: int | None = None) -> Any:
    """The part of an observation under `path`, of a lane where it is a batch of them; raises BadObservation."""
    for key in path:
        if isinstance(observation, tuple) and key.isdecimal() and int(key) < len(observation):
            observation = observation[int(key)]
        elif isinstance(observation, Mapping) and key in observation:
            observation = observation[key]
        else:
            raise BadObservation(f"{as_image_name(path)}: expected a value, got none")
    return observation if lane is None else observation[lane]


def judge_image(path: tuple[str, ...], box: Any) -> ImageReader | str | None:
    """A reader, or why an image cannot be read, or None for what is no image."""
    from gymnasium import spaces

    if not isinstance(box, spaces.Box):
        return None
    if sum(side >= LEAST_SIDE for side in box.shape) < 2 or (len(box.shape) != 3 and box.dtype != np.uint8):
        return None
    layout = _layout(box.shape)
    got = f"{box.dtype} {box.shape}"
    if layout is None:
        return f"{as_image_name(path)}: expected an image HWC, CHW or HW of less than {LEAST_SIDE} channels, got {got}"
    low, high = np.unique(box.low), np.unique(box.high)
    scale = _SCALES.get((box.dtype.kind, float(high[0])))
    if len(low) > 1 or len(high) > 1 or low[0] != 0 or scale is None or (scale == 257 and box.dtype != np.uint16):
        return f"{as_image_name(path)}: expected an image of {_EXPECTED}, got {got} {low[0]:g}..{high[-1]:g}"
    return ImageReader(path=path, shape=box.shape, dtype=box.dtype, layout=layout, scale=scale)


def _layout(shape: tuple[int, ...]) -> Literal["HWC", "CHW", "HW"] | None:
    is_side = tuple(side >= LEAST_SIDE for side in shape)
    layouts = {(True, True): "HW", (True, True, False): "HWC", (False, True, True): "CHW"}
    return layouts.get(is_side)  # type: ignore[return-value]


def as_image_name(path: tuple[str, ...]) -> str:
    """How messages call a part of an observation."""
    return f"observation[{'/'.join(path)}]" if path else "observation"
