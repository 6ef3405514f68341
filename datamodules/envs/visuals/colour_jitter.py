"""Other colours in every episode: brightness, contrast, saturation and hue, as one affine map of RGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption
from datamodules.envs.protocol import Env
from datamodules.envs.visuals.grayscale import LUMA
from datamodules.envs.wrapper import Wrapper, colour_views

# keeps these draws apart from those that other options make from the same seed
_STREAM = 1
_GREY = np.ones(3) / np.sqrt(3)


class ColourJitter(Wrapper):
    """colour -> M @ [colour, 1] with a matrix M [3, 4] of the episode's seed, the same for all its frames and views.

    strength s in [0, 1]: contrast (about mid-grey) and saturation are uniform in [1 - s, 1 + s], brightness is moved by
    up to s / 2 of the whole range, hue is turned by up to s * 180 degrees about the grey axis; 0 changes nothing.
    """

    def __init__(self, env: Env, *, strength: Any = 0.3) -> None:
        super().__init__(env)
        self._views = colour_views(env, "colour_jitter")
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
            raise BadOption(f"expected a number in [0, 1], got {strength!r}", key="visuals.colour_jitter.strength")
        self._strength = float(strength)
        self._matrix = np.eye(3, 4, dtype=np.float32)

    def _begin(self, seed: int) -> None:
        brightness, contrast, saturation, hue = np.random.default_rng([_STREAM, seed]).uniform(-1, 1, 4)
        s = self._strength
        matrix = colour_matrix(s * brightness / 2, 1 + s * contrast, 1 + s * saturation, s * hue * np.pi)
        self._matrix = matrix.astype(np.float32)

    def _see(self, name: str, image: NDArray[np.uint8], *, opens: bool) -> NDArray[np.uint8]:
        colours = image.reshape(self._views[name], 3, -1).astype(np.float32)
        changed = self._matrix[:, :3] @ colours + self._matrix[:, 3:]
        return np.rint(changed.clip(0, 255)).astype(np.uint8).reshape(image.shape)


def colour_matrix(brightness: float, contrast: float, saturation: float, hue: float) -> NDArray[np.float64]:
    """The affine map [3, 4] of colours in 0..255: turn the hue (radians), then saturation, contrast, brightness."""
    linear = contrast * _saturate(saturation) @ _turn(hue)
    offset = 255.0 * (0.5 * (1 - contrast) + brightness)
    return np.column_stack([linear, np.full(3, offset)])


def _saturate(factor: float) -> NDArray[np.float64]:
    # a mixture of the colour and its luma
    return factor * np.eye(3) + (1 - factor) * np.outer(np.ones(3), LUMA.astype(np.float64))


def _turn(angle: float) -> NDArray[np.float64]:
    # Rodrigues' rotation about the grey axis: grey stays grey
    x, y, z = _GREY
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    along = np.outer(_GREY, _GREY)
    return along + np.cos(angle) * (np.eye(3) - along) + np.sin(angle) * cross


make = ColourJitter
