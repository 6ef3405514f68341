"""What is the ensemble's own: members that agree where there is data, and a filter that they leave alone."""

import pytest
import torch

from tests.conftest import A, random_batch, small_agent, small_dynamics
from worldmodel.dynamics.ensemble import FILTERS, EnsembleDynamics

E = 10


def test_members_leave_the_filter_alone_and_jumps_between_episodes_out() -> None:
    model = small_dynamics("ensemble", E)
    embed, action, is_first = torch.randn(2, 6, E), torch.randn(2, 6, A), torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 3] = True
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=True)
    loss = model.losses(belief, action, is_first)["members"]
    assert (loss[:, [0, 3]] == 0).all() and (loss != 0).any()
    loss.sum().backward()
    assert all(weight.grad is None for weight in model.filter.parameters())
    assert all(weight.grad is not None for weight in model.change.parameters())


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_can_have_members(name: str) -> None:
    model = EnsembleDynamics(embed_dim=E, action_dim=A, filter={"name": name}, members=2, hidden=8)
    embed, action, is_first = torch.randn(2, 4, E), torch.randn(2, 4, A), torch.zeros(2, 4, dtype=torch.bool)
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=True)
    assert set(model.losses(belief, action, is_first)) == {"kl", "members"}
    assert model.predict(belief.latent, action).shape == model.imagine(belief.latent, action).shape


def test_a_filter_that_cannot_have_members_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dynamics\.filter\.name"):
        EnsembleDynamics(embed_dim=E, action_dim=A, filter={"name": "deterministic"})


def test_disagreement_finds_the_gap_in_the_data_and_entropy_the_noise() -> None:
    """s' = s + noise, louder on the right; no data in the middle."""
    model = EnsembleDynamics(
        embed_dim=1, action_dim=1, filter={"name": "gaussian", "latent_dim": 1}, members=5, hidden=32, min_std=0.01
    )
    x = torch.cat([torch.linspace(-1.5, -1, 200), torch.linspace(1, 1.5, 200)])[:, None]
    y = torch.sin(6 * x) + torch.where(x > 0, 0.3, 0.05) * torch.randn_like(x)
    still = torch.ones_like(x)  # a constant, because the norm of a lone number is its sign
    optimizer = torch.optim.Adam(model.change.parameters(), lr=5e-3)
    for _ in range(300):
        mean, std = model.moments(x.expand(5, -1, -1), still.expand(5, -1, -1))
        optimizer.zero_grad()
        (0.5 * ((y - mean) / std).square() + std.log()).mean().backward()
        optimizer.step()
    gap = torch.linspace(-0.4, 0.4, 50)[:, None]
    spread = [model.disagreement(z, torch.ones_like(z)).sqrt().mean() for z in (gap, x)]
    assert spread[0] > 5 * spread[1]
    left, right = (model.entropy(z, torch.ones_like(z)).mean() for z in (x[:200], x[200:]))
    assert right > left + 1  # the truth is log 6 = 1.8


def test_a_batch_s_report_keeps_noise_and_ignorance_apart() -> None:
    agent, batch = small_agent("ensemble"), random_batch()
    plain = agent.losses(batch).metrics
    with torch.no_grad():
        last = agent.dynamics.change[-1]
        last.bias[:, :, agent.dynamics.latent_dim :] += 3.0  # every member says more noise
        noisy = agent.losses(batch).metrics
        last.bias[0, :, : agent.dynamics.latent_dim] += 1.0  # one member differs from the others
        split = agent.losses(batch).metrics
    assert noisy["model/entropy"] > plain["model/entropy"] + 1
    assert noisy["model/disagreement"] < 1.5 * plain["model/disagreement"] + 0.01
    assert split["model/disagreement"] > noisy["model/disagreement"] + 0.05
    torch.testing.assert_close(split["model/entropy"], noisy["model/entropy"], rtol=0.05, atol=0.05)
    assert "model/entropy" not in small_agent("rssm_gaussian").losses(batch).metrics
