"""Where the shards of a run's replay are: a folder for each rank, in a new generation for another number of ranks.

Generation 0 is `rank_*`, generation n is `generation_n/rank_*`. The file `generation` says which one readers take.
"""

import re
import shutil
from pathlib import Path

from datamodules.storage.durable import write_atomic

CURRENT = "generation"
_NAME = re.compile(r"(rank|generation)_(\d{2,})")


def shard_folder(replay: Path, rank: int, *, generation: int = 0) -> Path:
    """The folder of a rank's shard."""
    return _shards(replay, generation) / f"rank_{rank:02d}"


def current_shards(replay: Path) -> Path:
    """The folder whose `rank_*` hold the run's rows."""
    try:
        return _shards(replay, int((replay / CURRENT).read_text()))
    except FileNotFoundError:
        return replay


def publish_generation(replay: Path, generation: int) -> None:
    """Let readers take the shards of `generation` from now on, durable on return; raises OSError."""
    if current_shards(replay) != _shards(replay, generation):
        write_atomic(replay / CURRENT, f"{generation}\n".encode())


def remove_other_shards(replay: Path, generation: int, *, ranks: int) -> None:
    """Delete every shard but those of `generation`'s ranks below `ranks`; raises OSError."""
    keep = {shard_folder(replay, rank, generation=generation) for rank in range(ranks)}
    keep.add(_shards(replay, generation))
    for folder in (replay, _shards(replay, generation)):
        for path in set(folder.iterdir()) - keep:
            if _NAME.fullmatch(path.name):
                shutil.rmtree(path)


def _shards(replay: Path, generation: int) -> Path:
    return replay / f"generation_{generation:02d}" if generation else replay
