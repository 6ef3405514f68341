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
        trained = read_spec(root)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return  # then the weights' shapes tell
    if trained.observed != spec.observed:
        was, gives = trained.observed, spec.observed
        # channels only where they are what differs
        if was.count("x") == gives.count("x") == 2 and was.split("x")[0] == gives.split("x")[0]:
            was, gives = (observed.split("x", 1)[1] for observed in (was, gives))
        raise BadConfig(f"{key}: the model was trained on {was} frames, the task gives {gives}")
    if trained.action_dim != spec.action_dim:
        raise BadConfig(
            f"{key}: the model was trained with {trained.action_dim} actions, the task takes {spec.action_dim}"
        )


def read_spec(root: Path) -> EnvSpec:
    """The environment that a run learned in; raises OSError, ValueError, TypeError, AttributeError or KeyError."""
    fields = json.loads((root / "spec.json").read_bytes())
    return EnvSpec.from_json({name: fact for name, fact in fields.items() if name != "renderer"})
