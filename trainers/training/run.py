"""One training run, from a checked configuration to its results."""

import inspect
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from datamodules.envs.errors import EnvError
from datamodules.storage.durable import write_atomic
from trainers.acting.evaluation import Evaluator
from trainers.build.environments import open_evaluation_pool, require_evaluation
from trainers.command import registry
from trainers.command.configuration import BadConfig, run_title
from trainers.command.entry import silence_advice
from trainers.process.interrupt import Interrupt
from trainers.reporting.page import write_report
from trainers.run_folder.checkpoint import DurableCheckpointIO, newest
from trainers.run_folder.loggers import build_loggers, finish
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.paths import RunPaths, record_fault
from trainers.run_folder.records import versions, write_json
from trainers.run_folder.statistics import mean_ci95
from trainers.training.loop import LoopContext, TrainingLoop
from trainers.training.module import WorldModelModule
from trainers.training.progress import RunProgress
from trainers.training.time_left import planned
from worldmodel.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class RunContext:
    """One process of a run. stack: closes what is opened for it; resumed: a checkpoint is about to be loaded."""

    config: dict[str, Any]
    paths: RunPaths
    trainer: pl.Trainer
    progress: RunProgress
    interrupt: Interrupt
    stack: ExitStack
    resumed: bool

    @property
    def rank(self) -> int:
        """Of this process among all."""
        return self.trainer.global_rank

    @property
    def gpu(self) -> int | None:
        """The device that environments of this process draw with, None for the CPU."""
        return self.trainer.local_rank if self.trainer.strategy.root_device.type == "cuda" else None

    def evaluator(self) -> Evaluator:
        """Plays episodes of the configured task; its environments start when it is first used."""
        envs, seed = self.config["evaluation"]["envs"], self.config["seed"]
        evaluator = Evaluator(
            lambda count: open_evaluation_pool(self.config, count, gpu=self.gpu), envs=envs, seed=seed
        )
        return self.stack.enter_context(closing(evaluator))

    def surroundings(self, spec: EnvSpec, evaluator: Evaluator | None) -> LoopContext:
        """What the run's cycle works with."""
        evaluation = self.config["evaluation"]
        if evaluator is not None:
            require_evaluation(self.config, spec, gpu=self.gpu)
        return LoopContext(
            paths=self.paths,
            progress=self.progress,
            interrupt=self.interrupt,
            evaluator=evaluator,
            spec=spec,
            evaluate_every=evaluation["every"],
            evaluation_episodes=evaluation["episodes"],
            final_episodes=evaluation["final_episodes"],
            keep_checkpoints=self.config["checkpoint"]["keep"],
        )


@dataclass(frozen=True, slots=True)
class RunParts:
    """What Lightning fits, on which batches, and the callback that leads it. renderer: what drew the frames."""

    module: WorldModelModule
    data: pl.LightningDataModule
    cycle: TrainingLoop
    spec: EnvSpec
    renderer: str


Config = dict[str, Any]

# how long the first rank waits for the end of those that Lightning launched
RANK_EXIT_S = 30.0

# Lightning's own ways of doing what this project does itself
OURS = ("callbacks", "logger", "plugins", "default_root_dir", "enable_checkpointing", "use_distributed_sampler")


def train(config: Config, paths: RunPaths) -> dict[str, Any]:
    """Train, evaluate and report in `paths`; a run that is refused before it starts leaves no folder behind."""
    start = time.monotonic()
    silence_advice(profiled=bool(config["trainer"]["profiler"]))
    pl.seed_everything(config["seed"], verbose=False)
    progress = RunProgress(title=run_title(config))
    trainer = _trainer(config, paths, progress)
    torch.set_num_threads(_threads(trainer))
    torch.set_flush_denormal(True)  # numbers too small to matter cost a hundred times more
    if not trainer.is_global_zero:
        progress.disable()
    with ExitStack() as stack:
        stack.enter_context(_run_folder(paths, owner=trainer.is_global_zero))
        checkpoint = _checkpoint(paths, rank=trainer.global_rank) if config["resume"] else None
        session = RunContext(config, paths, trainer, progress, Interrupt(), stack, resumed=checkpoint is not None)
        course = registry.make("trainers.loops", {"name": config["data"]["name"]}, session=session)
        progress.update(**planned(config, course.spec))
        interrupt = stack.enter_context(session.interrupt)
        trainer.callbacks.insert(0, course.cycle)
        csv, axis = CSVMetrics(run_dir=paths.root), course.cycle.axis
        trainer.loggers = build_loggers(config, paths, csv, rank=trainer.global_rank, axis=axis)
        stack.callback(finish, trainer.loggers)
        if trainer.is_global_zero:
            _write_records(config, paths, course.spec, course.renderer, device=_device_name(trainer))
        trainer.fit(course.module, datamodule=course.data, ckpt_path=checkpoint)
        results = _results(config, paths, course, interrupt, seconds=time.monotonic() - start)
    if trainer.is_global_zero:
        write_json(paths.root / "results.json", results)
        results["report"] = _report(paths, progress)
    _await_ranks(trainer)
    return results


