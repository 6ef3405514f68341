import os
import signal
import threading
import time
from functools import partial

import pytest
import torch

from datamodules.envs.pool import EnvPool
from datamodules.envs.seeds import episode_seed
from datamodules.replay import Replay
from tests.conftest import small_agent
from trainers.acting.collect import Collector
from trainers.acting.collect_async import AsyncCollector
from trainers.acting.exploration import Exploration
from trainers.process.clock import Clock
from trainers.process.interrupt import Interrupt
from trainers.run_folder.checkpoint import load_checkpoint, newest

NOISE = Exploration(std=0.3, decisions=6)


@pytest.fixture(scope="module")
def pool():
    with EnvPool(source="toy", kwargs={"size": 16, "episode_steps": 6}, count=2) as pool:
        yield pool


def collector(pool, folder=None, kind=AsyncCollector, **options):
    replay = Replay(spec=pool.spec, capacity=400, streams=2, folder=folder)
    return kind(pool, replay, envs=2, seed=3, rank=0, clock=Clock(), exploration=NOISE, **options), replay


class Gated:
    """An agent that decides only as often as it is allowed to."""

    def __init__(self, decisions, error=None):
        self.agent, self.left, self.error = small_agent(), threading.Semaphore(decisions), error
        self.waiting = threading.Event()

    def __getattr__(self, name):
        return getattr(self.agent, name)

    def initial_carry(self, batch):
        return self.agent.initial_carry(batch)

    def __deepcopy__(self, memo):
        return self

    def eval(self):
        return self

    def requires_grad_(self, wanted):
        return self

    def act(self, *args, **kwargs):
        if not self.left.acquire(blocking=False):
            if self.error is not None:
                raise self.error
            self.waiting.set()
            self.left.acquire(timeout=60)
        return self.agent.act(*args, **kwargs)


def holds(condition):
    """Whether something becomes true in a time that is always enough."""
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def when(condition, act):
    """Act in a thread once something holds."""
    threading.Thread(target=lambda: holds(condition) and act(), daemon=True).start()


def counted(collect, replay):
    """The counters, which must be what is stored."""
    counters = collect.counters
    assert (replay.env_steps, replay.episodes) == (counters["env_steps"], counters["episodes"])
    return counters["decisions"]


def test_rounds_are_those_of_synchronous_collection_with_the_same_weights(pool):
    agent = small_agent()
    rows = []
    for kind in (Collector, AsyncCollector):
        collect, _ = collector(pool, kind=kind)
        collect.seed_episodes(1)
        for _ in range(3):
            episodes, policy = collect.collect(agent)
            collect.start_next_round(agent)
        collect.stop_round()
        collect.close()
        rows.append([(e.seed, e.rewards) for e in episodes])
        assert len(policy.predicted) == 6
    assert rows[0] == rows[1]


def test_at_most_one_round_is_played_ahead(pool):
    collect, replay = collector(pool)
    agent = small_agent()
    collect.collect(agent)
    collect.start_next_round(agent)
    assert holds(lambda: collect._under_way.done()) and replay.env_steps == 24
    time.sleep(0.2)
    assert collect.decisions == 12 and replay.env_steps == 24
    collect.collect(agent)
    assert counted(collect, replay) == 24
    collect.close()


def test_a_round_is_played_with_the_weights_that_were_published(pool):
    collect, _ = collector(pool)
    agent = small_agent()
    collect.start_next_round(agent)
    with torch.no_grad():
        for weight in agent.parameters():
            weight.fill_(torch.nan)
    episodes, policy = collect.collect(agent)
    assert all(e.fault is None for e in episodes)
    assert all(weight.isfinite().all() for weight in policy._agent.parameters())
    collect.close()


def test_rows_arrive_while_the_round_is_under_way_and_a_checkpoint_counts_them(pool, tmp_path):
    collect, replay = collector(pool, tmp_path)
    agent = Gated(9)
    collect.collect(agent)
    agent.waiting.clear()
    collect.start_next_round(agent)
    assert agent.waiting.wait(60)
    with replay.lock:
        state, counters, stored = collect.state_dict(), collect.counters, replay.state_dict()
    assert counters["decisions"] == 12 and replay.env_steps == 12 + 2 * 3
    agent.left.release(100)
    collect.collect(agent)
    assert counted(collect, replay) == 24
    collect.close()
    replay.close()
    again, resumed = collector(pool, tmp_path)
    again.counters = counters
    resumed.load_state_dict(stored)
    again.load_state_dict(state)
    # three decisions of each episode under way, which are closed now
    assert counted(again, resumed) == 18 and not resumed.is_open(0) and not resumed.is_open(1)
    assert again._next_episode == [2, 2]
    again.collect(small_agent())
    assert counted(again, resumed) == 30
    again.close()
    resumed.close()


