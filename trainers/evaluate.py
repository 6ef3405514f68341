"""Evaluate a trained agent: `python -m trainers.evaluate checkpoint=runs/x episodes=10`."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers import build
from trainers.artifacts import versions, write_json, write_pictures
from trainers.checkpoint import DurableCheckpointIO, newest
from trainers.configuration import BadConfig, override_saved, read_yaml
from trainers.entry import reject_unknown_flags, run, silence_advice
from trainers.evaluation import Evaluation, Evaluator
from trainers.metrics import iqm
from trainers.preflight import check

USAGE = """python -m trainers.evaluate checkpoint=PATH [episodes=10] [seed=N] [device=cpu] [envs=N] [key=value ...]

Plays seeded episodes without exploration, in parallel environments with one batched planner call for all, and writes
a receipt (JSON) and films into PATH/evaluations.

  checkpoint=runs/cartpole_swingup/20260101-120000      a run folder (its newest intact checkpoint), or a checkpoint
  planner=planet planner.horizon=15                     any key of the run's config, on top of it
  agent.act_with=actor                                  the learned policy without looking ahead

The last line of standard output is one JSON object with the results."""

OWN_KEYS = {"checkpoint": None, "episodes": 10, "seed": None, "envs": None, "device": "cpu"}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Evaluate a checkpoint; returns the receipt that is printed as the last line."""
    reject_unknown_flags(arguments)
    silence_advice()
    named = dict(text.split("=", 1) for text in arguments)
    own = {key: named.get(key, default) for key, default in OWN_KEYS.items()}
    if own["checkpoint"] is None:
        raise BadConfig("checkpoint: expected checkpoint=<run folder or checkpoint>, got none; see --help")
    root, path = _locate(Path(own["checkpoint"]))
    config = override_saved(
        read_yaml(root / "config.yaml"), [t for t in arguments if t.split("=", 1)[0] not in OWN_KEYS]
    )
    check(config)
    episodes, device = _whole(own["episodes"], "episodes"), _device(own["device"])
    envs = min(episodes, _whole(own["envs"] or "10", "envs"))
    folder = _output_folder(root)
    seed = _whole(own["seed"], "seed", least=0) if own["seed"] is not None else int(config["seed"])
    start = time.monotonic()
    checkpoint = DurableCheckpointIO().load_checkpoint(path)
    with build.open_pool(config, envs) as pool:
        agent = build.build_agent(config, pool.spec)
        build.load_weights(agent, checkpoint["state_dict"])
        agent = agent.to(device).eval()
        evaluation = Evaluator(lambda count: pool, envs=envs, seed=seed).run(agent, episodes=episodes)
        name = time.strftime("%Y%m%d-%H%M%S")
        pictures = write_pictures(folder, agent, evaluation, pool.spec, name=name)
        receipt = _receipt(config, path, evaluation, pool.spec, start, seed, device=str(device), envs=envs)
    receipt["files"] = [str(p) for p in pictures]
    receipt["run_dir"], receipt["receipt"] = str(root), str(folder / f"receipt_{name}.json")
    write_json(Path(receipt["receipt"]), {**receipt, "config": config, "versions": versions()})
    return receipt


def _locate(path: Path) -> tuple[Path, Path]:
    """The run folder and the checkpoint that a path means."""
    if (path / "manifest.json").exists():
        return path.resolve().parent.parent, path
    found = newest(path / "checkpoints") if (path / "checkpoints").is_dir() else None
    if found is None:
        raise BadConfig(f"checkpoint: expected a run folder with an intact checkpoint, or a checkpoint, got {path}")
    return path.resolve(), found


def _output_folder(root: Path) -> Path:
    folder = root / "evaluations"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise BadConfig(f"checkpoint: expected a run folder that can be written, got {root} ({error})") from error
    return folder


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadConfig(f"device: expected cpu, cuda or another of this machine's, got {text!r}") from error
    return device


def _whole(text: str, key: str, least: int = 1) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise BadConfig(f"{key}: expected a whole number of at least {least}, got {text!r}")
    return number


def _receipt(
    config: dict[str, Any],
    path: Path,
    evaluation: Evaluation,
    spec: Any,
    start: float,
    seed: int,
    *,
    device: str,
    envs: int,
) -> dict[str, Any]:
    milliseconds = np.asarray(evaluation.decision_ms)
    return {
        "task": config["task"]["name"],
        "checkpoint": str(path),
        "return_mean": evaluation.return_mean,
        "return_ci95": list(evaluation.return_ci95),
        "return_iqm": iqm(evaluation.returns),
        "returns": evaluation.returns,
        "episodes": len(evaluation.returns),
        "episode_seeds": evaluation.seeds,
        "seed": seed,
        "env_steps": evaluation.env_steps,
        "decisions": evaluation.decisions,
        "faults": evaluation.faults,
        "decision_ms": {q: float(np.percentile(milliseconds, p)) for q, p in (("p50", 50), ("p95", 95), ("p99", 99))},
        "envs_per_decision": envs,
        "seconds": round(time.monotonic() - start, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "act_with": config["agent"]["act_with"],
        "planner": config["planner"],
        "action_repeat": spec.action_repeat,
        "look": spec.look,
        "backend": spec.backend,
    }


if __name__ == "__main__":
    sys.exit(run(main, usage=USAGE))
