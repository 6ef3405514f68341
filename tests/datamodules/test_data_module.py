"""Batches prepared ahead are the batches of the source alone, whatever happens in between."""

import threading

import numpy as np
import pytest
import torch

from datamodules.data_module import WindowDataModule
from datamodules.envs.protocol import Step
from datamodules.replay import Replay
from datamodules.samplers.prioritised import Prioritised
from datamodules.samplers.recent import Recent
from datamodules.samplers.uniform import Uniform
from datamodules.windows import ReplayEmpty
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

SPEC = EnvSpec(task="count", images={"pixels": (1, 8, 8)}, action_dim=1, action_repeat=1, episode_steps=20)
SAMPLERS = (Uniform, Recent, Prioritised)


def play(replay: Replay, rows: int) -> None:
    for t in range(rows):
        mark = replay._streams[0].written
        step = Step(
            {"pixels": np.full(SPEC.pixels, mark % 251, np.uint8)}, float(mark), t == 0, t == rows - 1, False, 1
        )
        replay.append(0, step, np.zeros(1, np.float32))


def error(batch: Batch) -> torch.Tensor:
    return batch.reward[:, 0] ** 3


def run(sampler, *, prefetch: bool, stops: tuple[int, ...] = (), folder=None) -> list[Batch]:
    """Four rounds of five updates; at `stops` the run is saved with a batch prepared, and continued from the state."""
    make = lambda seed: Replay(spec=SPEC, capacity=60, folder=folder, sampler=sampler(seed=seed))  # noqa: E731
    replay, batches = make(1), []
    data = WindowDataModule(replay, batch=4, length=3, prefetch=prefetch)
    windows = iter(data.train_dataloader())
    for update in range(20):
        if update % 5 == 0:
            play(replay, 17)
        batch = next(windows)
        if update % 5 < 4:
            data.prepare()
        batches.append(batch)
        data.feedback(batch, error(batch))
        if update in stops:
            data.put_back()
            state = replay.state_dict()
            data.teardown("fit"), replay.close()
            replay = make(99)
            replay.load_state_dict(state)
            data = WindowDataModule(replay, batch=4, length=3, prefetch=prefetch)
            windows = iter(data.train_dataloader())
    data.teardown("fit"), replay.close()
    return batches


def same(first: list[Batch], second: list[Batch]) -> bool:
    keys = ("pixels", "reward", "windows")
    pairs = zip(first, second, strict=True)
    return all(torch.equal(getattr(a, key), getattr(b, key)) for a, b in pairs for key in keys)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_batches_with_and_without(sampler):
    assert same(run(sampler, prefetch=True), run(sampler, prefetch=False))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_batches_after_a_stop(tmp_path, sampler):
    expected = run(sampler, prefetch=False)
    assert same(run(sampler, prefetch=True, stops=(2, 9, 13), folder=tmp_path / "a"), expected)
    assert same(run(sampler, prefetch=False, stops=(1, 8), folder=tmp_path / "b"), expected)


def test_it_is_prepared_by_another_thread():
    seen = []

    class Watched(Uniform):
        def draw(self, *args):
            seen.append(threading.current_thread().name)
            return super().draw(*args)

    run(Watched, prefetch=True)
    assert len(seen) == 20 and sum(name.startswith("feed") for name in seen) == 16
    seen.clear()
    run(Watched, prefetch=False)
    assert set(seen) == {threading.main_thread().name}


def test_poison_reaches_no_other_batch():
    """Whatever is done to a batch or to the rows behind it, the batches before and after it are whole."""
    replay = Replay(spec=SPEC, capacity=60)
    data = WindowDataModule(replay, batch=8, length=3, prefetch=True)
    windows, kept = iter(data.train_dataloader()), []
    for _ in range(30):
        play(replay, 17)
        batch = next(windows)
        data.prepare()
        kept.append((batch, batch.pixels.clone()))
        following = next(windows)
        assert (following.pixels == (following.reward % 251)[..., None, None, None]).all()
        following.pixels.fill_(255), following.reward.fill_(-1)
    for values in (replay._streams[0].frames._ring, *replay._table.values()):
        values[:] = 1
    assert all(torch.equal(batch.pixels, pixels) for batch, pixels in kept)
    assert all((pixels == (batch.reward % 251)[..., None, None, None]).all() for batch, pixels in kept)
    data.teardown("fit")


def test_what_the_thread_raises_is_raised_where_the_batch_is_taken():
    replay = Replay(spec=SPEC, capacity=60)
    data = WindowDataModule(replay, batch=8, length=3, prefetch=True)
    data.prepare()
    with pytest.raises(ReplayEmpty):
        data.next_batch()
    data.prepare()
    data.put_back()
    play(replay, 5)
    assert data.next_batch().reward.shape == (8, 3)
    data.teardown("fit")
    assert not any(thread.name.startswith("feed") for thread in threading.enumerate())
