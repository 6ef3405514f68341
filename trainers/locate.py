"""Which run folder and which checkpoint a path means."""

from pathlib import Path

from trainers.checkpoint import newest
from trainers.configuration import BadConfig


def locate(path: Path, *, key: str) -> tuple[Path, Path]:
    """The run folder and the checkpoint, its newest intact one or the one that is named; raises BadConfig for `key`."""
    if (path / "manifest.json").exists():
        return path.resolve().parent.parent, path
    found = newest(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if found is None:
        raise BadConfig(f"{key}: expected a run folder with an intact checkpoint, or a checkpoint, got {path}")
    return path.resolve(), found
