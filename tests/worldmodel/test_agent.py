"""The agent: acting equals learning's filter, and learning fits what it is shown."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from tests.conftest import DYNAMICS, OBJECTIVES, PIXELS, A, random_batch, small_agent
from worldmodel.dynamics.deterministic import DeterministicDynamics
from worldmodel.heads.continuation import ContinuationHead
from worldmodel.interfaces import Batch, Belief
from worldmodel.observations import PixelNorm
from worldmodel.openloop import open_loop
from worldmodel.unrolling import latent_consistency, later_rows, unroll


@pytest.mark.parametrize("name", DYNAMICS)
def test_acting_filters_exactly_as_learning_does(name: str) -> None:
    agent = small_agent(name, act_with="actor")
    batch = random_batch(B=2, T=5)
    carry, actions, beliefs = agent.initial_carry(2), [torch.zeros(2, A)], []
    for t in range(5):
        decision = agent.act({"pixels": batch.pixels[:, t]}, batch.is_first[:, t], carry)
        carry = decision.carry
        actions.append(decision.action)
        beliefs.append(carry.belief)
    batch = replace(batch, action=torch.stack(actions[:5], 1))
    embed = agent.encoder(agent.norm(batch.observation))
    blank = torch.zeros(2, agent.dynamics.carry_dim)
    whole = agent.dynamics.observe(embed, batch.action, batch.is_first, blank, sample=False)
    torch.testing.assert_close(whole.carry, beliefs[-1])


def test_acting_is_deterministic_and_an_episode_s_start_forgets_the_last_one() -> None:
    agent, batch = small_agent(), random_batch(B=1, T=4)
    first = torch.ones(1, dtype=torch.bool)

    def act(carry):
        return agent.act({"pixels": batch.pixels[:, 0]}, first, carry, generator=torch.Generator().manual_seed(3))

    fresh, used = act(agent.initial_carry(1)), agent.initial_carry(1)
    for t in range(3):
        used = agent.act({"pixels": batch.pixels[:, t]}, ~first, used).carry
    torch.testing.assert_close(act(used).action, fresh.action)
    assert fresh.action.abs().max() <= 1


def test_losses_fall_on_one_batch() -> None:
    agent, batch = small_agent(), random_batch(B=2, T=4)
    batch.pixels[..., :8] = 200 * (batch.reward > 0.5)[:, :, None, None, None]  # half a frame that means something
    agent.norm.fit({"pixels": batch.pixels.flatten(0, 1)})
    optimizer = torch.optim.Adam(agent.parameters(), lr=3e-3)
    history = []
    for _ in range(120):
        loss = agent.losses(batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        agent.after_step()
        history.append({name: float(value) for name, value in loss.metrics.items()})
    assert history[-1]["loss/reward"] < 0.5 * history[0]["loss/reward"]
    assert history[-1]["loss/image"] < 0.8 * history[0]["loss/image"]


def test_rewards_of_a_reset_row_do_not_train() -> None:
    agent = small_agent(policy=False)
    batch = random_batch()
    torch.manual_seed(5)
    before = agent.losses(batch).metrics["loss/reward"]
    batch.reward[:, 0] = 1e6
    torch.manual_seed(5)
    assert torch.equal(agent.losses(batch).metrics["loss/reward"], before)


def test_pixel_norm_has_zero_mean_and_unit_energy_and_an_inverse() -> None:
    frames = torch.randint(0, 256, (600, *PIXELS), dtype=torch.uint8)
    norm = PixelNorm(PIXELS)
    norm.fit(frames)
    x = norm(frames)
    assert x.mean(0).abs().max() < 1e-3 and x.square().mean().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(norm.denormalise(x), frames / 255, atol=1e-4, rtol=0)


def test_unroll_predicts_the_rows_that_later_rows_lists() -> None:
    class Counter:
        def predict(self, latent: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
            return latent + action

    action = torch.rand(2, 8, 1)
    latent = action.cumsum(1)  # s[t] = s[t-1] + a that led to it
    predicted = unroll(Counter(), latent, action, steps=3)
    torch.testing.assert_close(predicted, later_rows(latent, steps=3))


@pytest.mark.parametrize("name", DYNAMICS)
def test_the_windows_errors_are_the_reward_s_share_of_the_loss(name: str) -> None:
    agent, batch = small_agent(name), random_batch(B=4, T=5)
    loss = agent.losses(batch)
    assert loss.error is not None and loss.error.shape == (4,) and not loss.error.requires_grad
    torch.testing.assert_close(loss.error.mean(), agent.weights["reward"] * loss.metrics["loss/reward"])
    batch.reward[2] += 5
    changed = agent.losses(batch).error
    assert changed is not None and changed.argmax() == 2


class Sprung(DeterministicDynamics):
    """Somebody's own dynamics: two loss terms that nobody else has heard of."""

    loss_weights: ClassVar = {"spring": 7.0}

    def losses(self, belief: Belief, batch: Batch) -> dict[str, torch.Tensor]:
        return {"spring": belief.latent.square().mean(-1), "damper": belief.latent.abs().mean(-1)}


