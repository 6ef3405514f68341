"""What is the ensemble's own: members that agree where there is data, and a filter that they leave alone."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import A, random_batch, small_agent, small_dynamics, window
from worldmodel.dynamics.ensemble import FILTERS, EnsembleDynamics
from worldmodel.interfaces import Belief
from worldmodel.uncertainty.members import bootstrap_weights

E = 10


def test_members_leave_the_filter_alone_and_jumps_between_episodes_out() -> None:
    model = small_dynamics("ensemble", E)
    embed, action, is_first = torch.randn(2, 6, E), torch.randn(2, 6, A), torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 3] = True
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=True)
    loss = model.losses(belief, window(action, is_first))["members"]
    assert (loss[:, [0, 3]] == 0).all() and (loss != 0).any()
    loss.sum().backward()
    assert all(weight.grad is None for weight in model.filter.parameters())
    assert all(weight.grad is not None for weight in model.change.parameters())


def test_rows_of_equal_actions_are_drawn_apart_and_keep_their_draw() -> None:
    """Saturated actions: every member must meet about as many of these rows as of any others."""
    model, T = small_dynamics("ensemble", E), 400
    ones, rows = torch.ones(1, T, A), torch.tensor([[0, 2, 100]])
    batch = replace(window(ones), windows=rows)
    with torch.no_grad():
        belief = model.observe(
            torch.zeros(1, T, E), ones, batch.is_first, torch.zeros(1, model.carry_dim), sample=False
        )
        plain, drawn = (model.losses(belief, b)["members"][0, 1:] for b in (window(ones), batch))
        share = (drawn / plain).unique()
        assert len(share) > 3, "rows of one action must differ in how many members drew them"
        part = model.losses(_rows(belief, 50, 60), batch.rows(50, 60))["members"][0, 1:]
        torch.testing.assert_close(part, drawn[50:59], rtol=1e-4, atol=1e-5)
        again = replace(batch, windows=rows + torch.tensor([9, 0, 0]))  # another draw of the same rows
        assert torch.equal(model.losses(belief, again)["members"][0, 1:], drawn)
    counts = bootstrap_weights(batch.row_names()[0], 5)
    assert (counts.mean(1) - 1).abs().max() < 0.15 and torch.corrcoef(counts).fill_diagonal_(0).abs().max() < 0.2


def _rows(belief: Belief, start: int, stop: int) -> Belief:
    parts = {name: x[:, start:stop] for name, x in belief.statistics.items()}
    return replace(belief, latent=belief.latent[:, start:stop], statistics=parts)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_can_have_members(name: str) -> None:
    model = EnsembleDynamics(embed_dim=E, action_dim=A, filter={"name": name}, members=2, hidden=8)
    embed, action, is_first = torch.randn(2, 4, E), torch.randn(2, 4, A), torch.zeros(2, 4, dtype=torch.bool)
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=True)
    assert set(model.losses(belief, window(action, is_first))) == {"kl", "members"}
    assert model.predict(belief.latent, action).shape == model.imagine(belief.latent, action).shape


def test_a_filter_that_cannot_have_members_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^filter\.name"):
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


@pytest.mark.parametrize("name", ["gaussian", "rssm_gaussian"])
def test_a_batch_s_report_is_of_steps_within_episodes(name: str) -> None:
    model = EnsembleDynamics(embed_dim=E, action_dim=A, filter={"name": name}, members=3, hidden=16)
    embed, action, is_first = torch.randn(2, 8, E), torch.randn(2, 8, A), torch.zeros(2, 8, dtype=torch.bool)
    is_first[0, [0, 3]], is_first[1, 4] = True, True
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=False)
    report = model.report(belief, window(action, is_first))
    for key, of in (("model/entropy", model.entropy), ("model/disagreement", model.disagreement)):
        steps = of(belief.latent[:, :-1], action[:, 1:])
        counted = steps[belief.continued(is_first)]
        torch.testing.assert_close(report[key], counted.mean())
        assert (counted.mean() - steps.mean()).abs() > 1e-5
