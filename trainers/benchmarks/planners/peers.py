"""Planners of other projects in the same models, where their packages are installed; none is needed.

Each builds from (simulator, budget) a function from a latent [1 D] and a seed to a plan [1 H A], or None where the
package hands out the first action only. Those in BATCHED take latents [B D].
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.planners.budgets import Budget
from worldmodel.interfaces import Simulator

Planned = Callable[[Tensor, int], Tensor | None]


def plain(simulator: Any, budget: Budget) -> Planned:
    """PlaNet-style CEM in eager torch."""
    return lambda latent, seed: plain_cem(simulator, latent, budget, generator=_seeded(seed))


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

    class World(EnvBase):  # type: ignore[misc]
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
    return [name for name in PEERS if name in BATCHED or find_spec(name)]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@torch.inference_mode()
def plain_cem(
    simulator: Simulator, latent: Float[Tensor, "B D"], budget: Budget, *, generator: torch.Generator
) -> Float[Tensor, "B H A"]:
    """Sample, roll out, keep the elites, refit; the plan is the mean."""
    B, H, A, N = len(latent), budget.horizon, simulator.action_dim, budget.candidates
    mean, std = latent.new_zeros(B, 1, H, A), latent.new_ones(B, 1, H, A)
    for _ in range(budget.iterations):
        noise = torch.randn(B, N, H, A, generator=generator).to(latent)
        actions = (mean + std * noise).clamp_(-1, 1)
        top = plain_returns(simulator, latent, actions).topk(budget.elites, dim=1).indices
        elites = actions.gather(1, top[:, :, None, None].expand(-1, -1, H, A))
        mean, std = elites.mean(1, keepdim=True), elites.std(1, correction=0, keepdim=True)
    return mean[:, 0]


def plain_returns(
    simulator: Simulator, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]
) -> Float[Tensor, "B N"]:
    """The bare rollouts: H steps of all candidates, a reward after each."""
    B, N, H, _ = actions.shape
    state = latent.repeat_interleave(N, 0)
    total = torch.zeros(B * N, dtype=latent.dtype, device=latent.device)
    for k in range(H):
        state = simulator.step(state, actions[:, :, k].flatten(0, 1))
        total += simulator.discount**k * simulator.reward(state)
    return total.view(B, N)
