"""The hand-written motion and its derivatives against Lagrange's equations, solved and differentiated by torch."""

import pytest
import torch
from torch import Tensor
from torch.func import jacrev, vmap

from trainers.benchmarks.known_dynamics.cart_and_pole import (
    CART,
    CART_DAMPING,
    DT,
    FORCE,
    GRAVITY,
    HALF,
    HINGE_DAMPING,
    POLE,
    move,
)

HINGE_INERTIA = 0.00942459 + POLE * HALF**2  # kg m², a capsule of the suite's size, about its end


def accelerations(state: Tensor, action: Tensor) -> Tensor:
    """M(q) q'' = forces, one row after the other."""
    found = []
    for (_, angle, speed, spin), push in zip(state, action, strict=True):
        pull = POLE * HALF * angle.cos()
        mass = torch.stack([torch.stack([pull * 0 + CART + POLE, pull]), torch.stack([pull, pull * 0 + HINGE_INERTIA])])
        along = FORCE * push - CART_DAMPING * speed + POLE * HALF * angle.sin() * spin**2
        turn = POLE * HALF * GRAVITY * angle.sin() - HINGE_DAMPING * spin
        found.append(torch.linalg.solve(mass, torch.stack([along, turn])))
    return torch.stack(found)


def moved(state: Tensor, action: Tensor, steps: int) -> Tensor:
    def speeds(now: Tensor) -> Tensor:
        return torch.cat([now[:, 2:], accelerations(now, action)], 1)

    for _ in range(steps):
        one = speeds(state)
        two = speeds(state + DT / 2 * one)
        three = speeds(state + DT / 2 * two)
        state = state + DT / 6 * (one + 2 * two + 2 * three + speeds(state + DT * three))
    return state


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(5, 4, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0, 2.0, 8.0])
    return state, 2 * torch.rand(5, generator=generator, dtype=torch.float64) - 1


def test_motion_and_slopes_are_those_of_the_equations(rows) -> None:
    inputs = [x.requires_grad_() for x in rows]
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = [way(*inputs, 3) for way in (moved, move)]
    torch.testing.assert_close(states[1], states[0], rtol=1e-12, atol=1e-12)
    expected, found = (torch.autograd.grad((state * weight).sum(), inputs) for state in states)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_jacobians_of_many_rows_are_mapped(rows) -> None:
    def jacobian(way) -> Tensor:
        one = lambda z: way(z[None, :4], z[None, 4], 2)[0]  # noqa: E731
        return vmap(vmap(jacrev(one)))(torch.cat([rows[0], rows[1][:, None]], 1).expand(2, 5, 5))

    expected = [
        jacrev(lambda z: moved(z[None, :4], z[None, 4], 2)[0])(torch.cat([s, a[None]]))
        for s, a in zip(*rows, strict=True)
    ]
    torch.testing.assert_close(jacobian(move), torch.stack(expected).expand(2, 5, 4, 5), rtol=1e-10, atol=1e-10)


def test_precision_stays_and_second_derivatives_are_refused(rows) -> None:
    assert move(rows[0].float(), rows[1].float(), 1).dtype == torch.float32
    action = rows[1].requires_grad_()
    (slope,) = torch.autograd.grad(move(rows[0], action, 1).square().sum(), action, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
