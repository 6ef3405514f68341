"""The environment side's records: numpy only, importing this never imports torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from datamodules.observation import Observation
from worldmodel.spec import EnvSpec


@dataclass(slots=True)
class Step:
    """One arrival row: the observation and what came with it.

    observation: by name, images uint8 [C, h, w] and vectors float32 [d], as the spec has them.
    reward: sum over the action-repeat sub-steps that led here, 0 at a reset.
    is_first: this row opens an episode. is_last: it closes one. is_terminal: it closes one by termination
    (without is_terminal, is_last is a truncation: bootstrap through it). env_steps: control steps that led here.
    """

    observation: Observation
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    env_steps: int

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image [C, h, w], where there is one."""
        (image,) = (rows for rows in self.observation.values() if rows.dtype == np.uint8)
        return image


FAULT_KINDS = (
    "timeout",  # no answer in time
    "death",  # the process is gone
    "exception",  # the environment raised
    "garbage",  # bytes that are no message
    "observation",  # a row that the spec does not allow
    "reward",  # not finite, or beyond what any task gives
    "blank",  # frames of one constant colour
    "frozen",  # frames that stay the same while the state changes
    "diverged",  # a simulation that has blown up: the one fault after which a worker goes on
    "action",  # the policy's, not finite or out of range: it never reached the environment
    "spec",  # another environment after a restart
    "start",  # the environment could not be built again
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Environment `index` failed and restarts: close its episode as truncated, then reset it with a new seed.

    kind: one of FAULT_KINDS. trace: where the environment's own code raised, as Python prints it, or nothing.
    """

    index: int
    kind: str
    message: str
    trace: str = field(default="", repr=False, compare=False)


@runtime_checkable
class Env(Protocol):
    """A single environment; every module in this folder with a `make(**kwargs)` returns one.

    It may offer more: a source takes up Renders, NamesRenderer, TellsBackground, ChoosesCameras, FingerprintsState,
    DrawsOtherStates or Notes, below, by having their members; whoever uses one asks with isinstance, of a wrapped
    environment `source_of`.
    """

    spec: EnvSpec

    def reset(self, seed: int) -> Step:
        """Open an episode; the same seed gives the same episode for the same actions."""

    def step(self, action: NDArray[np.floating]) -> Step:
        """Advance one decision with an action [A] in [-1, 1]."""

    def close(self) -> None:
        """Free GL contexts and files."""


@runtime_checkable
class Renders(Protocol):
    """A source that can draw its scene for videos."""

    def render(self, size: int) -> NDArray[np.uint8]:
        """Draw the present state as uint8 [size, size, 3]."""


@runtime_checkable
class NamesRenderer(Protocol):
    """A source that draws through a GL driver, by whose name it goes."""

    renderer: str


@runtime_checkable
class TellsBackground(Protocol):
    """A source that knows which pixels show background."""

    def background_mask(self, image: str) -> NDArray[np.bool_]:
        """Where the V pictures of its last image of that name show background, [V, h, w]."""


@runtime_checkable
class ChoosesCameras(Protocol):
    """A source whose only image can be made of other cameras."""

    def use_cameras(self, ids: Sequence[int | str]) -> None:
        """Replace its cameras by these (indices or names), which changes the image's shape."""


@runtime_checkable
class FingerprintsState(Protocol):
    """A source in which frozen frames can be found."""

    def state_fingerprint(self) -> bytes:
        """Bytes that differ between states that must look different (rounded, where a state is continuous)."""


@runtime_checkable
class DrawsOtherStates(Protocol):
    """A source that can tell a world out of view, of which every picture is the same, from a renderer that stands."""

    def draws_other_states(self) -> set[str]:
        """The images that other states than the present one are drawn otherwise in; nothing changes by it."""


@runtime_checkable
class Notes(Protocol):
    """A source, or lanes, with sentences on what it has decided or left out that a user would want to know."""

    notes: tuple[str, ...]


@runtime_checkable
class Lanes(Protocol):
    """Environments of one spec that a single call steps together, as a module's `make_lanes(*, lanes, ...)` returns."""

    spec: EnvSpec

    def reset(self, seeds: dict[int, int]) -> dict[int, Step]:
        """Open an episode in each lane of {lane: seed}; episodes under way in others go on."""

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step]:
        """Advance the episodes of {lane: action [A]} by one decision; others that are under way are given up."""

    def render(self, lane: int, size: int) -> NDArray[np.uint8]:
        """Draw `lane` as uint8 [size, size, 3]."""

    def close(self) -> None:
        """Free GL contexts and files."""


@runtime_checkable
class MeasuresTraffic(Protocol):
    """A pool whose environments are on other machines."""

    def traffic(self) -> dict[str, float]:
        """`network/mb`, all that has gone there and back, and `network/mb_per_s` since the last call."""


@runtime_checkable
class Envs(Protocol):
    """Several environments of one spec, advanced together: what `rollout.play` needs.

    A failed environment answers with a `Fault` (see pool.py) until it is reset. `reset` and `step` return the rows
    that have arrived: at least one where any was asked for. One that is late may be left out; it comes with the
    answers of a later call, and step({}) waits a little for it. Answering everything at once is always right.
    """

    spec: EnvSpec

    def reset(self, seeds: dict[int, int]) -> dict[int, Step | Fault]:
        """Open an episode in each environment of {index: seed}."""

    def step(self, actions: Mapping[int, NDArray[np.floating]]) -> dict[int, Step | Fault]:
        """Advance each environment of {index: action [A]}."""


@runtime_checkable
class Pool(Envs, Protocol):
    """Environments in worker processes; renderer: the GL driver or "none", notes: as in `Notes`."""

    renderer: str
    notes: tuple[str, ...]

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""

    def render(self, index: int, size: int) -> NDArray[np.uint8]:
        """Draw environment `index` as uint8 [size, size, 3]."""

    def close(self) -> None:
        """End all workers."""

    def __enter__(self) -> "Pool":
        """The pool, which is closed at the end."""

    def __exit__(self, *_: object) -> None:
        """Close."""
