"""Policy gradients through a model (5.5, 5.6): variance and size against the horizon, on tame and chaotic dynamics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trainers.benchmarks.gradients.worlds import DIM, WORLDS, simulator, starts
from trainers.benchmarks.shared.options import numbers
from trainers.reporting.charts import COLOURS, new_figure, save
from trainers.reporting.tables import as_text
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.imagination import detached, imagine, lambda_return
from worldmodel.policy_gradients import StepGradients, score_function

COLUMNS = ("world", "horizon", "pathwise", "score_function", "better")
COMPARED = ("perceptron", "chaotic")
BASELINE_ROLLOUTS, NORM_ROLLOUTS = 512, 256
SHADES = {"linear 0.9": "reference", "linear 1.1": "faint", "perceptron": "run", "chaotic": "fifth"}


def measure(
    *,
    horizons: str = "1,2,3,5,7,10,15,20,30,40,50",
    estimates: int = 100,
    rollouts: int = 16,
    seed: int = 0,
    out: str = "runs/gradients/gradients.svg",
) -> dict[str, Any]:
    """Variances of one rollout's gradient, by world and horizon, and what the size of a step's gradient grows by.

    Args:
        horizons: decisions imagined, of the summed rewards.
        estimates: of which the variance is taken, for each.
        rollouts: that an estimate is the mean of.
        seed: of policy and rollouts.
        out: the picture's path.
    """
    torch.manual_seed(seed)
    chosen = numbers("horizons", horizons)
    actor = SquashedNormalActor(latent_dim=DIM, action_dim=DIM, hidden=16)
    rows = [_row(name, actor, H, estimates, rollouts) for name in COMPARED for H in chosen]
    norms = {name: norms_by_distance(name, actor, steps=max(chosen)) for name in WORLDS}
    picture = _draw(Path(out), rows, norms)
    print(as_text(rows, COLUMNS))
    growth = {name: float(np.exp(np.polyfit(np.arange(len(n)), np.log(n), 1)[0])) for name, n in norms.items()}
    print("\ngrowth of the gradient's norm by a step: " + ", ".join(f"{name} {g:.2f}" for name, g in growth.items()))
    return {"rows": rows, "growth": growth, "picture": str(picture)}


def _row(name: str, actor: SquashedNormalActor, horizon: int, estimates: int, rollouts: int) -> dict[str, Any]:
    found = {
        kind: rollouts * variance(samples)
        for kind, samples in gradients(name, actor, horizon, estimates=estimates, rollouts=rollouts).items()
    }
    return {"world": name, "horizon": horizon, **found, "better": min(found, key=lambda kind: found[kind])}


def gradients(
    name: str, actor: SquashedNormalActor, horizon: int, *, estimates: int, rollouts: int
) -> dict[str, Float[Tensor, "N W"]]:
    """Estimates of dJ/dθ, J being the expected sum of rewards: `pathwise` and `score_function`.

    The latter's baseline is the mean return that is left at every step, of rollouts of its own.
    """
    world, weights = simulator(name), [*actor.parameters()]
    options: dict[str, Any] = {"discount": world.discount, "mix": 1.0}

    def scored(count: int) -> tuple[Tensor, Tensor]:
        """log π and what was earned from there on, [H R]."""
        path = imagine(world, actor.held_sample, starts(count), horizon=horizon, passed_on=detached)
        return path.kept[..., 0], lambda_return(path.rewards, torch.zeros_like(path.rewards), **options)

    with torch.no_grad():
        baseline = scored(BASELINE_ROLLOUTS)[1].mean(1, keepdim=True)
    found: dict[str, list[Tensor]] = {"pathwise": [], "score_function": []}
    for _ in range(estimates):
        rewards = imagine(world, actor, starts(rollouts), horizon=horizon).rewards
        J = {"pathwise": lambda_return(rewards, torch.zeros_like(rewards), **options)[0].mean()}
        log_prob, returns = scored(rollouts)
        J["score_function"] = score_function(log_prob, returns, baseline.expand_as(returns), **options)
        for kind, objective in J.items():
            found[kind].append(torch.cat([g.flatten() for g in torch.autograd.grad(objective, weights)]))
    return {kind: torch.stack(samples) for kind, samples in found.items()}


def variance(samples: Float[Tensor, "N W"]) -> float:
    """The trace of the covariance of estimates."""
    return float(samples.double().var(0).sum())


def norms_by_distance(name: str, actor: SquashedNormalActor, *, steps: int) -> list[float]:
    """Mean norm of the gradient of a reward by the state that lies 0, 1, ... steps before it; 1 at 0."""
    watched = StepGradients(steps)
    rewards = imagine(simulator(name), actor, starts(NORM_ROLLOUTS), horizon=steps, passed_on=watched.passed_on).rewards
    rewards[-1].mean().backward()
    norms = [float(norm) for norm in watched.report().values()][::-1]
    return [norm / norms[0] for norm in norms]


def _draw(path: Path, rows: Sequence[Mapping[str, Any]], norms: Mapping[str, Sequence[float]]) -> Path:
    figure, axes = new_figure(size=(9.6, 3.4), columns=3)
    for axis, world in zip(axes, COMPARED, strict=False):
        horizons = [row["horizon"] for row in rows if row["world"] == world]
        for kind, colour in {"pathwise": "run", "score_function": "second"}.items():
            variances = [row[kind] for row in rows if row["world"] == world]
            axis.plot(horizons, variances, color=COLOURS[colour], label=kind.replace("_", " "))
        axis.set(yscale="log", xlabel="horizon, decisions")
        axis.set_title(f"Variance, {world}", loc="left")
        axis.legend(frameon=False, fontsize=8)
    for world, sizes in norms.items():
        axes[2].plot(range(len(sizes)), sizes, color=COLOURS[SHADES[world]], label=world)
    axes[2].set(yscale="log", xlabel="steps that it flows back")
    axes[2].set_title("Norm of a reward's gradient", loc="left")
    axes[2].legend(frameon=False, fontsize=8)
    return save(figure, path)
