"""What every planner does around its own search: start from what is finite, stop in time, promise no nonsense."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise, Plan, Simulator
from worldmodel.limits import require_whole
from worldmodel.simulators.latent import follow

T = TypeVar("T")


class Deadline:
    """Stops a loop before the iteration that would end after `at`, in seconds of time.monotonic(); None: never.

    An iteration is expected to take as long as the longest one so far.
    """

    def __init__(self, at: float | None, device: torch.device) -> None:
        self._at, self._device = at, device
        self._longest, self._started = 0.0, 0.0
        self.allowed = False  # whether there was time for one iteration

    def allows_another(self) -> bool:
        """Whether one more iteration fits; call once before each."""
        if self._at is None:
            self.allowed = True
            return True
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # work that was only queued has taken no time yet
        now = time.monotonic()
        if self._started:
            self._longest = max(self._longest, now - self._started)
        self._started = now
        fits = now + self._longest <= self._at
        self.allowed = self.allowed or fits
        return fits


@dataclass(frozen=True, slots=True)
class Problem:
    """One call of a planner.

    Args:
        latent: finite, zeros where it was not.
        handicap: added to scores, -inf for those rows, 0 for the others.
        warm: the last plan, shifted by one decision.
        iterations: the caller's number, or the planner's own.
    """

    simulator: Simulator
    latent: Float[Tensor, "B D"]
    handicap: Float[Tensor, "B 1"]
    warm: Float[Tensor, "B H A"] | None
    generator: Noise
    iterations: int
    timer: Deadline

    def rounds(self, items: Iterable[T]) -> Iterator[T]:
        """The items, for as long as the deadline allows."""
        for item in items:
            if not self.timer.allows_another():
                return
            yield item

    def warm_or(self, fresh: Float[Tensor, "B H A"]) -> Float[Tensor, "B H A"]:
        """The warm start, and `fresh` where there is none."""
        return fresh if self.warm is None else torch.where(self.warm.isfinite(), self.warm, fresh)

    def policy(self, count: int, horizon: int) -> Float[Tensor, "B P H A"] | None:
        """`count` sequences of the learned policy, valid ones; None for none or without a policy."""
        if not count:
            return None
        starts = self.latent.repeat_interleave(count, 0)
        actions = follow(
            self.simulator, starts, lambda state: self.simulator.propose(state, self.generator), horizon=horizon
        )
        return None if actions is None else actions.nan_to_num(0.0).clamp(-1, 1).unflatten(0, (-1, count))


class Found(NamedTuple):
    """What a search ends with, as in `interfaces.Plan`; others than those that refit a Gaussian leave `std` out."""

    mean: Float[Tensor, "B H A"]
    value: Float[Tensor, "B"]
    std: Float[Tensor, "B H A"] | None = None


@dataclass(kw_only=True, eq=False)
class Search(ABC):
    """A planner whose `search` finds actions; `plan` is the same for all.

    Args:
        horizon: decisions looked ahead.
        iterations: rounds of the search, after each of which it can stop. Rows of a batch are planned for
            independently.
    """

    horizon: int
    iterations: int

    def __post_init__(self) -> None:
        require_whole(horizon=self.horizon, iterations=self.iterations)

    @abstractmethod
    def search(self, problem: Problem) -> Found | tuple[Float[Tensor, "B H A"], Float[Tensor, "B"]]:
        """Actions, finite and within bounds, and the return that the model predicts for them."""

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
        """A plan [B H A] from latents [B D], as `interfaces.Planner` says.

        A latent that is not finite gets actions within bounds and the value -inf.
        """
        usable = latent.isfinite().all(-1)
        problem = Problem(
            simulator=simulator,
            latent=torch.where(usable[:, None], latent, 0.0),
            handicap=torch.where(usable[:, None], 0.0, -torch.inf),
            warm=warm,
            generator=generator,
            iterations=self.iterations if iterations is None else iterations,
            timer=Deadline(deadline, latent.device),
        )
        found = Found(*self.search(problem))
        value = torch.where(usable & found.value.isfinite(), found.value, -torch.inf)
        return Plan(
            action=found.mean[:, 0], mean=found.mean, value=value, std=found.std, searched=problem.timer.allowed
        )
