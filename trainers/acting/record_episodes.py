"""Episodes from parallel environments into a data set."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from datamodules.envs.errors import WorkerFault
from datamodules.envs.protocol import Fault, Pool, Step
from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.formats.protocol import Writer
from datamodules.formats.uri import absolute, open_writer, require_new
from datamodules.rollout import Episode, Policy, SmoothRandom, play
from datamodules.trajectory import Trajectory
from trainers.acting.agent_policy import AgentPolicy
from trainers.build.environments import open_pool
from trainers.build.trained import build_trained
from trainers.command.configuration import load_config, override_saved, read_yaml, whole_number
from trainers.command.preflight import check
from trainers.machine.device import usable_device
from trainers.process.clock import Clock
from trainers.run_folder.find import find_checkpoint, require_task_fits, run_of
from worldmodel.interfaces import Acts

SECONDS_A_LINE = 5.0


def record(
    *,
    policy: str,
    model: str | None,
    episodes: str,
    envs: str,
    seed: str,
    out: str,
    device: str,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """Play and write; returns the counts. Texts are as typed; raises BadConfig, FormatError, OSError and EnvError."""
    start, clock = time.monotonic(), Clock()
    count, first_seed = whole_number("episodes", episodes), whole_number("seed", seed, least=0)
    width = min(count, whole_number("envs", envs))
    config, checkpoint = _configuration(model, overrides)
    if checkpoint is not None and policy != "checkpoint":
        config["agent"]["act_with"] = policy
    check(config)
    require_new(out)
    with ExitStack() as stack:
        pool = stack.enter_context(open_pool(config, width))
        agent: Acts | None = None
        if checkpoint is not None:  # what does not fit is refused before anything is created
            require_task_fits(run_of(checkpoint), pool.spec, key="model")
            agent = build_trained(config, pool.spec, checkpoint).to(usable_device(device))
        writer = stack.enter_context(closing(open_writer(out, pool.spec)))
        acts = {} if agent is None else {"act_with": config["agent"]["act_with"]}
        recorder = Recorder(writer, out)
        for played in range(0, count, width):
            places = range(min(width, count - played))
            seeds = {i: episode_seed(first_seed, SeedRank.RECORDING, 0, played + i) for i in places}
            act = _policy(
                pool, agent, [episode_seed(first_seed, SeedRank.RECORDING, 1, played + i) for i in places], clock
            )
            recorder.take(play(pool, act, seeds, on_row=recorder.row), total=count)
        if recorder.last_fault is not None and not recorder.counts()["env_steps"]:
            fault = recorder.last_fault
            raise WorkerFault(f"no episode got beyond its first frame, the last for {fault.kind}: {fault.message}")
        facts = {
            "task": pool.spec.task,
            "policy": policy,
            **acts,
            **recorder.counts(),
            "out": absolute(out),
            "seed": first_seed,
        }
    return {**facts, "seconds": round(time.monotonic() - start, 1)}


class Recorder:
    """Collects the rows of running episodes and writes those that ended."""

    def __init__(self, writer: Writer, out: str) -> None:
        self._writer, self._out, self._console = writer, out, Console(file=sys.stderr, highlight=False)
        self._open: dict[int, list[tuple[Step, NDArray[np.float32]]]] = {}
        self._returns: list[float] = []
        self._rows = self._env_steps = self._faults = 0
        self.last_fault: Fault | None = None
        self._said = time.monotonic()

    def row(self, index: int, step: Step, action: NDArray[np.float32]) -> None:
        """One row of environment `index`."""
        self._open.setdefault(index, []).append((step, action.copy()))

    def take(self, episodes: list[Episode], *, total: int) -> None:
        """Write the episodes of a round, those cut short by a fault as truncated."""
        for episode in episodes:
            rows = self._open.pop(episode.index, [])
            if episode.fault is not None:
                self._faults += 1
                self.last_fault = episode.fault
            if episode.decisions:
                self._writer.write(Trajectory.from_rows(rows, name=f"seed {episode.seed}"))
                self._rows += len(rows)
                self._env_steps += episode.env_steps
                self._returns.append(episode.total_return)
        if time.monotonic() - self._said > SECONDS_A_LINE or len(self._returns) >= total:
            self._said = time.monotonic()
            mean = f"{np.mean(self._returns):.3g}" if self._returns else "–"
            self._console.print(
                f"{len(self._returns):,} / {total:,} episodes | {self._rows:,} rows | mean return {mean} | {self._out}",
                markup=False,
                soft_wrap=True,
            )

    def counts(self) -> dict[str, Any]:
        """What was written."""
        mean = float(np.mean(self._returns)) if self._returns else None
        counts = {"episodes": len(self._returns), "rows": self._rows, "env_steps": self._env_steps}
        return {**counts, "faults": self._faults, "return_mean": mean}


def _policy(pool: Pool, agent: Acts | None, seeds: Sequence[int], clock: Clock) -> Policy:
    """A policy for one round, with a seed for the draws of each episode."""
    if agent is None:
        return SmoothRandom(pool.spec, rngs=[np.random.default_rng(seed) for seed in seeds])
    return AgentPolicy(agent, generators=[torch.Generator().manual_seed(seed) for seed in seeds], clock=clock)


def _configuration(model: str | None, overrides: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """That of the command line, or of the model's run with the command line on top, and the model's checkpoint."""
    if model is None:
        return load_config(overrides), None
    root, checkpoint = find_checkpoint(Path(model), key="model")
    return override_saved(read_yaml(root / "config.yaml"), overrides), checkpoint
