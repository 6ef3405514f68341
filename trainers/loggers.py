"""Loggers: metrics.csv always, Weights & Biases or TensorBoard when chosen."""

import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from trainers.metrics import CSVMetrics
from trainers.run_paths import RunPaths


def build_loggers(config: dict[str, Any], paths: RunPaths, csv: CSVMetrics, *, rank: int) -> list[Logger]:
    """The run's loggers; other ranks than 0 need none."""
    if rank:
        return []
    options = dict(config["logger"])
    name = options.pop("name")
    if name == "csv":
        return [csv]
    if name == "wandb":
        return [csv, _wandb(config, options, paths)]
    if name == "tensorboard":
        from pytorch_lightning.loggers import TensorBoardLogger

        return [csv, TensorBoardLogger(paths.root, name="", version="tensorboard")]
    raise ValueError(f"logger.name: expected csv, wandb or tensorboard, got {name!r}")


def log_films(loggers: Sequence[Logger], paths: Sequence[Path], *, env_steps: int) -> None:
    """Hand the mp4 files among `paths` (named <kind>_<when>.mp4) to Weights & Biases, where it is one of `loggers`."""
    films = [path for path in paths if path.suffix == ".mp4"]
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        import wandb

        kinds = {f"video/{film.stem.rpartition('_')[0]}": wandb.Video(str(film), format="mp4") for film in films}
        logger.log_metrics({**kinds, "env_steps": env_steps}, step=env_steps)  # type: ignore[dict-item]


def _wandb(config: dict[str, Any], options: dict[str, Any], paths: RunPaths) -> Logger:
    mode = os.environ.get("WANDB_MODE")
    offline = options["offline"]
    if offline is None:
        # decided before the run starts: a run that goes online without a key waits for a network it may never get
        offline = mode == "offline" if mode else not _has_key()
    run_id = _run_id(paths.root / "wandb_id.txt")
    logger = WandbLogger(
        project=os.environ.get("WANDB_PROJECT", options["project"]),
        name=f"{config['task']['name']}-{paths.root.name}",
        id=run_id,
        resume="allow",
        group=options["group"],
        tags=list(options["tags"]),
        offline=bool(offline),
        save_dir=str(paths.root),
        config=config,
    )
    logger.experiment.define_metric("env_steps")
    logger.experiment.define_metric("*", step_metric="env_steps")
    return logger


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
