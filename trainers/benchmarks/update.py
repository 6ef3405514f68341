"""One training update of the configured agent; shapes=planet for Kaixhin/PlaNet's (5.1 M parameters, 16 x 64)."""

from typing import Any

import torch

from trainers.benchmarks.shared.options import configuration
from trainers.benchmarks.shared.timing import alternate, median_ms, random_batch, synthetic_spec, training_step
from trainers.build.agent import build_agent
from trainers.build.module import build_module

OPTIONS = {"repeats": 10, "shapes": "configured"}


def measure(overrides: list[str], *, repeats: int, shapes: str) -> dict[str, Any]:
    """One update (losses, backward, clip, optimiser) on random frames."""
    if shapes == "planet":
        overrides = ["experiment=planet_shapes", *overrides]
    config = configuration(overrides)
    spec = synthetic_spec(config, action_dim=6 if shapes == "planet" else 1)
    agent = build_agent(config, spec)
    update = training_step(config, build_module(config, agent), torch.device("cpu"))
    batch = random_batch(spec, config["data"]["batch"], config["data"]["length"])
    seconds, _ = alternate(lambda _: update(batch), lambda k: None, repeats)
    return {
        "update_ms": median_ms(seconds),
        "params": sum(p.numel() for p in agent.parameters() if p.requires_grad),
        "batch": [config["data"]["batch"], config["data"]["length"], *spec.pixels],
        "precision": config["trainer"]["precision"],
    }
