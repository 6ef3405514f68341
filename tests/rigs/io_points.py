"""Every file operation of saving, appending, rotating and recovering fails once: old state or new, never a third."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from datamodules.replay import Replay
from tests.rigs.forked import Forked
from tests.rigs.io_calls import EXIT_CODE, KINDS, failing
from tests.rigs.marked_rows import SPEC, Mark, row, served
from trainers.run_folder.checkpoint import CheckpointDamaged, load_checkpoint, newest, prune, save_checkpoint
from trainers.run_folder.paths import step_name

Content = frozenset[Any]
MAX_POINTS = 5000
SURVIVED = 78  # exit code of a work that went on after its failure
CAPACITY, FLUSH_ROWS = 48, 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """A piece of work on a folder whose every file operation can fail.

    prepare: makes the folder that it starts from. act: the work, a step at a time, yielding after each. content: what
    a restart finds. allowed: what it may find once so many steps are over and the next one may be under way.
    final: what it must find once all are over.
    """

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], Iterator[int]]
    content: Callable[[Path], Content]
    allowed: Callable[[int], Collection[Content]]
    final: Content


def run(folder: Path) -> dict[str, Any]:
    """Try every operation of every scenario with every kind of failure; counts of points and of third states."""
    points, third = 0, []
    for scenario in (replay_rows(), replay_rollback(), checkpoint_save(), checkpoint_prune()):
        for kind in KINDS:
            for n in range(1, MAX_POINTS):
                place = folder / f"{scenario.name}-{kind}-{n}"
                hit, complaint = _try(scenario, kind, n, place)
                shutil.rmtree(place)
                third += [f"{scenario.name} {kind} at operation {n}: {complaint}"] if complaint else []
                if not hit:
                    break
                points += 1
    return {"io_points": points, "io_third_states": len(third), "io_complaints": third[:10]}


def _try(scenario: Scenario, kind: str, n: int, place: Path) -> tuple[bool, str]:
    """Whether the n-th operation existed, and what is wrong with the state that its failure left."""
    place.mkdir(parents=True)
    data, progress = place / "data", place / "progress"
    scenario.prepare(data)
    child = Forked(lambda: _work(scenario, kind, n, data, progress), log=place / "log")
    code = child.wait(timeout_s=60)
    if code in (0, SURVIVED):
        return code == SURVIVED, "" if _found(scenario, data) == scenario.final else "the work itself is wrong"
    if code != EXIT_CODE:
        return True, f"exit code {code}: {(place / 'log').read_text()[-300:]}"
    over = progress.stat().st_size if progress.exists() else 0
    return True, _judge(scenario, data, over)


def _work(scenario: Scenario, kind: str, n: int, data: Path, progress: Path) -> int:
    """The child's life: ends with EXIT_CODE at the failure, as a process that is killed does."""
    report = os.open(progress, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    write = os.write  # the report of progress is not part of what is tried
    try:
        with failing(kind, n) as fault:
            for _ in scenario.act(data):
                write(report, b".")
    except OSError:
        os._exit(EXIT_CODE)
    # a failure can be none: a folder that was to be made is there already
    return SURVIVED if fault.hit else 0


def _judge(scenario: Scenario, data: Path, over: int) -> str:
    """Empty where a restart finds what it may, and the next restart the same."""
    found = _found(scenario, data)
    if found not in scenario.allowed(over):
        return f"after {over} steps: found {found if isinstance(found, str) else f'{len(found)} entries'}"
    return "" if _found(scenario, data) == found else "a second restart finds something else"


def _found(scenario: Scenario, data: Path) -> Content | str:
    try:
        return scenario.content(data)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"


# --- replay -----------------------------------------------------------------------------------------------------------


def _open(folder: Path) -> Replay:
    return Replay(spec=SPEC, capacity=CAPACITY, folder=folder, flush_rows=FLUSH_ROWS)


def _rows_of(folder: Path) -> Content:
    replay = _open(folder)
    try:
        assert replay.damaged_blocks == 0, f"{replay.damaged_blocks} damaged blocks"
        return frozenset(served(replay))
    finally:
        replay.close()


def _episodes() -> list[Mark]:
    """Three episodes and the open start of a fourth: more rows than the ring holds."""
    marks: list[Mark] = []
    for length, ends in ((9, True), (22, True), (17, True), (11, False)):
        start = len(marks)
        marks += [Mark(start + t, t == 0, ends and t == length - 1, ends and t == length - 1) for t in range(length)]
    return marks


def replay_rows() -> Scenario:
    """Appends row by row until the ring has turned and segments are dropped, a truncation and a flush at the end."""
    marks = _episodes()
    closed = [*marks[:-1], replace(marks[-1], is_last=True)]

    def act(folder: Path) -> Iterator[int]:
        replay = _open(folder)
        for n, mark in enumerate(marks):
            replay.append(0, *row(mark))
            yield n + 1
        replay.truncate(0)
        yield len(marks) + 1
        replay.close()

    def allowed(over: int) -> set[Content]:
        whole = closed if over > len(marks) else marks
        # an episode's end is durable, and so is every full block of the open one
        kept = max((n + 1 for n in range(over) if n < len(marks) and marks[n].is_last), default=0)
        kept = len(marks) if over > len(marks) else kept + (over - kept) // FLUSH_ROWS * FLUSH_ROWS
        newest_states = [whole[:n] for n in range(kept, min(over + 1, len(marks)) + 1)]
        newest_states += [closed] if over == len(marks) else []
        # rows that the ring has no place for any more may still be there or not
        return {
            frozenset(state[first:])
            for state in newest_states
            for first in range(max(0, len(state) - CAPACITY), max(0, over + 1 - CAPACITY) + 1)
        }

    return Scenario("rows", lambda _: None, act, _rows_of, allowed, frozenset(closed[-CAPACITY:]))


def replay_rollback() -> Scenario:
    """Opens a log that has grown since a checkpoint, goes back to it, and goes on."""
    marks = _episodes()[:31]  # two closed episodes
    later = [replace(mark, number=mark.number + 1000) for mark in marks[:9]]
    state: dict[str, Any] = {}

    def prepare(folder: Path) -> None:
        replay = _open(folder)
        for mark in marks:
            replay.append(0, *row(mark))
        state.update(replay.state_dict())
        for mark in _episodes()[31:48]:
            replay.append(0, *row(mark))
        replay.close()

    def act(folder: Path) -> Iterator[int]:
        replay = _open(folder)
        replay.load_state_dict(state)
        yield 1
        for mark in later:
            replay.append(0, *row(mark))
        yield 2
        replay.close()

    def content(folder: Path) -> Content:
        replay = _open(folder)
        replay.load_state_dict(state)
        rows = frozenset(served(replay))
        replay.close()
        return rows

    # whatever was reached, the state of the checkpoint is what a restart returns to
    kept = frozenset(marks)
    return Scenario("rollback", prepare, act, content, lambda over: {kept}, kept)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _checkpoint(number: int) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((50,), float(number))}, "number": number}


