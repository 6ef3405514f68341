"""Algorithms 23 to 25: what tells the versions apart, in short runs of the suite's own physics."""

from pathlib import Path

import numpy as np
import pytest
import torch

from trainers import evaluate, fit
from trainers.benchmarks.chapter import runs
from trainers.benchmarks.chapter.final_model import measure_final
from trainers.command.configuration import BadConfig
from trainers.run_folder.read import read_run

SHORT = (
    *("+task.env.episode_steps=40", "task.env_steps=240", "data.update_ratio=0.4", "data.batch=8"),
    *("planner.candidates=8", "planner.elites=2", "planner.iterations=1", "planner.horizon=3"),
    *("evaluation.final_episodes=2", "evaluation.envs=2", "dynamics.hidden=16"),
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def short_run(name: str, root: Path, *more: str) -> dict:
    seeds = "data.seed_episodes=6" if name == "alg23" else "data.seed_episodes=2"
    return fit.main([f"experiment=chapter/{name}", *SHORT, seeds, *more, f"run_dir={root}"])


@pytest.mark.slow
def test_version_0_5_never_collects_again_and_versions_1_do(tmp_path: Path) -> None:
    names = ("alg23", "alg24", "alg25")
    results = {name: short_run(name, tmp_path / name) for name in names}
    for name, result in results.items():
        assert (result["env_steps"], result["episodes"], result["updates"]) == (240, 6, 12)
        assert result["status"] == "finished" and len(result["returns"]) == 2
        rounds = read_run(tmp_path / name).metrics.get("error/own", np.empty(0))
        assert np.isfinite(rounds).sum() == (0 if name == "alg23" else 4)
        final = measure_final(read_run(tmp_path / name))
        assert (
            final.keys() == {"error_data", "error_own", "predicted", "realised"}
            and np.isfinite([*final.values()]).all()
        )
    episodes = {name: np.load(tmp_path / name / "episodes.npz") for name in names}
    states = {name: loaded["collected_state"] for name, loaded in episodes.items()}
    # the first episodes are the same, of the base policy; then each version goes its own way
    assert states["alg23"].shape == (6, 6, 5)
    assert np.array_equal(states["alg23"][:2], states["alg24"][:2])
    assert np.array_equal(states["alg24"][:2], states["alg25"][:2])
    assert not np.allclose(states["alg23"][2:], states["alg24"][2:])
    assert np.array_equal(episodes["alg25"]["expected"][0], episodes["alg25"]["evaluated_state"][0, 0])


def test_the_suite_s_reward_is_the_one_written_down(tmp_path: Path) -> None:
    from datamodules.envs import dmc
    from worldmodel.heads.cartpole_swingup import CartpoleSwingup

    env = dmc.make(task="cartpole_swingup", action_repeat=1, episode_steps=60, observe="state")
    assert env.spec.vectors == {"position": 3, "velocity": 2} and not env.spec.images
    known, actions = CartpoleSwingup(latent_dim=6, scale=1.0), np.random.default_rng(0).uniform(-1, 1, (60, 1))
    env.reset(1)
    for action in actions.astype(np.float32):
        step = env.step(action)
        latent = np.concatenate([*step.observation.values(), action])
        assert float(known(torch.from_numpy(latent))) == pytest.approx(step.reward, abs=1e-5)
    env.close()


def test_runs_of_other_settings_are_not_taken_for_those_asked_for(tmp_path: Path) -> None:
    short = [*SHORT, "data.seed_episodes=2"]
    begun = runs.version_runs(["alg25"], tmp_path, seeds=1, overrides=short)
    again = runs.version_runs(["alg25"], tmp_path, seeds=1, overrides=short)
    assert again["alg25"][0].results == begun["alg25"][0].results
    with pytest.raises(BadConfig, match=r"planner.horizon: expected 3 as in the run in .*alg25_0, got 6"):
        runs.version_runs(["alg23", "alg25"], tmp_path, seeds=1, overrides=[*short, "planner.horizon=6"])
    assert [path.name for path in tmp_path.iterdir()] == ["alg25_0"]  # nothing was started before it was refused


def test_a_run_continues_where_it_stopped_and_ends_as_if_it_had_not(tmp_path: Path) -> None:
    whole = short_run("alg25", tmp_path / "whole")
    short_run("alg25", tmp_path / "parts", "task.env_steps=160")
    parts = fit.main([f"resume={tmp_path / 'parts'}", "task.env_steps=240"])
    assert parts["returns"] == whole["returns"] and parts["updates"] == whole["updates"]
    again = evaluate.main([f"checkpoint={tmp_path / 'parts'}", "episodes=2", "envs=2", "device=cpu"])
    assert again["returns"] == whole["returns"] and again["replan"] == 1
    swept = runs.replanning([read_run(tmp_path / "whole")], [1, 3], episodes=2)
    assert swept["1"] == [whole["return_mean"]] and len(swept["3"]) == 1


def test_a_run_of_an_earlier_version_s_states_is_told_how_to_go_on() -> None:
    with pytest.raises(BadConfig, match=r"data: expected online, got states.*experiment=chapter/alg25"):
        fit.main(["data.name=states"])
