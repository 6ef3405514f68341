"""Regulators against brute force and fixed points, iLQR against regulators, then bounds and hard models."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from tests.conftest import DYNAMICS, small_agent
from tests.rigs.riccati import infinite_horizon, regulator
from worldmodel.planners.derivatives import expand, psd
from worldmodel.planners.gradient import GradientShooting
from worldmodel.planners.ilqr import ILQR

torch.manual_seed(0)
N, A, H = 4, 2, 8


def double(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(n: int, seed: int) -> Tensor:
    root = double(n, n, seed=seed)
    return root @ root.mT + 0.1 * torch.eye(n, dtype=torch.float64)


class LinearQuadratic:
    """x' = Fx + Gu + c with reward -½ (x'ᵀQx' + uᵀRu); the latent is (x, u) so that rewards read arrivals only."""

    discount = 1.0

    def __init__(self, seed: int = 0, *, control_cost: float = 1.0) -> None:
        self.action_dim = A
        self.F, self.G = 0.4 * double(N, N, seed=seed), double(N, A, seed=seed + 1)
        self.c = 0.1 * double(N, seed=seed + 2)
        self.Q, self.R = positive(N, seed + 3), control_cost * positive(A, seed + 4)

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., :N] @ self.F.mT + action @ self.G.mT + self.c, action], -1)

    def reward(self, latent: Tensor) -> Tensor:
        x, u = latent[..., :N], latent[..., N:]
        return -0.5 * ((x @ self.Q) * x).sum(-1) - 0.5 * ((u @ self.R) * u).sum(-1)

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None

    def start(self, B: int = 3) -> Tensor:
        return torch.cat([double(B, N, seed=9), torch.zeros(B, A, dtype=torch.float64)], -1)

    def riccati(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """Optimal actions [B H A] and return [B], by the regulator's recursion and a rollout."""
        transition = torch.cat([self.F, self.G], 1)
        V, v, gains = torch.zeros_like(self.Q), torch.zeros_like(self.c), []
        for _ in range(H):
            cost = torch.block_diag(torch.zeros_like(self.Q), self.R)
            gains.append(regulator(transition, self.c, cost, cost.new_zeros(N + A), V + self.Q, v))
            V, v = gains[-1].V, gains[-1].v
        state, actions, total = start, [], 0.0
        for gain in reversed(gains):
            actions.append(state[:, :N] @ gain.K.mT + gain.k)
            state = self.step(state, actions[-1])
            total = total + self.reward(state)
        return torch.stack(actions, 1), total


@pytest.mark.parametrize("seed", range(3))
def test_one_iteration_on_a_linear_quadratic_problem_is_riccati(seed: int) -> None:
    model = LinearQuadratic(10 * seed)
    actions, total = model.riccati(model.start())
    planner = ILQR(horizon=H, iterations=1, damping=0.0, bounded=False)
    found = planner.plan(model, model.start())
    torch.testing.assert_close(found.mean, actions, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.value, total, rtol=0, atol=1e-8)
    again = planner.plan(model, model.start(), warm=found.mean)
    assert (again.mean - found.mean).abs().max() < 1e-10


def test_riccati_is_the_least_squares_solution_of_the_stacked_problem() -> None:
    model, start = LinearQuadratic(), LinearQuadratic().start(1)
    actions, _ = model.riccati(start)
    flat = torch.zeros(H * A, dtype=torch.float64)

    def cost(u: Tensor) -> Tensor:
        state, total = start, 0.0
        for step in u.view(H, 1, A):
            state = model.step(state, step)
            total = total - model.reward(state)[0]
        return total

    slope = torch.func.grad(cost)(flat)
    curvature = torch.func.hessian(cost)(flat)
    torch.testing.assert_close(actions.flatten(), -torch.linalg.solve(curvature, slope), rtol=0, atol=1e-9)


def test_infinite_horizon_solves_the_algebraic_riccati_equation() -> None:
    model = LinearQuadratic(5)
    F, G, Q, R = model.F, model.G, model.Q, model.R
    P = infinite_horizon(F, G, Q, R).V
    gain = torch.linalg.solve(R + G.mT @ P @ G, G.mT @ P @ F)
    torch.testing.assert_close(P, Q + F.mT @ P @ F - F.mT @ P @ G @ gain, rtol=1e-9, atol=1e-9)


def test_bounds_are_met_as_the_optimality_conditions_say() -> None:
    model = LinearQuadratic(3, control_cost=1e-3)
    start = 5 * model.start()
    free = ILQR(horizon=H, iterations=2, bounded=False).plan(model, start).mean
    assert free.abs().max() > 1.5, "the problem must push against its bounds"
    found = ILQR(horizon=H, iterations=60).plan(model, start)
    actions = found.mean.clone().requires_grad_()
    state, total = start, 0.0
    for k in range(H):
        state = model.step(state, actions[:, k])
        total = total + model.reward(state).sum()
    (slope,) = torch.autograd.grad(total, actions)
    inside = found.mean.abs() < 1 - 1e-9
    assert found.mean.abs().max() <= 1 and (~inside).any()
    assert slope[inside].abs().max() < 1e-3 * slope.abs().max()
    assert (slope[~inside] * found.mean[~inside] > 0).all()


@pytest.mark.parametrize("name", DYNAMICS)
def test_derivatives_through_every_latent_model_are_those_of_finite_differences(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, found, planner = small_agent(name), {}, ILQR(horizon=2)
    for weight in agent.reward.parameters():  # heads start at zero
        torch.nn.init.normal_(weight, std=0.3)
    n = agent.dynamics.latent_dim
    z = double(1, n + 2 * A, seed=1).tanh()

    def expanded(kind: torch.dtype) -> tuple[Tensor, Tensor]:
        simulator, start = agent.to(kind).simulator(), z.to(kind)
        path = planner._rollout(simulator, start[:, :n], start[:, n:].view(1, 2, A))
        along = expand(simulator, path.states, path.actions)
        return along.transition[0, 0].double(), along.slope[0, 0].double()

    with torch.no_grad():
        found[1e-4] = expanded(torch.float32)
        monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # models compute states in float32 under autocast
        found[1e-7] = expanded(torch.float64)
        simulator, step = agent.simulator(), 1e-5
        first, nudge = z[0, : n + A], step * torch.eye(n + A, dtype=torch.float64)
        ends = [simulator.step(*(first + sign * nudge).split([n, A], 1)) for sign in (1, -1)]
        arrival = simulator.step(z[:, :n], z[:, n : n + A])
        around = [simulator.reward(arrival + sign * nudge[:n, :n]) for sign in (1, -1)]
    transition, slope = (ends[0] - ends[1]).mT / (2 * step), (around[1] - around[0]) / (2 * step)
    for tolerance, (along, downhill) in found.items():
        torch.testing.assert_close(along, transition, rtol=0, atol=tolerance)
        torch.testing.assert_close(downhill, slope, rtol=0, atol=tolerance)
    assert transition.abs().max() > 0.1 and slope.abs().max() > 1e-3


class Pendulum:
    """Swing-up of a damped pendulum: latent (cos, sin, speed), reward cos of the angle."""

    action_dim, discount = 1, 1.0

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        angle = torch.atan2(latent[..., 1], latent[..., 0])
        speed = latent[..., 2]
        for _ in range(2):
            speed = speed + 0.05 * (9.0 * angle.sin() + 8.0 * action[..., 0] - 0.1 * speed)
            angle = angle + 0.05 * speed
        return torch.stack([angle.cos(), angle.sin(), speed], -1)

    def reward(self, latent: Tensor) -> Tensor:
        return latent[..., 0] - 0.01 * latent[..., 2] ** 2

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: torch.Generator | None) -> None:
        return None


def test_a_hard_problem_improves_with_every_iteration_and_gradients_agree() -> None:
    start = torch.tensor([[math.cos(2.6), math.sin(2.6), 0.0]], dtype=torch.float64)
    warm = 0.5 * torch.sin(torch.arange(20, dtype=torch.float64))[None, :, None]
    values = [ILQR(horizon=20, iterations=n).plan(Pendulum(), start, warm=warm).value.item() for n in (1, 2, 4, 16)]
    assert all(b >= a for a, b in itertools.pairwise(values)) and values[-1] > values[0] + 1
    best = GradientShooting(horizon=20, candidates=1, iterations=300, learning_rate=0.05)
    assert values[-1] == pytest.approx(best.plan(Pendulum(), start, warm=warm).value.item(), abs=0.3)


def test_rows_do_not_mix() -> None:
    model, start = LinearQuadratic(), LinearQuadratic().start()
    alone = ILQR(horizon=H, iterations=3).plan(model, start)
    spoiled = start.clone()
    spoiled[1] = torch.nan
    beside = ILQR(horizon=H, iterations=3).plan(model, spoiled)
    torch.testing.assert_close(alone.mean[[0, 2]], beside.mean[[0, 2]], rtol=0, atol=1e-12)
    assert beside.value[1] == -math.inf and beside.mean.isfinite().all()


def test_hessians_of_a_model_that_lies_are_made_semidefinite_too() -> None:
    draw = torch.randn(200, 7, 7, generator=torch.Generator().manual_seed(0))
    huge = torch.where(draw.abs() > 0.7, 3.4e38 * draw.sign(), draw)
    assert psd(huge).isfinite().all()
    symmetric = (draw + draw.mT) / 2
    values, vectors = torch.linalg.eigh(symmetric)
    assert torch.equal(psd(draw), (vectors * values.clamp_min(0)[..., None, :]) @ vectors.mT)  # to the last bit
    torch.testing.assert_close(psd(1e20 * draw), 1e20 * psd(draw), rtol=1e-3, atol=1e16)


def test_a_first_path_on_which_the_model_breaks_down_is_left_for_zeros() -> None:
    class Edge(LinearQuadratic):
        def step(self, latent: Tensor, action: Tensor) -> Tensor:
            return torch.where((action > 0.9).any(-1, keepdim=True), torch.nan, super().step(latent, action))

    world, planner = Edge(), ILQR(horizon=H)
    warm = torch.full((3, H, A), 0.95, dtype=torch.float64)
    warm[1] = 0.1
    plan = planner.plan(world, world.start(), warm=warm)
    for row, begins in enumerate((torch.zeros_like(warm), warm, torch.zeros_like(warm))):
        alone = planner.plan(world, world.start(), warm=begins)
        torch.testing.assert_close(plan.mean[row], alone.mean[row])
        torch.testing.assert_close(plan.value[row], alone.value[row])
    assert plan.value.isfinite().all()
