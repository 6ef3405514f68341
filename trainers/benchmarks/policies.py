"""Ways to learn a policy, over the runs of a sweep: return, seconds, and how noisy the gradient of one update is."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.recorded import Recorded
from trainers.build.trained import build_trained
from trainers.command.arguments import BadArguments
from trainers.command.configuration import read_yaml
from trainers.reporting.tables import as_text
from trainers.run_folder.find import find_checkpoint, read_spec
from trainers.run_folder.read import read_results
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Batch

COLUMNS = ("policy", "seeds", "env_steps", "return_mean", "return_low", "return_high", "seconds", "gradient_noise")


def measure(*, runs: str = "", batches: int = 64, seed: int = 0) -> dict[str, Any]:
    """A row for each policy: means over its runs, the lowest and the highest return among them.

    `gradient_noise` is tr Cov(g) / |E g|² over the gradients g of the policy's weights (the Q function's where it has
    no others) at the end of the run, each from a batch of its own: how many batches would have to be averaged until
    the noise is no larger than the gradient (McCandlish et al. 2018, An Empirical Model of Large-Batch Training,
    equation 2.9). The median over runs.

    Args:
        runs: a folder of finished runs, such as a sweep's.
        batches: independent batches of the size that the run learned from.
        seed: of the windows and of what the policies draw.
    """
    found = sorted(path.parent for path in Path(runs).expanduser().glob("*/results.json")) if runs else []
    if not found or batches < 2:
        raise BadArguments(f"runs, batches: expected a folder of finished runs and at least 2, got {runs!r}, {batches}")
    by_policy: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in found:
        config, results = read_yaml(run / "config.yaml"), read_results(run)
        if "policy" in config and results.get("status") == "finished":
            noise = gradient_noise(gradients(run, config, batches=batches, seed=seed))
            by_policy[config["policy"]["name"]].append({**results, "gradient_noise": noise})
    rows = sorted((_row(name, results) for name, results in by_policy.items()), key=lambda row: -row["return_mean"])
    print(as_text(rows, COLUMNS))
    return {"rows": rows, "batches": batches}


def gradients(run: Path, config: dict[str, Any], *, batches: int, seed: int) -> Tensor:
    """One row [batches, weights] per update that is computed and not made, by a finished run's policy on its replay."""
    agent = build_trained(config, read_spec(run, key="runs"), find_checkpoint(run, key="runs")[1])
    if not isinstance(agent, LatentMPC) or agent.policy is None:
        raise BadArguments(f"runs: expected runs that learn a policy, got {run}")
    groups = agent.policy.parameter_groups()
    weights = groups.get("actor") or groups["value"]
    recorded, data = Recorded(run / "replay", seed=seed), config["data"]
    torch.manual_seed(seed)
    rows = [_gradient(agent, weights, recorded.sample(data["batch"], data["length"])) for _ in range(batches)]
    recorded.close()
    return torch.stack(rows)


def _gradient(agent: LatentMPC, weights: Sequence[nn.Parameter], batch: Batch) -> Tensor:
    with torch.no_grad():
        belief = agent.observe(batch)
    total = agent.policy_losses(batch, belief).total
    parts = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def gradient_noise(rows: Tensor) -> float:
    """tr Cov(g) / |E g|² from gradients [N, weights]; |E g|² without the share of the noise in |mean g|²."""
    rows = rows.double()
    noise = rows.var(0).sum()
    signal = rows.mean(0).square().sum() - noise / len(rows)
    return float(noise / signal) if signal > 0 else float("inf")


def _row(policy: str, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def mean(values: Iterable[float]) -> float:
        return float(np.mean([*values]))

    returns = [one["return_mean"] for one in results]
    return {
        "policy": policy,
        "seeds": len({one["seed"] for one in results}),
        "env_steps": max(one["env_steps"] for one in results),
        "return_mean": mean(returns),
        "return_low": min(returns),
        "return_high": max(returns),
        "seconds": mean(one["seconds"] for one in results),
        "gradient_noise": float(np.median([one["gradient_noise"] for one in results])),
    }
