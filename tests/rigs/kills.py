"""SIGKILL at random moments of whole training runs: every restart succeeds, and nothing that was promised is lost."""

import json
import mmap
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.replay import Replay
from tests.rigs import PARTS
from tests.rigs.forked import Forked, group_members
from trainers import fit
from trainers.run_folder.paths import RunPaths
from trainers.training.train import train
from worldmodel.spec import EnvSpec

FLUSH_ROWS = 20
ENVS = 2
MAX_SECONDS = 4.0  # of a run before it is killed
AIMED = 0.25  # share of the kills that wait for a save to be under way
ALONE = 0.25  # share of the kills that take the run's first process only, not its group
ORPHAN_GRACE_S = 10.0
_COUNT = struct.Struct(f"<{ENVS + 1}q")  # rows handed to each stream; rows that the start dropped

OPTIONS = (
    "experiment=smoke",
    f"parts={PARTS}",
    "task=counting",
    "task.env_steps=6000",
    f"data.envs={ENVS}",
    f"data.flush_rows={FLUSH_ROWS}",
    "data.update_ratio=0.05",
    "data.capacity=1500",
    "evaluation.every=1500",
    "evaluation.episodes=1",
    "evaluation.final_episodes=1",
)


@dataclass(slots=True)
class Toll:
    """What all kills together did."""

    kills: int = 0
    finished_runs: int = 0
    failed_restarts: int = 0
    corrupt_reads: int = 0
    rows_lost_max: int = 0
    rows_rolled_back_max: int = 0
    orphans: int = 0
    complaints: list[str] = field(default_factory=list)

    def blame(self, kind: str, what: str) -> None:
        """Count one of `kind` and keep its text."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.complaints = [*self.complaints, f"{kind}: {what}"][:10]


def run(folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Start, kill and resume runs until `kills` are done; counts, and the most rows that a kill lost."""
    rng, toll, begun = np.random.default_rng(seed), Toll(), 0
    root: Path | None = None
    while toll.kills < kills:
        if root is None:
            begun += 1
            root = folder / f"run_{begun:03d}"
        if _life(root, rng, toll, seed=begun):
            shutil.rmtree(root)
            root = None
    return {
        "kills": toll.kills,
        "failed_restarts": toll.failed_restarts,
        "corrupt_reads": toll.corrupt_reads,
        "rows_lost_max": toll.rows_lost_max,
        "rows_lost_bound": FLUSH_ROWS * ENVS,
        "rows_rolled_back_max": toll.rows_rolled_back_max,
        "orphans": toll.orphans,
        "finished_runs": toll.finished_runs,
        "kill_complaints": toll.complaints,
    }


def _life(root: Path, rng: np.random.Generator, toll: Toll, *, seed: int) -> bool:
    """One start of the run in `root`, to a kill or to its end; whether the run is over."""
    again = (root / "config.yaml").exists()
    arguments = [f"resume={root}"] if again else [*OPTIONS, f"seed={seed}", f"run_dir={root}"]
    if not again and root.exists():
        shutil.rmtree(root)
    log = root.with_suffix(".log")
    with _counter(root.with_suffix(".count")) as count:
        child = Forked(lambda: _train(arguments, count), log=log)
        code = _await(child, root, rng)
        if code is None:
            toll.kills += 1
            _kill(child, rng, toll)
        *written, rolled_back = _COUNT.unpack(count[:])
    toll.rows_rolled_back_max = max(toll.rows_rolled_back_max, rolled_back)
    if code is None:
        _inspect(root, written, toll)
        return False
    if code == 0:
        toll.finished_runs += 1
    else:
        toll.blame("failed_restarts", f"exit code {code} of {arguments}: {log.read_text()[-400:]}")
    return True


