"""Where the robot is, as a latent: filtered from frames, predicted across missing ones, and ahead by the delay."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.bundle.bundle import Acting
from worldmodel.capabilities import Disagrees

Latent = NDArray[np.float32]


class NotFinite(ValueError):
    """The filter gave a latent that is not finite."""

    wrong = "filter"  # in one word, as of an observation that is refused


class StateEstimator:
    """The agent's filter over one episode.

    A command that is given now acts `delay` decisions after what the newest frame shows. So row t was led to by the
    command of t - 1 - delay, and plans start where the commands that are still under way lead.
    """

    def __init__(self, agent: Acting, *, delay: int) -> None:
        self._agent, self._delay = agent, delay
        self._remembers_latent = _carries_latents(agent)
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        idle = torch.zeros(1, self._agent.action_dim)
        self._commands: deque[Tensor] = deque([idle] * (self._delay + 1), maxlen=self._delay + 1)
        self.forget()

    def forget(self) -> None:
        """Infer anew from the next frame where the robot is; the commands that are under way still are."""
        self._carry: Tensor = self._agent.initial_carry(1).belief
        self._latent: Tensor | None = None
        self._seen = False  # whether the latent is of a row that was seen, not predicted
        self.look_away()

    def look_away(self) -> None:
        """Nothing is compared with what was predicted."""
        self.prediction_error = self.disagreement = float("nan")

    @torch.no_grad()
    def see(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Take in the next row; raises NotFinite, and then remembers what was before."""
        observation = {name: torch.from_numpy(part)[None, None] for name, part in rows.items()}
        is_first = torch.tensor([[self._latent is None]])
        led = torch.where(is_first, 0.0, self._commands[0])  # as agents act: nothing led to a first row
        embed = self._agent.encoder(self._agent.norm(observation))
        belief = self._agent.dynamics.observe(embed, led[:, None], is_first, self._carry, sample=False)
        latent = belief.latent[:, 0]
        if not (latent.isfinite().all() and belief.carry.isfinite().all()):
            raise NotFinite("filter: the latent is not finite")
        self.look_away()
        if self._latent is not None and self._seen:  # else errors of several steps would count as those of one
            dynamics = self._agent.dynamics
            self.prediction_error = float((dynamics.predict(self._latent, led) - latent).square().mean().sqrt())
            if isinstance(dynamics, Disagrees):
                self.disagreement = float(dynamics.disagreement(self._latent, led).sqrt())
        self._latent, self._carry, self._seen = latent, belief.carry, True

    @torch.no_grad()
    def miss(self) -> None:
        """Nothing usable came: predict the next row; raises NotFinite, also before the first frame."""
        self.look_away()
        if self._latent is None:
            raise NotFinite("filter: nothing was seen yet")
        latent = self._agent.dynamics.predict(self._latent, self._commands[0])
        if not latent.isfinite().all():
            raise NotFinite("filter: the prediction is not finite")
        self._latent, self._seen = latent, False
        if self._remembers_latent:
            self._carry = latent

    @torch.no_grad()
    def ahead(self) -> Latent:
        """The latent [D] from which the next command acts; raises NotFinite."""
        latent = self._latent
        if latent is None:
            raise NotFinite("filter: nothing was seen yet")
        for command in list(self._commands)[1:]:
            latent = self._agent.dynamics.predict(latent, command)
        if not latent.isfinite().all():
            raise NotFinite("filter: the prediction over the delay is not finite")
        return latent[0].numpy()

    def commanded(self, action: NDArray[np.float32]) -> None:
        """The command [A] in [-1, 1] that was given on this row."""
        self._commands.append(torch.from_numpy(action.copy())[None])


@torch.no_grad()
def _carries_latents(agent: Acting) -> bool:
    """Whether what the filter carries on is its latent, so that a predicted latent can take its place."""
    start = agent.initial_carry(1).belief
    if start.shape[1] != agent.dynamics.latent_dim:
        return False
    embed = torch.zeros(1, 1, agent.encoder.embed_dim)
    action, is_first = torch.zeros(1, 1, agent.action_dim), torch.tensor([[True]])
    belief = agent.dynamics.observe(embed, action, is_first, start, sample=False)
    return torch.equal(belief.carry, belief.latent[:, 0])
