import gc
from collections.abc import Iterator

import pytest

from tests.rigs.tiny_bundle import tiny_bundle
from trainers.deployment.controller import Controller
from trainers.process import garbage
from trainers.process.garbage import short_collections


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Controllers that other tests did not close count on it as well."""
    monkeypatch.setattr(garbage, "_open", 0)
    gc.unfreeze()
    yield
    gc.unfreeze()


def looked_at() -> int:
    """Objects that a full collection would look at."""
    return len(gc.get_objects())


def test_what_is_there_is_left_out_until_the_last_one_leaves() -> None:
    before = looked_at()
    with short_collections():
        with short_collections():
            assert looked_at() < before / 10
        assert looked_at() < before / 10, "one is left that counts on it"
    assert looked_at() > before / 2


def test_what_comes_later_is_collected() -> None:
    class Circle:
        gone = 0

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            Circle.gone += 1

    with short_collections():
        Circle()
        gc.collect()
    assert Circle.gone == 1


def test_a_program_that_froze_its_objects_itself_finds_them_so() -> None:
    gc.freeze()
    with short_collections():
        pass
    assert gc.get_freeze_count() > 0


def test_one_who_never_leaves_counts_until_it_is_gone() -> None:
    def forgotten() -> None:
        held = short_collections()
        held.__enter__()

    forgotten()
    assert gc.get_freeze_count() == 0


def test_a_controller_s_decisions_meet_no_full_collection(tmp_path) -> None:
    folder = tiny_bundle(tmp_path / "bundle", what="policy")
    before = looked_at()
    with Controller(folder):
        assert looked_at() < before / 10
    assert looked_at() > before / 2
