"""Priorities follow the rows through everything that happens to a replay; draws against their closed form."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from datamodules.envs.protocol import Step
from datamodules.replay import Replay, ReplayMismatch
from datamodules.samplers.prioritised import Prioritised
from datamodules.samplers.uniform import Uniform
from datamodules.windows import Content, ReplayEmpty
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="count", images={"pixels": (1, 2, 2)}, action_dim=1, action_repeat=1, episode_steps=20)
ALPHA = 0.4


def play(replay: Replay, stream: int, rows: int, *, last: bool = True) -> None:
    for t in range(rows):
        first = t == 0 and not replay.is_open(stream)
        step = Step({"pixels": np.zeros(SPEC.pixels, np.uint8)}, 0.0, first, last and t == rows - 1, False, 1)
        replay.append(stream, step, np.zeros(1, np.float32))


def windows_of(content: Content, length: int) -> list[tuple[int, int]]:
    return [
        (stream, row)
        for stream, spans in enumerate(content.spans)
        for start, stop in spans.tolist()
        for row in range(start, stop - length + 1)
    ]


@dataclass
class Reference:
    """The rules, one row at a time."""

    priority: dict[tuple[int, int], float] = field(default_factory=dict)
    largest: float = 1.0
    held: list = field(default_factory=list)
    draws: int = 0

    def before_draw(self, content: Content) -> None:
        for _, windows, errors in [h for h in self.held if h[0] < self.draws]:
            for (_, stream, first), error in zip(windows.tolist(), errors.tolist(), strict=True):
                value = max(float(np.float32(abs(error)) ** np.float32(ALPHA)), 1.0)
                self.largest = max(self.largest, value)
                if (stream, first) in self.priority:
                    self.priority[stream, first] = value
        self.held = [h for h in self.held if h[0] >= self.draws]
        rows = windows_of(content, 1)
        self.priority = {row: self.priority.get(row, self.largest) for row in rows}
        self.draws += 1


def weights(sampler: Prioritised, content: Content, length: int) -> dict[tuple[int, int], float]:
    """The weight of every window in the tree, which must hold nothing else."""
    expected = windows_of(content, length)
    leaves = [stream * content.ring + row % content.ring for stream, row in expected]
    found = sampler._tree.weights(np.array(leaves, np.int64))
    assert sampler._tree.total == pytest.approx(found.sum())
    return dict(zip(expected, found.tolist(), strict=True))


def disturb(replay: Replay, rng: np.random.Generator) -> None:
    """Anything that changes the rows."""
    stream, what = int(rng.integers(2)), rng.random()
    if what < 0.75:
        play(replay, stream, int(rng.integers(1, 15)), last=bool(rng.integers(2)))
    elif what < 0.9:
        replay.truncate(stream)
    else:
        replay.discard_open()


@pytest.mark.parametrize("seed", range(4))
def test_priorities_follow_the_rows(seed):
    rng, sampler, reference = np.random.default_rng(seed), Prioritised(alpha=ALPHA, seed=seed), Reference()
    replay = Replay(spec=SPEC, capacity=120, streams=2, sampler=sampler)
    play(replay, 0, 30), play(replay, 1, 8)
    length = 4
    for _ in range(150):
        if rng.random() < 0.6:
            disturb(replay, rng)
        length = int(rng.choice([length, length, length, 1, 6]))
        content = replay._current()
        reference.before_draw(content)
        batch = replay.sample(6, length)
        expected = {window: reference.priority[window] for window in windows_of(content, length)}
        assert weights(sampler, content, length) == pytest.approx(expected)
        assert {tuple(window[1:]) for window in batch.windows.tolist()} <= expected.keys()
        errors = torch.from_numpy(rng.normal(0, 10.0 ** rng.integers(-2, 5), 6).astype(np.float32))
        if rng.random() < 0.7:
            replay.feedback(batch.windows, errors)
            reference.held.append((reference.draws, batch.windows, errors))
    assert replay._streams[0].written > 180 and reference.largest > 1


def test_chances():
    sampler = Prioritised(alpha=ALPHA, seed=0)
    replay = Replay(spec=SPEC, capacity=64, sampler=sampler)
    play(replay, 0, 20), play(replay, 0, 12)
    batch = replay.sample(400, 3)
    first = batch.windows[:, 2]
    replay.feedback(batch.windows, 1000.0 * (first % 3 == 0) + 1e-3)
    replay.sample(1, 3)
    draws = 90_000
    drawn = replay.sample(draws, 3).windows[:, 2].numpy()
    expected = {row: 1000.001**ALPHA if row % 3 == 0 else 1.0 for _, row in windows_of(replay._current(), 3)}
    assert set(first.tolist()) == expected.keys()
    total = sum(expected.values())
    counts = np.bincount(drawn, minlength=32)
    chi_square = sum((counts[row] - draws * p / total) ** 2 / (draws * p / total) for row, p in expected.items())
    assert abs(chi_square - len(expected)) < 4 * np.sqrt(2 * len(expected))


def test_errors_count_from_the_draw_after_next_on():
    sampler = Prioritised(alpha=ALPHA)
    replay = Replay(spec=SPEC, capacity=64, sampler=sampler)
    play(replay, 0, 20)
    batch = replay.sample(1, 3)
    window = tuple(batch.windows[0, 1:].tolist())
    replay.feedback(batch.windows, torch.tensor([1e5]))
    for expected in (1.0, 100.0, 100.0):
        replay.sample(1, 3)
        assert weights(sampler, replay._current(), 3)[window] == pytest.approx(expected)


def learn(replay: Replay, updates: int, *, ahead: bool) -> list[torch.Tensor]:
    """Windows of so many updates; `ahead`: each is drawn before the last one's errors are known."""
    drawn, batch = [], replay.sample(5, 3)
    for k in range(updates):
        more = k + 1 < updates
        following = replay.sample(5, 3) if more and ahead else None
        drawn.append(batch.windows)
        replay.feedback(batch.windows, batch.windows[:, 2].float() ** 5)
        batch = replay.sample(5, 3) if more and not ahead else following
    return drawn


