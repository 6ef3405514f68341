import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.deployment.state_estimator import NotFinite, StateEstimator


@pytest.fixture(scope="module", params=["rssm_gaussian", "gaussian"])
def agent(request, tmp_path_factory):
    return read_bundle(tiny_bundle(tmp_path_factory.mktemp("b") / "b", f"dynamics={request.param}")).build()


def rows(t):
    return {"pixels": np.random.default_rng(t).integers(0, 256, (3, 16, 16), np.uint8)}


def action(t):
    return np.random.default_rng(100 + t).uniform(-1, 1, 2).astype(np.float32)


def filtered(agent, times, actions):
    """Latents of a whole window, by the model's own filter; actions[t] led to row t."""
    frames = torch.stack([torch.from_numpy(rows(t)["pixels"]) for t in times])[None]
    with torch.no_grad():
        embed = agent.encoder(agent.norm({"pixels": frames}))
        first = torch.tensor([[True] + [False] * (len(times) - 1)])
        led = torch.stack([torch.from_numpy(a) for a in actions])[None]
        return agent.dynamics.observe(embed, led, first, agent.initial_carry(1).belief, sample=False).latent[0]


def test_without_delay_it_is_the_agent_s_filter(agent):
    estimator, zero = StateEstimator(agent, delay=0), np.zeros(2, np.float32)
    for t in range(4):
        estimator.see(rows(t))
        latent = estimator.ahead()
        estimator.commanded(action(t))
    expected = filtered(agent, range(4), [zero, *(action(t) for t in range(3))])
    np.testing.assert_allclose(latent, expected[-1], atol=1e-5)
    assert estimator.prediction_error > 0


def test_with_delay_rows_were_led_to_by_older_commands_and_plans_start_ahead(agent):
    estimator, zero = StateEstimator(agent, delay=2), np.zeros(2, np.float32)
    for t in range(5):
        estimator.see(rows(t))
        latent = estimator.ahead()
        estimator.commanded(action(t))
    # row 4 was led to by the command of decision 1; those of 2 and 3 are under way
    seen = filtered(agent, range(5), [zero, zero, zero, action(0), action(1)])[-1:]
    with torch.no_grad():
        for t in (2, 3):
            seen = agent.dynamics.predict(seen, torch.from_numpy(action(t))[None])
    np.testing.assert_allclose(latent, seen[0], atol=1e-5)


def test_a_missing_frame_is_predicted(agent):
    estimator = StateEstimator(agent, delay=0)
    with pytest.raises(NotFinite, match="nothing was seen yet"):
        estimator.miss()
    estimator.see(rows(0))
    before = torch.from_numpy(estimator.ahead().copy())[None]
    estimator.commanded(action(0))
    estimator.miss()
    with torch.no_grad():
        expected = agent.dynamics.predict(before, torch.from_numpy(action(0))[None])
    np.testing.assert_allclose(estimator.ahead(), expected[0], atol=1e-6)
    assert np.isnan(estimator.prediction_error)
    estimator.see(rows(2))
    assert np.isnan(estimator.prediction_error)  # of two steps it would be
    estimator.see(rows(3))
    assert estimator.prediction_error > 0


def test_a_latent_that_is_not_finite_is_not_kept(agent):
    estimator = StateEstimator(agent, delay=0)
    estimator.see(rows(0))
    before = estimator.ahead().copy()
    weight = next(agent.encoder.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="not finite"):
        estimator.see(rows(1))
    with torch.no_grad():
        weight.copy_(kept)
    np.testing.assert_array_equal(estimator.ahead(), before)


def test_an_ensemble_says_how_far_its_members_differ(tmp_path, agent):
    several = read_bundle(tiny_bundle(tmp_path / "b", "dynamics=ensemble")).build()
    estimator = StateEstimator(several, delay=0)
    estimator.see(rows(0))
    assert np.isnan(estimator.disagreement)
    before = torch.from_numpy(estimator.ahead().copy())[None]
    estimator.commanded(action(0))
    estimator.see(rows(1))
    with torch.no_grad():
        members, _ = several.dynamics.of_all(before, torch.from_numpy(action(0))[None])
    differing = members[:, 0, -several.dynamics.noisy_dims :].numpy()
    assert len(differing) > 1
    expected = np.sqrt(((differing - differing.mean(0)) ** 2).mean())
    assert estimator.disagreement == pytest.approx(expected, rel=1e-4) and expected > 0
    estimator.miss()
    assert np.isnan(estimator.disagreement)
    alone = StateEstimator(agent, delay=0)
    for t in range(2):
        alone.see(rows(t))
    assert np.isnan(alone.disagreement) and alone.prediction_error > 0