def test_halting_keeps_and_counts_what_was_played(pool):
    collect, replay = collector(pool)
    agent = Gated(4)
    collect.start_next_round(agent)
    assert agent.waiting.wait(60)
    when(collect._stop.is_set, agent.left.release)
    collect.stop_round()
    assert counted(collect, replay) in (8, 10)
    collect.stop_round()
    agent.left.release(100)
    collect.collect(agent)
    assert counted(collect, replay) in (20, 22)
    collect.close()


def test_a_signal_breaks_off_the_round_that_is_waited_for(pool):
    interrupt, agent = Interrupt(), Gated(4)
    collect, replay = collector(pool, should_stop=interrupt.is_set)
    with interrupt:
        collect.start_next_round(agent)
        assert agent.waiting.wait(60)
        # one decision is under way, and no other is allowed: the whole round would wait for 60 s at each
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        when(collect._stop.is_set, agent.left.release)
        begin = time.monotonic()
        episodes, _ = collect.collect(agent)
        assert time.monotonic() - begin < 50 and episodes == []
        collect.start_next_round(agent)
    assert counted(collect, replay) in (8, 10) and collect._next_episode == [1, 1]
    assert not replay.is_open(0) and not replay.is_open(1)
    collect.close()


def test_a_signal_breaks_off_the_wait_for_a_late_environment():
    interrupt = Interrupt()
    options = {"fault": "hang", "fault_at": 2, "fault_seed": episode_seed(3, 0, 0, 0), "size": 16, "episode_steps": 6}
    with EnvPool(source="counting", kwargs=options, count=2, step_timeout_s=120) as pool, interrupt:
        collect, replay = collector(pool, should_stop=interrupt.is_set)
        when(lambda: replay.env_steps == 1 + 6, partial(os.kill, os.getpid(), signal.SIGTERM))
        begin = time.monotonic()
        assert collect.collect(small_agent())[0] == [] and interrupt.is_set()
        assert time.monotonic() - begin < 100
        assert counted(collect, replay) == 1 + 6
        collect.close()


def test_an_error_of_the_thread_is_raised_where_its_round_is_asked_for(pool):
    collect, _ = collector(pool)
    agent = Gated(2, error=ArithmeticError("on purpose"))
    collect.start_next_round(agent)
    with pytest.raises(ArithmeticError, match="on purpose") as caught:
        collect.collect(agent)
    assert "act" in [entry.name for entry in caught.traceback]
    collect.close()


def stored_env_steps(folder):
    """Of the newest checkpoint: what is counted, and what each rank's replay has and was not counted yet."""
    state = load_checkpoint(newest(folder / "checkpoints"))["callbacks"]["loop"]
    stored = sum(s["env_steps"] for rank in state["ranks"] for s in rank["replay"]["streams"])
    fresh = sum(rank["collector"]["fresh"]["env_steps"] for rank in state["ranks"])
    return state["counters"]["env_steps"], fresh, stored


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_stops_at_a_signal_and_resumes(runs, toy, tmp_path, gone, ranks):
    folder = tmp_path / "run"
    ddp = ("trainer.devices=2", "trainer.strategy=ddp") if ranks == 2 else ()
    start = runs.fit if ranks == 1 else partial(runs.cli, "trainers.fit")
    run = start(*toy, *ddp, "data.collection=asynchronous", f"run_dir={folder}", OMP_NUM_THREADS="1")
    run.wait_for_rows(folder, 2)
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait() in (0, 143), run.err.read_text()
    assert gone(run.pid)
    counted, fresh, stored = stored_env_steps(folder)
    assert counted + fresh == stored and fresh == 0
    again = start(f"resume={folder}", OMP_NUM_THREADS="1")
    assert again.wait() == 0, again.err.read_text()
    results = again.results()
    counted, fresh, stored = stored_env_steps(folder)
    assert results["env_steps"] == counted == stored >= 120 and fresh == 0
    # as many updates as are due, to the last: 0.2 for each decision
    assert results["updates"] == int(0.2 * results["decisions"] + 1e-6) and results["status"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGKILL])
def test_a_killed_run_resumes_with_the_rows_of_its_checkpoint(runs, toy, tmp_path, number):
    folder = tmp_path / "run"
    run = runs.fit(*toy, "data.collection=asynchronous", f"run_dir={folder}")
    run.wait_for_rows(folder, 4)
    os.kill(run.pid, number)
    run.wait()
    counted, fresh, stored = stored_env_steps(folder)
    assert counted + fresh == stored
    again = runs.fit(f"resume={folder}")
    assert again.wait() == 0, again.err.read_text()
    counted, fresh, stored = stored_env_steps(folder)
    assert again.results()["env_steps"] == counted == stored and fresh == 0
    assert again.results()["updates"] == int(0.2 * again.results()["decisions"] + 1e-6)
