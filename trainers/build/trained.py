"""Whatever a run folder holds that acts: an agent that plans, or a student of one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainers.build.agent import build_agent, load_weights
from trainers.build.student import build_student
from trainers.command.configuration import is_student
from trainers.run_folder.checkpoint import load_checkpoint
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.agents.student import Student
from worldmodel.spec import EnvSpec


def build_trained(config: Mapping[str, Any], spec: EnvSpec, checkpoint: Path) -> LatentMPC | Student:
    """What acts, with a checkpoint's weights, in evaluation mode; raises CheckpointDamaged and WeightsDiffer."""
    return with_weights(config, spec, load_checkpoint(checkpoint)["state_dict"])


def with_weights(config: Mapping[str, Any], spec: EnvSpec, state_dict: Mapping[str, Tensor]) -> LatentMPC | Student:
    """`build_trained` from weights that were loaded already; raises WeightsDiffer."""
    agent = build_student(config) if is_student(config) else build_agent(config, spec)
    load_weights(agent, state_dict)
    return agent.eval()
