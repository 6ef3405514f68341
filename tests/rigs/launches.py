"""Kernels and waits of an update and a decision on a pretended device: `python -m tests.rigs.launches [key=value ...]`.

Prints one JSON line: kernels, copies from the host (place, count) and waits (place, reason, count) of both, and the
weights that got no gradient.
"""

import json
import sys
from typing import Any

import numpy as np
import torch

from tests.rigs import pretend_device
from trainers.acting.agent_policy import AgentPolicy
from trainers.acting.exploration import Exploration
from trainers.benchmarks.shared.timing import without_trainer
from trainers.build.agent import build_agent
from trainers.build.check_parts import fit_options
from trainers.command.configuration import load_config
from trainers.process.clock import Clock
from trainers.training.module import WorldModelModule
from worldmodel.interfaces import Batch
from worldmodel.spec import EnvSpec

SPEC = EnvSpec("pretend", images={"pixels": (3, 64, 64)}, action_dim=1, action_repeat=8, episode_steps=1000)


def count(overrides: list[str]) -> dict[str, Any]:
    """The second update, and the second decision of one environment: the first ones make what is kept."""
    config = fit_options(load_config(overrides), overrides)
    with pretend_device.watching():
        module = pretend_device.move(WorldModelModule.of(config, build_agent(config, SPEC)))
        without_trainer(module)
    for _ in range(2):
        with pretend_device.watching():
            rows = _batch(config["data"]["batch"], config["data"]["length"]).to(pretend_device.DEVICE)
            module.count_rows(1000)
        with pretend_device.watching() as update:
            module.training_step(rows, 0)
    unused = [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    return {"update": _seen(update), "decision": _seen(_decide(module)), "without_gradient": unused}


def _decide(module: WorldModelModule) -> pretend_device.Watch:
    module.eval()
    with pretend_device.watching():
        policy = AgentPolicy(
            module.agent, generators=[torch.Generator()], clock=Clock(), exploration=Exploration(std=0.3, decisions=500)
        )
    for number in range(2):
        frames = {"pixels": np.zeros((1, *SPEC.pixels), np.uint8)}
        with pretend_device.watching() as watch:
            policy(frames, np.array([number == 0]), np.ones(1, bool))
    return watch


def _batch(B: int, T: int) -> Batch:
    first, last, terminal = torch.zeros(3, B, T, dtype=torch.bool)
    first[:, 0] = True
    frames = torch.randint(0, 256, (B, T, *SPEC.pixels), dtype=torch.uint8)
    return Batch({"pixels": frames}, torch.rand(B, T, SPEC.action_dim) * 2 - 1, torch.rand(B, T), first, last, terminal)


def _seen(watch: pretend_device.Watch) -> dict[str, Any]:
    return {
        "kernels": sum(watch.kernels.values()),
        "arrivals": [[place, number] for place, number in watch.arrivals.most_common()],
        "waits": [[place, reason, number] for (place, reason), number in watch.waits.most_common()],
    }


if __name__ == "__main__":
    pretend_device.register()
    print(json.dumps(count(sys.argv[1:])))