def _await(child: Forked, root: Path, rng: np.random.Generator) -> int | None:
    """The exit code, or None when the moment of its kill has come."""
    code = child.wait(timeout_s=rng.uniform(0, MAX_SECONDS))
    if code is None and rng.random() < AIMED:
        saving = RunPaths(root).checkpoints
        code = child.wait(timeout_s=MAX_SECONDS, until=lambda: saving.exists() and any(saving.glob(".*.tmp")))
        time.sleep(rng.uniform(0, 0.004))
    return code


def _kill(child: Forked, rng: np.random.Generator, toll: Toll) -> None:
    child.kill(group=rng.random() >= ALONE)
    deadline = time.monotonic() + ORPHAN_GRACE_S
    while group_members(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left := group_members(child.pid):
        toll.blame("orphans", f"processes {left} outlived their run")


def _train(arguments: list[str], count: mmap.mmap) -> int:
    """The child's life: a whole run that counts in shared memory the rows handed to replay, and those dropped."""
    assert train  # loaded before the fork, so that a start costs milliseconds
    append, load = Replay.append, Replay.load_state_dict

    def counted(self: Replay, stream: int, *rest: Any) -> None:
        append(self, stream, *rest)
        count[8 * stream : 8 * stream + 8] = struct.pack("<q", self.next_rows[stream])

    def returning(self: Replay, state: dict[str, Any]) -> None:
        before = sum(self.next_rows)
        load(self, state)
        count[8 * ENVS :] = struct.pack("<q", before - sum(self.next_rows))

    Replay.append, Replay.load_state_dict = counted, returning  # type: ignore[method-assign]
    torch.set_num_threads(1)
    return int(fit.main(arguments).get("exit_code", 0))


@contextmanager
def _counter(path: Path) -> Iterator[mmap.mmap]:
    """Numbers that outlive the process that writes them; -1 before the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_COUNT.pack(*[-1] * (ENVS + 1)))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _COUNT.size) as count:
        yield count


def _inspect(root: Path, written: list[int], toll: Toll) -> None:
    """Open a copy of the replay as a restart does: nothing damaged, every row right, and few missing."""
    folder = RunPaths(root).shard(0)
    if not (folder / "replay.json").exists():
        if max(written) >= 0:
            toll.blame("corrupt_reads", f"rows were written and {folder} is no replay")
        return
    copy = root.with_suffix(".copy")
    shutil.copytree(folder, copy)
    try:
        header = json.loads((copy / "replay.json").read_bytes())
        spec, capacity = EnvSpec.from_json(header["spec"]), header["capacity"]
        replay = Replay(spec=spec, capacity=capacity, streams=ENVS, folder=copy, flush_rows=FLUSH_ROWS)
        if replay.damaged_blocks:
            toll.blame("corrupt_reads", f"{replay.damaged_blocks} damaged blocks")
        lost = sum(max(0, wrote - found) for wrote, found in zip(written, replay.next_rows, strict=True))
        toll.rows_lost_max = max(toll.rows_lost_max, lost)
        _check_rows(replay, toll)
        replay.close()
    except (RuntimeError, ValueError, OSError) as error:
        toll.blame("corrupt_reads", f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(copy)


def _check_rows(replay: Replay, toll: Toll) -> None:
    """Every transition must be what the counting environment gives: time goes on, and reward tells time and action."""
    if replay.rows < 2:
        return
    batch = replay.sample(20 * replay.rows, 2)
    frames = batch.pixels.numpy()
    times = frames[:, :, 0, -1, -1].astype(int) + 256 * frames[:, :, 1, -1, -1].astype(int)
    first = batch.is_first[:, 1].numpy()
    action = np.abs(batch.action[:, 1, 0].numpy())
    reward = 100.0 * (times[:, 1] + times[:, 1] - 1) + 2 * action
    wrong = (times[:, 1] - times[:, 0] != 2) | (np.abs(batch.reward[:, 1].numpy() - reward) > 1e-2) | first
    if wrong.any():
        toll.blame("corrupt_reads", f"{int(wrong.sum())} of {len(wrong)} transitions are not the environment's")
