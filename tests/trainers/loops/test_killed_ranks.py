"""A random rank is killed at a random moment, again and again, and the run goes on with one rank or two."""

import os
import random
import signal
import time
from collections import Counter

import pytest

from datamodules.reshard import OldShards
from datamodules.storage.shards import shard_folder
from trainers.run_folder.checkpoint import load_checkpoint, newest
from worldmodel.spec import EnvSpec

KILLS = int(os.environ.get("WORLDMODEL_KILLS", 10))
SPEC = EnvSpec(task="toy_point", images={"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=20)
LONG = ("task.env_steps=1000000", "data.capacity=200000", "evaluation.every=1000000", "data.update_ratio=0.05")
RANKS = ("trainer.strategy=ddp", "trainer.accelerator=cpu")


def counted(folder):
    """The rows that the newest checkpoint counts, by their bytes, and its env_steps; None without a checkpoint."""
    found = newest(folder / "checkpoints") if (folder / "checkpoints").exists() else None
    if found is None:
        return Counter(), 0
    state = load_checkpoint(found)["callbacks"]["loop"]
    replays = [rank["replay"] for rank in state["ranks"]]
    folders = [shard_folder(folder / "replay", i, generation=state["generation"]) for i in range(len(replays))]
    old = OldShards(folders, replays, spec=SPEC, damage_limit=0.0)
    rows = Counter[tuple[bytes, bytes, float]]()
    for piece in old.pieces:
        columns = old.columns(piece)
        fields = (columns[name] for name in ("pixels", "action", "reward"))
        rows.update(
            (pixels.tobytes(), action.tobytes(), float(reward)) for pixels, action, reward in zip(*fields, strict=True)
        )
    steps = state["counters"]["env_steps"]
    assert rows.total() == steps // 20 * 21, (rows.total(), steps)
    return rows, steps


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_random_rank_is_killed_at_a_random_moment(runs, toy, tmp_path, gone):
    folder, seed, start_s = tmp_path / "run", random.randrange(10**6), 0.0
    dice, before, sessions = random.Random(seed), Counter(), []
    for kill in range(KILLS):
        ranks = dice.choice([1, 2]) if kill else 2
        arguments = (*toy, *LONG, *RANKS, f"trainer.devices={ranks}", f"run_dir={folder}", "resume=auto")
        started = runs.ranks(ranks, *arguments, OMP_NUM_THREADS="1")
        began, met = time.monotonic(), len(list(folder.glob("config*.yaml")))
        if not kill:
            started[0].wait_for_rows(folder, 2)
            start_s = time.monotonic() - began  # of two ranks, on this machine with what else it does
        else:  # now and then before anything is written, mostly once it is under way
            time.sleep(dice.uniform(0.0, 3.0 * start_s))
        assert not any(run.finished() for run in started), (seed, kill, [run.err.read_text() for run in started])
        lost = dice.choice(started)
        os.kill(lost.pid, signal.SIGKILL)
        killed = time.monotonic()
        if len(list(folder.glob("config*.yaml"))) == met:
            # before the ranks have met only what started them knows of a loss, such as torchrun
            os.killpg(started[0].pid, signal.SIGKILL)
        codes = [run.wait(60.0) for run in started]
        assert all(code != 0 for run, code in zip(started, codes, strict=True) if run is not lost) or ranks == 1
        assert gone(started[0].pid)
        rows, steps = counted(folder)
        assert before <= rows, (seed, kill, ranks, (before - rows).total())
        before = rows
        sessions.append((ranks, round(killed - began, 1), round(time.monotonic() - killed, 1), steps))
    print(seed, sessions)
    assert len({steps for *_, steps in sessions}) > KILLS // 4, sessions
