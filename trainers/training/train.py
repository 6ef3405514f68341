"""One training run, from a checked configuration to its results."""

import inspect
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.strategies import DDPStrategy

from datamodules.envs.errors import EnvError
from datamodules.storage.rows import ReplayMismatch
from trainers.build.agent import WeightsDiffer
from trainers.command import registry
from trainers.command.configuration import BadConfig, differences, read_yaml, run_differs, run_title
from trainers.command.entry import ended, silence_advice
from trainers.machine.hardware import usable_cores
from trainers.machine.precision import with_precision
from trainers.process.heartbeat import Heartbeat
from trainers.process.interrupt import Interrupt
from trainers.process.launched import srun_tasks
from trainers.run_folder.checkpoint import load_checkpoint
from trainers.run_folder.find import checkpoint_to_resume
from trainers.run_folder.loggers import build_loggers, finish
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.paths import RunPaths, record_fault
from trainers.run_folder.records import write_json
from trainers.run_folder.statistics import mean_ci95
from trainers.training.checkpoint_io import DurableCheckpointIO
from trainers.training.loop import TrainingLoop
from trainers.training.progress import RunProgress
from trainers.training.run_context import RunContext
from trainers.training.threads import ThreadsByLoad
from trainers.training.time_left import planned

Config = dict[str, Any]

# how long the first rank waits for the end of those that Lightning launched
RANK_EXIT_S = 30.0

# torch's own limit on what ranks wait for: a stop before it is the heartbeat's to notice
COLLECTIVE_TIMEOUT = timedelta(days=7)

# keys that shape what a checkpoint and a replay hold
SHAPING = ("agent", "decoder", "dynamics", "objective", "policy", "parts", "task.env.", "task.visuals", "data.envs")

# Lightning's own ways of doing what this project does itself
OURS = ("callbacks", "logger", "plugins", "default_root_dir", "enable_checkpointing", "use_distributed_sampler")


def train(config: Config, paths: RunPaths) -> dict[str, Any]:
    """Train, evaluate and report in `paths`; a run that is refused before it starts leaves nothing behind."""
    start = time.monotonic()
    config = with_precision(config)
    silence_advice(profiled=bool(config["trainer"]["profiler"]))
    pl.seed_everything(config["seed"], verbose=False)
    progress = RunProgress(title=run_title(config))
    trainer = _trainer(config, paths, progress)
    _set_threads(trainer, progress, fixed=bool(config["trainer"]["deterministic"]))
    torch.set_flush_denormal(True)  # numbers too small to matter cost a hundred times more
    if not trainer.is_global_zero:
        progress.disable()
    with ExitStack() as stack:
        stack.enter_context(_run_folder(paths, owner=trainer.is_global_zero))
        heartbeat = _heartbeat(config, paths, trainer)
        if heartbeat is not None:
            stack.enter_context(heartbeat)
        checkpoint = _checkpoint(paths, rank=trainer.global_rank) if config["resume"] else None
        before = _ranks_before(checkpoint, ranks=trainer.world_size)
        run = RunContext(config, paths, trainer, progress, Interrupt(), stack, checkpoint, heartbeat, *before)
        with _naming_changes(config, paths):
            loop: TrainingLoop = registry.make("trainers.loops", {"name": config["data"]["name"]}, run=run)
            progress.update(**planned(config, loop.spec))
            interrupt = stack.enter_context(run.interrupt)
            trainer.callbacks.insert(0, loop)  # type: ignore[attr-defined] # which Lightning sets in a connector
            csv, axis = CSVMetrics(run_dir=paths.root), loop.axis
            trainer.loggers = build_loggers(config, paths, csv, rank=trainer.global_rank, axis=axis)
            stack.callback(finish, trainer.loggers)
            if heartbeat is not None:
                heartbeat.watch()
            with _in_own_words():
                trainer.fit(loop.module, datamodule=loop.data, ckpt_path=checkpoint)
        results = _results(run, loop, interrupt, seconds=time.monotonic() - start)
    if trainer.is_global_zero:
        write_json(paths.root / "results.json", results)
        results["report"] = _report(paths, progress)
    _await_ranks(trainer)
    return results


