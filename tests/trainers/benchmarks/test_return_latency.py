import pytest

from trainers import benchmark, evaluate
from trainers.benchmarks import return_latency
from trainers.command.arguments import BadArguments


def test_what_acts_is_measured_on_the_same_episodes(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(return_latency, "BUDGETS", ((1, 8),))
    out = tmp_path / "shown" / "picture.svg"
    results = benchmark.main(["return_latency", f"run={finished}", "episodes=2", f"out={out}"])
    planner, policy = results["rows"]
    assert (planner["acts"], policy["acts"]) == ("1 x 8", "policy")
    assert 0 < policy["p50_ms"] <= policy["p99_ms"] and policy["p50_ms"] < planner["p50_ms"]
    alone = evaluate.main([str(finished), "episodes=2", "envs=1", "agent.act_with=actor", f"out={tmp_path / 'alone'}"])
    assert policy["returns"] == pytest.approx(alone["returns"])
    assert "<svg" in out.read_text()


def test_a_run_is_needed():
    with pytest.raises(BadArguments, match="run: expected a run folder"):
        benchmark.main(["return_latency"])
