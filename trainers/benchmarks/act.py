"""One decision (encode, filter, plan); envs=N for a batch of environments."""

from typing import Any

import torch

from trainers.benchmarks.shared.options import configuration
from trainers.benchmarks.shared.timing import alternate, median_ms, synthetic_spec
from trainers.build.agent import build_agent


def measure(overrides: list[str], *, repeats: int = 40, envs: int = 1) -> dict[str, Any]:
    """One decision of the configured agent for `envs` environments at once."""
    config = configuration(overrides)
    spec = synthetic_spec(config, action_dim=1)
    agent = build_agent(config, spec).eval()
    carry, is_first = agent.initial_carry(envs), torch.zeros(envs, dtype=torch.bool)
    observation = {"pixels": torch.randint(0, 256, (envs, *spec.pixels), dtype=torch.uint8)}

    def act(_: int) -> None:
        with torch.inference_mode():
            agent.act(observation, is_first, carry)

    seconds, _ = alternate(act, lambda k: None, repeats)
    return {"decision_ms": median_ms(seconds), "envs": envs, "planner": config["planner"]}
