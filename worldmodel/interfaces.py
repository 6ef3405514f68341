"""The records and protocols that every part agrees on.

Algorithms, sections and equation numbers in this project are those of the text that docs/chapter.md names.

Axes in annotations, one capital letter each, never reused:
    B batch of windows or environments · T recorded time · L the first rows of a window, from which K are unrolled
    H imagined or planned horizon · N plan candidates · P sequences of a policy, particles · M members, draws of weights
    A action · E embedding · D latent state · C carry · S what a simulator holds beside a latent
    R rows of any origin · *R any leading axes · *F any trailing axes · I, O inputs and outputs of a layer
Lower case is local: c h w channels, height and width of an image, i o k j of convolutions, n m state and (state,
action) of a regulator, d a vector; words are widths that their module names, such as det and stoch, the parts of a
recurrent state, groups and classes of its categoricals, feat, the inputs of a last layer and 1.
Tests check every annotation in worldmodel at every call.

Time is stored by arrival: row t holds o[t], the action a[t-1] that led to it, the reward r[t] that came with it,
and is_first, is_last, is_terminal of that row (is_last without is_terminal is a truncation: bootstrap through it).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from worldmodel.errors import BadValue

# where random numbers come from: one source for all rows, or one for each environment, so that a row's noise does not
# depend on its neighbours; None is torch's own
Noise = torch.Generator | Sequence[torch.Generator] | None

# what was seen, by name: images uint8 [... c h w] and vectors float32 [... d]
Observation = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of windows, none of which crosses an episode's end.

    Args:
        observation: by name, images uint8 [B T c h w] and vectors float32 [B T d]; the image of a plain pixel task
            is "pixels".
        windows: the draw, the stream and the number of the first row of each, where a sampler chose them; on the
            host.
    """

    observation: Observation
    action: Float[Tensor, "B T A"]
    reward: Float[Tensor, "B T"]
    is_first: Bool[Tensor, "B T"]
    is_last: Bool[Tensor, "B T"]
    is_terminal: Bool[Tensor, "B T"]
    windows: Int64[Tensor, "B 3"] | None = None

    @property
    def pixels(self) -> UInt8[Tensor, "B T c h w"]:
        """The frames where one image is all that is observed of that kind."""
        (frames,) = (rows for rows in self.observation.values() if rows.dtype == torch.uint8)
        return frames

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> "Batch":
        """The same batch on another device; images stay uint8."""
        return self._map(lambda rows: rows.to(device, non_blocking=non_blocking))

    def rows(self, start: int, stop: int) -> "Batch":
        """The rows [start, stop) of every window."""
        some = self._map(lambda rows: rows[:, start:stop])
        if self.windows is None:
            return some
        return replace(some, windows=self.windows + torch.tensor([0, 0, start]))

    def select(self, windows: Bool[Tensor, "B"]) -> "Batch":
        """The windows that are marked."""
        names = None if self.windows is None else self.windows[windows.cpu()]
        return replace(replace(self, windows=None)._map(lambda rows: rows[windows]), windows=names)

    def repeated(self, count: int) -> "Batch":
        """The windows `count` times, one batch after the other."""
        return replace(self, windows=None)._map(lambda rows: torch.cat([rows] * count))

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, which a GPU copies from by itself."""
        return self._map(lambda rows: rows.pin_memory())

    def row_names(self) -> Int64[Tensor, "B T 2"] | None:
        """The stream and number of every row, which are the same in every batch; None where nothing names them."""
        if self.windows is None:
            return None
        stream, first = self.windows[:, 1:2], self.windows[:, 2:]
        number = first + torch.arange(self.reward.shape[1], device=first.device)
        return torch.stack([stream.expand_as(number), number], -1).to(self.reward.device)

    @property
    def columns(self) -> dict[str, Tensor]:
        """What every row has beside its observation, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("observation", "windows")}

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        observation = {name: change(rows) for name, rows in self.observation.items()}
        return replace(self, observation=observation, **{name: change(rows) for name, rows in self.columns.items()})


