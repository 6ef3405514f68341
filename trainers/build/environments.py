"""Environments from a configuration."""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from datamodules.envs.errors import BadOption
from datamodules.envs.gl import GPU
from datamodules.envs.pool import EnvPool, VectorPool
from datamodules.envs.protocol import Pool
from datamodules.envs.sources import has_lanes, takes
from datamodules.envs.supervised import FaultLimit
from worldmodel.spec import DYNAMICS, EnvSpec, require_same

Config = Mapping[str, Any]


# of the `data` section; what a section leaves out has the pool's default
POOL_LIMITS = (
    *("step_timeout_s", "reset_timeout_s", "max_restarts", "restart_window_s"),
    *("blank_frames", "frozen_frames"),
)


def open_pool(
    config: Config, count: int, *, gpu: GPU | None = None, visuals: Config | None = None, told: bool = True
) -> Pool:
    """`count` supervised environments of the configured task, with `visuals` instead of the task's if given.

    gpu: what those draw with that draw with GL. told: whether the user is told what is not read of what they show.
    """
    task, data = config["task"], config["data"]
    source, elsewhere = task["source"], data.get("pool", "local") == "ray"
    # other machines' GPUs are theirs to choose
    device = {"gpu": gpu} if gpu is not None and not elsewhere and takes(source, "gpu") else {}
    kind = _kind(source, elsewhere=elsewhere)
    try:
        pool = kind(
            source=source,
            kwargs=device | dict(task["env"]),
            visuals=task.get("visuals") if visuals is None else visuals,
            count=count,
            **{key: data[key] for key in POOL_LIMITS if key in data},
        )
    except BadOption as error:
        section = {"visuals": "task." if visuals is None else "evaluation.", **dict.fromkeys(task["env"], "task.env.")}
        option = error.key.partition(".")[0]
        raise BadOption(error.said, key=section.get(option, "") + error.key) from error
    for note in pool.notes if told else ():
        _say_once(f"{task['name']}: {note}")
    return pool


def _kind(source: str, *, elsewhere: bool) -> type[EnvPool] | type[VectorPool]:
    if elsewhere:
        from datamodules.ray_envs.pool import RayEnvPool, RayVectorPool  # Ray is an extra

        return RayVectorPool if has_lanes(source) else RayEnvPool
    return VectorPool if has_lanes(source) else EnvPool


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def build_fault_limit(config: Config) -> FaultLimit:
    """Of the faults that collection survives: as many as a worker's restarts."""
    names = {"most": "max_restarts", "window_s": "restart_window_s"}
    return FaultLimit(**{name: config["data"][key] for name, key in names.items() if key in config["data"]})


def open_evaluation_pool(config: Config, count: int, *, gpu: GPU | None = None) -> Pool:
    """`open_pool`, seen through `evaluation.visuals` where the configuration has it."""
    return open_pool(config, count, gpu=gpu, visuals=config["evaluation"].get("visuals"))


def require_evaluation(config: Config, spec: EnvSpec, *, gpu: GPU | None = None) -> None:
    """Open and close an environment of `evaluation.visuals`, if that is given; what cannot be evaluated is refused."""
    if config["evaluation"].get("visuals") is not None:
        with open_evaluation_pool(config, 1, gpu=gpu) as pool:
            require_same(spec, pool.spec, DYNAMICS, key="evaluation.visuals", told="as in training")
