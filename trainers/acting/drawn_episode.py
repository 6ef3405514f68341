"""An episode of an agent that sees no image, as frames: the same seed and actions once more, where they are drawn."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.errors import EnvError
from datamodules.envs.gl import GPU
from datamodules.envs.protocol import Fault, Step
from trainers.acting.evaluation import Evaluation
from trainers.build.environments import open_pool

SIDE = 96  # of a frame, in pixels


def drawn_episode(
    config: dict[str, Any], evaluation: Evaluation, *, gpu: GPU | None = None
) -> NDArray[np.uint8] | None:
    """Frames [T, H, W, 3] of an evaluation's filmed episode, of a run with `task.env.observe=state`.

    None where there is nothing to draw, or nothing to draw with.
    """
    task, episode, seed = config["task"], evaluation.filmed, evaluation.filmed_seed
    options = dict(task.get("env") or {})
    if episode is None or seed is None or options.get("observe") != "state":
        return None
    drawn = {
        **config,
        "task": {**task, "env": {**options, "observe": "pixels", "size": SIDE}},
        "data": {**config["data"], "pool": "local"},
    }
    # what the states' own environment did with decisions, and none of what it would do with frames
    timing = {name: of for name, of in (task.get("visuals") or {}).items() if name in ("action_repeat", "time_limit")}
    try:
        # untold: it is the agent that reads the state, and this looks at it
        with open_pool(drawn, 1, gpu=gpu, visuals=timing, told=False) as pool:
            row = pool.reset({0: seed})[0]
            frames = [_frame(row)]
            for action in episode.action[1:]:
                row = pool.step({0: action})[0]
                frames.append(_frame(row))
    except EnvError as error:
        print(f"the final episode is not drawn: {error}", file=sys.stderr, flush=True)
        return None
    return np.stack(frames)


def _frame(row: Step | Fault) -> NDArray[np.uint8]:
    if isinstance(row, Fault):
        raise EnvError(row.message)
    return row.pixels.transpose(1, 2, 0)
