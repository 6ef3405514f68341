"""What is the categorical RSSM's own; tests/worldmodel/test_dynamics.py has what it shares with every model."""

import torch

from tests.conftest import A, small_dynamics, window
from worldmodel.dynamics.rssm_categorical import CategoricalRSSM
from worldmodel.interfaces import Belief

E = 10


def filtered(rssm: CategoricalRSSM, *, sample: bool) -> Belief:
    embed, action = torch.randn(2, 5, E), torch.randn(2, 5, A)
    blank = torch.zeros(2, rssm.carry_dim)
    return rssm.observe(embed, action, torch.zeros(2, 5, dtype=torch.bool), blank, sample=sample)


def states(rssm: CategoricalRSSM, latent: torch.Tensor) -> torch.Tensor:
    return latent[..., rssm.deterministic :].unflatten(-1, (rssm.groups, rssm.classes))


def test_states_are_one_hot_and_the_prediction_a_distribution() -> None:
    rssm = small_dynamics("rssm_categorical", E)
    for sample in (True, False):
        belief = filtered(rssm, sample=sample)
        z = states(rssm, belief.latent)
        assert ((z == 0) | (z == 1)).all() and (z.sum(-1) == 1).all()
    action = torch.randn(2, 5, A)
    predicted = states(rssm, rssm.predict(belief.latent, action))
    torch.testing.assert_close(predicted.sum(-1), torch.ones_like(predicted[..., 0]))
    assert predicted.min() >= rssm.uniform / rssm.classes
    imagined = states(rssm, rssm.imagine(belief.latent, action))
    assert ((imagined == 0) | (imagined == 1)).all()


def test_the_kl_is_the_library_s_and_zero_where_posterior_and_prior_agree() -> None:
    rssm = small_dynamics("rssm_categorical", E)
    rssm.free_nats = 0.0
    belief, flags = filtered(rssm, sample=True), torch.zeros(2, 5, dtype=torch.bool)
    q, p = (torch.distributions.Categorical(logits=belief.statistics[name]) for name in ("posterior", "prior"))
    expected = torch.distributions.kl_divergence(q, p).sum(-1)
    torch.testing.assert_close(rssm.losses(belief, window(torch.zeros(2, 5, A), flags))["kl"], expected)
    agreed = {"posterior": belief.statistics["prior"], "prior": belief.statistics["prior"]}
    same = Belief(belief.latent, belief.carry, agreed)
    assert rssm.losses(same, window(torch.zeros(2, 5, A), flags))["kl"].abs().max() < 1e-6


def test_the_split_filter_equals_the_loop_of_the_equations_and_so_do_its_gradients() -> None:
    rssm, results = small_dynamics("rssm_categorical", E), []
    embed, action = torch.randn(2, 5, E, requires_grad=True), torch.randn(2, 5, A, requires_grad=True)
    is_first = torch.zeros(2, 5, dtype=torch.bool)
    is_first[0, 0] = is_first[1, 3] = True
    for rssm.fused in (False, True):
        torch.manual_seed(1)
        belief = rssm.observe(embed, action, is_first, torch.randn(2, rssm.carry_dim), sample=True)
        torch.testing.assert_close(belief.carry, belief.latent[:, -1], rtol=0, atol=0)
        numbers = (belief.latent, belief.statistics["posterior"], belief.statistics["prior"])
        loss = sum((x * torch.linspace(-1, 2, x.numel()).view_as(x).cos()).sum() for x in numbers)
        results.append((*numbers, *torch.autograd.grad(loss, [embed, action, *rssm.parameters()])))
    for plain, split in zip(*results, strict=True):
        torch.testing.assert_close(split, plain, rtol=1e-4, atol=1e-4)
