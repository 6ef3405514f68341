"""Loggers: metrics.csv always, Weights & Biases or TensorBoard when chosen."""

import netrc
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from trainers.command.configuration import BadConfig, run_title
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.paths import RunPaths

# what WANDB_MODE may say, and what it means; wandb still takes its older names
WANDB_MODES = {
    "": None,
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
    "shared": "shared",
}


def build_loggers(config: dict[str, Any], paths: RunPaths, csv: CSVMetrics, *, rank: int, axis: str) -> list[Logger]:
    """The run's loggers, with curves over the counter `axis`; other ranks than 0 need none."""
    if rank:
        return []
    options = dict(config["logger"])
    name = options.pop("name")
    if name == "csv":
        return [csv]
    if name == "wandb":
        mode = wandb_mode(options["offline"])
        return [csv] if mode == "disabled" else [csv, _wandb(config, options, paths, axis=axis, mode=mode)]
    return [csv, TensorBoardLogger(paths.root, name="", version="tensorboard")]


def log_films(loggers: Sequence[Logger], paths: Sequence[Path], *, axis: str, position: int) -> None:
    """Hand the mp4 files among `paths` (named <kind>_<when>.mp4) to Weights & Biases, where it is one of `loggers`."""
    films = [path for path in paths if path.suffix == ".mp4"]
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        kinds = {f"video/{film.stem.rpartition('_')[0]}": wandb.Video(str(film), format="mp4") for film in films}
        logger.log_metrics({**kinds, axis: position}, step=position)  # type: ignore[dict-item]


def finish(loggers: Sequence[Logger]) -> None:
    """Close the runs that loggers hold open; what they say goes to stderr, since stdout is for the results."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            with redirect_stdout(sys.stderr):
                logger.experiment.finish()


def _wandb(config: dict[str, Any], options: dict[str, Any], paths: RunPaths, *, axis: str, mode: str) -> Logger:
    import wandb

    # not left to Lightning, which would set the mode for the whole process and draw every curve over its own step
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", options["project"]),
        name=f"{run_title(config)}-{paths.root.name}",
        id=_run_id(paths.root / "wandb_id.txt"),
        resume="allow",
        group=options["group"],
        tags=list(options["tags"]),
        mode=mode,  # type: ignore[arg-type] # wandb refuses other words by itself
        dir=str(paths.root),
        config=config,
        settings=wandb.Settings(console="off"),  # a panel that redraws itself is no log
    )
    run.define_metric(axis)
    run.define_metric("*", step_metric=axis)
    return WandbLogger(experiment=run, save_dir=str(paths.root))


def wandb_mode(offline: bool | None) -> str:
    """Weights & Biases' mode: `logger.offline`, else WANDB_MODE, else offline where there is no key.

    Decided before the run starts: a run that goes online without a key waits for a network it may never get.

    Raises:
        BadConfig: WANDB_MODE is none of its modes.
    """
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode not in WANDB_MODES:
        raise BadConfig(f"WANDB_MODE: expected {', '.join(filter(None, WANDB_MODES))}, got {mode!r}")
    if WANDB_MODES[mode] == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    if offline is not None:
        return "offline" if offline else "online"
    return WANDB_MODES[mode] or ("online" if _has_key() else "offline")


def _run_id(path: Path) -> str:
    """The run's id, kept in its folder so that a resumed run continues the same curves."""
    if not path.exists():
        path.write_text(os.urandom(4).hex())
    return path.read_text().strip()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
