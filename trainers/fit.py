"""Train an agent from pixels: `python -m trainers.fit task=walker_walk`."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from trainers import build
from trainers.artifacts import versions, write_json
from trainers.checkpoint import DurableCheckpointIO, newest
from trainers.collect import Collector
from trainers.configuration import BadConfig, load_config, override_saved, read_yaml, task_names
from trainers.entry import reject_unknown_flags, run
from trainers.evaluation import Evaluator
from trainers.interrupt import Interrupt
from trainers.loggers import build_loggers
from trainers.loop import Algorithm26
from trainers.metrics import CSVMetrics
from trainers.progress import RunProgress
from trainers.report import write_report
from trainers.run_paths import RunPaths
from worldmodel.spec import EnvSpec

RUN_DIR = "WORLDMODEL_RUN_DIR"  # how ranks that Lightning launches learn the folder that rank 0 chose

USAGE = f"""python -m trainers.fit [key=value ...]

Learns a world model from pixels and acts with it. Every line of configs/fit.yaml and of the groups
beside it is a key; a group is chosen by its file's name.

  python -m trainers.fit                                  cartpole_swingup, on what this machine has
  python -m trainers.fit task=walker_walk env_steps...    see below for the tasks
  python -m trainers.fit task=toy_point                   needs no GL, minutes on one core
  python -m trainers.fit resume=runs/cartpole_swingup/x   continue where it stopped
  python -m trainers.fit trainer.devices=2 trainer.strategy=ddp trainer.accelerator=cpu
  python -m trainers.fit logger=wandb policy=none planner.horizon=12 task.env.action_repeat=4

Often changed:
  task=NAME  task.env_steps=50000  task.env.action_repeat=8  render=auto|suite|fast  seed=0
  agent=latent_mpc|pure_planner  dynamics=rssm_gaussian|deterministic  planner=cem|planet  policy=backprop|none
  data.envs=1  data.batch=16  data.length=16  data.update_ratio=1.6
  evaluation.every=10000  evaluation.episodes=2  trainer.precision=bf16-mixed  run_dir=PATH

Tasks:
  {" ".join(task_names())}

The run folder gets config.yaml, metrics.csv, checkpoints/, replay/, videos/ and report.html;
the last line of standard output is one JSON object with the results."""


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Train, evaluate, report; returns the results that are printed as the last line."""
    reject_unknown_flags(arguments)
    config, paths = _configure(arguments)
    pl.seed_everything(config["seed"], verbose=False)
    torch.set_num_threads(_threads(config))
    world_size, rank = _world(config), int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    pool = build.open_pool(config, config["data"]["envs"])
    lock = None
    try:
        agent = build.build_agent(config, pool.spec)
        paths.create()
        lock = paths.lock() if rank == 0 else None
        return _train(config, paths, pool, agent, rank=rank, world_size=world_size)
    finally:
        pool.close()
        if lock is not None:
            os.close(lock)


def _train(
    config: dict[str, Any], paths: RunPaths, pool: Any, agent: Any, *, rank: int, world_size: int
) -> dict[str, Any]:
    start = time.monotonic()
    checkpoint = newest(paths.checkpoints) if config["resume"] else None
    replay = build.build_replay(config, pool.spec, paths, rank=rank, world_size=world_size)
    module = build.build_module(config, agent)
    data = build.build_data(config, replay, world_size=world_size)
    progress = RunProgress(title=config["task"]["name"])
    progress.print(replay.summary())
    evaluator = Evaluator(
        lambda count: build.open_pool(config, count), envs=config["evaluation"]["envs"], seed=config["seed"]
    )
    csv = CSVMetrics(run_dir=paths.root)
    loggers = build_loggers(config, paths, csv, rank=rank)
    with Interrupt() as interrupt:
        loop = _loop(config, paths, pool, replay, module, evaluator, progress, interrupt, rank=rank)
        trainer = _trainer(config, paths, [loop, progress], loggers)
        if rank == 0:
            _write_records(config, paths, pool.spec, pool.renderer)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
        finally:
            evaluator.close()
            replay.close()
    results = _results(config, paths, loop, module, interrupt, seconds=time.monotonic() - start)
    if rank == 0:
        write_json(paths.root / "results.json", results)
        results["report"] = str(write_report(paths.root))
    return results


def _configure(arguments: Sequence[str]) -> tuple[dict[str, Any], RunPaths]:
    """The configuration, new or of the run to resume, checked, and the run folder."""
    named = dict(text.split("=", 1) for text in arguments)
    if "resume" in named and named["resume"] not in ("", "null"):
        root = Path(named["resume"])
        others = [text for text in arguments if not text.startswith(("resume=", "run_dir="))]
        config = override_saved(read_yaml(root / "config.yaml"), others) | {"resume": str(root), "run_dir": str(root)}
    else:
        config = load_config(arguments)
        root = Path(os.environ.get(RUN_DIR) or config["run_dir"] or _new_run_dir(config["task"]["name"]))
        config["run_dir"] = str(root)
        if not os.environ.get(RUN_DIR) and (root / "checkpoints").exists():
            raise BadConfig(f"run_dir: {root} holds a run already; resume={root} continues it")
    os.environ[RUN_DIR] = str(root.resolve())
    _check(config)
    return config, RunPaths(root.resolve())


