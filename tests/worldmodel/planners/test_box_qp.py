"""Quadratic programs within bounds against an active-set solver, and iLQR within bounds against the stacked problem."""

import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from worldmodel.planners._box_qp import solve_box_qp
from worldmodel.planners.ilqr import ILQR


def draws(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def exact(hessian: Tensor, gradient: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The minimum of ½ xᵀHx + gᵀx within bounds, as a bounded least-squares problem."""
    lower = torch.linalg.cholesky(hessian)
    target = -torch.linalg.solve_triangular(lower, gradient[:, None], upper=False)[:, 0]
    solution = lsq_linear(lower.mT.numpy(), target.numpy(), (low.numpy(), high.numpy()), method="bvls", tol=1e-15)
    return torch.from_numpy(solution.x)


@pytest.mark.parametrize("A", [1, 2, 3, 4, 8])
def test_the_minimum_within_bounds_is_that_of_an_active_set_solver(A: int) -> None:
    B, normal = 100, draws(A)
    root = normal(B, A, A)
    hessian, gradient = root @ root.mT + 1e-3 * torch.eye(A), 5 * normal(B, A)
    low = -normal(B, A).abs().clamp_max(2)
    low = torch.where(normal(B, A) > 0.5, 0.0, low)  # already at the bound
    x, free = solve_box_qp(hessian, gradient, low, low + 2)
    for b in range(B):
        torch.testing.assert_close(x[b], exact(hessian[b], gradient[b], low[b], low[b] + 2), rtol=0, atol=1e-10)
    inside = (x > low + 1e-9) & (x < low + 2 - 1e-9)
    assert free[inside].all() and not free[~inside].all()


def test_a_problem_without_an_answer_stays_where_it_is_and_harms_no_other() -> None:
    hessian = torch.eye(2).repeat(3, 1, 1)
    hessian[1] = torch.nan
    x, _ = solve_box_qp(hessian, torch.full((3, 2), -0.5), -torch.ones(3, 2), torch.ones(3, 2))
    assert x.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]


class Linear:
    """x' = Fx + Gu + c with a quadratic reward of x' and u, in which strong controls are cheap."""

    discount = 1.0

    def __init__(self, seed: int, A: int, n: int = 4) -> None:
        normal, self.n, self.action_dim = draws(seed), n, A
        self.F, self.G, self.c = 0.4 * normal(n, n), normal(n, A), 0.1 * normal(n)
        q, r = normal(n, n), normal(A, A)
        self.Q, self.R = q @ q.mT + 0.1 * torch.eye(n), 0.05 * (r @ r.mT + 0.1 * torch.eye(A))
        self.start = torch.cat([8 * normal(1, n), normal(1, A)], -1)

    def step(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., : self.n] @ self.F.mT + action @ self.G.mT + self.c, action], -1)

    def reward(self, latent: Tensor) -> Tensor:
        x, u = latent[..., : self.n], latent[..., self.n :]
        return -0.5 * ((x @ self.Q) * x).sum(-1) - 0.5 * ((u @ self.R) * u).sum(-1)

    def value(self, latent: Tensor) -> Tensor:
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Tensor, generator: object) -> None:
        return None


@pytest.mark.parametrize("A", [2, 3, 4])
def test_ilqr_reaches_the_optimum_of_bounded_linear_quadratic_problems(A: int) -> None:
    H, pressed = 8, 0
    for seed in range(5):
        model = Linear(seed, A)

        def cost(flat: Tensor, model: Linear = model) -> Tensor:
            state, total = model.start, flat.new_zeros(1)
            for action in flat.view(H, 1, -1):
                state = model.step(state, action)
                total = total - model.reward(state)
            return total[0]

        zero = torch.zeros(H * A, dtype=torch.float64)
        hessian, gradient = torch.func.hessian(cost)(zero), torch.func.grad(cost)(zero)
        bounds = -torch.ones_like(zero), torch.ones_like(zero)
        best = exact(hessian, gradient, *bounds)
        plan = ILQR(horizon=H, iterations=30).plan(model, model.start)
        missed = (-plan.value[0] - cost(best)) / (cost(zero) - cost(best))
        assert abs(missed) < 1e-10, (seed, missed)
        pressed += int((best.abs() > 1 - 1e-9).sum())
    assert pressed > 2 * H, "the problems must push against their bounds"
