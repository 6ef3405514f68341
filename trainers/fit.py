"""Train an agent from pixels: `python -m trainers.fit task=walker_walk`."""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainers.command.arguments import Command, at_home
from trainers.command.configuration import (
    PLAIN,
    BadConfig,
    load_config,
    override_saved,
    read_yaml,
    run_title,
    task_names,
)
from trainers.command.entry import is_first_rank, run
from trainers.command.preflight import check
from trainers.run_folder.paths import RunPaths

RUN_DIR = "WORLDMODEL_RUN_DIR"  # how ranks that Lightning launches learn the folder that rank 0 chose

COMMAND = Command(
    name="fit",
    summary=(
        "Learns a world model from pixels and acts with it. Every line of configs/fit.yaml and of the groups beside "
        "it is a key; a group is chosen by its file's name. The run folder gets config.yaml, metrics.csv, "
        "checkpoints/, replay/, videos/ and report.html."
    ),
    overrides="of the configuration",
    hint="resume={0} goes on with a run",
    notes=f"""  python -m trainers.fit                                  cartpole_swingup, on what this machine has
  python -m trainers.fit task=walker_walk                 any task of the list below
  python -m trainers.fit task=toy_point                   needs no GL, minutes on one core
  python -m trainers.fit resume=runs/cartpole_swingup/x   continue where it stopped
  python -m trainers.fit data=offline data.uri=PATH       from recorded episodes, no environment
  python -m trainers.fit data=imagined data.model=RUN     value and policy in a trained model's imagination
  python -m trainers.fit trainer.devices=2 trainer.strategy=ddp trainer.accelerator=cpu
  python -m trainers.fit logger=wandb policy=none planner.horizon=12 task.env.action_repeat=4

Often changed:
  task=NAME  task.env_steps=60000  task.env.action_repeat=8  render=auto|suite|fast  seed=0
  dynamics=rssm_gaussian|rssm_categorical|gaussian|deterministic|ensemble|laplace|variational|smoothing
  objective=reconstruction|overshooting|latent_consistency|slow_consistency|info_nce|barlow|sigreg
  decoder=light|full
  agent=latent_mpc  planner=cem|planet  policy=backprop|none
  data.envs=1  data.batch=12  data.length=24  data.update_ratio=1.6
  evaluation.every=10000  evaluation.episodes=2  trainer.precision=bf16-mixed  run_dir=PATH

Tasks:
  {" ".join(task_names())}""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Train, evaluate, report; returns the results that are printed as the last line."""
    COMMAND.parse(arguments)
    try:
        config, paths = _configure(arguments)
        check(config)
        # torch and Lightning take seconds to load: a wrong word on the command line is answered before
        from trainers.build.check_parts import fit_options
        from trainers.training.run import train

        return train(fit_options(config, arguments), paths)
    finally:
        if is_first_rank():
            os.environ.pop(RUN_DIR, None)  # for this run's other ranks, not for the next run of this process


def _configure(arguments: Sequence[str]) -> tuple[dict[str, Any], RunPaths]:
    """The configuration, new or of the run to resume, and the run folder."""
    given = [text.split("=", 1) for text in arguments]
    arguments = [f"{key}={at_home(value) if key in PLAIN else value}" for key, value in given]
    named = dict(text.split("=", 1) for text in arguments)
    if named.get("resume", "") not in ("", "null"):
        config, root = _resumed(Path(named["resume"]), arguments)
    else:
        model = named.get("data.model", "") if named.get("data") == "imagined" else ""
        config = _imagining(Path(model), arguments) if model else load_config(arguments)
        root = _new_root(config)
    root = root.resolve()
    if is_first_rank():
        os.environ[RUN_DIR] = str(root)
    return _anywhere(config) | {"run_dir": str(root)}, RunPaths(root)


def _anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with paths that mean the same in every working folder, so that a resume finds them."""
    data = config["data"]
    given = {key: data[key] for key in ("model", "cache") if data.get(key)}
    paths = {key: str(Path(path).absolute()) for key, path in given.items()}
    if data.get("uri"):
        from datamodules.formats.uri import absolute  # numpy, which help is answered without

        paths = {"cache": str(Path("cache").absolute()), **paths, "uri": absolute(data["uri"])}
    return config | {"data": {**data, **paths}, "resume": config["resume"] and str(Path(config["resume"]).absolute())}


def _resumed(root: Path, arguments: Sequence[str]) -> tuple[dict[str, Any], Path]:
    saved = read_yaml(root / "config.yaml")
    if saved["data"]["name"] == "distilled":
        raise BadConfig(
            f"resume: expected a run of trainers.fit, got a student; trainers.distill resume={root} continues it"
        )
    others = [text for text in arguments if not text.startswith(("resume=", "run_dir="))]
    config = override_saved(saved, others) | {"resume": str(root)}
    for key in ("devices", "num_nodes"):
        before, now = saved["trainer"][key], config["trainer"][key]
        if before != now:
            raise BadConfig(f"trainer.{key}: expected {before} as in the run to resume, got {now}")
    return config, root


def _imagining(model: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run that a model comes from, with overrides on top, to learn in its imagination."""
    root = model.resolve().parent.parent if (model / "manifest.json").exists() else model.resolve()
    saved = read_yaml(root / "config.yaml") | {"run_dir": None, "resume": None}
    learned_from = saved["data"]
    config = override_saved(saved, ["data=imagined", *(text for text in arguments if text != "data=imagined")])
    data = config["data"]
    if data["uri"] is None:
        own = {"uri": f"segments:{root / 'replay'}"}
        keys = ("uri", "cache", "alignment", "actions")
        data |= {key: learned_from.get(key) for key in keys} if "uri" in learned_from else own
    return config


def _new_root(config: dict[str, Any]) -> Path:
    if not is_first_rank():
        if not (config["run_dir"] or os.environ.get(RUN_DIR)):
            raise BadConfig("run_dir: expected a path, since these ranks were started apart and cannot agree on one")
        return Path(config["run_dir"] or os.environ[RUN_DIR])
    root = Path(config["run_dir"] or _new_run_dir(run_title(config))).expanduser()
    if (root / "config.yaml").exists():
        raise BadConfig(f"run_dir: {root} holds a run already; resume={root} continues it")
    return root


def _new_run_dir(title: str) -> Path:
    # the second alone is not unique: runs of several seeds are started together
    return Path("runs") / title / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"


command = partial(run, main, usage=COMMAND.help())

if __name__ == "__main__":
    sys.exit(command())
