"""Threads of updates by what other programs hold: closed cases, and a real program beside this one."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from trainers.machine.hardware import usable_cores
from trainers.training import threads
from trainers.training.threads import CALM, ThreadsByLoad, busy_times


@pytest.fixture(autouse=True)
def same_threads_after() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def by_load(most: int, cores: int) -> tuple[ThreadsByLoad, list[str]]:
    said: list[str] = []
    return ThreadsByLoad(most, say=said.append, cores=cores), said


@pytest.mark.parametrize(
    ("cores", "others", "left"),
    [(2, 0.0, 2), (2, 0.3, 2), (2, 0.5, 1), (2, 1.0, 1), (2, 2.0, 1), (8, 1.0, 7), (8, 1.5, 6), (8, 20.0, 1)],
)
def test_a_thread_gives_way_for_every_core_that_is_taken(cores: int, others: float, left: int) -> None:
    tuned, said = by_load(cores, cores)
    tuned.decide(others)
    assert tuned.threads == left and len(said) == (left < cores)
    assert left == cores or torch.get_num_threads() == left


def test_threads_that_leave_cores_alone_stay() -> None:
    tuned, _ = by_load(4, 8)
    for _ in range(10):
        tuned.decide(3.0)
    assert tuned.threads == 4


def test_a_core_must_be_free_for_some_time_and_for_longer_where_it_was_too_early() -> None:
    tuned, said = by_load(2, 2)
    waits = []
    for _ in range(3):
        tuned.decide(1.0)
        waits.append(0)
        while tuned.threads == 1:
            tuned.decide(0.05)
            waits[-1] += 1
    assert waits == [2 * CALM, 4 * CALM, 8 * CALM] and len(said) == 6
    tuned.decide(1.0)
    for _ in range(100):  # neither held nor free
        tuned.decide(0.25)
    assert tuned.threads == 1


def test_only_updates_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tuned = ThreadsByLoad(2, say=lambda _: None, cores=2, times=lambda: (busy[0], clock[0]))
    for _ in range(100):
        tuned.on_train_batch_start()
        clock[0] += 0.1
        busy[0] += 0.1  # nobody but this process
        tuned.on_train_batch_end()
        busy[0] += 5.0  # environments between two updates
    assert tuned.threads == 2
    for _ in range(45):
        tuned.on_train_batch_start()
        clock[0] += 0.1
        busy[0] += 0.2
        tuned.on_train_batch_end()
    assert tuned.threads == 1


def test_a_machine_that_does_not_say_is_left_alone() -> None:
    tuned = ThreadsByLoad(2, say=lambda _: None, cores=2, times=lambda: None)
    tuned.on_train_batch_start()
    tuned.on_train_batch_end()
    assert tuned.threads == 2


@pytest.mark.skipif(not threads.STAT.exists(), reason="needs /proc/stat")
def test_a_real_program_on_a_core_is_counted() -> None:
    core = min(os.sched_getaffinity(0))
    spin = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin, str(core)], stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            before, start = busy_times(), time.monotonic()
            time.sleep(1.0)
            after, elapsed = busy_times(), time.monotonic() - start
        finally:
            program.kill()
    assert before is not None and after is not None
    others = (after[0] - before[0] - after[1] + before[1]) / elapsed
    assert 0.4 <= others <= len(usable_cores()) + 0.1