def _report(paths: RunPaths, progress: RunProgress) -> str | None:
    """Where the page is; a package that an update of this project left missing costs the page, not the results."""
    try:
        from trainers.reporting.run_page import write_report  # at the end of a run, which does without it

        return str(write_report(paths.root))
    except ModuleNotFoundError as error:
        progress.print(f"no report: {error}; make setup installs it, python -m trainers.report {paths.root} writes it")
        return None


@contextmanager
def _naming_changes(config: Config, paths: RunPaths) -> Iterator[None]:
    """Where a resumed run does not fit its checkpoint, name what was changed instead of a weight."""
    saved = read_yaml(paths.config) if config["resume"] else config
    try:
        yield
    except (WeightsDiffer, ReplayMismatch) as error:
        changes = [
            str(run_differs(key, before, now))
            for key, before, now in differences(saved, config)
            if key.startswith(SHAPING)
        ]
        if not changes:
            raise
        weights = isinstance(error, WeightsDiffer)
        raise BadConfig("; ".join(changes if weights else [str(error), *changes])) from error


@contextmanager
def _in_own_words() -> Iterator[None]:
    """What Lightning makes of a second Ctrl-C and of flags that it cannot take together, as this project says it."""
    try:
        yield
    except MisconfigurationException as error:
        raise BadConfig(f"trainer: {' '.join(str(error).split())}") from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


def _await_ranks(trainer: pl.Trainer) -> None:
    """Wait for the ranks that this process launched: what follows the command must not meet their remains."""
    end = time.monotonic() + RANK_EXIT_S
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(end - time.monotonic(), 0.0))


def _heartbeat(config: Config, paths: RunPaths, trainer: pl.Trainer) -> Heartbeat | None:
    """Among several ranks, what ends this one where another stands still."""
    if trainer.world_size == 1:
        shutil.rmtree(paths.heartbeats, ignore_errors=True)  # of an earlier session with several
        return None
    timeout_s = config["trainer"]["rank_timeout_s"]

    def end(lost: str) -> None:
        """At once, as after a kill: the main thread waits within torch for what will never come."""
        line = f"RankLost: {lost}; python -m trainers.fit resume={paths.root} continues (trainer.rank_timeout_s)"
        print(line, file=sys.stderr, flush=True)
        for process in getattr(trainer.strategy.launcher, "procs", ()):
            process.kill()  # a stopped process takes no other signal
        if trainer.global_rank:
            # a launcher kills the first rank once another has ended, which must not be before it has said the same
            time.sleep(3 * heartbeat.interval_s)
        os._exit(ended("failed", 1, error=line))

    ranks = {"rank": trainer.global_rank, "ranks": trainer.world_size}
    heartbeat = Heartbeat(paths.heartbeats, **ranks, timeout_s=timeout_s, end=end)
    return heartbeat


