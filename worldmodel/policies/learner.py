"""A way to learn a policy, and its values, in a model."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from worldmodel.interfaces import Loss, Policy
from worldmodel.latent_rows import LatentRows
from worldmodel.simulators.latent import LatentSimulator


class PolicyLearner(nn.Module, ABC):
    """One choice of the config group `policy`; its `make` takes `spec`, a PolicySpec, and options of its own.

    Attributes:
        actor: the policy that planners are seeded with, and that acts alone with agent.act_with=actor.
        planning_value: latents [*R D] to the return that follows [*R], which planners add after their horizon; None
            for planning on rewards alone.
        varies_by_update: whether what an update computes depends on how many there were, or on numbers of the batch,
            so that no recording of one can be replayed.
    """

    actor: Policy
    planning_value: nn.Module | None
    varies_by_update: bool = False

    @abstractmethod
    def losses(self, simulator: LatentSimulator, rows: LatentRows) -> Loss:
        """What to minimise for actor and values; the model's weights are frozen, gradients may flow through it.

        Args:
            simulator: the learned world, with this learner's actor and planning value.
            rows: recorded windows with their latents.

        Returns:
            A total whose parts train disjoint weights, and what to log.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Weights by the name of their learning rate: "actor", "value", or both."""

    def follow(self) -> None:
        """Move what follows slowly; called after every optimiser step."""
        return


class CountsUpdates(PolicyLearner):
    """A learner that does something else every few updates: `done` is how many there were.

    It is kept on the host: asking a GPU for it would make every update wait.
    """

    varies_by_update = True
    done = 0

    def get_extra_state(self) -> Tensor:
        """The number of updates."""
        return torch.tensor(self.done)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a checkpoint's number of updates."""
        self.done = int(state)
