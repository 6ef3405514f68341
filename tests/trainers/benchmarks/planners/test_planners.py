"""What the planners' benchmark shows: the workload's size, known optima, a row for each planner."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from trainers import benchmark
from trainers.benchmarks.planners.budgets import PLANNERS, Budget
from trainers.benchmarks.planners.gru_world import random_world
from trainers.benchmarks.planners.peers import plain_cem, plain_returns
from trainers.benchmarks.planners.problems import Quadratic, quadratic
from trainers.command.configuration import BadConfig
from worldmodel.simulators.latent import LatentSimulator, score, score_by_steps


def test_the_reference_workload_has_its_published_size() -> None:
    dynamics, reward, latent = random_world()
    assert sum(p.numel() for m in (dynamics, reward) for p in m.parameters()) == 341_231
    assert latent.shape == (1, 230)


def test_the_gap_is_zero_at_the_optimum_and_one_at_uniform_actions() -> None:
    problem = quadratic()
    assert isinstance(problem.simulator, Quadratic)
    assert problem.gap(0, problem.simulator.target[None]) < 1e-6
    uniform = 2 * torch.rand(4000, 12, 3, generator=torch.Generator().manual_seed(0)) - 1
    gaps = [problem.gap(0, actions[None]) for actions in uniform[:500]]
    assert abs(sum(gaps) / len(gaps) - 1) < 0.05


def test_the_plain_peer_counts_returns_as_the_planners_do() -> None:
    dynamics, reward, latent = random_world()
    world = LatentSimulator(dynamics=dynamics, reward=reward, value=None, actor=None, action_dim=6, discount=0.9)
    actions = 2 * torch.rand(1, 5, 12, 6, generator=torch.Generator().manual_seed(0)) - 1
    torch.testing.assert_close(plain_returns(world, latent, actions), score(world, latent, actions))


def test_the_plain_peer_finds_the_optimum() -> None:
    problem = quadratic()
    budget = Budget(candidates=200, iterations=30, horizon=12)
    plan = plain_cem(problem.simulator, problem.latents, budget, generator=torch.Generator().manual_seed(0))
    assert problem.gap(0, plan) < 1e-2


def test_every_planner_has_a_row_with_the_same_keys(tmp_path: Path) -> None:
    options = ["problems=quadratic", "peers=plain,bare", "candidates=8", "iterations=2", "repeats=1", f"out={tmp_path}"]
    rows = benchmark.main(["planners", *options])["rows"]
    assert [row["planner"] for row in rows] == [*PLANNERS, "peer:plain", "peer:bare"]
    for row in rows:
        assert {"planner", "precision", "candidates", "ms", "rollout_ms", "gap", "batch", "device"} <= row.keys()
        assert row["ms"] >= row["rollout_ms"] > 0, row
    assert len((tmp_path / "planners.csv").read_text().splitlines()) == len(rows) + 1
    with Image.open(tmp_path / "planners.png") as image:
        assert len(image.getcolors(1 << 16) or []) > 4


def test_a_batch_has_a_row_of_its_own_and_peers_that_take_one() -> None:
    options = ["problems=quadratic", "planners=cem", "peers=plain", "candidates=8", "batches=1,3"]
    rows = benchmark.main(["planners", *options, "iterations=1", "repeats=1"])["rows"]
    assert [(row["planner"], row["batch"]) for row in rows] == [(p, b) for b in (1, 3) for p in ("cem", "peer:plain")]
    assert all(row["gap"] is not None for row in rows)


@pytest.mark.parametrize("given", ["batches=0", "batches=two", "candidates="])
def test_numbers_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(BadConfig, match=f"{given.split('=')[0]}: expected a whole number"):
        benchmark.main(["planners", "problems=quadratic", given])


def test_the_reference_workload_s_rollout_equals_its_single_steps() -> None:
    dynamics, reward, latent = random_world()
    world = LatentSimulator(dynamics=dynamics, reward=reward, value=None, actor=None, action_dim=6, discount=0.9)
    actions = 2 * torch.rand(1, 40, 12, 6, generator=torch.Generator().manual_seed(0)) - 1
    expected = score_by_steps(world, latent, actions)
    with torch.inference_mode():
        torch.testing.assert_close(world.returns(latent, actions), expected, rtol=1e-5, atol=1e-4)
