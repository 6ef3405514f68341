"""A trained agent for use from Python: camera frames and vectors in, actions in the environment's own units out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.envs.images import area_resized
from trainers.build.trained import build_trained
from trainers.command.configuration import override_saved, read_yaml
from trainers.run_folder.find import find_checkpoint, read_spec
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.agents.student import Student
from worldmodel.errors import UserError
from worldmodel.interfaces import Carry
from worldmodel.spec import EnvSpec

Frame = NDArray[np.uint8]


class BadInput(UserError, ValueError):
    """An observation that the agent was not trained on."""


class TrainedAgent:
    """Acts on what it sees; remembers the episode since the last `reset`.

    Args:
        agent: the networks and the planner, in evaluation mode.
        spec: what it was trained on; an action is meant for `spec.action_repeat` control steps.
        seed: of the planner's noise; equal observations after equal resets give equal actions.
    """

    def __init__(self, agent: LatentMPC | Student, spec: EnvSpec, *, seed: int = 0) -> None:
        self.agent, self.spec, self.seed = agent, spec, seed
        self.reset()

    def reset(self, *, batch: int | None = None) -> None:
        """Begin an episode.

        Args:
            batch: how many episodes side by side, each with its own noise; None for one without a batch axis.
        """
        self._batched, count = batch is not None, 1 if batch is None else batch
        if count < 1:
            raise BadInput(f"batch: expected at least 1, got {batch}")
        self._generators = [torch.Generator().manual_seed(self.seed + i) for i in range(count)]
        self._carry: Carry = self.agent.initial_carry(count)
        self._is_first = True

    def act(self, observation: Frame | Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | NDArray[np.int64]:
        """The action for what is seen now.

        Args:
            observation: a camera frame uint8 [h, w, c], or frames and vectors [d] by the names of `spec`; all with a
                batch axis in front after `reset(batch=n)`. Frames of another size are resized.

        Returns:
            float32 [A] in the environment's own units, in [-1, 1] where its bounds are not known; where actions are
            discrete, the number of one, int64. With a batch axis in front after `reset(batch=n)`.

        Raises:
            BadInput: names what was expected and what came.
        """
        parts = {name: torch.from_numpy(part) for name, part in self._parts(observation).items()}
        device, count = self._carry.belief.device, len(self._generators)
        with torch.inference_mode():
            decision = self.agent.act(
                {name: part.to(device) for name, part in parts.items()},
                torch.full((count,), self._is_first, device=device),
                self._carry,
                generator=self._generators,
            )
        self._carry, self._is_first = decision.carry, False
        action = self._native(decision.action.float().cpu())
        return action if self._batched else action[0]

    def _parts(self, observation: Frame | Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Images [n, c, h, w] and vectors [n, d] by name, in the spec's order."""
        names = [*self.spec.images, *self.spec.vectors]
        if not isinstance(observation, Mapping):
            if len(names) != 1:
                raise BadInput(f"observation: expected {', '.join(names)} by name, got one array")
            observation = {names[0]: observation}
        if set(observation) != set(names):
            raise BadInput(f"observation: expected {', '.join(names)}, got {', '.join(map(str, observation))}")
        rows = {
            name: np.asarray(part) if self._batched else np.asarray(part)[None] for name, part in observation.items()
        }
        for name, part in rows.items():
            if len(part) != len(self._generators):
                raise BadInput(f"{name}: expected {len(self._generators)} rows as reset, got {len(part)}")
        images = {name: _fitted(name, rows[name], shape) for name, shape in self.spec.images.items()}
        return images | {name: _checked(name, rows[name], size) for name, size in self.spec.vectors.items()}

    def _native(self, action: Tensor) -> NDArray[Any]:
        if self.spec.discrete:
            return action.argmax(-1).numpy()
        values = action.numpy()
        if self.spec.action_low is None or self.spec.action_high is None:
            return values
        low, high = (np.asarray(bound, np.float64) for bound in (self.spec.action_low, self.spec.action_high))
        middle, half = (low + high) / 2, (high - low) / 2
        return np.clip((middle + half * values).astype(np.float32), low.astype(np.float32), high.astype(np.float32))


def load_agent(run: str | Path, *, device: str = "cpu", overrides: Sequence[str] = (), seed: int = 0) -> TrainedAgent:
    """The agent of a run folder, from its files alone: no environment is opened.

    Args:
        run: a run folder (its newest intact checkpoint), or one of its checkpoints.
        device: where to compute.
        overrides: keys on top of the run's configuration, such as `planner.horizon=12` or `agent.act_with=actor`.
        seed: of the planner's noise.

    Raises:
        UserError: no such run, a damaged checkpoint, an unknown key.
    """
    root, checkpoint = find_checkpoint(Path(run), key="run")
    config = override_saved(read_yaml(root / "config.yaml"), overrides)
    spec = read_spec(root, key="run")
    return TrainedAgent(build_trained(config, spec, checkpoint).to(device), spec, seed=seed)


def _fitted(name: str, frames: NDArray[Any], shape: tuple[int, int, int]) -> Frame:
    """Frames [n, h, w, c] as [n, c, height, width], resized by areas where they are of another size."""
    channels, height, width = shape
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != channels:
        kind = f"{frames.dtype} {list(frames.shape[1:])}"
        raise BadInput(f"{name}: expected uint8 [height, width, {channels}], got {kind}")
    return np.stack([area_resized(frame.transpose(2, 0, 1), height, width) for frame in frames])


def _checked(name: str, rows: NDArray[Any], size: int) -> NDArray[np.float32]:
    if rows.shape[1:] != (size,) or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise BadInput(f"{name}: expected {size} finite numbers, got {rows.dtype} {list(rows.shape[1:])}")
    return rows.astype(np.float32)
