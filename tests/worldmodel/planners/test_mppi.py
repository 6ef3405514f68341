"""MPPI's weights written out, and what they become at both ends of the temperature."""

import pytest
import torch

from worldmodel.planners.mppi import MPPI
from worldmodel.planners.shooting import Proposal, Scored

B, N, H, A, ELITES = 2, 12, 3, 2, 5


def refitted(temperature: float) -> tuple[Proposal, Scored]:
    generator = torch.Generator().manual_seed(0)
    pool = Scored(
        torch.rand(B, N, H, A, generator=generator, dtype=torch.float64) * 2 - 1,
        torch.randn(B, N, generator=generator, dtype=torch.float64),
    )
    start = Proposal(torch.zeros(B, H, A, dtype=torch.float64), torch.ones(B, H, A, dtype=torch.float64))
    planner = MPPI(horizon=H, candidates=N, elites=ELITES, temperature=temperature, min_std=0.0)
    return planner.refit(start, pool), pool.best(ELITES)


def test_weights_are_a_softmax_in_units_of_the_elites_range() -> None:
    found, top = refitted(0.5)
    spread = top.scores[:, :1] - top.scores[:, -1:]
    weight = (top.scores / (0.5 * spread)).softmax(1)[:, :, None, None]
    mean = (weight * top.actions).sum(1)
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=1e-6)
    variance = (weight * (top.actions - mean[:, None]).square()).sum(1)
    torch.testing.assert_close(found.std, variance.sqrt(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1e-6, lambda a: a[:, 0]), (1e7, lambda a: a.mean(1))])
def test_cold_is_the_best_candidate_and_hot_the_elites_mean(temperature: float, expected) -> None:
    found, top = refitted(temperature)
    torch.testing.assert_close(found.mean, expected(top.actions), rtol=0, atol=1e-6)
