"""What every dynamics model must satisfy, whichever it is."""

import pytest
import torch

from tests.conftest import DYNAMICS, A, random_batch, small_agent, small_dynamics, window

E = 10
NAMES = list(DYNAMICS)


@pytest.fixture(params=NAMES)
def dynamics(request: pytest.FixtureRequest) -> torch.nn.Module:
    return small_dynamics(request.param, E)


def inputs(B: int = 2, T: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(B, T, E), torch.randn(B, T, A), torch.zeros(B, T, dtype=torch.bool)


def test_filtering_a_window_equals_filtering_it_row_by_row(dynamics: torch.nn.Module) -> None:
    embed, action, is_first = inputs()
    is_first[:, 0] = is_first[1, 4] = True
    carry = torch.zeros(2, dynamics.carry_dim)
    whole = dynamics.observe(embed, action, is_first, carry, sample=False)
    for t in range(embed.shape[1]):
        row = slice(t, t + 1)
        one = dynamics.observe(embed[:, row], action[:, row], is_first[:, row], carry, sample=False)
        torch.testing.assert_close(one.latent[:, 0], whole.latent[:, t])
        carry = one.carry
    torch.testing.assert_close(carry, whole.carry)


def test_a_reset_inside_a_window_forgets_everything_before(dynamics: torch.nn.Module) -> None:
    embed, action, is_first = inputs()
    is_first[:, 3] = True
    blank = torch.zeros(2, dynamics.carry_dim)
    whole = dynamics.observe(embed, action, is_first, torch.randn(2, dynamics.carry_dim), sample=False)
    alone = dynamics.observe(embed[:, 3:], action[:, 3:], is_first[:, 3:], blank, sample=False)
    torch.testing.assert_close(whole.latent[:, 3:], alone.latent)


def test_rows_of_a_batch_do_not_mix(dynamics: torch.nn.Module) -> None:
    embed, action, is_first = inputs()
    blank = torch.zeros(2, dynamics.carry_dim)
    before = dynamics.observe(embed, action, is_first, blank, sample=False).latent[0].clone()
    embed[1] += 1
    assert torch.equal(dynamics.observe(embed, action, is_first, blank, sample=False).latent[0], before)


def test_prediction_takes_any_leading_axes(dynamics: torch.nn.Module) -> None:
    latent, action = torch.randn(2, 3, dynamics.latent_dim), torch.randn(2, 3, A)
    whole = dynamics.predict(latent, action)
    torch.testing.assert_close(whole[1, 2], dynamics.predict(latent[1, 2:3], action[1, 2:3])[0])


def test_imagination_has_the_mean_of_the_prediction(dynamics: torch.nn.Module) -> None:
    latent, action = torch.randn(1, dynamics.latent_dim), torch.randn(1, A)
    samples = dynamics.imagine(latent.expand(20_000, -1), action.expand(20_000, -1))
    torch.testing.assert_close(samples.mean(0), dynamics.predict(latent, action)[0], atol=0.03, rtol=0)


def test_the_kl_is_zero_where_posterior_and_prior_agree() -> None:
    rssm = small_dynamics("rssm_gaussian", E)
    rssm.free_nats = 0.0
    embed, action, is_first = inputs()
    belief = rssm.observe(embed, action, is_first, torch.zeros(2, rssm.carry_dim), sample=True)
    stats = dict(belief.statistics)
    stats["prior_mean"], stats["prior_std"] = stats["posterior_mean"], stats["posterior_std"]
    same = type(belief)(latent=belief.latent, carry=belief.carry, statistics=stats)
    assert rssm.losses(same, window(action, is_first))["kl"].abs().max() < 1e-6
    assert rssm.losses(belief, window(action, is_first))["kl"].min() > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_reaches_every_weight_and_no_other(name: str) -> None:
    agent = small_agent(name)
    getattr(agent.dynamics, "filter", agent.dynamics).free_nats = 0.0  # below the floor the KL trains nothing
    # heads start at zero, where no gradient passes them: move them as the first updates would
    for head in (agent.reward, agent.policy.value, agent.policy.slow_value.module):
        torch.nn.init.normal_(head.net[-1].weight, std=0.1)
    agent.losses(random_batch()).total.backward()
    for group, weights in agent.parameter_groups().items():
        for weight in weights:
            assert weight.grad is not None and weight.grad.isfinite().all(), group
            assert weight.grad.abs().sum() > 0, (group, weight.shape)
    assert all(weight.grad is None for weight in agent.policy.slow_value.parameters())


def test_the_policy_loss_leaves_the_model_alone() -> None:
    agent = small_agent()
    batch = random_batch()
    torch.nn.init.normal_(agent.reward.net[-1].weight, std=0.1)
    torch.manual_seed(1)
    agent.losses(batch).total.backward()
    with_policy = [w.grad.clone() for w in agent.parameter_groups()["model"]]
    agent.zero_grad()
    agent.policy = None
    torch.manual_seed(1)
    agent.losses(batch).total.backward()
    for one, other in zip(with_policy, agent.parameter_groups()["model"], strict=True):
        torch.testing.assert_close(one, other.grad)
