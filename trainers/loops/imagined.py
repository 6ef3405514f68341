"""Learn value and policy in a trained model's imagination; the model stays as it is, no environment is opened."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainers.build.agent import build_agent, require_fit
from trainers.loops.offline import OfflineLoop, build_offline_loop
from trainers.run_folder.checkpoint import load_checkpoint
from trainers.run_folder.find import find_checkpoint
from trainers.training.module import WorldModelModule
from trainers.training.run_context import RunContext
from worldmodel.agents.latent_mpc import POLICY, LatentMPC
from worldmodel.interfaces import Batch, Loss
from worldmodel.spec import EnvSpec


class PolicyModule(WorldModelModule):
    """Every batch is one update of value and policy from rollouts imagined from its rows; the model is frozen."""

    def __init__(self, agent: LatentMPC, **options: Any) -> None:
        super().__init__(agent, **options)
        for name, weight in agent.named_parameters():
            weight.requires_grad_(weight.requires_grad and name.startswith(POLICY))

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Without the model's."""
        return {name: weights for name, weights in self.agent.parameter_groups().items() if name != "model"}

    def count_rows(self, rows: int) -> None:
        """The model has learned from other rows."""

    def losses(self, batch: Batch) -> Loss:
        """Of value and policy."""
        with torch.no_grad():
            belief = self.agent.observe(batch)
        return self.agent.policy_losses(batch, belief)


class ImaginedLoop(OfflineLoop):
    """An OfflineLoop with a model that knows its frames already."""

    def fit_normalisers(self) -> None:
        """Nothing."""


def load_model(agent: LatentMPC, state_dict: dict[str, Tensor]) -> None:
    """The model's weights of a training checkpoint into an agent, whose policy stays as it is; a ValueError names what
    does not fit."""
    weights = {name.removeprefix("agent."): weight for name, weight in state_dict.items()}
    of_model, mine = (
        {name: weight for name, weight in each.items() if not name.startswith(POLICY)}
        for each in (weights, agent.state_dict())
    )
    require_fit(mine, of_model)
    agent.load_state_dict(of_model, strict=False)


def make(*, run: RunContext) -> OfflineLoop:
    """A fresh policy on the model at data.model; a run that is resumed has its model in its own checkpoint."""
    config = run.config

    def policy_module(spec: EnvSpec) -> WorldModelModule:
        agent = build_agent(config, spec)
        if not run.resumed:
            _, checkpoint = find_checkpoint(Path(config["data"]["model"]), key="data.model")
            load_model(agent, load_checkpoint(checkpoint)["state_dict"])
        return PolicyModule.of(config, agent)

    return build_offline_loop(run, policy_module, ImaginedLoop)
