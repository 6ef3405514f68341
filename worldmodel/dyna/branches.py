"""Short rollouts that branch off recorded latents, as rows that values learn from beside the recorded ones."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from worldmodel.errors import BadValue
from worldmodel.interfaces import Dynamics
from worldmodel.latent_rows import Transitions
from worldmodel.records import joined
from worldmodel.simulators.latent import LatentSimulator

Act = Callable[[Tensor], Tensor]  # latents [R D] to actions [R A]


@torch.no_grad()
def branch(
    simulator: LatentSimulator, latent: Float[Tensor, "R D"], *, first: Act, then: Act, steps: int
) -> tuple[Transitions, Float[Tensor, "all_rows"]]:
    """Rollouts of `steps` decisions as steps * R transitions, of samples of the model's prior.

    Args:
        simulator: the learned world.
        latent: where the branches start.
        first, then: what acts at the first decision and at the later ones.
        steps: decisions of a branch.

    Returns:
        The transitions, the first decisions of all branches first, and how likely each branch had come so far
        without an end of its episode.
    """
    rows, weights, alive = [], [], latent.new_ones(len(latent))
    for step in range(steps):
        action = (then if step else first)(latent)
        after, reward, continues = imagine(simulator, latent, action)
        rows.append(Transitions(latent, action, reward, continues, after))
        weights.append(alive)
        latent, alive = after, alive * continues
    return joined(rows), torch.cat(weights)


def draw(rows: Transitions, count: int) -> Int64[Tensor, "count"]:
    """Numbers of rows, drawn with replacement; BadValue where there are none to draw from."""
    if not len(rows.reward):
        raise BadValue("data.length: expected windows in which a step may teach, got none")
    return torch.randint(len(rows.reward), (count,), device=rows.reward.device)


def imagine(
    simulator: LatentSimulator, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"]
) -> tuple[Float[Tensor, "*R D"], Float[Tensor, "*R"], Float[Tensor, "*R"]]:
    """A sample of the next latent, the reward that arrives with it, and the probability that the episode goes on."""
    dynamics = simulator.dynamics
    assert isinstance(dynamics, Dynamics), dynamics
    after = dynamics.imagine(latent, action)
    return after, simulator.reward(after), simulator.continues(after)