def _numbers(folder: Path) -> Content:
    """The newest checkpoint's number, its content checked, where there is one."""
    found = newest(folder)
    if found is None:
        return frozenset()
    checkpoint = load_checkpoint(found)
    assert (checkpoint["state_dict"]["w"] == checkpoint["number"]).all(), "weights"
    return frozenset({checkpoint["number"]})


def _save(folder: Path, step: int, number: int) -> None:
    try:
        save_checkpoint(_checkpoint(number), folder / step_name(step))
    except CheckpointDamaged as error:  # what was written was not what is read back
        raise OSError(str(error)) from error


def checkpoint_save() -> Scenario:
    """Saves a new checkpoint beside an old one, then replaces it."""

    def act(folder: Path) -> Iterator[int]:
        for step, number in enumerate((2, 3), start=1):
            _save(folder, 2, number)
            yield step

    def allowed(over: int) -> list[Content]:
        return [frozenset({number}) for number in (over + 1, over + 2)]

    return Scenario("save", lambda folder: _save(folder, 1, 1), act, _numbers, allowed, frozenset({3}))


def checkpoint_prune() -> Scenario:
    """Removes old checkpoints and what an interrupted save left behind: the newest stays."""

    def prepare(folder: Path) -> None:
        for step in (1, 2, 3, 4):
            _save(folder, step, step)
        (folder / f".{step_name(5)}.tmp").mkdir()

    def act(folder: Path) -> Iterator[int]:
        prune(folder, keep=2)
        yield 1

    kept = frozenset({4})
    return Scenario("prune", prepare, act, _numbers, lambda over: {kept}, kept)