@dataclass(frozen=True, slots=True)
class Belief:
    """What a dynamics model holds to be true after watching a window.

    Args:
        latent: the state at every row, a sample or a mode.
        carry: what the next call of `observe` starts from.
        statistics: named tensors [B, T, ...] that the model's own losses read (prior and posterior moments, say).
        valid: the rows that may teach; False where a window begins so late in its episode that a latent lacks
            frames that it reads. Once True it stays so to the window's end. None for all rows.
    """

    latent: Float[Tensor, "B T D"]
    carry: Float[Tensor, "B C"]
    statistics: Mapping[str, Tensor]
    valid: Bool[Tensor, "B T"] | None = None

    def moments(self, name: str) -> tuple[Float[Tensor, "B T *F"], Float[Tensor, "B T *F"]]:
        """Mean and std of the Gaussian of that name, such as `prior`, among the statistics."""
        return self.statistics[f"{name}_mean"], self.statistics[f"{name}_std"]

    def mean(self, rows: Float[Tensor, "B L *F"]) -> Float[Tensor, ""]:
        """The mean over what belongs to valid rows, of the window's first L."""
        if self.valid is None:
            return rows.mean()
        weight = self.valid[:, : rows.shape[1]].to(rows.dtype)
        return (rows.flatten(2).mean(-1) if rows.ndim > 2 else rows).mul(weight).sum() / weight.sum().clamp_min(1)

    def window_means(self, rows: Float[Tensor, "B T"]) -> Float[Tensor, "B"]:
        """The mean over each window's valid rows, 0 for a window without any."""
        if self.valid is None:
            return rows.mean(1)
        weight = self.valid.to(rows.dtype)
        return (rows * weight).sum(1) / weight.sum(1).clamp_min(1)

    def counted(self, rows: int) -> int | Int64[Tensor, "B"]:
        """How many of a window's first `rows` are valid."""
        return rows if self.valid is None else self.valid[:, :rows].sum(1)

    def continued(self, is_first: Bool[Tensor, "B T"]) -> Bool[Tensor, "B _"]:
        """Whether a row continues the episode of the row before it, and that one is valid: of rows 1, 2, ..."""
        inside = ~is_first[:, 1:]
        return inside if self.valid is None else inside & self.valid[:, :-1]

    def select(self, rows: Shaped[Tensor, "B T *F"]) -> Shaped[Tensor, "R *F"]:
        """The valid rows of all windows, one after the other; BadValue where there is none."""
        flat = rows.flatten(0, 1)
        if self.valid is None:
            return flat
        flat = flat[self.valid.flatten()]
        if not len(flat):
            raise BadValue(f"data.length: expected more rows than the model reads frames, got {rows.shape[1]}")
        return flat


@dataclass(frozen=True, slots=True)
class Plan:
    """What a planner decided for every environment of a batch."""

    action: Float[Tensor, "B A"]  # what to do now, finite and in [-1, 1]
    mean: Float[Tensor, "B H A"]  # the whole plan: the next call's warm start after a shift
    value: Float[Tensor, "B"]  # the return that the model predicts for this plan, -inf where it is not finite
    std: Float[Tensor, "B H A"] | None = None  # of the Gaussian that the search ended with; None where it had none
    searched: bool = True  # False where the deadline came before the first iteration: it is what the search began with


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss to minimise, what to log about it (detached scalars), and each window's error, where it has one.

    Args:
        error: what prioritised samplers rank by: how far rewards are from what the model says, in units in which 1
            is what the loss takes for noise.
    """

    total: Float[Tensor, ""]
    metrics: Mapping[str, Tensor]
    error: Float[Tensor, "B"] | None = None


@dataclass(frozen=True, slots=True)
class Carry:
    """What an agent remembers between two decisions of a batch of environments."""

    belief: Float[Tensor, "B C"]  # the dynamics model's carry
    action: Float[Tensor, "B A"]  # the last executed action
    plan: Float[Tensor, "B H A"]  # the last plan, already shifted by one decision; NaN before the first
    executed: Int64[Tensor, "B"]  # how many of the last plan's actions were executed


@runtime_checkable
class Predictor(Protocol):
    """What of dynamics planning needs."""

    def predict(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One step of the prior's mean, s' = f(s, a)."""


@runtime_checkable
class Dynamics(Predictor, Protocol):
    """Latent dynamics f and filter q under one protocol (equations 5.3.4 to 5.3.6)."""

    latent_dim: int
    carry_dim: int

    def observe(
        self,
        embed: Float[Tensor, "B T E"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        carry: Float[Tensor, "B C"],
        *,
        sample: bool,
    ) -> Belief:
        """Filter a window of embeddings and arrival actions into latents.

        Args:
            embed: of every row's observation.
            action: that led to each row; ignored where an episode opens.
            is_first: rows that open an episode: nothing before them counts.
            carry: what the last call returned, zeros where nothing is known.
            sample: latents drawn from the posterior, as learning needs them, or its modes, as acting does.

        Returns:
            Latents of all rows, the carry after the last, and what `losses` reads.
        """

    def imagine(self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]) -> Float[Tensor, "*R D"]:
        """One reparameterised sample of the prior, s' ~ p(s' | s, a)."""

    def losses(self, belief: Belief, batch: Batch) -> Mapping[str, Float[Tensor, "B T"]]:
        """The model's own loss terms, by any names.

        Args:
            belief: of the batch, from `observe` with sample=True.
            batch: the windows.

        Returns:
            Terms of every row; each weighs 1, or as `capabilities.WeightedLosses` says.
        """


