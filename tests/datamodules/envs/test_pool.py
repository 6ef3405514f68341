"""A pool serves what its environments show, answers to the right calls, and refuses what is its caller's mistake."""

import os
import signal
import time

import numpy as np
import pytest

from datamodules.envs import counting, toy
from datamodules.envs.errors import BadAction, BadOption, EnvError, NotReset, UnknownSource, UnknownTask
from datamodules.envs.pool import EnvPool, Patience
from tests.datamodules.envs.pools import ACTION, alive, counters


def test_pool_equals_in_process_bit_for_bit():
    env = toy.make(size=32)
    with EnvPool(source="toy", kwargs={"size": 32}, count=2) as pool:
        assert pool.spec == env.spec
        theirs = [pool.reset({0: 1, 1: 2}), *(pool.step({0: ACTION, 1: -ACTION}) for _ in range(20))]
        np.testing.assert_array_equal(pool.render(1, 100)[0, 0], [0, 0, 40])
    for index, (seed, action) in enumerate([(1, ACTION), (2, -ACTION)]):
        ours = [env.reset(seed), *(env.step(action) for _ in range(20))]
        for mine, their in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine.pixels, their[index].pixels)
            assert mine.reward == their[index].reward and mine.is_first == their[index].is_first


def test_rows_stay_as_they_were_returned():
    with counters() as pool:
        rows = [pool.reset({0: 0})[0], *(pool.step({0: ACTION})[0] for _ in range(8))]
    assert [counting.decode(row.pixels)[0] for row in rows] == list(range(9))


@pytest.mark.parametrize(
    ("source", "kwargs", "error", "text"),
    [
        ("os.path", {}, UnknownSource, "os.path"),
        ("toy", {"colour": 1}, BadOption, "colour"),
        ("toy", {"size": 1}, BadOption, "size"),
        ("counting", {"blank": True}, EnvError, "one constant colour"),
    ],
)
def test_errors_of_construction_keep_their_type(source, kwargs, error, text):
    with pytest.raises(error, match=text):
        EnvPool(source=source, kwargs=kwargs, count=2)


def test_an_option_that_a_worker_refuses_is_known_by_its_name():
    with pytest.raises(BadOption) as caught:
        EnvPool(source="toy", kwargs={"size": 1}, count=1)
    said = "expected a whole number of at least 16 and at most 64, got 1"
    assert (caught.value.key, caught.value.said) == ("size", said)
    assert str(caught.value) == "size: expected a whole number of at least 16 and at most 64, got 1"
    with pytest.raises(UnknownTask) as unknown:
        EnvPool(source="gym", kwargs={"task": "no.such:env"}, count=1)
    assert unknown.value.key == "task" and str(unknown.value).startswith("task: expected an importable module")


def test_values_that_are_no_json_are_refused_without_leaving_a_process():
    with pytest.raises(TypeError):
        EnvPool(source="toy", kwargs={"size": object()}, count=1)


def test_the_callers_mistakes_are_not_faults():
    with counters() as pool:
        with pytest.raises(NotReset):
            pool.step({0: ACTION})
        pool.reset({0: 0})
        with pytest.raises(BadAction):
            pool.step({0: np.array([np.nan, 0])})
        with pytest.raises(BadAction):
            pool.step({0: np.zeros(3)})
        with pytest.raises(BadOption):
            pool.render(0, 10_000)
        assert counting.decode(pool.step({0: ACTION})[0].pixels) == (1, 0)
        rows = [pool.step({0: ACTION})[0] for _ in range(7)]
        assert rows[-1].is_last
        with pytest.raises(NotReset):
            pool.step({0: ACTION})


def test_an_interrupted_call_does_not_shift_the_answers(monkeypatch):
    with counters() as pool:
        pool.reset({0: 0})
        worker = pool._envs[0].worker
        monkeypatch.setattr(worker, "take", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pool.step({0: ACTION})
        monkeypatch.undo()
        row = pool.step({0: ACTION})[0]
        assert (counting.decode(row.pixels), row.reward) == ((2, 0), 200.5)


def test_close_ends_every_worker_even_a_stopped_one_and_leaves_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    pool = counters(2)
    pids = pool.pids
    os.kill(pids[0], signal.SIGSTOP)
    pool.close()
    pool.close()
    assert not any(alive(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_is_waited_for_where_nobody_is_asked_to_reset():
    with counters(2) as pool:
        pool.reset({0: 0, 1: 1})
        os.kill(pool.pids[0], signal.SIGSTOP)
        assert pool.step({0: ACTION, 1: ACTION}).keys() == {1}
        pool._patience["reset"] = Patience(least=60.0, most=60.0)
        begin = time.monotonic()
        assert pool.reset({}) == {} and time.monotonic() - begin < 30
