"""What is there before it is decided where a run's batches come from, and what that decision yields."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from trainers import build
from trainers.cycle import Cycle, Surroundings
from trainers.evaluation import Evaluator
from trainers.interrupt import Interrupt
from trainers.module import WorldModelModule
from trainers.progress import RunProgress
from trainers.run_paths import RunPaths
from worldmodel.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class Session:
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
            lambda count: build.open_evaluation_pool(self.config, count, gpu=self.gpu), envs=envs, seed=seed
        )
        return self.stack.enter_context(closing(evaluator))

    def surroundings(self, spec: EnvSpec, evaluator: Evaluator | None) -> Surroundings:
        """What the run's cycle works with."""
        evaluation = self.config["evaluation"]
        if evaluator is not None:
            build.require_evaluation(self.config, spec, gpu=self.gpu)
        return Surroundings(
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
class Course:
    """What Lightning fits, on which batches, and the callback that leads it. renderer: what drew the frames."""

    module: WorldModelModule
    data: pl.LightningDataModule
    cycle: Cycle
    spec: EnvSpec
    renderer: str