@runtime_checkable
class Readout(Protocol):
    """What is read off the latents of a learned world."""

    action_dim: int
    discount: float

    def reward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The reward that arrives with a latent."""

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """The discounted return that follows a latent; zeros where no value was learned."""

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """An action of the learned policy, or None where there is none."""


@runtime_checkable
class Policy(Protocol):
    """A distribution over actions in [-1, 1] for every latent; what it returns is finite, whatever the latent."""

    def sample(self, latent: Float[Tensor, "*R D"], *, generator: Noise) -> Float[Tensor, "*R A"]:
        """An action drawn with an explicit generator."""

    def mode(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R A"]:
        """The most probable action."""


@runtime_checkable
class Simulator(Readout, Protocol):
    """The one thing that planners and policies see of a learned world; discount is per decision."""

    def step(self, latent: Float[Tensor, "R D"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R D"]:
        """The next latent."""


@runtime_checkable
class Rollout(Protocol):
    """Weights of a dynamics model as they were when it was made; products in a precision of its own.

    A dynamics model may offer one beside `predict`, as `rollout(dtype)`. It equals a loop over `predict` but for
    rounding, and is faster: what all candidates share is computed once, weights are packed once, and activations are
    made where the products leave them.
    """

    def __call__(
        self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "H R A"], out: Float[Tensor, "slots R D"]
    ) -> Iterator[Tensor]:
        """Step through the actions of R = B n rows, n for each latent; state k is yielded, and lies in
        out[k % len(out)].

        out has the precision of the products.
        """


@runtime_checkable
class Planner(Protocol):
    """Chooses actions by looking ahead in a Simulator."""

    horizon: int

    def plan(
        self,
        simulator: Simulator,
        latent: Float[Tensor, "B D"],
        *,
        warm: Float[Tensor, "B H A"] | None = None,
        generator: Noise = None,
        deadline: float | None = None,
        iterations: int | None = None,
    ) -> Plan:
        """A plan for every row of latents; row i never depends on row j.

        Args:
            simulator: the world to look ahead in.
            latent: where each plan starts.
            warm: the last plan, shifted by one decision; NaN rows have none.
            generator: where random numbers come from, one source or one for each row.
            deadline: seconds of time.monotonic() before which to return the best so far.
            iterations: instead of the planner's own number.

        Returns:
            Actions within [-1, 1], the whole plan, and its predicted return.
        """


class Decision(NamedTuple):
    """What an agent's `act` returns."""

    action: Float[Tensor, "B A"]  # to execute, in [-1, 1]
    carry: Carry  # what to remember
    predicted_return: Float[Tensor, "B"]  # what the planner expects; NaN where an earlier plan goes on


@dataclass(frozen=True, slots=True)
class ActionNoise:
    """What disturbs actions in [-1, 1] while data is collected.

    Args:
        noise: what is added to them.
        alone: environments in which the noise is all of the action; None for none.
    """

    noise: Float[Tensor, "B A"]
    alone: Bool[Tensor, "B"] | None = None

    def disturb(self, action: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        """The disturbed actions, clipped."""
        disturbed = action + self.noise
        if self.alone is not None:
            disturbed = torch.where(self.alone[:, None], self.noise, disturbed)
        return disturbed.clamp(-1, 1)


@runtime_checkable
class Acts(Protocol):
    """What evaluation, collection and deployment drive: one that acts on what environments show, planning or not."""

    def initial_carry(self, batch: int) -> Carry:
        """What to remember before the first decision of `batch` environments."""

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "B"],
        carry: Carry,
        *,
        exploration: ActionNoise | None = None,
        generator: Noise = None,
    ) -> Decision:
        """Actions for every environment, planned or not.

        Args:
            observation: by name, images uint8 [B c h w] and vectors float32 [B d].
            is_first: rows that open an episode; what their carry holds is forgotten.
            carry: of the decision before, or `initial_carry`'s.
            exploration: what disturbs the actions; None for nothing.
            generator: where random numbers come from, one source or one for each row.

        Returns:
            Actions, what to remember, and the predicted return.
        """
