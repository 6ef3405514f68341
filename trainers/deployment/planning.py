"""One plan by a deadline: iterations and candidates fitted to this machine at the start, the best so far in time."""

import copy
import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.deployment.goal import GoalSimulator
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Planner, Simulator
from worldmodel.planners.searches import SearchElsewhere

WARM_UP = 5  # plans before the first decision, whose times count
LEAST_CANDIDATES = 16
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan [H, A] in [-1, 1], finite, and the return that the model predicts for it."""

    mean: Array
    value: float


@dataclass(frozen=True, slots=True)
class Request:
    """What to plan from."""

    latent: Array  # [D]
    warm: Array  # the last plan [H, A], shifted; NaN without one
    seed: int  # of the planner's noise: equal requests give equal plans where the deadline stops none
    goal: Array | None = None  # a latent [D] to come near to, instead of the learned reward


@runtime_checkable
class Planning(Protocol):
    """Whatever plans for a controller."""

    def ask(self, request: Request, *, until: float) -> Planned | None:
        """A plan, or None where none is there in time.

        Args:
            request: what to plan from.
            until: seconds of time.monotonic(), after which nobody waits.
        """

    def close(self) -> None:
        """End what was started for it."""


class DeadlinePlanner:
    """The planner of an agent in evaluation mode, its iterations, then its candidates fitted to seconds for a plan."""

    def __init__(self, agent: LatentMPC, *, budget_s: float) -> None:
        self._agent, self._budget_s = agent, budget_s
        self._planner: Planner = agent.planner
        self._simulator = agent.simulator()  # once: it keeps the weights in the form that rollouts read
        self.iterations = int(getattr(self._search, "iterations", 1))
        self.reserve_s = 0.0
        self.tuned = self._tune()  # what was chosen and measured

    @torch.no_grad()
    def _tune(self) -> dict[str, Any]:
        self.reserve_s = self._time(iterations=0, count=2)
        seconds = self._time(iterations=self.iterations, count=WARM_UP)
        while seconds > self._budget_s and self._reduce(seconds):
            seconds = self._time(iterations=self.iterations, count=WARM_UP)
        candidates = getattr(self._search, "candidates", None)
        return {"iterations": self.iterations, "candidates": candidates, "plan_ms": round(1e3 * seconds, 3)}

    @torch.no_grad()
    def ask(self, request: Request, *, until: float) -> Planned | None:
        """As `Planning` says."""
        simulator: Simulator = self._simulator
        if request.goal is not None:
            simulator = GoalSimulator(self._simulator, torch.from_numpy(request.goal.copy()))
        plan = self._planner.plan(
            simulator,
            torch.from_numpy(request.latent.copy())[None],
            warm=torch.from_numpy(request.warm.copy())[None],
            generator=torch.Generator().manual_seed(request.seed),
            deadline=until - self.reserve_s,
            iterations=self.iterations,
        )
        mean, value = plan.mean[0].numpy(), float(plan.value[0])
        # stopped before its first iteration a planner returns its warm start, which would never grow old, or zeros;
        # one that has searched may find nothing better than the warm start
        unseen = not plan.searched and (not np.isfinite(value) or np.array_equal(mean, request.warm.clip(-1, 1)))
        if unseen or not np.isfinite(mean).all():
            return None
        return Planned(mean, value)

    def close(self) -> None:
        """Nothing was started."""

    @property
    def _search(self) -> Planner:
        """The planner that searches: of one that searches in a world of its own the one within."""
        return self._planner.search if isinstance(self._planner, SearchElsewhere) else self._planner

    def _time(self, *, iterations: int, count: int) -> float:
        """The median time of `count` plans after a first one, in seconds."""
        latent = torch.zeros(1, self._agent.dynamics.latent_dim)
        warm, times = torch.zeros(1, self._planner.horizon, self._agent.action_dim), []
        for seed in range(count + 1):
            start = time.monotonic()
            generator = torch.Generator().manual_seed(seed)
            self._planner.plan(
                self._simulator,
                latent,
                warm=warm,
                generator=generator,
                iterations=max(iterations, 1),
                deadline=start if iterations == 0 else None,
            )
            times.append(time.monotonic() - start)
        return float(np.median(times[1:]))

    def _reduce(self, seconds: float) -> bool:
        """Make plans cheaper; False where they cannot be."""
        if self.iterations > 1:
            share = self._budget_s / seconds
            self.iterations = max(1, min(self.iterations - 1, int(self.iterations * share)))
            return True
        search = self._search
        if not dataclasses.is_dataclass(search):
            return False
        fields = {f.name: getattr(search, f.name) for f in dataclasses.fields(search)}
        most = fields.get("candidates", 0)
        if most <= LEAST_CANDIDATES:
            return False
        smaller = {"candidates": max(LEAST_CANDIDATES, most // 2)}
        if "elites" in fields:
            smaller["elites"] = max(1, min(fields["elites"] // 2, smaller["candidates"]))
        if fields.get("policy_candidates"):
            smaller["policy_candidates"] = max(1, fields["policy_candidates"] // 2)
        search = dataclasses.replace(search, **smaller)  # type: ignore[type-var]
        if isinstance(self._planner, SearchElsewhere):
            self._planner = copy.copy(self._planner)  # the agent's own stays as it is
            self._planner.search = search
        else:
            self._planner = search
        return True
