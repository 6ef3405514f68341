"""The fault runs of workers recover from what they inject, and count what is not recovered."""

import pytest

from tests.rigs import workers


@pytest.mark.parametrize("kind", ["sigkill", "frozen"])
def test_faults_are_recovered_from(kind):
    found = workers.run(count=4, kinds=(kind,), seconds=0.5)
    assert found["workers"][kind]["injected"] == found["workers"][kind]["recovered"] == 4
    assert found["workers_unrecovered"] == 0 and found["workers"][kind]["worst_seconds"] < 60
    assert found["others_share_in_hang"] > 0.1


def test_a_fault_that_is_taken_for_another_counts(monkeypatch):
    monkeypatch.setitem(workers.KINDS, "sigkill", workers.Injection("kill", "timeout"))
    monkeypatch.setattr(workers, "rate_beside_a_hang", lambda seconds: {})
    assert workers.run(count=2, kinds=("sigkill",))["workers_unrecovered"] == 2
