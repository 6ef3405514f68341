"""Damaged replay files: every flipped bit and every cut is noticed, and what is still served is right."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.replay import Replay, ReplayMismatch
from tests.rigs.marked_rows import SPEC, Mark, read, row

CAPACITY, STREAMS, ROWS, LENGTH = 1200, 2, 500, 5
KINDS = ("bit", "cut", "missing")
SHARES = (0.6, 0.37, 0.03)


def run(folder: Path, *, flips: int, seed: int) -> dict[str, Any]:
    """Damage one file of a copy at a time and open it; counts of undetected damages and of wrong rows."""
    whole, rng = folder / "whole", np.random.default_rng(seed)
    truth = _fill(whole)
    undetected, wrong, stopped = [], [], []
    for n in range(flips):
        copy = folder / f"flip-{n}"
        shutil.copytree(whole, copy)
        what = _damage(copy, rng)
        detected, complaint = _read(copy, truth)
        shutil.rmtree(copy)
        undetected += [] if detected else [what]
        wrong += [f"{what}: {complaint}"] if complaint == "wrong rows" else []
        stopped += [f"{what}: {complaint}"] if complaint not in ("", "wrong rows") else []
    return {
        "flips": flips,
        "undetected": len(undetected),
        "flips_wrong_rows": len(wrong),
        "flips_training_stopped": len(stopped),
        "flip_complaints": [*undetected, *wrong, *stopped][:10],
    }


def _fill(folder: Path) -> set[Mark]:
    replay = Replay(spec=SPEC, capacity=CAPACITY, streams=STREAMS, folder=folder, flush_rows=7)
    truth = set()
    for n in range(ROWS * STREAMS):
        t = n // STREAMS % 25
        mark = Mark(n, t == 0, t == 24, t == 24)
        replay.append(n % STREAMS, *row(mark))
        truth.add(mark)
    replay.close()
    return truth


def _damage(folder: Path, rng: np.random.Generator) -> str:
    """Change one segment file, manifest or header, chosen by its size so that every byte has the same chance."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    sizes = np.array([path.stat().st_size for path in files], float)
    path = files[int(rng.choice(len(files), p=sizes / sizes.sum()))]
    content, kind = bytearray(path.read_bytes()), str(rng.choice(KINDS, p=SHARES))
    place = int(rng.integers(len(content)))
    if kind == "bit":
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[:place])
    else:
        path.unlink()
    return f"{kind} of {path.relative_to(folder)} at byte {place} of {len(content)}"


def _read(folder: Path, truth: set[Mark]) -> tuple[bool, str]:
    """Whether the damage was noticed, and what else went wrong."""
    try:
        # in a folder this small one file is more than the share of rows that may be lost by default
        whole = {"capacity": CAPACITY, "streams": STREAMS, "damage_limit": 1.0}
        replay = Replay(spec=SPEC, **whole, folder=folder, flush_rows=7)
    except ReplayMismatch as error:
        return True, f"refused: {error}"
    try:
        marks = read(replay.sample(40 * replay.rows, 1))
        windows = replay.sample(200, LENGTH)
        read(windows)
        numbers = windows.reward.numpy()
        if not marks <= truth or (np.diff(numbers) != STREAMS).any():
            return replay.damaged_blocks > 0, "wrong rows"
        return replay.damaged_blocks > 0, ""
    except AssertionError:
        return replay.damaged_blocks > 0, "wrong rows"
    finally:
        replay.close()
