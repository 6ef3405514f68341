"""Evaluation of a checkpoint, and the record of what was measured and how."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainers.acting.drawn_episode import drawn_episode
from trainers.acting.evaluation import Evaluation, Evaluator
from trainers.acting.pictures import write_pictures
from trainers.acting.plan_over_ranks import only_scores, own_device, plan_over_ranks, planning_ranks
from trainers.build.environments import open_evaluation_pool
from trainers.build.trained import with_weights
from trainers.command.configuration import BadConfig, override_saved, read_yaml, whole_number
from trainers.command.entry import silence_advice
from trainers.command.new_run import make_out_folder
from trainers.command.preflight import check
from trainers.machine.device import usable_device
from trainers.reporting.tables import show_facts
from trainers.run_folder.checkpoint import load_checkpoint
from trainers.run_folder.find import find_checkpoint, read_spec, require_task_fits
from trainers.run_folder.records import versions, write_json
from trainers.run_folder.statistics import iqm, mean_ci95
from trainers.run_folder.three_digits import low_to_high, three_digits
from worldmodel.spec import DYNAMICS, EnvSpec, require_same

# keys of a run's own evaluations, and this command's for the same
INSTEAD = {"evaluation.episodes": "episodes", "evaluation.final_episodes": "episodes", "evaluation.envs": "envs"}


def evaluate(
    *,
    checkpoint: str,
    episodes: str,
    seed: str | None,
    envs: str,
    device: str,
    out: str | None,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """Play seeded episodes with a checkpoint's agent; returns the results, which are also written beside the films.

    Of several ranks the first one plays, the others help it plan and return nothing. Texts are as typed; raises
    BadConfig that names the one that is wrong, and CheckpointDamaged.
    """
    silence_advice()
    start = time.monotonic()
    for key, value in (text.lstrip("+").split("=", 1) for text in overrides if "=" in text):
        if key in INSTEAD:
            raise BadConfig(f"{key}: expected {INSTEAD[key]}=N, which is this command's name for it, got {key}={value}")
    root, path = find_checkpoint(Path(checkpoint), key="checkpoint")
    config = override_saved(read_yaml(root / "config.yaml"), overrides)
    check(config)
    if config["task"]["source"] is None:
        raise BadConfig("task: expected task=NAME to act in, since the run learned from recordings alone")
    count, where = whole_number("episodes", episodes), own_device(usable_device(device))
    width = min(count, whole_number("envs", envs))
    first_seed = int(config["seed"]) if seed is None else whole_number("seed", seed, least=0)
    weights = load_checkpoint(path)["state_dict"]
    if only_scores():
        with plan_over_ranks(with_weights(config, read_spec(root, key="checkpoint"), weights).to(where), device=where):
            return {}
    folder, name = _output(root, out)
    with open_evaluation_pool(config, width) as pool:
        if config["evaluation"].get("visuals") is not None:
            trained = read_spec(root, key="evaluation.visuals")
            require_same(trained, pool.spec, DYNAMICS, key="evaluation.visuals", told="as in training")
        require_task_fits(root, pool.spec, key="checkpoint")
        agent = with_weights(config, pool.spec, weights).to(where)
        with plan_over_ranks(agent, device=where):
            evaluation = Evaluator(lambda _: pool, envs=width, seed=first_seed).run(agent, episodes=count)
        drawn = drawn_episode(config, evaluation)
        pictures = write_pictures(folder, agent, evaluation, pool.spec, name=name, drawn=drawn)
        results = _results(config, evaluation, pool.spec, first_seed, device=where, envs=width)
    results |= {"files": [str(path) for path in pictures]}
    results |= {"checkpoint": str(path), "seconds": round(time.monotonic() - start, 1)}
    results |= {"run_dir": str(root), "results_file": str(folder / f"results_{name}.json")}
    write_json(Path(results["results_file"]), {**results, "config": config, "versions": versions()})
    _show(results)
    return results


def _show(results: dict[str, Any]) -> None:
    """The results for a person, on standard error."""
    interval, ms = results["return_ci95"], results["decision_ms"]
    between = low_to_high(interval) if interval else "none below four episodes"
    faults = f", {results['faults']} more cut short by faults" if results["faults"] else ""
    rows = {
        "return": f"{three_digits(results['return_mean'])} mean of {results['episodes']} episodes{faults}",
        "95% interval": f"{between} (over episodes of this one agent, not over training seeds)",
        "middle half": f"{three_digits(results['return_iqm'])} mean",
        "lowest, highest": f"{three_digits(min(results['returns']))}, {three_digits(max(results['returns']))}",
        "a decision": f"{ms['p50']:.1f} ms in the median, {ms['p95']:.1f} at most in 95%",
        "computed on": f"{results['device']}, {results['envs_per_decision']} environments at once"
        + (f", {results['ranks']} ranks plan together" if results["ranks"] > 1 else ""),
        "written to": results["results_file"],
    }
    show_facts(results["task"], rows)


def _output(root: Path, out: str | None) -> tuple[Path, str]:
    """The folder for results and films, and a name for them that is not taken."""
    folder = make_out_folder(Path(out).expanduser() if out else root / "evaluations")
    when = time.strftime("%Y%m%d-%H%M%S")
    earlier = len(list(folder.glob(f"results_{when}*.json")))
    return folder, f"{when}-{earlier + 1}" if earlier else when


def _results(
    config: dict[str, Any], evaluation: Evaluation, spec: EnvSpec, seed: int, *, device: torch.device, envs: int
) -> dict[str, Any]:
    """Returns of the episodes whose starts come from `seed`, `envs` of them side by side; and by what agent."""
    milliseconds = np.asarray(evaluation.decision_ms)
    return {
        "task": config["task"]["name"],
        "return_mean": evaluation.return_mean,
        "return_ci95": mean_ci95(evaluation.returns),
        "return_iqm": iqm(evaluation.returns),
        "returns": evaluation.returns,
        "episodes": len(evaluation.returns),
        "episode_seeds": evaluation.seeds,
        "seed": seed,
        "env_steps": evaluation.env_steps,
        "decisions": evaluation.decisions,
        "envs_per_decision": envs,
        "device": str(device),
        "ranks": planning_ranks(),
        "threads": torch.get_num_threads(),
        "planner": config["planner"],
        "action_repeat": spec.action_repeat,
        "faults": evaluation.faults,
        "decision_ms": {q: float(np.percentile(milliseconds, p)) for q, p in (("p50", 50), ("p95", 95), ("p99", 99))},
        "act_with": config["agent"]["act_with"],
        "replan": config["agent"].get("replan", 1),
        "look": spec.look,
        "backend": spec.backend,
        "visuals": dict(spec.visuals),
    }
