import os
import signal

import pytest

from trainers.process.interrupt import Interrupt


def test_a_signal_during_the_question_counts_at_the_next_one():
    """Ranks that answer differently wait for each other for ever: only what all of them said decides."""
    with Interrupt() as interrupt:

        def sum_over_ranks(numbers):
            os.kill(os.getpid(), signal.SIGTERM)
            return numbers

        assert not interrupt.requested(sum_over_ranks) and interrupt.is_set()
        assert interrupt.requested(lambda numbers: numbers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
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
