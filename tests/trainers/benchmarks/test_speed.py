"""Rows of the speed table; what they count is compared with sums by hand, times are the machine's."""

import pytest
import torch

from trainers import benchmark
from trainers.benchmarks.speed.counting import gflop
from trainers.build.agent import build_agent
from trainers.command.configuration import load_config
from worldmodel.planners.random_shooting import RandomShooting
from worldmodel.spec import EnvSpec

LOOPS = ["env", "sample", "observe", "decode", "imagine", "update", "optimiser", "log", "plan", "decision"]
SPEC = EnvSpec("synthetic", {"pixels": (3, 16, 16)}, action_dim=2, action_repeat=1, episode_steps=9, terminates=False)


def test_a_row_for_every_loop_and_lines_that_fit_a_page(capsys) -> None:
    result = benchmark.main(["speed", "experiment=smoke", "repeats=2", "device=cpu"])
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == LOOPS
    for row in rows.values():
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["ms"] <= high and row["launches"] is None
        assert (row["share_of_peak"] is None) == (row["gflop"] is None and row["gb"] is None)
    parts = sum(rows[name]["gflop"] for name in ("observe", "decode", "imagine"))
    assert 0.9 < parts / rows["update"]["gflop"] <= 1.0  # what is left is the reward's
    assert rows["plan"]["gflop"] < rows["decision"]["gflop"]
    assert rows["sample"]["peer"] == "numpy gather" and rows["sample"]["ratio"] > 0
    assert rows["env"]["ratio"] is None
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("N", [40, 300])  # float32 is packed from 256 rows on
def test_a_plan_s_products_are_all_counted(precision, N) -> None:
    config = load_config(["experiment=small", "policy=none", f"agent.plan_precision={precision}"])
    agent, hidden, H = build_agent(config, SPEC), config["agent"]["heads"]["hidden"], 3
    d, s, wide, A = *(config["dynamics"][n] for n in ("deterministic", "stochastic", "hidden")), SPEC.action_dim
    step = (s + A) * d + (d + d) * 3 * d + d * wide + wide * s
    reward = (d + s) * hidden + hidden * hidden + hidden
    # at the first step h is the same for all, and its products are made once; the last term sums the rewards
    expected = 2 * (N * H * (step + reward) - (N - 1) * d * 3 * d + N * H)
    planner = RandomShooting(horizon=H, candidates=N)
    with torch.inference_mode():
        counted = gflop(lambda: planner.plan(agent.simulator(), torch.zeros(1, d + s), generator=torch.Generator()))
    assert counted * 1e9 == pytest.approx(expected)


def test_gradients_count_twice() -> None:
    """Of weights and of inputs; the first layer's inputs need none."""
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    rows = torch.zeros(7, 3)
    assert gflop(lambda: net(rows)) * 1e9 == pytest.approx(2 * 7 * (15 + 10))
    assert gflop(lambda: net(rows).sum().backward()) * 1e9 == pytest.approx(2 * 7 * (2 * 15 + 3 * 10))
