import numpy as np
import pytest

from datamodules.envs.protocol import Fault, Step
from datamodules.rollout import SmoothRandom, play
from worldmodel.spec import EnvSpec

A = 2
SPEC = EnvSpec("count", pixels=(1, 2, 2), action_dim=A, action_repeat=3, episode_steps=12)


class CountingPool:
    """Worker i plays `lengths[i]` steps of reward 1; frames show worker and time; `faults` {index: step} end it."""

    spec = SPEC

    def __init__(self, lengths, faults=None):
        self.lengths, self.faults = lengths, faults or {}
        self.time, self.steps, self.seeds = dict.fromkeys(range(len(lengths)), 0), [], {}

    def _row(self, index):
        time = self.time[index]
        if self.faults.get(index) == time:
            return Fault(index, "death", "killed")
        pixels = np.full(SPEC.pixels, 10 * index + time, np.uint8)
        return Step(pixels, float(time > 0), time == 0, time == self.lengths[index], False, 3 * (time > 0))

    def reset(self, seeds):
        self.seeds |= seeds
        self.time |= dict.fromkeys(seeds, 0)
        return {index: self._row(index) for index in seeds}

    def step(self, actions):
        self.steps.append({index: action.copy() for index, action in actions.items()})
        for index in actions:
            self.time[index] += 1
        return {index: self._row(index) for index in actions}


class Echo:
    """Acts with what it sees, and remembers it."""

    def __init__(self):
        self.seen = []

    def __call__(self, pixels, is_first):
        self.seen.append((pixels[:, 0, 0, 0].tolist(), is_first.tolist()))
        return np.repeat(pixels[:, 0, 0, :1].astype(np.float32) / 100, A, axis=1)


def test_an_action_is_stored_with_the_row_that_it_led_to():
    rows = []
    pool = CountingPool([3])
    (episode,) = play(pool, Echo(), {0: 7}, on_row=lambda i, step, action: rows.append((step, action.copy())))
    assert [int(step.pixels[0, 0, 0]) for step, _ in rows] == [0, 1, 2, 3]
    np.testing.assert_allclose([action[0] for _, action in rows], [0, 0.0, 0.01, 0.02])
    assert [step.is_first for step, _ in rows] == [True, False, False, False] and rows[-1][0].is_last
    assert (episode.total_return, episode.decisions, episode.env_steps, episode.seed) == (3.0, 3, 9, 7)
    assert episode.rewards == [1.0, 1.0, 1.0] and episode.fault is None


def test_episodes_of_different_lengths_do_not_mix():
    pool, policy, rows = CountingPool([1, 4, 2]), Echo(), []
    played = play(pool, policy, {2: 5, 0: 6, 1: 7}, on_row=lambda i, step, action: rows.append((i, action.copy())))
    assert pool.seeds == {2: 5, 0: 6, 1: 7}
    assert {e.index: e.decisions for e in played} == {2: 2, 0: 1, 1: 4}
    # an environment that has ended is not stepped, and keeps its place in the batch
    assert [sorted(step) for step in pool.steps] == [[0, 1, 2], [1, 2], [1], [1]]
    assert policy.seen[0] == ([20, 0, 10], [True, True, True])
    assert policy.seen[2] == ([22, 1, 12], [False, False, False])
    for index, action in rows:
        assert action[0] == 0 or round(100 * float(action[0])) // 10 == index


@pytest.mark.parametrize("when", [0, 2])
def test_a_fault_ends_its_own_episode_only(when):
    pool, faults, rows = CountingPool([3, 3], faults={1: when}), [], []
    first, second = play(
        pool, Echo(), {0: 1, 1: 2}, on_row=lambda i, step, action: rows.append(i), on_fault=faults.append
    )
    assert [fault.index for fault in faults] == [1] and second.fault is faults[0] and first.fault is None
    assert first.decisions == 3 and second.decisions == max(0, when - 1)
    assert rows.count(0) == 4 and rows.count(1) == when


def test_actions_of_the_base_policy():
    rng = np.random.default_rng(0)
    policy = SmoothRandom(SPEC, count=500, rng=rng, smoothing=0.6, std=0.3)
    pixels, first = np.zeros((500, *SPEC.pixels), np.uint8), np.ones(500, bool)
    drawn = [policy(pixels, first)] + [policy(pixels, ~first) for _ in range(60)]
    actions = np.stack(drawn)
    assert actions.dtype == np.float32 and actions.shape == (61, 500, A) and np.abs(actions).max() <= 1
    # stationary from the first decision, and as smooth as asked
    assert actions[0].std() == pytest.approx(0.3, rel=0.1) and actions[-1].std() == pytest.approx(0.3, rel=0.1)
    pairs = np.corrcoef(actions[20:-1].ravel(), actions[21:].ravel())[0, 1]
    assert pairs == pytest.approx(0.6, abs=0.02)
    assert abs(np.corrcoef(actions[:, :, 0].ravel(), actions[:, :, 1].ravel())[0, 1]) < 0.03


def test_the_base_policy_forgets_at_an_opening():
    policy = SmoothRandom(SPEC, count=2, rng=np.random.default_rng(1), smoothing=0.99, std=0.5)
    pixels = np.zeros((2, *SPEC.pixels), np.uint8)
    before = policy(pixels, np.ones(2, bool))
    after = policy(pixels, np.array([True, False]))
    assert np.abs(after[1] - before[1]).max() < 0.3
    assert not np.allclose(after[0], before[0], atol=0.05)


def test_the_base_policy_repeats_for_a_seed():
    pixels, first = np.zeros((3, *SPEC.pixels), np.uint8), np.ones(3, bool)
    draw = lambda seed: SmoothRandom(SPEC, count=3, rng=np.random.default_rng(seed))(pixels, first)  # noqa: E731
    np.testing.assert_array_equal(draw(4), draw(4))
    assert not np.array_equal(draw(4), draw(5))
