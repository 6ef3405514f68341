"""The configuration and the folder that a new run has, by what is typed for it, and that of a command's results."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.command.arguments import at_home
from trainers.command.configuration import PLAIN, BadConfig, load_config, override_saved, read_yaml
from trainers.run_folder.find import find_run


def new_configuration(overrides: Sequence[str]) -> dict[str, Any]:
    """What a run without a past is configured with: paths are absolute, a model brings its own run's configuration."""
    overrides = paths_at_home(overrides)
    named = dict(text.split("=", 1) for text in overrides)
    model = named.get("data.model", "") if named.get("data") == "imagined" else ""
    return from_anywhere(_imagining(Path(model), overrides) if model else load_config(overrides))


def new_run_folder(run_dir: str | None, *, title: str) -> Path:
    """The folder of a run that begins, runs/<title>/<time> where none is named; raises BadConfig where it has a run."""
    # the second alone is not unique: runs of several seeds are started together
    unique = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"
    root = Path(run_dir or Path("runs") / title / unique).expanduser()
    if not root.is_dir() and root.exists():
        raise BadConfig(f"run_dir: expected a folder, or none yet, got the file {root}")
    if (root / "config.yaml").exists():
        raise BadConfig(f"run_dir: {root} holds a run already; resume={root} continues it")
    return root


def make_out_folder(folder: Path) -> Path:
    """Make the folder of `out` where there is none, and return it; raises BadConfig where no file can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise BadConfig(f"out: expected a folder that can be written, got {folder} ({error.strerror})") from error
    return folder


def paths_at_home(overrides: Sequence[str]) -> list[str]:
    """Overrides with every path of one's home (`run_dir=~/run`) written in full."""
    given = [text.split("=", 1) for text in overrides]
    return [f"{key}={at_home(value) if key in PLAIN else value}" for key, value in given]


def from_anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with paths that mean the same in every working folder, so that a resume finds them."""
    data = config["data"]
    given = {key: data[key] for key in ("model", "cache") if data.get(key)}
    paths = {key: str(Path(path).absolute()) for key, path in given.items()}
    if data.get("uri"):
        from datamodules.formats.uri import absolute  # numpy, which help is answered without

        paths = {"cache": str(Path("cache").absolute()), **paths, "uri": absolute(data["uri"])}
    return config | {"data": {**data, **paths}, "resume": config["resume"] and str(Path(config["resume"]).absolute())}


def _imagining(model: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run that a model comes from, with overrides on top, to learn in its imagination."""
    root = find_run(model, key="data.model").resolve()
    saved = read_yaml(root / "config.yaml") | {"run_dir": None, "resume": None}
    learned_from = saved["data"]
    config = override_saved(saved, ["data=imagined", *(text for text in overrides if text != "data=imagined")])
    data = config["data"]
    if data["uri"] is None:
        own = {"uri": f"segments:{root / 'replay'}"}
        keys = ("uri", "cache", "alignment", "actions")
        data |= {key: learned_from.get(key) for key in keys} if "uri" in learned_from else own
    return config
