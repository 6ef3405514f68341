"""Benchmarks print what they say they do; their figures are not tested, machines differ."""

import pytest

from trainers import benchmark
from trainers.benchmarks.shared.configured_update import configured_update
from trainers.command.arguments import BadArguments
from trainers.command.configuration import BadConfig
from worldmodel.errors import BadValue

SMALL = ["experiment=smoke", "repeats=2"]


@pytest.mark.parametrize(
    ("what", "arguments", "keys"),
    [
        ("env", SMALL, {"decisions_per_s", "env_steps_per_s", "look"}),
        ("update", SMALL, {"update_ms", "params"}),
        ("act", [*SMALL, "envs=3"], {"decision_ms"}),
        ("import", ["episodes=12"], {"episodes", "rows", "seconds", "mb_per_s", "stored_mb_per_s", "inflate_mb_per_s"}),
        ("replay_size", ["rows=3000,9000", "repeats=2"], {"rows"}),
        ("prefetch", [*SMALL, "rows=600"], {"wait_share", "update_and_wait_ms"}),
    ],
)
def test_results_hold_the_named_figures(what: str, arguments: list[str], keys: set[str]) -> None:
    result = benchmark.main([what, *arguments])
    assert keys <= result.keys()
    assert all(result[key] for key in keys)


def test_dyna_s_table_and_picture(tmp_path) -> None:
    result = benchmark.main(
        ["dyna", "seeds=1", "step_size=1", "episodes=2", "steps=40", f"out={tmp_path / 'dyna.svg'}"]
    )
    assert [row["path"] for row in result["rows"]] == [14.0] * 4
    assert result["real_steps_ratio"] > 5 and result["backups_ratio"] > 5
    assert "<svg" in (tmp_path / "dyna.svg").read_text()


@pytest.mark.parametrize(("peer", "params"), [("planet", 5_130_220), ("r2dreamer", 10_199_040), ("tdmpc2", 4_879_390)])
def test_the_shapes_of_peers_have_their_sizes(peer: str, params: int) -> None:
    """Trainable weights with six actions, as `benchmark peers` counts them in a checkout."""
    update = configured_update([f"experiment={peer}_shapes", "data.batch=2", "data.length=6"], action_dim=6)
    update.call()
    assert abs(update.params / params - 1) < 0.03


def test_a_folder_that_is_no_checkout_of_the_peer_is_named(tmp_path) -> None:
    small = ["repeats=1", "data.batch=1", "data.length=6"]
    with pytest.raises(BadConfig, match=r"checkout: expected the folder of a checkout of the peer, got 'nowhere'"):
        benchmark.main(["peers", "peer=planet", "checkout=nowhere", *small])
    with pytest.raises(BadConfig, match=r"checkout: expected .*tdmpc2.* got .*'tdmpc2'"):
        (tmp_path / "tdmpc2").mkdir()
        benchmark.main(["peers", "peer=tdmpc2", f"checkout={tmp_path}", *small])
    with pytest.raises(BadValue, match=r"peer: expected one of planet, r2dreamer, tdmpc2, got .*dreamer"):
        benchmark.main(["peers", "peer=dreamer", *small])


def test_an_unknown_benchmark_names_the_known_ones() -> None:
    with pytest.raises(BadArguments, match=r"expected one of act,.*env.*update.*got 'velocity'"):
        benchmark.main(["velocity"])


def test_an_unknown_dynamics_names_the_known_ones(tmp_path) -> None:
    with pytest.raises(BadConfig, match=r"models.*deterministic.*smoothing.*got rssm"):
        benchmark.main(["models", "models=rssm", f"out={tmp_path / 'models'}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("choice", ["planner=gradient", "policy=gps"])
def test_what_an_experiment_says_of_another_part_is_left_out(choice: str) -> None:
    """As in a run: the experiment sizes the default planner and policy, which have options that these do not."""
    assert benchmark.main(["act", "experiment=small", choice, "repeats=1"])["decision_ms"] > 0
