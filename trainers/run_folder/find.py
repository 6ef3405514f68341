"""Which run folder and which checkpoint a path means."""

import json
from pathlib import Path

from trainers.command.configuration import BadConfig
from trainers.run_folder.checkpoint import newest
from worldmodel.spec import EnvSpec


def find_checkpoint(path: Path, *, key: str) -> tuple[Path, Path]:
    """The run folder and the checkpoint, its newest intact one or the one that is named; raises BadConfig for `key`."""
    if (path / "manifest.json").exists():
        return path.resolve().parent.parent, path
    found = newest(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if found is None:
        raise BadConfig(f"{key}: expected a run folder with an intact checkpoint, or a checkpoint, got {path}")
    return path.resolve(), found


def require_task_fits(root: Path, spec: EnvSpec, *, key: str) -> None:
    """Raise BadConfig for `key` where a task gives other frames, or takes other actions, than the run learned with."""
    try:
        fields = json.loads((root / "spec.json").read_bytes())
        trained, dims = tuple(fields["pixels"]), fields["action_dim"]
    except (OSError, ValueError, TypeError, KeyError):
        return  # then the weights' shapes tell
    if trained != spec.pixels:
        # channels only where they are what differs
        first = int(trained[1:] != spec.pixels[1:] and trained[0] == spec.pixels[0])
        was, gives = ("x".join(map(str, shape[first:])) for shape in (trained, spec.pixels))
        raise BadConfig(f"{key}: the model was trained on {was} frames, the task gives {gives}")
    if dims != spec.action_dim:
        raise BadConfig(f"{key}: the model was trained with {dims} actions, the task takes {spec.action_dim}")
