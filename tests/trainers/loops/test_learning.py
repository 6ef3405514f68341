"""The whole of Algorithm 26 on the toy task: nine tenths of the optimal return, from pixels, in minutes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from datamodules.envs import toy
from datamodules.envs.pool import episode_seed
from trainers.acting.evaluation import EVALUATION_RANK


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_toy_task_reaches_nine_tenths_of_its_optimum(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "trainers.fit", "experiment=toy", f"run_dir={run}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout.splitlines()[-1])
    config = yaml.safe_load((run / "config.yaml").read_text())["task"]["env"]
    facts = {"episode_steps": config["episode_steps"], "random_goal": config["random_goal"]}
    seeds = [episode_seed(results["seed"], EVALUATION_RANK, 0, i) for i in range(len(results["returns"]))]
    best = [toy.optimal_return(seed, **facts) for seed in seeds]
    assert len(best) >= 10
    assert np.sum(results["returns"]) >= 0.9 * np.sum(best), (results["returns"], best)
    assert results["env_steps"] <= 2000 + 50
