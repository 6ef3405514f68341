"""The LightningModule from a configuration."""

from collections.abc import Mapping
from typing import Any

from trainers.training.module import WorldModelModule
from worldmodel.agents.latent_mpc import LatentMPC

Config = Mapping[str, Any]


def build_module(config: Config, agent: LatentMPC, kind: type[WorldModelModule] = WorldModelModule) -> WorldModelModule:
    """The LightningModule around an agent."""
    options = config["optimizer"]
    return kind(agent, learning_rates=options["learning_rates"], grad_clip=options["grad_clip"], eps=options["eps"])
