"""Planners of other projects in the same models, where their packages are installed; none is needed.

Each builds from (simulator, budget) a function from a latent [1 D] and a seed to a plan [1 H A], or None where the
package hands out the first action only. Those in BATCHED take latents [B D].
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.planning.plain import PlainCEM, plain_returns

Planned = Callable[[Tensor, int], Tensor | None]


@dataclass(frozen=True, slots=True)
class Budget:
    """CEM with N candidates and N/10 elites; MPPI with N candidates."""

    candidates: int
    iterations: int
    horizon: int

    @property
    def elites(self) -> int:
        """Candidates that refit the Gaussian."""
        return max(2, self.candidates // 10)


def plain(simulator: Any, budget: Budget) -> Planned:
    """PlaNet-style CEM in eager torch."""
    sizes = {"horizon": budget.horizon, "candidates": budget.candidates, "iterations": budget.iterations}
    planner = PlainCEM(**sizes, elites=budget.elites)
    return lambda latent, seed: planner.plan(simulator, latent, generator=_seeded(seed)).mean


def bare(simulator: Any, budget: Budget) -> Planned:
    """The rollouts alone, layer by layer: no planner."""

    def roll(latent: Tensor, seed: int) -> None:
        size = (len(latent), budget.candidates, budget.horizon, simulator.action_dim)
        actions = 2 * torch.rand(size, generator=_seeded(seed)).to(latent) - 1
        with torch.inference_mode():
            for _ in range(budget.iterations):
                plain_returns(simulator, latent, actions)

    return roll


def pytorch_mppi(simulator: Any, budget: Budget) -> Planned:
    """pytorch-mppi's MPPI, refined `iterations` times from one latent."""
    from pytorch_mppi import MPPI

    A = simulator.action_dim
    # a temperature of a tenth of typical returns' spread is not known beforehand; its cost is the same at any
    ends = {"u_min": -torch.ones(A), "u_max": torch.ones(A)}

    def plan(latent: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        controller = MPPI(
            simulator.step,
            lambda state, action: -simulator.reward(state),
            latent.shape[1],
            torch.eye(A),
            num_samples=budget.candidates,
            horizon=budget.horizon,
            lambda_=0.01,
            U_init=torch.zeros(budget.horizon, A),
            **ends,
        )
        with torch.inference_mode():
            for _ in range(budget.iterations):
                controller.command(latent[0], shift_nominal_trajectory=False)
        return controller.U[None].clamp(-1, 1)

    return plan


def stable_worldmodel(simulator: Any, budget: Budget) -> Planned:
    """stable-worldmodel's CEMSolver."""
    from gymnasium.spaces import Box
    from stable_worldmodel.solver.cem import CEMSolver

    def cost(info: dict[str, Tensor], actions: Tensor) -> Tensor:
        return -plain_returns(simulator, info["latent"][:, 0], actions)

    def plan(latent: Tensor, seed: int) -> Tensor:
        solver = CEMSolver(
            SimpleNamespace(get_cost=cost),  # type: ignore[arg-type]
            num_samples=budget.candidates,
            n_steps=budget.iterations,
            topk=budget.elites,
            seed=seed,
        )
        space = Box(-1, 1, (1, simulator.action_dim), np.float32)
        sizes = SimpleNamespace(horizon=budget.horizon, action_block=1)
        solver.configure(action_space=space, n_envs=1, config=sizes)
        with redirect_stdout(StringIO()):
            return solver.solve({"latent": latent})["actions"].clamp(-1, 1)

    return plan


def torchrl(simulator: Any, budget: Budget) -> Planned:
    """TorchRL's CEMPlanner, which hands out the first action."""
    from tensordict import TensorDict
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs import EnvBase
    from torchrl.modules.planners.cem import CEMPlanner

    class World(EnvBase):
        batch_locked = False

        def __init__(self, dim: int) -> None:
            super().__init__(batch_size=[])
            self.observation_spec, self.state_spec = Composite(latent=Unbounded((dim,))), Composite(shape=())
            self.action_spec, self.reward_spec = Bounded(-1, 1, (simulator.action_dim,)), Unbounded((1,))

        def _reset(self, tensordict: TensorDict) -> TensorDict:
            return tensordict

        def _step(self, tensordict: TensorDict) -> TensorDict:
            state = simulator.step(tensordict["latent"], tensordict["action"])
            done = torch.zeros(*tensordict.batch_size, 1, dtype=torch.bool)
            fresh = {"latent": state, "reward": simulator.reward(state)[:, None], "done": done, "terminated": done}
            return TensorDict(fresh, tensordict.batch_size)

        def _set_seed(self, seed: int | None) -> None:
            return None

    def plan(latent: Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        planner = CEMPlanner(
            World(latent.shape[1]), budget.horizon, budget.iterations, budget.candidates, budget.elites
        )
        done = torch.zeros(1, dtype=torch.bool)
        start = TensorDict({"latent": latent[0], "done": done, "terminated": done}, [])
        with torch.inference_mode():
            planner.planning(start)

    return plan


# what has to be importable for a peer; those without an entry come with this project
MODULES = {
    "pytorch_mppi": "pytorch_mppi",
    "stable_worldmodel": "stable_worldmodel.solver.cem",
    "torchrl": "torchrl.modules.planners.cem",
}
PEERS: dict[str, Callable[[Any, Budget], Planned]] = {
    "bare": bare,
    "plain": plain,
    "pytorch_mppi": pytorch_mppi,
    "stable_worldmodel": stable_worldmodel,
    "torchrl": torchrl,
}
BATCHED = ("bare", "plain")


def installed() -> list[str]:
    """The peers that can be run here."""
    return [name for name in PEERS if name not in MODULES or _imports(MODULES[name])]


def _imports(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:  # of the package itself, or of what it needs
        return False
    return True


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