def test_a_part_may_have_losses_of_any_name_and_weigh_them_itself() -> None:
    agent = small_agent("deterministic", policy=False)
    plain, batch = agent.weights, random_batch()
    agent = small_agent("deterministic", policy=False, kind=Sprung)
    torch.manual_seed(1)
    loss = agent.losses(batch)
    terms = {name.removeprefix("loss/"): value for name, value in loss.metrics.items()}
    assert terms.keys() >= {"spring", "damper"} and plain.keys() == agent.weights.keys() - {"spring"}
    torch.testing.assert_close(loss.total, sum({"damper": 1.0, **agent.weights}[k] * v for k, v in terms.items()))
    heavier = small_agent("deterministic", policy=False, kind=Sprung, weights={"damper": 3.0, "spring": 0.0})
    assert heavier.weights == {**agent.weights, "damper": 3.0, "spring": 0.0}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["deterministic", "gaussian"])
def test_rows_that_lack_frames_teach_nothing(name: str, objective: str) -> None:
    """Frames, rewards and actions of the first rows of a window from the middle of an episode change only what later
    rows read of them: the reward's, the KL's and the imagination's first two rows are left out.
    """
    agent, batch = small_agent(name, objective=objective), random_batch(B=3, T=8, first=None)
    batch.is_first[0, 0] = True  # this window opens an episode: all of its rows count
    belief = agent.observe(batch)
    assert belief.valid is not None
    assert belief.valid.sum(1).tolist() == [8, 6, 6] and not belief.valid[1:, :2].any()
    torch.manual_seed(0)
    before = agent.losses(batch)
    batch.reward[1:, :2] = 1e6
    torch.manual_seed(0)
    after = agent.losses(batch)
    assert torch.equal(after.total, before.total) and torch.equal(after.error, before.error)
    batch.reward[0, 1] = 1e6
    assert not torch.equal(agent.losses(batch).total, before.total)


def test_without_a_whole_stack_there_is_nothing_to_learn_from() -> None:
    agent = small_agent("gaussian")
    with pytest.raises(ValueError, match=r"data\.length"):
        agent.losses(random_batch(B=2, T=2, first=None))


def test_a_smoother_is_unrolled_from_what_its_filter_knows() -> None:
    agent, batch = small_agent("smoothing", policy=False, unroll=2), random_batch(B=4, T=5)
    torch.manual_seed(0)
    told = agent.losses(batch).metrics["loss/consistency"]
    torch.manual_seed(0)
    belief = agent.observe(batch)
    assert not agent.dynamics.starts(belief).requires_grad
    expected = [
        latent_consistency(unroll(agent.dynamics, start, batch.action, steps=2), belief.latent).mean()
        for start in (belief.statistics["filter_mean"], belief.latent)
    ]
    torch.testing.assert_close(told, expected[0].detach())
    assert (expected[0] - expected[1]).abs() > 1e-3


def test_open_loop_sees_the_context_only() -> None:
    agent, batch = small_agent(), random_batch(B=2, T=8)
    before = open_loop(agent, batch, context=3)
    changed = batch.pixels.clone()
    changed[:, 3:] = 0
    after = open_loop(agent, replace(batch, observation={"pixels": changed}), context=3)
    torch.testing.assert_close(before.observation["pixels"], after.observation["pixels"])
    assert before.observation["pixels"].min() >= 0 and before.observation["pixels"].max() <= 1
    with pytest.raises(ValueError, match="context"):
        open_loop(agent, batch, context=8)


def test_an_impossible_way_of_acting_is_refused() -> None:
    with pytest.raises(ValueError, match="act_with"):
        small_agent(act_with="oracle")


@pytest.mark.parametrize("name", DYNAMICS)
def test_every_model_learns_where_episodes_end(name: str) -> None:
    torch.manual_seed(0)
    head = ContinuationHead(latent_dim=small_agent(name).dynamics.latent_dim, hidden=8)
    agent, batch = small_agent(name, continuation=head), random_batch(B=4, T=5)
    assert agent.simulator().terminates and not small_agent(name).simulator().terminates
    ends = torch.zeros(4, 5, dtype=torch.bool)
    ends[:2, -1] = True
    batch = replace(batch, is_last=ends, is_terminal=ends)
    first = agent.losses(batch)
    first.total.backward()
    assert first.metrics["loss/continuation"] > 0 and head.net[-1].weight.grad.abs().sum() > 0
    assert {id(weight) for weight in head.parameters()} <= {id(w) for w in agent.parameter_groups()["model"]}
