from dataclasses import replace

import numpy as np
import pytest

from datamodules.envs.protocol import Fault, Step
from datamodules.observation import empty
from datamodules.rollout import SmoothRandom, play
from worldmodel.spec import EnvSpec

A = 2
SPEC = EnvSpec("count", images={"pixels": (1, 2, 2)}, action_dim=A, action_repeat=3, episode_steps=12)


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


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
        pixels = np.full(SPEC.pixels, (10 * index + time) % 256, np.uint8)
        return Step({"pixels": pixels}, float(time > 0), time == 0, time == self.lengths[index], False, 3 * (time > 0))

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

    def __call__(self, observation, is_first, ready):
        pixels = observation["pixels"]
        self.seen.append((pixels[:, 0, 0, 0].tolist(), is_first.tolist()))
        return np.repeat(pixels[:, 0, 0, :1].astype(np.float32) / 100, A, axis=1)


@pytest.mark.parametrize("ends", [True, False])
def test_an_episode_knows_how_it_ended(ends):
    class Ending(CountingPool):
        def _row(self, index):
            row = super()._row(index)
            return replace(row, is_terminal=ends and row.is_last)

    (episode,) = play(Ending([3]), Echo(), {0: 7})
    assert episode.terminal is ends and episode.decisions == 3


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
    policy = SmoothRandom(SPEC, rngs=rngs(500), smoothing=0.6, std=0.3)
    seen, first = empty(SPEC, 500), np.ones(500, bool)
    drawn = [policy(seen, first, first)] + [policy(seen, ~first, first) for _ in range(60)]
    actions = np.stack(drawn)
    assert actions.dtype == np.float32 and actions.shape == (61, 500, A) and np.abs(actions).max() <= 1
    # stationary from the first decision, and as smooth as asked
    assert actions[0].std() == pytest.approx(0.3, rel=0.1) and actions[-1].std() == pytest.approx(0.3, rel=0.1)
    pairs = np.corrcoef(actions[20:-1].ravel(), actions[21:].ravel())[0, 1]
    assert pairs == pytest.approx(0.6, abs=0.02)
    assert abs(np.corrcoef(actions[:, :, 0].ravel(), actions[:, :, 1].ravel())[0, 1]) < 0.03


def test_the_base_policy_forgets_at_an_opening():
    policy = SmoothRandom(SPEC, rngs=rngs(2), smoothing=0.99, std=0.5)
    seen, both = empty(SPEC, 2), np.ones(2, bool)
    before = policy(seen, both, both)
    after = policy(seen, np.array([True, False]), both)
    assert np.abs(after[1] - before[1]).max() < 0.3
    assert not np.allclose(after[0], before[0], atol=0.05)


def test_the_base_policy_repeats_for_a_seed():
    seen, first = empty(SPEC, 3), np.ones(3, bool)
    draw = lambda seed: SmoothRandom(SPEC, rngs=rngs(3, seed))(seen, first, first)  # noqa: E731
    np.testing.assert_array_equal(draw(4), draw(4))
    assert not np.array_equal(draw(4), draw(5))


class LatePool(CountingPool):
    """Hands out each answer after a random number of calls."""

    def __init__(self, lengths, dice, faults=None):
        super().__init__(lengths, faults)
        self.dice, self.kept = dice, {}

    def _some(self, rows):
        self.kept |= rows
        gone = [index for index in self.kept if self.dice.random() < 0.4]
        return {index: self.kept.pop(index) for index in gone}

    def reset(self, seeds):
        return self._some(super().reset(seeds))

    def step(self, actions):
        assert not self.kept.keys() & actions.keys(), "asked again before it answered"
        return self._some(super().step(actions))


def stored(pool, faults=()):
    """Every row with its action, by environment."""
    rows = {index: [] for index in range(len(pool.lengths))}
    policy = SmoothRandom(SPEC, rngs=rngs(len(rows)))
    seeds = dict.fromkeys(rows, 1)
    played = play(pool, policy, seeds, on_row=lambda i, step, a: rows[i].append((int(step.pixels[0, 0, 0]), *a)))
    return rows, [(e.index, e.decisions, e.total_return, e.fault) for e in played]


@pytest.mark.parametrize("seed", range(5))
def test_when_answers_come_changes_no_row(seed):
    lengths, faults = [3, 9, 1, 6], {3: 4}
    prompt, late = CountingPool(lengths, faults), LatePool(lengths, np.random.default_rng(seed), faults)
    assert stored(prompt) == stored(late)


class Fixed:
    """Good actions until call `at`, then `wrong` for environment 0, or for all where it has another shape."""

    def __init__(self, wrong, at=2):
        self.wrong, self.at, self.calls = np.asarray(wrong), at, 0

    def __call__(self, observation, is_first, ready):
        self.calls += 1
        actions = np.full((len(is_first), A), 0.5, np.float32)
        if self.calls - 1 == self.at:
            if self.wrong.ndim > 1:
                return self.wrong
            actions[0] = self.wrong
        return actions


