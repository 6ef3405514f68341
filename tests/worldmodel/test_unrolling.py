"""Overshooting against rolling by hand; its first step is the ELBO's own term."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import A, random_batch, small_agent, small_dynamics, window
from worldmodel.distributions import Moments, gaussian_kl
from worldmodel.heads.continuation import ContinuationHead
from worldmodel.interfaces import Belief
from worldmodel.model import Seen
from worldmodel.objectives.overshooting import Overshooting
from worldmodel.unrolling import (
    latent_overshooting,
    later_rows,
    mean_within_episodes,
    open_loop_losses,
    posterior_of,
    same_episode,
    stepper,
    unroll,
)


def ahead(latent: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, Moments]:
    mean, std = 0.5 * latent + action, torch.full_like(latent, 1e-6)
    return mean + std * torch.randn_like(std), (mean, std)


def test_every_entry_is_the_kl_of_the_rolled_prior() -> None:
    latent, action = torch.randn(2, 6, 3, requires_grad=True), torch.randn(2, 6, 3)
    std = torch.full_like(action, 1e-6)
    posterior = latent + 1e-6, std
    found = latent_overshooting(ahead, latent, posterior, action, steps=3)
    assert found.shape == (2, 3, 3)
    for t in range(3):
        state = latent[:, t]
        for k in range(3):
            state = 0.5 * state + action[:, t + k + 1]
            expected = gaussian_kl((posterior[0][:, t + k + 1], std[:, 0]), (state, std[:, 0]))
            torch.testing.assert_close(found[:, t, k], expected, rtol=1e-3, atol=1e-3)


def test_posteriors_are_held_still_and_steps_must_fit() -> None:
    latent, action = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    mean = latent.clone().requires_grad_()
    assert not latent_overshooting(ahead, latent, (mean, torch.ones_like(mean)), action, steps=2).requires_grad
    for steps in (0, 6):
        with pytest.raises(ValueError, match="steps"):
            latent_overshooting(ahead, latent, (mean, mean), action, steps=steps)


@pytest.mark.parametrize("name", ["rssm_gaussian", "rssm_categorical", "gaussian", "laplace"])
def test_one_row_ahead_is_the_model_s_own_kl(name: str) -> None:
    model = small_dynamics(name, 10)
    getattr(model, "filter", model).free_nats = 0.0
    embed, action, none = torch.randn(2, 6, 10), torch.randn(2, 6, A), torch.zeros(2, 6, dtype=torch.bool)
    none[:, 0] = True
    belief = model.observe(embed, action, none, torch.zeros(2, model.carry_dim), sample=True)
    own = model.losses(belief, window(action, none))["kl"]
    found = latent_overshooting(stepper(model), belief.latent, posterior_of(belief), action, steps=3)
    torch.testing.assert_close(found[..., 0], own[:, 1:4], rtol=1e-4, atol=1e-5)


def test_a_model_that_only_predicts_misses_by_half_the_squared_distance() -> None:
    agent, batch = small_agent("deterministic"), random_batch(first=None)
    belief = agent.observe(batch)
    found = latent_overshooting(stepper(agent.dynamics), belief.latent, posterior_of(belief), batch.action, steps=3)
    predicted = unroll(agent.dynamics, belief.latent, batch.action, steps=3)
    expected = 0.5 * (predicted - later_rows(belief.latent, steps=3)).square().sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_objective_adds_the_rows_beyond_the_first() -> None:
    agent, batch = small_agent(objective="overshooting", policy=False), random_batch()
    seen = agent._see(batch)
    torch.manual_seed(5)
    losses = agent.objective.losses(agent, Seen(batch, seen.embed, seen.belief))
    torch.manual_seed(5)
    kl = latent_overshooting(
        stepper(agent.dynamics), seen.belief.latent, posterior_of(seen.belief), batch.action, steps=3
    )
    torch.testing.assert_close(losses["overshooting"], kl[..., 1:].mean())
    assert losses.keys() == {"image", "overshooting"} and agent.objective.loss_weights["overshooting"] == 1.0
    agent.losses(batch).total.backward()
    with pytest.raises(ValueError, match=r"^steps: expected a whole number of at least 2, got 1"):
        Overshooting(encoder=agent.encoder, dynamics=agent.dynamics, steps=1)


@pytest.mark.parametrize("objective", ["reconstruction", "latent_consistency", "slow_consistency"])
def test_where_episodes_end_is_learned_of_predicted_latents_too(objective: str) -> None:
    head = ContinuationHead(latent_dim=small_agent("deterministic").dynamics.latent_dim, hidden=8)
    agent, batch = small_agent("deterministic", objective=objective, continuation=head), random_batch(B=3, T=8)
    batch = replace(batch, is_last=batch.is_last.clone(), is_terminal=batch.is_terminal.clone())
    batch.is_last[1, -1] = batch.is_terminal[1, -1] = True
    torch.nn.init.normal_(head.net[-1].weight)
    seen = agent._see(batch)
    belief = seen.belief
    found = open_loop_losses(agent, seen, target=belief.latent, steps=2)
    predicted = unroll(agent.dynamics, belief.latent, batch.action, steps=2)
    ended = later_rows(batch.is_terminal, steps=2)
    assert ended.sum() == 1
    assert belief.valid is not None and belief.valid[1, :6].all()
    expected = belief.mean(torch.where(ended, 6.0 * 2, 1.0) * head.loss(predicted, (~ended).float()))
    torch.testing.assert_close(found["unrolled_continuation"], expected)
    metrics = agent.losses(batch).metrics
    assert {"loss/continuation", "loss/unrolled_continuation"} <= metrics.keys()


def test_predictions_that_run_over_the_end_of_an_episode_do_not_count() -> None:
    is_first = torch.zeros(2, 7, dtype=torch.bool)
    is_first[:, 0] = is_first[1, 3] = True
    within = same_episode(is_first, steps=2)
    assert within[0].all()
    # rows 0 to 4 predict the next two; row 3 opens the second episode
    assert within[1].tolist() == [[True, True], [True, False], [False, False], [True, True], [True, True]]


@pytest.mark.parametrize("objective", ["latent_consistency", "slow_consistency", "overshooting"])
def test_what_follows_an_end_teaches_nothing_about_what_was_before(objective: str) -> None:
    agent, batch = small_agent("deterministic", objective=objective, policy=False), random_batch(B=2, T=8)
    batch.is_first[1, 4] = True
    later = replace(batch, action=batch.action.clone(), reward=batch.reward.clone())
    later.action[1, 4] = 0.0  # of the row that a reset brings
    later.reward[1, 4] = 9.0
    ours, theirs = agent.losses(batch).metrics, agent.losses(later).metrics
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if not name.startswith("loss/image"):  # of rows that are drawn
            torch.testing.assert_close(value, theirs[name])


def test_means_of_windows_inside_an_episode_are_as_they_were() -> None:
    agent, batch = small_agent("deterministic", policy=False), random_batch(B=2, T=8)
    belief, losses = agent.observe(batch), torch.rand(2, 5, 3)
    assert mean_within_episodes(belief, losses, same_episode(batch.is_first, steps=3)) == belief.mean(losses)


def test_rows_that_do_not_count_have_no_part_in_the_share_that_stays_within_an_episode() -> None:
    valid, is_first = torch.ones(2, 8, dtype=torch.bool), torch.zeros(2, 8, dtype=torch.bool)
    valid[0, :2], is_first[1, [0, 5]] = False, True
    belief, losses = Belief(torch.zeros(2, 8, 1), torch.zeros(2, 0), {}, valid), torch.rand(2, 6, 2)
    within = same_episode(is_first, steps=2)
    torch.testing.assert_close(mean_within_episodes(belief, torch.ones(2, 6, 2), within), torch.tensor(1.0))
    counted = within & valid[:, :6, None]
    torch.testing.assert_close(mean_within_episodes(belief, losses, within), losses[counted].mean())
    assert mean_within_episodes(belief, losses, torch.zeros_like(within)) == 0
