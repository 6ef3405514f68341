"""A finished run's model, measured on what it was fitted to and on the states that its plans visit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.envs.seeds import SeedRank, episode_seed
from datamodules.recorded import Recorded
from datamodules.rollout import play
from datamodules.trajectory import Trajectory
from trainers.acting.agent_policy import AgentPolicy
from trainers.acting.return_gap import return_gap
from trainers.acting.windows import window_batch
from trainers.build.agent import build_trained_agent
from trainers.build.environments import open_evaluation_pool
from trainers.process.clock import Clock
from trainers.run_folder.find import find_checkpoint
from trainers.run_folder.read import Run
from worldmodel.agents.latent_mpc import LatentMPC

EPISODES = 10
Rows = NDArray[np.float32]


def measure_final(run: Run) -> dict[str, float]:
    """Errors and predictions of the final model; kept in the run folder, with the episodes in episodes.npz.

    error_data, error_own: one-step errors on the run's replay and on its evaluation's episodes. predicted, realised:
    means of the returns that plans predict and of what came.
    """
    path = run.run_dir / "evaluations" / "final_model.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(_measured(run)))
    return {name: float(value) for name, value in json.loads(path.read_bytes()).items()}


def _measured(run: Run) -> dict[str, float]:
    recorded = Recorded(run.run_dir / "replay")
    agent = build_trained_agent(run.config, recorded.spec, find_checkpoint(run.run_dir, key="checkpoint")[1])
    played, gap = _play(run, agent)
    own = window_batch([(episode, t, t + 2) for episode in played for t in range(len(episode) - 1)])
    fitted = recorded.every(2)
    collected = [recorded.trajectory(number).observation for number in range(recorded.episodes)]
    recorded.close()
    _write_episodes(run.run_dir / "episodes.npz", agent, [_joined(o) for o in collected], played)
    with torch.no_grad():
        parts = {"error_data": fitted, "error_own": own}
        errors = {name: float(agent.dynamics.one_step_error(agent.embed(b), b)) for name, b in parts.items()}  # type: ignore[attr-defined]
    return {**errors, "predicted": gap["plan/predicted_return"], "realised": gap["plan/realised_return"]}


def _play(run: Run, agent: LatentMPC) -> tuple[list[Trajectory], dict[str, float]]:
    """The evaluation's episodes, and what was predicted of them."""
    seed, rows = run.config["seed"], [[] for _ in range(EPISODES)]  # type: ignore[var-annotated]
    seeds, noise = (
        [episode_seed(seed, SeedRank.EVALUATION, use, number) for number in range(EPISODES)] for use in (0, 1)
    )
    policy = AgentPolicy(agent, generators=[torch.Generator().manual_seed(n) for n in noise], clock=Clock())
    with open_evaluation_pool(run.config, EPISODES) as pool:
        episodes = play(
            pool,
            policy,
            dict(enumerate(seeds)),
            on_row=lambda index, step, action: rows[index].append((step, np.array(action, np.float32))),
        )
    gap = return_gap(policy.predicted, episodes, discount=agent.discount, horizon=agent.predicted_decisions)
    return [Trajectory.from_rows(of) for of in rows], gap


def _write_episodes(path: Path, agent: LatentMPC, collected: list[Rows], played: list[Trajectory]) -> None:
    """`collected_state` and `evaluated_state` [n, T, D], NaN after shorter episodes' ends, and `expected` [T, D]: what
    the model makes of the first evaluated episode's first state and its actions."""
    evaluated = [_joined(episode.observation) for episode in played]
    latent = agent.observe(window_batch([(played[0], 0, 2)])).latent[:, 0]
    expected = [latent]
    with torch.no_grad():
        for action in played[0].action[1:]:
            expected.append(agent.dynamics.predict(expected[-1], torch.from_numpy(action)[None]))
    states = torch.cat(expected)[:, : evaluated[0].shape[-1]].numpy()
    np.savez_compressed(
        path, expected=states, **_padded("collected_state", collected), **_padded("evaluated_state", evaluated)
    )


def _joined(observation: Any) -> Rows:
    return np.concatenate([*observation.values()], -1)


def _padded(name: str, episodes: list[Rows]) -> dict[str, Any]:
    longest = max(map(len, episodes))
    rows = [np.pad(e, ((0, longest - len(e)), (0, 0)), constant_values=np.nan) for e in episodes]
    return {name: np.stack(rows)}
