"""One plan on the first rank's device alone and on those of all ranks, in turns; started by torchrun."""

from functools import partial
from typing import Any

import torch

from trainers.acting.plan_over_ranks import only_scores, own_device, plan_over_ranks, planning_ranks
from trainers.benchmarks.shared.options import configuration
from trainers.benchmarks.shared.timing import alternate, median_ms, synthetic_spec
from trainers.build.agent import build_agent
from trainers.command.arguments import BadArguments
from trainers.machine.device import usable_device


def measure(overrides: list[str], *, repeats: int = 20, device: str = "cpu", action_dim: int = 6) -> dict[str, Any]:
    """Milliseconds of a plan of the configured planner from one latent, and how far the two plans are apart."""
    ranks = planning_ranks()
    if ranks == 1:
        raise BadArguments(
            "plan_over_ranks: expected several ranks, got one; start it by python -m torch.distributed.run "
            "--standalone --nproc-per-node=2 -m trainers.benchmark plan_over_ranks planner.candidates=4096"
        )
    config, where = configuration(overrides), own_device(usable_device(device))
    torch.manual_seed(config["seed"])  # the same weights on all ranks
    agent = build_agent(config, synthetic_spec(config, action_dim=action_dim)).eval().to(where)
    alone = agent.planner
    with plan_over_ranks(agent, device=where):
        if only_scores():
            return {}
        latent, shared = torch.randn(1, agent.dynamics.latent_dim, device=where), agent.planner
        warm = agent.initial_carry(1).plan

        def plan(planner: Any, k: int) -> torch.Tensor:
            agent.planner = planner
            with torch.inference_mode():
                return agent.plan(latent, warm, torch.Generator(where).manual_seed(k)).action.cpu()

        apart = max(float((plan(alone, k) - plan(shared, k)).abs().max()) for k in range(3))
        one, all_ranks = alternate(partial(plan, alone), partial(plan, shared), repeats)
    speedup = one / all_ranks
    return {
        "ranks": ranks,
        "one_ms": median_ms(one),
        "all_ms": median_ms(all_ranks),
        "speedup": float(speedup.mean()),
        "speedup_std": float(speedup.std()),
        "largest_difference": apart,
        "planner": config["planner"],
    }