@contextmanager
def _run_folder(paths: RunPaths, *, owner: bool) -> Iterator[None]:
    """The folder, locked; what was made in it and above it for a run that is then refused is removed again."""
    missing = [folder for folder in (paths.root, *paths.root.parents) if not folder.exists()]
    before = set() if missing else set(paths.root.iterdir())
    paths.create()
    lock = None
    try:
        lock = paths.lock() if owner else None
        yield
    except BaseException as error:
        if lock is not None and not paths.config.exists():
            for path in set(paths.root.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for folder in missing:
                with suppress(OSError):  # another run may have begun beside this one
                    folder.rmdir()
        elif isinstance(error, EnvError) and error.trace:
            record_fault(paths, str(error), error.trace)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _checkpoint(paths: RunPaths, *, rank: int) -> Path | None:
    """Where the run continues; a run that ended before its first checkpoint begins again."""
    checkpoint = checkpoint_to_resume(paths)
    if checkpoint is None:
        shutil.rmtree(paths.shard(rank), ignore_errors=True)
        (paths.root / "metrics.csv").unlink(missing_ok=True)
    return checkpoint


def _ranks_before(checkpoint: Path | None, *, ranks: int) -> tuple[int, tuple[dict[str, Any], ...]]:
    """The run's generation, and the states of the ranks that the checkpoint had where they were not as many."""
    if checkpoint is None:
        return 0, ()
    state = load_checkpoint(checkpoint)["callbacks"]["loop"]
    generation, former = state["generation"], tuple(state["ranks"])
    return (generation, ()) if len(former) == ranks else (generation + 1, former)


def _trainer(config: Config, paths: RunPaths, progress: RunProgress) -> pl.Trainer:
    """Lightning's Trainer; raises BadConfig for a flag or a value that it does not know."""
    flags: dict[str, Any] = {"max_epochs": -1, "num_sanity_val_steps": 0, "enable_model_summary": False}
    flags |= {"log_every_n_steps": 1, **config["trainer"]}
    flags.pop("rank_timeout_s", None)
    graphs = flags.pop("cuda_graphs", False)
    known = inspect.signature(pl.Trainer).parameters.keys() - set(OURS)
    for name in flags.keys() - known:
        raise BadConfig(f"trainer.{name}: expected one of {', '.join(sorted(known))}")
    try:
        trainer = pl.Trainer(
            **flags,
            callbacks=[progress],
            logger=False,
            plugins=[DurableCheckpointIO(), *_cluster()],
            default_root_dir=paths.root,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, RuntimeError, ValueError, TypeError) as error:
        raise BadConfig(f"trainer: {' '.join(str(error).split())}") from error
    if graphs and (trainer.strategy.root_device.type != "cuda" or trainer.world_size > 1):
        where = f"{trainer.world_size} on {trainer.strategy.root_device.type}"
        raise BadConfig(f"trainer.cuda_graphs: expected a run on one GPU, got {where}")
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = COLLECTIVE_TIMEOUT
    return trainer


def _cluster() -> list[ClusterEnvironment]:
    """Who starts the ranks, where Lightning would be wrong about it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return []
    if srun_tasks() > 1:
        # Lightning would save and requeue from within a signal handler
        return [SLURMEnvironment(auto_requeue=False)]
    # a shell within an allocation is no task of it: Lightning takes it for one by SLURM_NTASKS alone
    return [LightningEnvironment()] if "SLURM_NTASKS" in os.environ else []


def _set_threads(trainer: pl.Trainer, progress: RunProgress, *, fixed: bool) -> None:
    """Cores of this rank: what the process may use, shared among the CPU ranks of this machine."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    on_cpu = trainer.strategy.root_device.type == "cpu"
    cores = len(usable_cores())
    threads = max(1, cores // trainer.num_devices) if on_cpu else cores
    torch.set_num_threads(threads)
    if on_cpu and threads > 1 and trainer.world_size == 1 and not fixed:
        trainer.callbacks.append(ThreadsByLoad(threads, say=progress.print))  # type: ignore[attr-defined]


def _results(run: RunContext, loop: TrainingLoop, interrupt: Interrupt, *, seconds: float) -> dict[str, Any]:
    module, returns = loop.module, loop.evaluations.final_returns or []
    return {
        "task": loop.spec.task,
        "status": "interrupted" if interrupt.received is not None else "finished" if loop.finished else "stopped",
        "return_mean": sum(returns) / len(returns) if returns else None,
        "return_ci95": mean_ci95(returns) if returns else None,
        "returns": returns,
        **loop.counters,
        "updates": module.updates,
        **loop.results(),
        **({} if loop.ranks.found is None else {"rank_times": loop.ranks.found.rounded()}),
        "seconds": round(module.clock.total, 1),
        "session_seconds": round(seconds, 1),
        "time": {name.removeprefix("time/"): round(s, 1) for name, s in module.clock.split().items()},
        "seed": run.config["seed"],
        "renderer": loop.renderer,
        "look": loop.spec.look,
        "backend": loop.spec.backend,
        "run_dir": str(run.paths.root),
        "exit_code": 0 if interrupt.received is None else 128 + interrupt.received,
    }
