import os
import pty
import signal
import sys
import time

import pytest

from trainers.process.interrupt import SIGNALS, Interrupt

IN_A_TERMINAL = """
import sys, time
from pathlib import Path
from trainers.process.interrupt import Interrupt

with Interrupt() as interrupt:
    print("ready", flush=True)
    while not interrupt.is_set():
        time.sleep(0.01)
    time.sleep(0.5)
    for output in (sys.stdout, sys.stderr):
        print("saved", file=output, flush=True)
    Path(sys.argv[1]).write_text(f"saved after {interrupt.received}")
"""


def test_a_signal_during_the_question_counts_at_the_next_one():
    """Ranks that answer differently wait for each other for ever: only what all of them said decides."""
    with Interrupt() as interrupt:

        def sum_over_ranks(numbers):
            os.kill(os.getpid(), signal.SIGTERM)
            return numbers

        assert not interrupt.requested(sum_over_ranks) and interrupt.is_set()
        assert interrupt.requested(lambda numbers: numbers)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_rank_that_received_nothing_learns_which_signal_it_was(number):
    with Interrupt() as asked, Interrupt() as other:
        asked.received = number
        told = []
        assert asked.requested(lambda numbers: told.append(numbers) or numbers)
        assert other.requested(lambda numbers: [a + b for a, b in zip(numbers, told[0], strict=True)])
        assert other.received == number


def test_a_second_notice_of_preemption_is_ignored():
    with Interrupt() as interrupt:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupt.received == signal.SIGUSR1


def test_a_late_second_notice_does_not_end_what_follows_the_run():
    ended = []
    before = signal.signal(signal.SIGUSR1, lambda *_: ended.append(True))
    try:
        with Interrupt():
            pass
        os.kill(os.getpid(), signal.SIGUSR1)
        assert ended  # a notice that nobody has answered goes to whoever was there
        with Interrupt():
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)  # while the run is requeued
        assert len(ended) == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_first_signal_says_why_a_run_stops():
    """SLURM says that time is nearly up, then sends SIGTERM: what has not saved by then is to be requeued still."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.received == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_run_whose_terminal_is_closed_saves(tmp_path):
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which these tests ignore under nohup
        os.execv(sys.executable, [sys.executable, "-c", IN_A_TERMINAL, str(tmp_path / "saved")])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1024)
    os.close(terminal)
    time.sleep(0.2)
    os.kill(pid, signal.SIGHUP)  # a shell that ends passes it on once more
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "saved").read_text() == f"saved after {int(signal.SIGHUP)}"


def test_under_nohup_a_closed_terminal_is_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.received is None
    finally:
        signal.signal(signal.SIGHUP, before)
