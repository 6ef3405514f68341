"""Which run folder, checkpoint or data set a path means."""

import json
from pathlib import Path

from trainers.command.configuration import BadConfig, activate_parts, read_yaml
from trainers.run_folder.conversion import convert_spec
from trainers.run_folder.paths import RunPaths, in_use
from worldmodel.spec import INTERFACE, EnvSpec, require_same

RECORDS = ("config.yaml", "metrics.csv", "results.json")  # one of them makes a folder a run's


def run_of(path: Path) -> Path:
    """The run folder of a checkpoint; any other path as it is."""
    inside = path.resolve().parent
    return inside.parent if inside.name == "checkpoints" and (path / "manifest.json").exists() else path


def find_run(path: Path, *, key: str) -> Path:
    """The run folder that a path means: itself, or the one of a checkpoint; raises BadConfig for `key`."""
    path = run_of(path.expanduser())
    if is_run(path):
        return path
    inside = [run.parent for depth in ("*", "*/*") for run in path.glob(f"{depth}/config.yaml")]
    newest = max(inside, key=lambda run: run.stat().st_mtime, default=None)
    hint = f"; {len(inside)} runs are in it, the newest is {newest}" if newest else ""
    if (path / "control.json").is_file():
        hint = ": a bundle, which trainers.drive and trainers.serve take; its run is where it was exported from"
    raise BadConfig(f"{key}: expected a run folder, got {path}{hint}")


def newest_run(folder: Path, *, seed: int, data: str) -> Path | None:
    """The run with that seed and kind of data that began last in a folder and that no process trains in, or None."""
    begun = sorted(path.parent for path in folder.glob("*/config.yaml"))  # their names begin with the time
    for run in reversed(begun):
        saved = read_yaml(run / "config.yaml")
        if saved["seed"] == seed and saved["data"]["name"] == data and not in_use(run):
            return run
    return None


def checkpoint_to_resume(paths: RunPaths) -> Path | None:
    """The newest intact checkpoint of a run, None where it wrote none; raises BadConfig where all are damaged."""
    from trainers.run_folder.checkpoint import newest  # torch takes seconds to load

    checkpoint = newest(paths.checkpoints)
    if checkpoint is None and any(paths.checkpoints.glob("step_*")):
        raise BadConfig(f"resume: expected an intact checkpoint in {paths.checkpoints}, got damaged ones only")
    return checkpoint


def data_uri(text: str) -> str:
    """The address of recorded episodes; a run folder means those that it collected, or else that it learned from."""
    path = Path(text.removeprefix("segments:")).expanduser()
    if not is_run(path):
        return text
    if (path / "replay").is_dir():
        return f"segments:{path / 'replay'}"
    uri = read_yaml(path / "config.yaml")["data"].get("uri")
    if uri is None:
        raise BadConfig(f"uri: expected recorded episodes, got the run {path}, which has none")
    return str(uri)


def data_uri_with_parts(text: str, parts: str | None) -> str:
    """`data_uri` for a command that only reads: formats of one's own are found, in folders that are named or a run's.

    Args:
        text: an address, or a run folder.
        parts: a folder, or several as [a,b]; None for those of the run, if it is one.

    Raises:
        BadConfig: for a run without episodes. PartsMissing: for a folder without parts.
    """
    run = Path(text).expanduser()
    learned = parts is None and (run / "config.yaml").is_file() and not (run / "replay").is_dir()
    saved = read_yaml(run / "config.yaml").get("parts") if learned else None
    if parts is not None or saved:
        activate_parts([f"parts={parts}"] if parts is not None else [], saved)
    return data_uri(text)


def is_run(path: Path) -> bool:
    """Whether a folder is a run's: a checkpoint or a sweep is none."""
    return any((path / name).is_file() for name in RECORDS)


def find_checkpoint(path: Path, *, key: str) -> tuple[Path, Path]:
    """The run folder and the checkpoint, its newest intact one or the one that is named; raises BadConfig for `key`."""
    from trainers.run_folder.checkpoint import newest  # torch takes seconds to load

    path = path.expanduser()
    if (root := run_of(path)) != path:
        return root, path
    root = find_run(path, key=key)
    checkpoint = newest(root / "checkpoints") if (root / "checkpoints").is_dir() else None
    if checkpoint is None:
        raise BadConfig(f"{key}: expected a run folder with an intact checkpoint, or a checkpoint, got {path}")
    return root.resolve(), checkpoint


def require_task_fits(root: Path, spec: EnvSpec, *, key: str) -> None:
    """Raise BadValue for `key` where a task shows something else, or takes other actions, than the run learned with."""
    try:
        trained = read_spec(root, key=key)
    except BadConfig:
        return  # then the weights' shapes tell
    require_same(trained, spec, INTERFACE, key=key, told="as in training")


def read_spec(root: Path, *, key: str) -> EnvSpec:
    """The environment that a run learned in; raises BadConfig for `key` where its spec.json cannot be read."""
    try:
        return EnvSpec.from_json(convert_spec(json.loads((root / "spec.json").read_bytes())))
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise BadConfig(f"{key}: expected the run's {root / 'spec.json'}, got {error}") from error