@pytest.mark.parametrize(
    ("wrong", "both"),
    [
        ([np.nan, 0], False),
        ([0, np.inf], False),
        ([-np.inf, 0], False),
        ([1.1, 0], False),
        ([0, -3e38], False),
        (np.zeros((2, A + 1)), True),
        (np.zeros((1, A)), True),
    ],
)
def test_a_wrong_action_ends_an_episode_and_reaches_nobody(wrong, both):
    pool, rows = CountingPool([5, 5]), []
    first, second = play(pool, Fixed(wrong), {0: 1, 1: 2}, on_row=lambda i, step, action: rows.append(i))
    assert first.fault.kind == "action" and first.decisions == 2 and len(first.calls) == 3
    assert (second.fault is not None) == both and second.decisions == (2 if both else 5)
    sent = [action for step in pool.steps for action in step.values()]
    assert sent and all((np.abs(action) <= 1).all() for action in sent)
    assert rows.count(0) == 3


def test_rounding_beyond_the_bounds_is_clipped_where_it_is_stored_too():
    pool, rows = CountingPool([2]), []
    wrong = np.nextafter(np.float32([1, -1]), np.float32([2, -2]))
    (episode,) = play(pool, Fixed(wrong, at=0), {0: 1}, on_row=lambda i, step, action: rows.append(action.copy()))
    assert episode.fault is None and rows[1].tolist() == [1, -1] == pool.steps[0][0].tolist()


ADVERSE = {
    "reward": [float("nan"), float("inf"), -float("inf"), 1e30, -1e7],
    "observation": [
        {"pixels": np.full(SPEC.pixels, np.nan)},
        {"pixels": np.zeros(SPEC.pixels, np.float32)},
        {"pixels": np.zeros((2, 2), np.uint8)},
        {"pixels": np.zeros(SPEC.pixels, np.int16)},
        {"image": np.zeros(SPEC.pixels, np.uint8)},
        {"pixels": np.zeros(SPEC.pixels, np.uint8), "more": np.zeros(1, np.float32)},
        {},
    ],
    "is_first": [True],
    "is_terminal": [True],
    "env_steps": [-1, 10**9],
}


class AdversePool(CountingPool):
    """Spoils every third row in one of its fields."""

    def __init__(self, lengths, dice):
        super().__init__(lengths)
        self.dice, self.spoilt = dice, 0

    def _row(self, index):
        row = super()._row(index)
        if self.time[index] and not row.is_last and self.dice.random() < 0.3:
            name = self.dice.choice(list(ADVERSE))
            setattr(row, name, ADVERSE[name][self.dice.integers(len(ADVERSE[name]))])
            self.spoilt += 1
        return row


def test_no_adverse_row_of_a_hundred_thousand_passes():
    dice = np.random.default_rng(0)
    pool, seen, faults = AdversePool([9] * 50, dice), 0, []

    def check(index, step, action):
        nonlocal seen
        seen += 1
        assert np.isfinite(step.reward) and abs(step.reward) <= 1e6 and np.isfinite(action).all()
        assert step.pixels.dtype == np.uint8 and step.pixels.shape == SPEC.pixels
        assert 0 <= step.env_steps <= 12 and not (step.is_terminal and not step.is_last)

    policy = SmoothRandom(SPEC, rngs=rngs(50))
    while seen + len(faults) < 100_000:
        play(pool, policy, dict.fromkeys(range(50), 1), on_row=check, on_fault=faults.append)
    assert len(faults) == pool.spoilt > 10_000
    assert {fault.kind for fault in faults} == {"observation", "reward"}


def test_others_play_on_while_one_holds_them_up():
    class Stuck(CountingPool):
        """Environment 0 answers its first step when environment 1 has opened three episodes."""

        opened = 0

        def reset(self, seeds):
            self.opened += 1 in seeds
            return super().reset(seeds)

        def step(self, actions):
            rows = super().step(actions)
            if self.opened < 3 or self.time[0] != 1:
                stuck = {0: rows.pop(0)} if 0 in rows and self.time[0] == 1 else {}
                self.stuck = getattr(self, "stuck", {}) | stuck
                return rows
            return rows | self.__dict__.pop("stuck", {})

    pool, given = Stuck([2, 2]), iter(range(100, 200))
    played = play(pool, Echo(), {0: 1, 1: 2}, spare=lambda index: next(given), stall_s=0.0)
    assert [e.decisions for e in played if e.index == 0] == [2]
    others = [e for e in played if e.index == 1]
    assert len(others) >= 3 and all(e.decisions == 2 for e in others)
    assert len({e.seed for e in played}) == len(played)


def test_a_pool_may_change_the_actions_that_it_is_given():
    class Halving(CountingPool):
        def step(self, actions):
            for action in actions.values():
                action *= 0.5
            return super().step(actions)

    stored = []
    play(Halving([3]), Echo(), {0: 7}, on_row=lambda i, step, action: stored.append(action.copy()))
    np.testing.assert_allclose([action[0] for action in stored], [0, 0.0, 0.01, 0.02])
