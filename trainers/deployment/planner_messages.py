"""Plans over a pipe between two processes: fixed layouts of numbers, nothing that is unpickled."""

import struct
from dataclasses import dataclass
from typing import Self

import numpy as np

from trainers.deployment.planning import Planned, Request
from worldmodel.agents.latent_mpc import LatentMPC

_ASK, _ANSWER = struct.Struct("<QdQB"), struct.Struct("<Qd?")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of a latent, decisions of a plan, numbers of an action."""

    latent: int
    horizon: int
    action: int

    @classmethod
    def of(cls, agent: LatentMPC) -> Self:
        """Those of an agent."""
        return cls(agent.dynamics.latent_dim, agent.planner.horizon, agent.action_dim)


def pack_request(number: int, until: float, request: Request) -> bytes:
    """A request under a number, with its deadline in seconds of time.monotonic(), one clock for all processes."""
    goal = b"" if request.goal is None else request.goal.astype("<f4").tobytes()
    head = _ASK.pack(number, until, request.seed, request.goal is not None)
    return head + request.latent.astype("<f4").tobytes() + request.warm.astype("<f4").tobytes() + goal


def unpack_request(message: bytes, sizes: Sizes) -> tuple[int, float, Request]:
    """What `pack_request` packed; raises ValueError or struct.error for anything else."""
    number, until, seed, has_goal = _ASK.unpack_from(message)
    values = np.frombuffer(message, "<f4", offset=_ASK.size).astype(np.float32)
    latent, warm, goal = np.split(values, [sizes.latent, sizes.latent + sizes.horizon * sizes.action])
    warm = warm.reshape(sizes.horizon, sizes.action)  # raises where the latent before it is not whole, too
    return number, until, Request(latent, warm, seed, goal if has_goal else None)


def pack_answer(number: int, planned: Planned | None) -> bytes:
    """An answer; None where there is no plan."""
    if planned is None:
        return _ANSWER.pack(number, 0.0, False)
    return _ANSWER.pack(number, planned.value, True) + planned.mean.astype("<f4").tobytes()


def unpack_answer(message: bytes, sizes: Sizes) -> tuple[int, Planned | None]:
    """What `pack_answer` packed; raises ValueError or struct.error for anything else."""
    number, value, has_plan = _ANSWER.unpack_from(message)
    if not has_plan:
        return number, None
    values = np.frombuffer(message, "<f4", offset=_ANSWER.size).astype(np.float32)
    mean = values.reshape(sizes.horizon, sizes.action)
    return number, Planned(mean, value) if np.isfinite(mean).all() else None
