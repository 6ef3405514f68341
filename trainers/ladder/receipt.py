"""Evaluation of a checkpoint whose agent acts on states."""

from contextlib import closing
from typing import Any

import torch

from trainers import build
from trainers.clock import Clock
from trainers.ladder.play import StateEvaluator
from trainers.receipt_facts import receipt_facts


def evaluate_states(
    config: dict[str, Any],
    weights: dict[str, torch.Tensor],
    *,
    episodes: int,
    envs: int,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Play seeded episodes; what was measured and how."""
    open_env = lambda: build.open_states(config)  # noqa: E731
    with closing(open_env()) as env:
        spec = env.spec
    agent = build.build_state_agent(config, spec)
    build.load_weights(agent, weights)
    agent = agent.to(device).eval()
    with closing(StateEvaluator(open_env, envs=envs, seed=seed)) as evaluator:
        played = evaluator.run(agent, episodes=episodes, clock=Clock())
    facts = receipt_facts(
        config,
        [episode.total_return for episode in played],
        seeds=[episode.seed for episode in played],
        seed=seed,
        env_steps=sum(episode.env_steps for episode in played),
        decisions=sum(len(episode.reward) for episode in played),
        envs=envs,
        device=device,
        action_repeat=spec.action_repeat,
    )
    return {**facts, "replan": config["agent"]["replan"], "files": []}
