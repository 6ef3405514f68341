"""Who is said to stand still, by ticks of a clock that the test holds; real ranks are stopped in test_stopped_ranks."""

import pytest

from trainers.process.heartbeat import Heartbeat

TIMEOUT_S = 10.0


@pytest.fixture
def ranks(tmp_path):
    made = [Heartbeat(tmp_path, rank=rank, ranks=3, timeout_s=TIMEOUT_S, end=pytest.fail) for rank in range(3)]
    for rank, heartbeat in enumerate(made):
        heartbeat.busy = 0
        heartbeat.progress = lambda rank=rank: made[rank].busy
        heartbeat._last = 0.0
        heartbeat.watch()
    return made


def tick(ranks, now, *, alive=(0, 1, 2), busy=(0, 1, 2)):
    for rank in busy:
        ranks[rank].busy += 1
    return [ranks[rank].beat(now) for rank in alive]


def test_ranks_that_get_on_are_left_alone(ranks):
    assert all(tick(ranks, float(now)) == [None] * 3 for now in range(1, 40))


def test_a_rank_whose_process_stands_still_is_named_by_all_others(ranks):
    for now in range(1, 13):
        said = tick(ranks, float(now), alive=(0, 2), busy=(0,))
        if now <= TIMEOUT_S:
            assert said == [None, None], now
    assert all("rank 1 gave no sign of life for 10 s" in line for line in said)


def test_a_rank_that_has_ended_while_others_wait_is_named(ranks):
    tick(ranks, 1.0)
    ranks[1]._path(1).unlink()
    for now in range(2, 14):
        said = tick(ranks, float(now), alive=(0, 2), busy=(0,))
    assert all("rank 1 gave no sign of life for 10 s" in line for line in said)


def test_before_the_first_batch_ranks_have_longer_but_not_for_ever(ranks, monkeypatch):
    monkeypatch.setattr("trainers.process.heartbeat.BEGINNING_S", 60.0)
    for heartbeat in ranks:
        heartbeat.progress = None
    assert all(tick(ranks, float(now)) == [None] * 3 for now in range(1, 60))
    for now in range(60, 64):
        said = tick(ranks, float(now))
    assert all("no rank got on for 60 s" in line for line in said)


def test_others_may_wait_for_one_that_is_busy(ranks):
    """As while one rank evaluates: the files of all change, the progress of one."""
    assert all(tick(ranks, float(now), busy=(0,)) == [None] * 3 for now in range(1, 60))


def test_where_none_gets_on_all_places_are_said(ranks):
    for now in range(1, 15):
        said = tick(ranks, float(now), busy=())
    assert all(line.startswith("no rank got on for 10 s: rank 0 stands at trainers/process") for line in said)
    assert all("rank 2 stands at" in line for line in said)


def test_processes_that_were_all_stopped_and_woken_have_lost_nobody(ranks):
    tick(ranks, 1.0)
    assert [ranks[0].beat(10_000.0), ranks[0].beat(10_001.0)] == [None, None]
    assert tick(ranks, 10_002.0) == [None] * 3


def test_before_training_begins_nobody_has_to_get_on(ranks):
    for heartbeat in ranks:
        heartbeat.progress = None
    assert all(tick(ranks, float(now)) == [None] * 3 for now in range(1, 40))


def test_a_rank_that_never_came_is_named(tmp_path):
    said = []
    alone = Heartbeat(tmp_path / "ranks", rank=0, ranks=2, timeout_s=0.2, end=said.append)
    with alone:
        alone.watch()
        alone._thread.join(timeout=20)
    assert said == ["rank 1 gave no sign of life for 0.2 s: rank 1 was last at no place that is known"]
    assert not (tmp_path / "ranks").exists()
