"""Sampled transitions beside a slow reader of the files: every sampler and storage; 0 may differ."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.recorded import Recorded
from datamodules.replay import Replay
from datamodules.storage.rows import row_bytes
from tests.rigs.slow_reader import Reference
from tests.rigs.watermarks import SPEC, Life, marks, wrong_rows
from trainers.command import registry
from worldmodel.interfaces import Batch

STREAMS, BATCH, LENGTH, ROUNDS, FLUSH_ROWS = 3, 50, 20, 4, 20
SAMPLERS, PACKAGE = ("prioritised", "recent", "uniform"), "datamodules.samplers"


def measure(*, transitions: int = 1_000_000, rows: int = 12_000, seed: int = 0) -> dict[str, Any]:
    """`transitions` of each sampler from each storage, from rings of `rows` rows that turned more than twice."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name in SAMPLERS:
        with tempfile.TemporaryDirectory(prefix="samples_") as folder:
            found[name] = _sample(name, Path(folder), transitions=transitions, rows=rows, seed=seed)
    cells = [cell for storages in found.values() for cell in storages.values()]
    totals = {key: sum(cell[key] for cell in cells) for key in ("transitions", "mismatches")}
    return {**totals, "rings_turned": min(cell["rings_turned"] for cell in cells), "samplers": found}


def _sample(name: str, folder: Path, *, transitions: int, rows: int, seed: int) -> dict[str, dict[str, int]]:
    """Two replays' lives, with frames in memory and mapped, and the first one's files opened as a recording."""
    sizes = {"spec": SPEC, "capacity": rows, "streams": STREAMS, "flush_rows": FLUSH_ROWS}
    # a byte less than all rows take: frames stay in the files
    limits = {"memory": rows * row_bytes(SPEC), "mapped": rows * row_bytes(SPEC) - 1}

    def reopen(storage: str) -> Replay:
        options = {"folder": folder / storage, "memory_limit_bytes": limits[storage]}
        return Replay(**sizes, **options, sampler=_sampler(name, seed))

    lives = {storage: Life(partial(reopen, storage), seed=seed) for storage in limits}
    assert [life.replay.budget.mapped for life in lives.values()] == [False, True]
    for life in lives.values():
        life.fill(2 * rows // STREAMS)
    cells = {storage: {"transitions": 0, "mismatches": 0} for storage in (*lives, "recorded")}
    kept = []
    for round_ in range(1, ROUNDS + 1):
        for life in lives.values():
            life.fill(rows // STREAMS // 4)
            life.replay.flush()
        recorded = Recorded(folder / "memory", sampler=_sampler(name, seed + round_))
        sources = {storage: life.replay for storage, life in lives.items()} | {"recorded": recorded}
        references = {storage: Reference(folder / storage, SPEC) for storage in lives}
        for storage, source in sources.items():
            # a recording numbers its rows anew
            reference, numbered = references.get(storage, references["memory"]), storage in references
            goal = transitions * round_ // ROUNDS
            kept.append((storage, _compare(source, reference, cells[storage], goal, numbered=numbered)))
        recorded.close()
    for life in lives.values():
        life.fill(rows // STREAMS + 1)
    for storage, batch in kept:  # every row behind them has been overwritten or unmapped since
        cells[storage]["mismatches"] += int(wrong_rows(batch).sum())
    for life in lives.values():
        life.replay.close()
    turned = min(min(life.replay.next_rows) for life in lives.values()) * STREAMS // rows
    return {storage: {**cell, "rings_turned": turned} for storage, cell in cells.items()}


def _compare(
    source: Replay | Recorded, reference: Reference, cell: dict[str, int], transitions: int, *, numbered: bool
) -> Batch:
    """Bring a cell to `transitions` compared; returns one more batch, to be compared when its rows are gone."""
    while cell["transitions"] < transitions:
        batch = source.sample(BATCH, LENGTH)
        cell["transitions"] += BATCH * LENGTH
        cell["mismatches"] += int(mismatches(batch, reference, numbered=numbered).sum())
        _learn(source, batch)
    return source.sample(BATCH, LENGTH)


def _sampler(name: str, seed: int) -> Any:
    return registry.make(PACKAGE, {"name": name}, seed=seed)


def _learn(source: Replay | Recorded, batch: Batch) -> None:
    """Give feedback, and poison the batch: a source that shares its memory serves the poison next."""
    assert batch.windows is not None
    source.feedback(batch.windows, batch.reward[:, 0])
    for values in (batch.pixels, batch.action, batch.reward, batch.is_first, batch.is_last, batch.is_terminal):
        values.copy_(torch.ones_like(values) * 77)


def mismatches(batch: Batch, reference: Reference, *, numbered: bool) -> Any:
    """Rows [B, T] that differ from the files, from their own mark, or from the rows that the batch says they are."""
    wrong, mark = wrong_rows(batch), marks(batch.pixels.numpy())
    stream = np.minimum(mark[..., 0], reference.run.shape[0] - 1)
    row = np.minimum(mark[..., 1], reference.run.shape[1] - 1)
    for key, values in reference.fields.items():
        differs = values[stream, row] != getattr(batch, key).numpy()
        wrong |= differs.reshape(*wrong.shape, -1).any(2)
    run = reference.run[stream, row]
    wrong |= (run == 0) | (run != run[:, :1])
    if numbered:
        assert batch.windows is not None
        wrong[:, 0] |= (mark[:, 0, :2] != batch.windows[:, 1:].numpy()).any(1)
    return wrong
