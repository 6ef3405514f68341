"""Sampled transitions beside a slow reader of the files: every sampler, frames in memory and mapped; 0 may differ."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.recorded import Recorded
from datamodules.replay import Replay
from trainers import components
from trainers.segment_reference import Reference
from trainers.watermarks import SPEC, Life, marks, wrong_rows
from worldmodel.interfaces import Batch

OPTIONS = {"transitions": 1_000_000, "rows": 12_000, "seed": 0}
STREAMS, BATCH, LENGTH, ROUNDS = 3, 50, 20, 4
SAMPLERS = "datamodules.samplers"


def measure(overrides: list[str], *, transitions: int, rows: int, seed: int) -> dict[str, Any]:
    """`transitions` of each sampler from each storage, from rings of `rows` rows that turned more than twice."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name in components.component_names(SAMPLERS):
        with tempfile.TemporaryDirectory(prefix="samples_") as folder:
            found[name] = _sample(name, Path(folder), transitions=transitions, rows=rows, seed=seed)
    cells = [cell for storages in found.values() for cell in storages.values()]
    totals = {key: sum(cell[key] for cell in cells) for key in ("transitions", "mismatches")}
    return {**totals, "rings_turned": min(cell["rings_turned"] for cell in cells), "samplers": found}


def _sample(name: str, folder: Path, *, transitions: int, rows: int, seed: int) -> dict[str, dict[str, int]]:
    def reopen() -> Replay:
        return Replay(spec=SPEC, capacity=rows, streams=STREAMS, folder=folder, sampler=_sampler(name, seed))

    life, kept = Life(reopen, seed=seed), []
    life.fill(2 * rows // STREAMS)
    cells = {storage: {"transitions": 0, "mismatches": 0} for storage in ("memory", "mapped")}
    for round_ in range(1, ROUNDS + 1):
        life.fill(rows // STREAMS // 4)
        life.replay.flush()
        reference = Reference(folder, SPEC)
        recorded = Recorded(folder, sampler=_sampler(name, seed + round_))
        for storage, source in (("memory", life.replay), ("mapped", recorded)):
            cell = cells[storage]
            while cell["transitions"] < transitions * round_ / ROUNDS:
                batch = source.sample(BATCH, LENGTH)
                cell["transitions"] += BATCH * LENGTH
                cell["mismatches"] += int(mismatches(batch, reference, numbered=storage == "memory").sum())
                _learn(source, batch)
            kept.append((cell, source.sample(BATCH, LENGTH)))
        recorded.close()
    life.fill(rows // STREAMS + 1)
    for cell, batch in kept:  # every row behind them has been overwritten or unmapped since
        cell["mismatches"] += int(wrong_rows(batch).sum())
        cell["rings_turned"] = min(life.replay.next_rows) * STREAMS // rows
    life.replay.close()
    return cells


def _sampler(name: str, seed: int) -> Any:
    return components.make(SAMPLERS, {"name": name}, seed=seed)


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
