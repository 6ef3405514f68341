"""A trained agent for use from Python: camera frames and vectors in, actions in the environment's own units out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.actions import actions_from
from trainers.acting.camera_frames import BadInput, CameraFrames
from trainers.build.trained import build_trained
from trainers.command.configuration import override_saved, read_yaml
from trainers.machine.device import usable_device
from trainers.run_folder.find import find_checkpoint, read_spec
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.agents.student import Student
from worldmodel.interfaces import Carry
from worldmodel.limits import wrong_whole
from worldmodel.spec import EnvSpec
from worldmodel.transfer import send


class TrainedAgent:
    """Acts on what it sees; remembers the episode since the last `reset`.

    Args:
        agent: the networks and the planner, in evaluation mode.
        spec: what it was trained on; an action is meant for `spec.action_repeat` control steps.
        seed: of the planner's noise; equal observations after equal resets give equal actions.
        visuals: the options behind which frames are seen, in their order; by default those of training.

    Raises:
        BadInput: a seed that is no whole number from 0 on, a visual option that needs more than frames.
    """

    def __init__(
        self, agent: LatentMPC | Student, spec: EnvSpec, *, seed: int = 0, visuals: Mapping[str, Any] | None = None
    ) -> None:
        self.agent, self.spec, self.seed = agent, spec, _whole("seed", seed, least=0)
        self._frames = CameraFrames(spec, spec.visuals if visuals is None else visuals)
        self._actions = actions_from(spec)
        self.reset()

    def reset(self, *, batch: int | None = None) -> None:
        """Begin an episode.

        Args:
            batch: how many episodes side by side, each with its own noise; None for one without a batch axis.

        Raises:
            BadInput: it is no whole number of at least 1.
        """
        self._batched, count = batch is not None, 1 if batch is None else _whole("batch", batch, least=1)
        self._generators = [torch.Generator().manual_seed(self.seed + i) for i in range(count)]
        self._carry: Carry = self.agent.initial_carry(count)
        self._frames.reset(count, seed=self.seed)
        self._is_first = True

    def act(
        self, observation: NDArray[Any] | Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float32] | NDArray[np.int64] | np.int64:
        """The action for what is seen now.

        Args:
            observation: a camera frame uint8 [h, w, c], or frames and vectors [d] by the names of `spec`; all with a
                batch axis in front after `reset(batch=n)`. Frames of another size are resized; what the
                run's `task.visuals` did to the environment's frames in training (grey, stacked) is done to these.

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
                {name: send(part, device) for name, part in parts.items()},
                torch.full((count,), self._is_first, device=device),
                self._carry,
                generator=self._generators,
            )
        self._carry, self._is_first = decision.carry, False
        actions = [self._actions.native(row) for row in decision.action.float().cpu().numpy()]
        return np.stack(actions) if self._batched else actions[0]

    def _parts(self, observation: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
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
        vectors = {name: _checked(name, rows[name], size) for name, size in self.spec.vectors.items()}
        return {**self._frames.see({name: rows[name] for name in self.spec.images}), **vectors}


def load_agent(
    run: str | Path,
    *,
    device: str = "cpu",
    overrides: Sequence[str] = (),
    seed: int = 0,
    visuals: Mapping[str, Any] | None = None,
) -> TrainedAgent:
    """The agent of a run folder, from its files alone: no environment is opened.

    Args:
        run: a run folder (its newest intact checkpoint), or one of its checkpoints.
        device: where to compute.
        overrides: keys on top of the run's configuration, such as `planner.horizon=12` or `agent.act_with=actor`.
        seed: of the planner's noise.
        visuals: what is done to frames before the agent sees them, such as `{"frame_stack": {"count": 3}}`; by default
            as in training, {} for frames that are as the agent sees them already.

    Raises:
        UserError: no such run, a damaged checkpoint, a device that torch does not find, an unknown key, an option that
            needs more than frames.
    """
    if isinstance(overrides, str):  # a sequence of texts too, of letters
        raise BadInput(f"overrides: expected a list of texts such as ['planner.horizon=12'], got {overrides!r}")
    where = usable_device(device)
    root, checkpoint = find_checkpoint(Path(run), key="run")
    config = override_saved(read_yaml(root / "config.yaml"), overrides)
    spec = read_spec(root, key="run")
    return TrainedAgent(build_trained(config, spec, checkpoint).to(where), spec, seed=seed, visuals=visuals)


def _whole(key: str, value: Any, *, least: int) -> int:
    """A whole number, of numpy's too; raises BadInput."""
    number = int(value) if isinstance(value, np.integer) else value
    if wrong := wrong_whole(number, least=least):
        raise BadInput(f"{key}: {wrong}")
    return int(number)


def _checked(name: str, rows: NDArray[Any], size: int) -> NDArray[np.float32]:
    if rows.shape[1:] != (size,) or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise BadInput(f"{name}: expected {size} finite numbers, got {rows.dtype} {list(rows.shape[1:])}")
    return rows.astype(np.float32)
