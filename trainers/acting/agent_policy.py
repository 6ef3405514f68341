"""An agent as a policy over numpy observations: what collection, evaluation and deployment share."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.observation import Observation, empty
from trainers.acting.exploration import EpisodeNoise, Exploration
from trainers.process.clock import Clock
from worldmodel.interfaces import ActionNoise, Acts, Carry
from worldmodel.records import choose
from worldmodel.spec import EnvSpec
from worldmodel.transfer import send

WARM_UP_MS = 500.0  # of a first decision that takes longer, warming up is the smaller part


class AgentPolicy:
    """Carries an agent's belief and plan from frame to frame of parallel episodes, one for each generator.

    exploration: noise that disturbs actions; None for none. found: see `Exploration.draw`. predicted: the planner's
    predicted return, one array [n] per call; decision_ms: milliseconds of each call. A row's actions depend on its own
    observations and generator alone, not on which rows are ready with it.
    """

    def __init__(
        self,
        agent: Acts,
        *,
        generators: Sequence[torch.Generator],
        clock: Clock,
        exploration: Exploration | None = None,
        found: int = 0,
    ) -> None:
        self._agent, self._clock = agent, clock
        self._exploration = exploration if exploration is not None and exploration.disturbs else None
        self._found = found
        self._generators, self._bystander = list(generators), torch.Generator()
        self._carry: Carry = agent.initial_carry(len(generators))
        self._noise: list[EpisodeNoise | None] = [None] * len(self._generators)  # of each row's episode
        self._decisions = np.zeros(len(self._generators), int)  # in it
        self.predicted: list[NDArray[np.float32]] = []
        self.decision_ms: list[float] = []

    def __call__(
        self, observation: Observation, is_first: NDArray[np.bool_], ready: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Actions [n, A] for what n environments show, by name [n, ...]; of rows not ready [n] the carry
        stays as it was, and the action means nothing."""
        start = time.perf_counter()
        carry, device = self._carry, self._carry.belief.device
        with self._clock.measure("plan"), torch.inference_mode():
            opens = send(torch.from_numpy(is_first), device)
            if is_first.any():  # an episode that ended in NaN leaves nothing to the next one
                carry = choose(opens, self._agent.initial_carry(len(ready)), carry)
            decision = self._agent.act(
                {name: send(torch.from_numpy(rows), device) for name, rows in observation.items()},
                opens,
                carry,
                exploration=self._explore(is_first, ready),
                # always as many rows: the same sums in the same order, whoever is late
                generator=[g if r else self._bystander for g, r in zip(self._generators, ready, strict=True)],
            )
            self._carry = decision.carry
            if not ready.all():
                self._carry = choose(send(torch.from_numpy(ready), device), decision.carry, carry)
            # in one tensor: the host waits once
            answer = torch.cat([decision.action.float(), decision.predicted_return.float()[:, None]], 1).cpu().numpy()
        self.predicted.append(answer[:, -1])
        self.decision_ms.append(1e3 * (time.perf_counter() - start))
        return np.ascontiguousarray(answer[:, :-1])

    def _explore(self, opens: NDArray[np.bool_], ready: NDArray[np.bool_]) -> ActionNoise | None:
        """The noise of this decision, of a new episode's where one opens; rows that are not ready wait."""
        if self._exploration is None:
            return None
        action = self._carry.action
        noise, alone = torch.zeros(action.shape), torch.zeros(len(action), dtype=torch.bool)
        for row in np.flatnonzero(ready):
            episode = self._noise[row]
            if opens[row] or episode is None:
                episode = self._exploration.draw(action.shape[-1], self._generators[row], found=self._found)
                self._noise[row], self._decisions[row] = episode, 0
            now = self._decisions[row] % len(episode.noise)
            noise[row] = episode.noise[now]
            if episode.alone is not None:
                alone[row] = episode.alone[now]
        self._decisions += ready
        return ActionNoise(send(noise, action.device), send(alone, action.device) if alone.any() else None)


def seconds_per_decision(agent: Acts, spec: EnvSpec, *, envs: int) -> float:
    """Seconds of one decision for `envs` environments at once, on empty frames; no random number of others is used."""
    device, every = agent.initial_carry(1).belief.device, np.ones(envs, dtype=bool)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        policy = AgentPolicy(agent, generators=[torch.Generator() for _ in range(envs)], clock=Clock())
        policy(empty(spec, envs), every, every)
        if policy.decision_ms[0] <= WARM_UP_MS:
            policy(empty(spec, envs), every, every)
    return policy.decision_ms[-1] / 1e3
