"""An agent as a policy over numpy observations: what collection, evaluation and deployment share."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.observation import Observation
from trainers.process.clock import Clock
from worldmodel.interfaces import Acts, Carry
from worldmodel.transfer import send


class AgentPolicy:
    """Carries an agent's belief and plan from frame to frame of parallel episodes, one for each generator.

    noise_std: exploration noise added to every action. predicted: the planner's predicted return, one array [n] per
    call. A row's actions depend on its own observations and generator alone, not on which rows are ready with it.
    """

    def __init__(
        self, agent: Acts, *, generators: Sequence[torch.Generator], clock: Clock, noise_std: float = 0.0
    ) -> None:
        self._agent, self._clock, self._noise_std = agent, clock, noise_std
        self._generators, self._bystander = list(generators), torch.Generator()
        self._carry: Carry = agent.initial_carry(len(generators))
        self.predicted: list[NDArray[np.float32]] = []

    def __call__(
        self, observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Actions [n, A] for what n environments show, by name [n, ...]; those not ready [n] are forgotten."""
        carry, device = self._carry, self._carry.belief.device
        with self._clock.measure("plan"), torch.inference_mode():
            opens = send(torch.from_numpy(is_first), device)
            if is_first.any():  # an episode that ended in NaN leaves nothing to the next one
                carry = choose(opens, self._agent.initial_carry(len(ready)), carry)
            decision = self._agent.act(
                {name: send(torch.from_numpy(rows), device) for name, rows in observation.items()},
                opens,
                carry,
                noise_std=self._noise_std,
                # always as many rows: the same sums in the same order, whoever is late
                generator=[g if r else self._bystander for g, r in zip(self._generators, ready, strict=True)],
            )
            self._carry = decision.carry
            if not ready.all():
                self._carry = choose(send(torch.from_numpy(ready), device), decision.carry, carry)
            # in one tensor: the host waits once
            answer = torch.cat([decision.action.float(), decision.predicted_return.float()[:, None]], 1).cpu().numpy()
            self.predicted.append(answer[:, -1])
            return np.ascontiguousarray(answer[:, :-1])


def choose(rows: Tensor, chosen: Carry, other: Carry) -> Carry:
    """One carry's rows [n] where they are marked, another's elsewhere."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b)

    return Carry(*(pick(getattr(chosen, f.name), getattr(other, f.name)) for f in fields(Carry)))
