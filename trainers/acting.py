"""An agent as a policy over numpy frames: what collection, evaluation and deployment share."""

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.clock import Clock
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Carry


class AgentPolicy:
    """Carries an agent's belief and plan from frame to frame of `count` parallel episodes.

    noise_std: exploration noise added to every action. predicted: the planner's predicted return, one array [count]
    per decision. Deterministic for a generator's state.
    """

    def __init__(
        self, agent: LatentMPC, *, count: int, generator: torch.Generator, clock: Clock, noise_std: float = 0.0
    ) -> None:
        self._agent, self._generator, self._clock, self._noise_std = agent, generator, clock, noise_std
        self._carry: Carry = agent.initial_carry(count)
        self.predicted: list[NDArray[np.float32]] = []

    def __call__(self, pixels: NDArray[np.uint8], is_first: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Actions [n, A] for frames [n, C, h, w]."""
        device = self._carry.belief.device
        with self._clock.measure("plan"), torch.inference_mode():
            decision = self._agent.act(
                torch.from_numpy(pixels).to(device),
                torch.from_numpy(is_first).to(device),
                self._carry,
                noise_std=self._noise_std,
                generator=self._generator,
            )
            self._carry = decision.carry
            self.predicted.append(decision.predicted_return.float().cpu().numpy())
            return decision.action.float().cpu().numpy()
