"""What a model predicts of episodes that it never learned from."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.trajectory import Trajectory
from trainers.acting.windows import Window, window_batch
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Batch, Belief, Observation
from worldmodel.openloop import open_loop

CONTEXT = 5  # rows that the model watches before it predicts on its own
STEPS = (1, 5, 15)
WINDOWS = 32


class HeldOut:
    """Fixed windows of held-out episodes, evenly spread, and a model's errors on them.

    Errors of images are shares of the variance of the frames that the model was normalised by, as in its loss; those
    of rewards are shares of the windows' variance. 0 is perfect, 1 about as good as predicting the mean. Rows whose
    latents lack frames that they read do not count, as in learning. Every episode has two rows or more.
    """

    def __init__(self, episodes: Sequence[Trajectory]) -> None:
        longest = max(len(episode) for episode in episodes)
        length = min(CONTEXT + max(STEPS), longest)
        usable = [episode for episode in episodes if len(episode) >= length]
        each = -(-WINDOWS // len(usable))
        windows = [window for episode in usable for window in _windows(episode, length, each)]
        self._windows = windows[:: -(-len(windows) // WINDOWS)]
        self.batch = window_batch(self._windows)
        self.context = min(CONTEXT, length - 1)
        self.steps = [step for step in STEPS if self.context + step <= length]

    @torch.no_grad()
    def measure(self, agent: LatentMPC) -> dict[str, float]:
        """`image`, `vector` and `reward` while every row is seen; `image_k` and so on k decisions after the last one
        seen, open-loop; `still_k` for comparison: the last seen images shown instead. Rewards alone where nothing is
        decoded; where there are several images or vectors, their mean. `continuation`, nats, where episodes can end."""
        device = next(agent.parameters()).device
        batch = self.batch.to(device)
        belief = agent.observe(batch, sample=False)
        latent, arrived = belief.latent, ~batch.is_first
        rewards = batch.reward[arrived]
        counted = arrived if belief.valid is None else arrived & belief.valid
        missed = agent.reward(latent)[counted] - batch.reward[counted]
        error = {"reward": missed.square().mean() / rewards.var()}
        if agent.continuation is not None:
            error["continuation"] = belief.mean(agent.continuation.loss(latent, (~batch.is_terminal).float()))
        blind = open_loop(agent, batch, context=self.context)
        for step in self.steps:
            row = self.context + step - 1
            missed = blind.rewards[:, row] - batch.reward[:, row]
            error[f"reward_{step}"] = missed.square().mean() / rewards.var()
        if agent.decoder is not None and blind.observation is not None:
            decoded = agent.decoder(latent.flatten(0, 1))
            seen = {name: rows.float().unflatten(0, latent.shape[:2]) for name, rows in decoded.items()}
            vectors = agent.decoder.vectors
            images = [name for name in seen if name not in vectors]
            error |= self._decoded("image", agent, belief, seen, blind.observation, images)
            error |= self._decoded("vector", agent, belief, seen, blind.observation, vectors)
        return {f"held_out/{name}": float(value) for name, value in error.items() if value.isfinite()}

    def _decoded(
        self, kind: str, agent: LatentMPC, belief: Belief, seen: Observation, blind: Observation, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Errors of the observations `names`, which are all of one kind, in units of their normalisers."""
        errors: dict[str, list[Tensor]] = {}
        real = agent.norm({name: rows.to(seen[name].device) for name, rows in self.batch.observation.items()})
        imagined = agent.norm.renormalise(blind)
        for name in names:
            of = {kind: belief.mean((seen[name] - real[name]).square())}
            for step in self.steps:
                row = self.context + step - 1
                of[f"{kind}_{step}"] = (imagined[name][:, row] - real[name][:, row]).square().mean()
                if kind == "image":
                    still = real[name][:, self.context - 1]
                    of[f"still_{step}"] = (still - real[name][:, row]).square().mean()
            for key, error in of.items():
                errors.setdefault(key, []).append(error)
        return {key: torch.stack(each).mean() for key, each in errors.items()}

    def picture(self, windows: int) -> Batch:
        """Some of the windows, evenly spread, as a batch to draw."""
        picks = np.unique(np.linspace(0, len(self._windows) - 1, windows).round().astype(int))
        return window_batch([self._windows[i] for i in picks])


def _windows(episode: Trajectory, length: int, count: int) -> list[Window]:
    last = len(episode) - length
    starts = np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(int))
    return [(episode, int(start), int(start) + length) for start in starts]
