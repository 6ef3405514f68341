"""What a decision costs, by a trial: so that a run can tell how long it takes before its agent has played."""

import time

import numpy as np
import torch

from datamodules.observation import empty
from trainers.acting.agent_policy import AgentPolicy
from trainers.process.clock import Clock
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.spec import EnvSpec

WARM_UP_SECONDS = 0.5  # a first decision that took longer was no matter of warming up


def seconds_per_decision(agent: LatentMPC, spec: EnvSpec, *, envs: int) -> float:
    """Seconds of one decision for `envs` environments at once, on empty frames; no random number of others is used."""
    device = next(agent.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        policy = AgentPolicy(agent, generators=[torch.Generator() for _ in range(envs)], clock=Clock())
        every, seconds = np.ones(envs, dtype=bool), 0.0
        for _ in range(2):
            start = time.perf_counter()
            policy(empty(spec, envs), every, every)
            seconds = time.perf_counter() - start
            if seconds > WARM_UP_SECONDS:
                break
    return seconds
