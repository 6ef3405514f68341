"""The crude encoder's bound: below the likelihood for every posterior, equal to it for the exact one."""

import math

import torch
from torch.distributions import Normal

from tests.conftest import A, small_dynamics, window
from worldmodel.interfaces import Belief

E, T = 10, 5


def observe(
    model, *, sample: bool, carry: torch.Tensor | None = None, first: int | None = 0
) -> tuple[Belief, torch.Tensor]:
    torch.manual_seed(1)
    embed, action, is_first = torch.randn(2, T, E), torch.randn(2, T, A), torch.zeros(2, T, dtype=torch.bool)
    if first is not None:
        is_first[:, first] = True
    blank = torch.zeros(2, model.carry_dim) if carry is None else carry
    return model.observe(embed, action, is_first, blank, sample=sample), action


def test_the_prior_of_a_row_is_the_step_from_the_row_before() -> None:
    model = small_dynamics("gaussian", E)
    belief, action = observe(model, sample=True, first=1)
    prior = belief.statistics["prior_mean"]
    torch.testing.assert_close(prior[:, 2:], model.predict(belief.latent[:, 1:-1], action[:, 2:]))
    assert (prior[:, 1] == 0).all() and (belief.statistics["prior_std"][:, 1] == 1).all()
    # in a window from the middle of an episode the first row that sees its whole stack has none before it
    belief, action = observe(model, sample=True, first=None)
    prior = belief.statistics["prior_mean"]
    torch.testing.assert_close(prior[:, 3:], model.predict(belief.latent[:, 2:-1], action[:, 3:]))
    assert (prior[:, 2] == 0).all() and (belief.statistics["prior_std"][:, 2] == 1).all()
    assert belief.valid is not None and belief.valid.tolist() == [[False, False, True, True, True]] * 2


def test_a_known_carry_gives_the_first_row_its_prior() -> None:
    model = small_dynamics("gaussian", E)
    before, _ = observe(model, sample=False)
    after, action = observe(model, sample=False, carry=before.carry, first=3)
    expected = model.predict(before.latent[:, -1], action[:, 0])
    torch.testing.assert_close(after.statistics["prior_mean"][:, 0], expected)


def test_the_kl_of_a_row_is_its_expectation_under_samples() -> None:
    model = small_dynamics("gaussian", E)
    belief, action = observe(model, sample=True)
    kl = model.losses(belief, window(action, torch.zeros(2, T, dtype=torch.bool)))["kl"]
    stats = belief.statistics
    q, p = (Normal(stats[f"{name}_mean"], stats[f"{name}_std"]) for name in ("posterior", "prior"))
    samples = q.sample((20_000,))
    ratio = (q.log_prob(samples) - p.log_prob(samples)).sum(-1)
    torch.testing.assert_close(kl, ratio.mean(0), rtol=0, atol=0.01 + 4 * ratio.std().item() / math.sqrt(20_000))
    assert kl.min() > 0
