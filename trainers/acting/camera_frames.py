"""Camera frames through the visual options that an agent was trained behind: grey, stacked, in other colours."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import BadOption
from datamodules.envs.images import area_resized
from datamodules.envs.protocol import Env, Step
from datamodules.envs.sources import ArrivedRow, see_through
from worldmodel.errors import UserError
from worldmodel.spec import EnvSpec

Frame = NDArray[np.uint8]

# what a camera does by itself, and what concerns time instead of frames
_NOT_OF_FRAMES = ("camera", "action_repeat", "time_limit")


class BadInput(UserError, ValueError):
    """An observation that the agent was not trained on."""


class CameraFrames:
    """The frames of several episodes side by side as training showed them; remembers what options remember.

    Args:
        spec: what the agent was trained on.
        visuals: the options, in their order; none for frames that come as the agent sees them.

    Raises:
        BadInput: an option needs more than frames, such as the simulator's word on what is background.
    """

    def __init__(self, spec: EnvSpec, visuals: Mapping[str, Any]) -> None:
        names = list(visuals)
        if "action_repeat" in names and "frame_stack" in names[: names.index("action_repeat")]:
            raise BadInput("visuals: expected action_repeat before frame_stack, no frames come between two decisions")
        self._spec = spec
        self._visuals = {name: options for name, options in visuals.items() if name not in _NOT_OF_FRAMES}
        self.images = {name: _given(spec, name, self._visuals) for name in spec.images}
        self._given = replace(spec, images=self.images, visuals={})
        self.reset(1, seed=0)

    def reset(self, count: int, *, seed: int) -> None:
        """Begin `count` episodes; those of options that draw at random have the seeds `seed`, `seed` + 1, ..."""
        self._arrived = [ArrivedRow(self._given) for _ in range(count)]
        self._episodes: list[Env] = [see_through(row, self._visuals) for row in self._arrived]
        self._seeds: list[int] | None = list(range(seed, seed + count))

    def see(self, frames: Mapping[str, NDArray[Any]]) -> dict[str, Frame]:
        """What the agent sees of the next camera frames [n, h, w, c] of every name, uint8 [n, C, H, W].

        BadInput for what are no frames of as many channels as the environment drew.
        """
        given = {name: _fitted(name, frames[name], shape) for name, shape in self.images.items()}
        if not self._visuals:
            return given
        seeds, rows = self._seeds, list[Step]()
        still = np.zeros(self._spec.action_dim, np.float32)
        for i, (arrived, episode) in enumerate(zip(self._arrived, self._episodes, strict=True)):
            images = {name: frames[i] for name, frames in given.items()}
            arrived.row = Step(images, 0.0, seeds is not None, False, False, 0)
            rows.append(episode.step(still) if seeds is None else episode.reset(seeds[i]))
        self._seeds = None
        return {name: np.stack([row.observation[name] for row in rows]) for name in given}


def _given(spec: EnvSpec, name: str, visuals: Mapping[str, Any]) -> tuple[int, int, int]:
    """The shape of the frames that the options make `spec`'s image of: of its size, most often in colour."""
    wanted = spec.images[name]
    if not visuals:
        return wanted
    most = 3 * wanted[0]  # grey has a third
    # a depth or grey camera last: options for colour refuse it
    for channels in (*range(3, most + 1, 3), *(c for c in range(1, most + 1) if c % 3)):
        given = replace(spec, images={name: (channels, *wanted[1:])}, visuals={})
        try:
            seen = see_through(ArrivedRow(given), visuals).spec
        except BadOption as error:
            if channels % 3 == 0:
                raise BadInput(f"{error}; give frames as the agent sees them, with visuals={{}}") from error
            continue
        if seen.images[name] == wanted:
            return given.images[name]
    raise BadInput(f"{name}: expected frames that {', '.join(visuals)} make {wanted} of, found none")


def _fitted(name: str, frames: NDArray[Any], shape: tuple[int, int, int]) -> Frame:
    """Frames [n, h, w, c] as [n, c, height, width], resized by areas where they are of another size."""
    channels, height, width = shape
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != channels or not frames.size:
        kind = f"{frames.dtype} {list(frames.shape[1:])}"
        raise BadInput(f"{name}: expected uint8 [height, width, {channels}], got {kind}")
    return np.stack([area_resized(frame.transpose(2, 0, 1), height, width) for frame in frames])