def _report(paths: RunPaths, progress: RunProgress) -> str | None:
    """Where the page is; a package that an update of this project left missing costs the page, not the results."""
    try:
        return str(write_report(paths.root))
    except ModuleNotFoundError as error:
        progress.print(f"no report: {error}; make setup installs it, python -m trainers.report {paths.root} writes it")
        return None


def _await_ranks(trainer: pl.Trainer) -> None:
    """Wait for the ranks that this process launched: what follows the command must not meet their remains."""
    end = time.monotonic() + RANK_EXIT_S
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(end - time.monotonic(), 0.0))


@contextmanager
def _run_folder(paths: RunPaths, *, owner: bool) -> Iterator[None]:
    """The folder, locked; made for a run that is then refused, it is removed again."""
    absent = [folder for folder in paths.root.parents if not folder.exists()]
    fresh = paths.create()
    lock = paths.lock() if owner else None
    try:
        yield
    except BaseException as error:
        if owner and fresh and not paths.config.exists():
            shutil.rmtree(paths.root)
            with suppress(OSError):  # another run's, by now
                for folder in absent:
                    folder.rmdir()
        elif isinstance(error, EnvError) and error.trace:
            record_fault(paths, str(error), error.trace)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _checkpoint(paths: RunPaths, *, rank: int) -> Path | None:
    """Where the run continues; a run that ended before its first checkpoint begins again."""
    found = newest(paths.checkpoints)
    if found is None and any(paths.checkpoints.glob("step_*")):
        raise BadConfig(f"resume: expected an intact checkpoint in {paths.checkpoints}, got damaged ones only")
    if found is None:
        shutil.rmtree(paths.replay(rank), ignore_errors=True)
        (paths.root / "metrics.csv").unlink(missing_ok=True)
    return found


def _trainer(config: Config, paths: RunPaths, progress: RunProgress) -> pl.Trainer:
    """Lightning's Trainer; raises BadConfig for a flag or a value that it does not know."""
    flags = {"max_epochs": -1, "num_sanity_val_steps": 0, "enable_model_summary": False, "log_every_n_steps": 1}
    flags |= config["trainer"]
    known = inspect.signature(pl.Trainer).parameters.keys() - set(OURS)
    for name in flags.keys() - known:
        raise BadConfig(f"trainer.{name}: expected one of {', '.join(sorted(known))}")
    try:
        return pl.Trainer(
            **flags,
            callbacks=[progress],
            logger=False,
            plugins=[DurableCheckpointIO()],
            default_root_dir=paths.root,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise BadConfig(f"trainer: {' '.join(str(error).split())}") from error


def _threads(trainer: pl.Trainer) -> int:
    """Cores of this rank: what the process may use, shared among the CPU ranks of this machine."""
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cpu = trainer.strategy.root_device.type == "cpu"
    return max(1, cores // trainer.num_devices) if on_cpu else cores


def _device_name(trainer: pl.Trainer) -> str:
    device = trainer.strategy.root_device
    return (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {_threads(trainer)} threads"
    )


def _write_records(config: Config, paths: RunPaths, spec: EnvSpec, renderer: str, *, device: str) -> None:
    if "look" in config["task"]["env"]:
        # what was drawn, so that the run is continued and evaluated with the same look on any machine
        config["task"]["env"]["look"] = spec.look
    write_json(paths.root / "spec.json", {**spec.to_json(), "renderer": renderer})
    write_json(paths.root / "versions.json", {**versions(), "device": device})
    write_atomic(paths.config, yaml.safe_dump(config, sort_keys=False).encode())


def _results(
    config: Config, paths: RunPaths, course: RunParts, interrupt: Interrupt, *, seconds: float
) -> dict[str, Any]:
    cycle, module = course.cycle, course.module
    returns = cycle.final_returns or []
    return {
        "task": course.spec.task,
        "status": "interrupted" if interrupt.received is not None else "finished" if cycle.finished else "stopped",
        "return_mean": sum(returns) / len(returns) if returns else None,
        "return_ci95": mean_ci95(returns) if returns else None,
        "returns": returns,
        **cycle.counters,
        "updates": module.updates,
        **cycle.results(),
        "seconds": round(module.clock.total, 1),
        "session_seconds": round(seconds, 1),
        "time": {name.removeprefix("time/"): round(s, 1) for name, s in module.clock.split().items()},
        "seed": config["seed"],
        "look": course.spec.look,
        "backend": course.spec.backend,
        "run_dir": str(paths.root),
        "exit_code": 0 if interrupt.received is None else 128 + interrupt.received,
    }