def _check(config: dict[str, Any]) -> None:
    """Refuse numbers that no run can have, before anything is started."""
    data, evaluation, task = config["data"], config["evaluation"], config["task"]
    least = {
        "data.envs": (data["envs"], 1),
        "data.seed_episodes": (data["seed_episodes"], 1),
        "data.batch": (data["batch"], 1),
        "data.length": (data["length"], 2),
        "data.capacity": (data["capacity"], 1),
        "data.flush_rows": (data["flush_rows"], 1),
        "task.env_steps": (task["env_steps"], 1),
        "evaluation.every": (evaluation["every"], 1),
        "evaluation.final_episodes": (evaluation["final_episodes"], 1),
        "evaluation.envs": (evaluation["envs"], 1),
    }
    for key, (number, minimum) in least.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < minimum:
            raise BadConfig(f"{key}: expected a whole number of at least {minimum}, got {number!r}")
    if not isinstance(data["update_ratio"], int | float) or not data["update_ratio"] > 0:
        raise BadConfig(f"data.update_ratio: expected a number above 0, got {data['update_ratio']!r}")


def _new_run_dir(task: str) -> Path:
    return Path("runs") / task / time.strftime("%Y%m%d-%H%M%S")


def _threads(config: dict[str, Any]) -> int:
    """Cores of this rank: what the process may use, shared among the CPU ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    devices = config["trainer"]["devices"]
    ranks = devices if config["trainer"]["accelerator"] == "cpu" and isinstance(devices, int) else 1
    return max(1, cores // max(1, ranks))


def _world(config: dict[str, Any]) -> int:
    devices, nodes = config["trainer"]["devices"], config["trainer"]["num_nodes"]
    if isinstance(devices, list):
        return len(devices) * nodes
    if devices in (-1, "auto"):
        return max(1, torch.cuda.device_count()) * nodes
    return int(devices) * nodes


def _loop(
    config: dict[str, Any],
    paths: RunPaths,
    pool: Any,
    replay: Any,
    module: Any,
    evaluator: Evaluator,
    progress: RunProgress,
    interrupt: Interrupt,
    *,
    rank: int,
) -> Algorithm26:
    data, evaluation = config["data"], config["evaluation"]
    collector = Collector(
        pool,
        replay,
        envs=data["envs"],
        seed=config["seed"],
        rank=rank,
        clock=module.clock,
        noise_std=config["agent"]["explore_std"],
    )
    return Algorithm26(
        collector,
        evaluator,
        replay,
        paths=paths,
        progress=progress,
        interrupt=interrupt,
        env_steps=config["task"]["env_steps"],
        update_ratio=data["update_ratio"],
        seed_rounds=data["seed_episodes"],
        evaluate_every=evaluation["every"],
        evaluation_episodes=evaluation["episodes"],
        final_episodes=evaluation["final_episodes"],
        keep_checkpoints=config["checkpoint"]["keep"],
    )


def _trainer(config: dict[str, Any], paths: RunPaths, callbacks: list[Any], loggers: list[Any]) -> pl.Trainer:
    return pl.Trainer(
        **config["trainer"],
        callbacks=callbacks,
        logger=loggers,
        plugins=[DurableCheckpointIO()],
        default_root_dir=paths.root,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        max_epochs=-1,
        log_every_n_steps=1,
    )


def _write_records(config: dict[str, Any], paths: RunPaths, spec: EnvSpec, renderer: str) -> None:
    paths.config.write_text(yaml.safe_dump(config, sort_keys=False))
    write_json(paths.root / "spec.json", {**spec.to_json(), "renderer": renderer})
    write_json(paths.root / "versions.json", versions())


def _results(
    config: dict[str, Any], paths: RunPaths, loop: Algorithm26, module: Any, interrupt: Interrupt, *, seconds: float
) -> dict[str, Any]:
    final = loop.final
    return {
        "task": config["task"]["name"],
        "status": "interrupted" if interrupt.received is not None else "finished" if final else "stopped",
        "return_mean": final.return_mean if final else None,
        "return_ci95": list(final.return_ci95) if final else None,
        "returns": final.returns if final else [],
        **loop.collector.counters,
        "updates": module.updates,
        "seconds": round(module.clock.total, 1),
        "session_seconds": round(seconds, 1),
        "time": {name.removeprefix("time/"): round(s, 1) for name, s in module.clock.split().items()},
        "seed": config["seed"],
        "look": loop.replay.spec.look,
        "backend": loop.replay.spec.backend,
        "run_dir": str(paths.root),
        "exit_code": 0 if interrupt.received is None else 128 + interrupt.received,
    }


if __name__ == "__main__":
    sys.exit(run(main, usage=USAGE))
