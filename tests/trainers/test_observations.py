"""Every kind of observation, from environments to an evaluated checkpoint: short runs that really train."""

from pathlib import Path

import numpy as np
import pytest

from tests.rigs import PARTS
from trainers import evaluate, fit
from trainers.run_folder.checkpoint import load_checkpoint, newest
from trainers.run_folder.read import read_run

TINY = (
    *("experiment=smoke", "trainer.accelerator=cpu", "task.env_steps=60", "data.seed_episodes=2", "data.length=5"),
    *("data.batch=4", "data.update_ratio=0.2", "evaluation.every=1000", "evaluation.final_episodes=1"),
    *("dynamics.deterministic=16", "dynamics.hidden=16", "agent.heads.hidden=16", "policy.actor.hidden=16"),
    *("planner.candidates=8", "planner.elites=2", "planner.iterations=1", "planner.policy_candidates=2"),
)
COUNTING = (f"parts={PARTS}", "task=counting", "task.env.episode_steps=12")
STATES = ("agent=state_mpc", "dynamics=state_mlp", "objective=none", "policy=none", "dynamics.hidden=8")
SUITE = ("task=reacher_easy", "task.env.episode_steps=24", "data.seed_episodes=1")
# what is observed, and what its model loses beside rewards and KL
KINDS = {
    "camera and joints": (
        (*COUNTING, "+task.env.cameras={front: 16}", "+task.env.vectors={joints: 4}"),
        ("image", "vector"),
    ),
    "two cameras": ((*COUNTING, "+task.env.cameras={front: 16, wrist: 32}"), ("image",)),
    "the suite's camera and joints": (
        (*SUITE, "task.env.observe=pixels+state", "task.env.size=32", "task.env.look=fast"),
        ("image", "vector"),
    ),
    "the suite's two cameras": (
        (*SUITE, "task.env.cameras={front: 0, arm: 1}", "task.env.size=32", "task.env.look=fast"),
        ("image",),
    ),
    "the suite's state": ((*SUITE, "task.env.observe=state"), ("vector",)),
    "a state": ((*COUNTING, "+task.env.cameras={}", "+task.env.vectors={position: 3, velocity: 2}"), ("vector",)),
}


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_is_evaluated(kind: str, tmp_path: Path) -> None:
    words, decoded = KINDS[kind]
    results = fit.main([*TINY, *words, f"run_dir={tmp_path / 'run'}"])
    assert results["status"] == "finished" and results["updates"] > 5 and not results["faults"]
    metrics = read_run(tmp_path / "run").metrics
    losses = {name for name in metrics if name in ("loss/image", "loss/vector")}
    assert losses == {f"loss/{name}" for name in decoded}
    for name in losses:
        assert np.isfinite(metrics[name][-1]) or np.isfinite(metrics[name][~np.isnan(metrics[name])]).all()
    evaluated = evaluate.main([f"checkpoint={tmp_path / 'run'}", "episodes=1", "device=cpu"])
    assert evaluated["returns"] == results["returns"]
    films = {path.name for path in (tmp_path / "run" / "videos").glob("open_loop_final*.mp4")}
    assert len(films) == {"joints": 1, "cameras": 2, "state": 0}[kind.split()[-1]]


def test_normalisers_are_measured_on_the_seed_episodes(tmp_path: Path) -> None:
    fit.main([*TINY, *KINDS["camera and joints"][0], f"run_dir={tmp_path / 'run'}"])
    weights = load_checkpoint(newest(tmp_path / "run" / "checkpoints"))["state_dict"]
    image, vector = (weights[f"agent.norm.parts.{i}.mean"] for i in (0, 1))
    assert image.shape == (3, 16, 16) and vector.shape == (4,)
    assert vector.abs().max() > 0


def test_the_state_s_own_model_learns_it_without_an_encoder(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith(("dynamics.", "policy.", "agent.heads.", "planner.policy"))]
    env = KINDS["a state"][0]
    results = fit.main([*words, *env, *STATES, "planner.policy_candidates=0", f"run_dir={tmp_path / 'run'}"])
    assert results["status"] == "finished" and results["updates"] > 5
    metrics = read_run(tmp_path / "run").metrics
    assert {"loss/dynamics", "loss/reward", "error/data", "error/own"} <= metrics.keys()
    assert (
        evaluate.main([f"checkpoint={tmp_path / 'run'}", "episodes=1", "device=cpu"])["returns"] == results["returns"]
    )


def test_dynamics_in_closed_form_need_no_updates(tmp_path: Path) -> None:
    words = [
        word for word in TINY if not word.startswith(("dynamics.", "policy.", "agent.heads.", "data.update_ratio"))
    ]
    linear = [word for word in STATES if not word.startswith("dynamics")] + ["dynamics=state_linear"]
    more = ["data.update_ratio=0", "planner.policy_candidates=0", f"run_dir={tmp_path / 'run'}"]
    results = fit.main([*words, *KINDS["a state"][0], *linear, *more])
    assert (results["status"], results["updates"]) == ("finished", 0)
    weights = load_checkpoint(newest(tmp_path / "run" / "checkpoints"))["state_dict"]
    assert weights["agent.dynamics.weight"].abs().max() > 0


def test_an_encoder_may_be_chosen_for_one_name(tmp_path: Path) -> None:
    words = [*TINY, *KINDS["two cameras"][0], "+agent.encoders.wrist={name: patch, channels: [4, 4]}"]
    assert fit.main([*words, f"run_dir={tmp_path / 'run'}"])["status"] == "finished"
    weights = load_checkpoint(newest(tmp_path / "run" / "checkpoints"))["state_dict"]
    assert weights["agent.encoder.parts.0.stem.weight"].shape[0] == 16
    assert weights["agent.encoder.parts.1.stem.weight"].shape[0] == 4
