"""What every part of a training run shares: its configuration, its folder, Lightning's trainer, and what ends it."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from datamodules.envs.gl import GPU
from trainers.acting.evaluation import Evaluator
from trainers.build.environments import open_evaluation_pool, require_evaluation
from trainers.machine.hardware import gpu_uuid
from trainers.process.heartbeat import Heartbeat
from trainers.process.interrupt import Interrupt
from trainers.run_folder.paths import RunPaths
from trainers.training.progress import RunProgress
from worldmodel.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class RunContext:
    """One process of a run."""

    config: dict[str, Any]
    paths: RunPaths
    trainer: pl.Trainer  # without a loop yet
    progress: RunProgress  # what a person sees of the run
    interrupt: Interrupt  # whether a signal asked to stop
    stack: ExitStack  # closes at the end whatever was opened for the run
    checkpoint: Path | None  # which is about to be loaded
    heartbeat: Heartbeat | None = (
        None  # ends this process where another rank stands still; None where there is no other
    )
    generation: int = 0  # how often the run went on with another number of ranks, this time included
    former_ranks: tuple[dict[str, Any], ...] = ()  # the checkpoint's, where they were more or fewer than now

    @property
    def resumed(self) -> bool:
        """Whether a checkpoint is about to be loaded."""
        return self.checkpoint is not None

    @property
    def rank(self) -> int:
        """Of this process among all."""
        return self.trainer.global_rank

    @property
    def gpu(self) -> GPU | None:
        """What environments of this process draw with, None for the CPU."""
        device = self.trainer.strategy.root_device
        return None if device.type != "cuda" else (device.index or 0, gpu_uuid(device.index or 0))

    @property
    def device_name(self) -> str:
        """What computes: the GPU's name, or the CPU and how many threads of it."""
        device = self.trainer.strategy.root_device
        return (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        )

    def evaluator(self, spec: EnvSpec) -> Evaluator:
        """Plays episodes of the configured task, whose environments start when it is first used.

        Raises BadValue where the task, seen through `evaluation.visuals`, gives other frames than `spec`.
        """
        require_evaluation(self.config, spec, gpu=self.gpu)
        envs, seed = self.config["evaluation"]["envs"], self.config["seed"]
        open_pool = lambda count: open_evaluation_pool(self.config, count, gpu=self.gpu)  # noqa: E731
        return self.stack.enter_context(closing(Evaluator(open_pool, envs=envs, seed=seed)))
