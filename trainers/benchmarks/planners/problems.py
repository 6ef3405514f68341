"""What planners are compared on: models whose best plan is known, or can be found by searching long enough."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.known_dynamics.pendulum import DAMPING, GRAVITY, INERTIA, LENGTH, MASS, Pendulum
from trainers.benchmarks.known_dynamics.readout import OwnReward
from trainers.benchmarks.planners.gru_world import random_world
from trainers.build.agent import build_trained_agent
from trainers.build.environments import open_pool
from trainers.command.configuration import read_yaml
from trainers.run_folder.find import find_checkpoint
from worldmodel.distributions import standard_normal
from worldmodel.interfaces import Noise, Simulator
from worldmodel.planners.cem import CEM
from worldmodel.planners.gradient import GradientShooting
from worldmodel.simulators.latent import LatentSimulator, score

POLICY_STD = 0.3
STATES = 4  # of a trained model's episode, to plan from


@dataclass(kw_only=True, eq=False)
class Problem:
    """A model, and latents [K D] to plan from. best, typical [K]: returns of the best known and of uniform actions."""

    name: str
    simulator: Simulator
    latents: Float[Tensor, "K D"]
    horizon: int
    best: Float[Tensor, "K"]
    typical: Float[Tensor, "K"]
    low: Simulator | None = None  # the same in bfloat16, where the model is a learned one

    def gap(self, index: int, actions: Float[Tensor, "1 H A"]) -> float:
        """How much of what a plan can gain over uniform actions these miss, from latent `index`: 0 is the optimum."""
        missed = self.best[index] - self.returns(index, actions)
        return float(missed / (self.best[index] - self.typical[index]))

    def returns(self, index: int, actions: Float[Tensor, "1 H A"]) -> float:
        """The model's return of a plan, step by step in the model's own precision."""
        with torch.enable_grad():  # the way of `score` that takes no short cut
            return score(self.simulator, self.latents[index : index + 1], actions[:, None].clamp(-1, 1)).item()


class Quadratic(OwnReward):
    """Latents [R 2] count steps and hold the last reward, -|a_k - target_k|²; the policy is right to POLICY_STD."""

    def __init__(self, target: Float[Tensor, "H A"]) -> None:
        self.target, self.action_dim = target, target.shape[1]

    def step(self, latent: Float[Tensor, "R 2"], action: Float[Tensor, "R A"]) -> Float[Tensor, "R 2"]:
        """The next count, and this step's reward."""
        error = (action - self._now(latent)).square().sum(-1)
        return torch.stack([latent[:, 0] + 1, -error], -1)

    def reward(self, latent: Float[Tensor, "*R 2"]) -> Float[Tensor, "*R"]:
        """The last step's."""
        return latent[..., 1]

    def propose(self, latent: Float[Tensor, "R 2"], generator: Noise) -> Float[Tensor, "R A"]:
        """The target and noise."""
        noise = standard_normal(len(latent), self.action_dim, generator=generator, device=latent.device)
        return (self._now(latent) + POLICY_STD * noise).clamp(-1, 1)

    def _now(self, latent: Tensor) -> Tensor:
        return self.target[latent[:, 0].detach().long().clamp(0, len(self.target) - 1)]


class PumpedPendulum(Pendulum):
    """The suite's pendulum with a policy that pumps energy, and noise."""

    def propose(self, latent: Float[Tensor, "R 2"], generator: Noise) -> Float[Tensor, "R 1"]:
        """Torque with the spin below the energy of standing up, against it above."""
        angle, spin = latent.unbind(-1)
        energy = (INERTIA + MASS * LENGTH**2) * spin.square() / 2 + MASS * GRAVITY * LENGTH * (angle.cos() - 1)
        torque = torch.where(energy < 0, spin.sign(), -spin.sign()) + DAMPING * spin
        noise = standard_normal(len(latent), 1, generator=generator, device=latent.device)
        return (torque[:, None] + POLICY_STD * noise).clamp(-1, 1)


def reference() -> Problem:
    """The speed workload, 72 dimensions: `gru_world` with no value and no policy."""
    dynamics, reward, latent = random_world()
    facts: dict[str, Any] = {"value": None, "actor": None, "action_dim": 6, "discount": 1.0}
    worlds = [
        LatentSimulator(dynamics=dynamics, reward=reward, precision=precision, **facts)
        for precision in (torch.float32, torch.bfloat16)
    ]
    return replace(searched("reference", worlds[0], latent, horizon=12), low=worlds[1])


def quadratic() -> Problem:
    """36 dimensions, optimum 0."""
    target = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    typical = -(target.square() + 1 / 3).sum()  # E (a - t)² of a uniform a
    return Problem(
        name="quadratic",
        simulator=Quadratic(target),
        latents=torch.zeros(1, 2),
        horizon=12,
        best=torch.zeros(1),
        typical=typical[None],
    )


def pendulum() -> Problem:
    """The suite's pendulum hanging, half way, and falling; one second of decisions."""
    latents = torch.tensor([[math.pi, 0.0], [math.pi / 2, 0.0], [0.3, 1.0]])
    return searched("pendulum", PumpedPendulum(repeat=2), latents, horizon=25)


def searched(name: str, simulator: Simulator, latents: Float[Tensor, "K D"], *, horizon: int) -> Problem:
    """A problem whose best return is the best of long searches, with CEM and by gradients."""
    generator = torch.Generator().manual_seed(0)
    uniform = 2 * torch.rand(len(latents), 256, horizon, simulator.action_dim, generator=generator).to(latents) - 1
    long = CEM(horizon=horizon, candidates=1000, elites=50, iterations=24, policy_candidates=64)
    finish = GradientShooting(horizon=horizon, candidates=4, iterations=60, learning_rate=0.05, init_std=0.1)
    with torch.no_grad():
        typical = score(simulator, latents, uniform).mean(1)
        plan = long.plan(simulator, latents, generator=generator)
        fine = finish.plan(simulator, latents, warm=plan.mean, generator=generator)
    best = torch.maximum(plan.value, fine.value)
    return Problem(name=name, simulator=simulator, latents=latents, horizon=horizon, best=best, typical=typical)


def trained(folder: Path) -> Problem:
    """A trained agent's model, from latents of an episode that it plays."""
    root, checkpoint = find_checkpoint(folder, key="checkpoint")
    config, generator = read_yaml(root / "config.yaml"), torch.Generator().manual_seed(0)
    with open_pool(config, 1) as pool:
        agent = build_trained_agent(config, pool.spec, checkpoint).requires_grad_(False)
        step: Any = pool.reset({0: 7})[0]
        carry, latents = agent.initial_carry(1), []
        for _ in range(6 * STATES):
            seen = {name: torch.from_numpy(values)[None] for name, values in step.observation.items()}
            decision = agent.act(seen, torch.tensor([step.is_first]), carry, generator=generator)
            carry = decision.carry
            latents.append(carry.belief)
            step = pool.step({0: decision.action[0].numpy()})[0]
            if step.is_last:
                break
    chosen = torch.cat(latents[:: max(1, len(latents) // STATES)][:STATES])
    agent.plan_precision = torch.float32
    problem = searched("trained", agent.simulator(), chosen, horizon=agent.planner.horizon)
    agent.plan_precision = torch.bfloat16
    return replace(problem, low=agent.simulator())


PROBLEMS: dict[str, Callable[[], Problem]] = {"reference": reference, "quadratic": quadratic, "pendulum": pendulum}
