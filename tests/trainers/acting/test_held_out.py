import numpy as np
import torch

from datamodules.trajectory import Trajectory
from tests.conftest import PIXELS, A, small_agent
from trainers.acting.held_out import CONTEXT, STEPS, HeldOut
from trainers.acting.pictures import write_open_loop
from worldmodel.spec import EnvSpec


def episode(rows, seed=0, *, still=False):
    """Frame t is brighter than frame t - 1 by one, so that how far a copy is off is known."""
    rng = np.random.default_rng(seed)
    levels = np.zeros(rows) if still else np.arange(rows)
    pixels = np.broadcast_to(levels[:, None, None, None], (rows, *PIXELS)).astype(np.uint8)
    action = rng.uniform(-1, 1, (rows, A)).astype(np.float32)
    action[0] = 0
    reward = np.zeros(rows, np.float32) if still else rng.normal(size=rows).astype(np.float32)
    return Trajectory({"pixels": pixels}, action, reward, False, np.ones(rows, np.int32))


def test_windows_are_cut_evenly_and_know_where_episodes_begin():
    held_out = HeldOut([episode(40, 0), episode(30, 1)])
    batch, length = held_out.batch, CONTEXT + max(STEPS)
    assert batch.reward.shape == (16 + 11, length) and held_out.steps == list(STEPS)
    starts = batch.pixels[:, 0, 0, 0, 0].tolist()
    assert starts[0] == 0 and max(starts) == 40 - length
    assert batch.is_first[:, 0].tolist() == [start == 0 for start in starts]
    assert not batch.is_first[:, 1:].any()
    assert batch.is_last.sum() == batch.is_last[:, -1].sum() == 2  # of both episodes
    # rows follow one another, and the actions are those of the same rows
    assert (batch.pixels[:, 1:, 0, 0, 0].int() - batch.pixels[:, :-1, 0, 0, 0].int() == 1).all()
    assert torch.equal(batch.action[0], torch.from_numpy(episode(40, 0).action[:length]))


def test_short_episodes_shorten_what_is_measured():
    held_out = HeldOut([episode(4), episode(11)])
    assert held_out.steps == [1, 5] and set(held_out.batch.pixels[:, 0, 0, 0, 0].tolist()) == {0}


def test_a_copied_frame_is_as_wrong_as_the_distance_it_missed():
    agent = small_agent().eval()
    agent.norm.parts[0].std.fill_(0.1)
    error = HeldOut([episode(60)]).measure(agent)
    for step in STEPS:
        assert np.isclose(error[f"held_out/still_{step}"], (step / 255 / 0.1) ** 2, rtol=1e-4)


def test_errors_fall_when_the_decoder_is_right():
    """A decoder that outputs the mean frame of a still scene is right everywhere."""
    agent = small_agent().eval()
    agent.norm.fit({"pixels": torch.zeros(4, *PIXELS, dtype=torch.uint8)})
    with torch.no_grad():
        for weight in agent.decoder.parameters():
            weight.zero_()
    held_out = HeldOut([episode(30, still=True)])
    error = held_out.measure(agent)
    assert error["held_out/image"] == error["held_out/image_15"] == error["held_out/still_15"] == 0
    # nothing varies: there is no share to state
    assert not [name for name in error if "reward" in name]
    with torch.no_grad():
        list(agent.decoder.parameters())[-1].fill_(1.0)
    assert held_out.measure(agent)["held_out/image"] == 1.0


def test_a_measurement_repeats():
    agent, held_out = small_agent().eval(), HeldOut([episode(40)])
    assert held_out.measure(agent) == held_out.measure(agent)
    assert held_out.picture(3).reward.shape == (3, CONTEXT + max(STEPS))


def test_rows_whose_latents_lack_frames_do_not_count():
    """Windows from the midst of an episode show three frames from their third row on."""
    held_out, agent = HeldOut([episode(60)]), small_agent("deterministic").eval()
    torch.nn.init.normal_(agent.reward.net[-1].weight, std=0.3)
    belief, real = agent.observe(held_out.batch, sample=False), agent.norm(held_out.batch.observation)["pixels"]
    counted = torch.ones_like(held_out.batch.is_first)
    counted[1:, :2] = False
    seen = agent.decoder(belief.latent[counted])["pixels"]
    error, reward, arrived = held_out.measure(agent), held_out.batch.reward, ~held_out.batch.is_first
    assert np.isclose(error["held_out/image"], (seen - real[counted]).square().mean().item(), rtol=1e-5)
    missed = (agent.reward(belief.latent) - reward)[counted & arrived].square().mean() / reward[arrived].var()
    assert np.isclose(error["held_out/reward"], missed.item(), rtol=1e-5)


def test_without_a_decoder_rewards_alone_are_measured(tmp_path):
    agent, held_out = small_agent(objective="info_nce").eval(), HeldOut([episode(40)])
    error = held_out.measure(agent)
    spec = EnvSpec("x", {"pixels": PIXELS}, action_dim=A, action_repeat=1, episode_steps=40)
    assert error.keys() == {"held_out/reward", *(f"held_out/reward_{step}" for step in STEPS)}
    assert write_open_loop(tmp_path, agent, held_out.picture(2), spec, context=3, name="x") == []