def test_drawing_one_batch_ahead_changes_nothing():
    runs = []
    for ahead in (False, True):
        replay = Replay(spec=SPEC, capacity=40, sampler=Prioritised(seed=3))
        runs.append([])
        for _ in range(5):
            play(replay, 0, 13)
            runs[-1] += learn(replay, 6, ahead=ahead)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("undo", [False, True])
def test_a_restored_state_draws_the_same(tmp_path, undo):
    def make(seed: int) -> Replay:
        return Replay(spec=SPEC, capacity=40, folder=tmp_path, sampler=Prioritised(seed=seed), flush_rows=5)

    def go_on(replay: Replay) -> list[torch.Tensor]:
        drawn = learn(replay, 5, ahead=False)
        play(replay, 0, 11)
        return drawn + learn(replay, 5, ahead=False)

    replay = make(3)
    for _ in range(4):
        play(replay, 0, 13)
        learn(replay, 6, ahead=False)
    if undo:
        cursor = replay._sampler.cursor()
        replay.sample(5, 3)
        replay._sampler.rewind(cursor)
    play(replay, 0, 9)
    state = replay.state_dict()
    expected = go_on(replay)
    replay.close()
    again = make(99)
    again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(go_on(again), expected, strict=True))


def test_what_cannot_rank_is_left_out():
    replay = Replay(spec=SPEC, capacity=40, sampler=Prioritised())
    play(replay, 0, 13)
    batch = replay.sample(3, 3)
    replay.feedback(batch.windows, torch.tensor([np.nan, np.inf, -np.inf]))
    for _ in range(3):
        replay.sample(3, 3)
    assert set(weights(replay._sampler, replay._current(), 3).values()) == {1.0}
    with pytest.raises(ReplayEmpty, match="expected 14 consecutive rows"):
        replay.sample(1, 14)
    with pytest.raises(ValueError, match="alpha"):
        Prioritised(alpha=-0.1)
    with pytest.raises(ReplayMismatch, match=r"data\.sampler: expected uniform"):
        Replay(spec=SPEC, capacity=40, sampler=Uniform()).load_state_dict(replay.state_dict())
