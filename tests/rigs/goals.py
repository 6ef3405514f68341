"""Pictures as goals for a controller on reacher: how near the fingertip comes to where the picture has it.

`python -m tests.rigs goals bundle=PATH`, of a run with task=reacher_easy; random actions beside it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.envs.dmc import DmcEnv, make
from trainers.bundle.bundle import read_bundle
from trainers.command.configuration import BadConfig
from trainers.deployment.controller import Controller

LAST = 20  # decisions of an episode that count

Act = Callable[[NDArray[np.uint8]], NDArray[np.floating]]


def measure(*, bundle: str = "", episodes: int = 10, decisions: int = 100, seed: int = 0) -> dict[str, Any]:
    """Mean distances in metres; the arm is 0.24 m long, its two angles are drawn anew for every picture."""
    if not bundle:
        raise BadConfig("bundle: expected a folder, got none")
    read = read_bundle(Path(bundle))
    controller = Controller(read, planner="inline", budget_s=10.0)
    side = next(iter(read.control.env.images.values()))[1]
    env = make(task="reacher_easy", size=side, action_repeat=read.control.env.action_repeat, look="fast")
    rng = np.random.default_rng(seed)

    def planned(picture: NDArray[np.uint8]) -> Act:
        controller.reset()
        controller.set_goal(picture)
        return lambda frame: np.asarray(controller.step(frame)[0])

    def random(_: NDArray[np.uint8]) -> Act:
        return lambda _: rng.uniform(-1, 1, 2)

    goals = np.random.default_rng([seed, 1]).uniform((-np.pi, -2.7), (np.pi, 2.7), (episodes, 2))
    results: dict[str, Any] = {"episodes": episodes, "decisions": decisions}
    for name, actor in (("planned", planned), ("random", random)):
        distances = np.array([_play(env, actor, goal, 1000 + i, decisions) for i, goal in enumerate(goals)])
        last = distances[:, -LAST:].mean(1)
        results |= {"start_m": round(float(distances[:, 0].mean()), 3), f"{name}_m": round(float(last.mean()), 3)}
        results[f"{name}_median_m"] = round(float(np.median(last)), 3)
    return results


def _play(env: DmcEnv, actor: Callable[[NDArray[np.uint8]], Act], goal: Any, seed: int, decisions: int) -> list[float]:
    """Distances to the goal after each decision, from a start whose target lies where it does in the picture."""
    env.reset(seed)
    start = env.env.physics.data.qpos.copy()
    picture, place = _posed(env, goal)
    frame, tip = _posed(env, start)
    act, distances = actor(picture), [float(np.linalg.norm(tip - place))]
    for _ in range(decisions):
        frame = env.step(act(frame)).pixels.transpose(1, 2, 0)
        distances.append(float(np.linalg.norm(_tip(env) - place)))
    return distances


def _posed(env: DmcEnv, angles: Any) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture of the arm at rest in a pose, and where its fingertip is."""
    physics = env.env.physics
    with physics.reset_context():
        physics.data.qpos[:], physics.data.qvel[:] = angles, 0.0
    return env._observed({})["pixels"].transpose(1, 2, 0), _tip(env)


def _tip(env: DmcEnv) -> NDArray[np.float64]:
    return np.array(env.env.physics.named.data.geom_xpos["finger", :2])
