"""The demonstration of the outlier runs, and its figures are about the same action."""

import pytest

from trainers import benchmark
from trainers.benchmarks.uncertainty import measure as uncertainty
from trainers.command.arguments import BadArguments


def test_every_planner_is_measured_and_pessimism_predicts_less(tmp_path) -> None:
    picture = tmp_path / "plots" / "outlier.png"
    measured = uncertainty.measure(seeds=1, members=4, kappa=-2.0, steps=100, out=str(picture))
    rows = {row["planner"]: row for row in measured["rows"]}
    assert set(rows) == {"single", "ensemble", "ensemble, kappa"} and picture.stat().st_size > 1000
    assert rows["ensemble, kappa"]["predicted"] < rows["ensemble"]["predicted"]
    assert all(0 <= row["earned"] <= 1 and row["exploits"] in (0, 1) for row in rows.values())


def test_what_has_no_configuration_refuses_its_keys() -> None:
    with pytest.raises(BadArguments, match=r"seeds.*got 'planner=cem'"):
        benchmark.main(["uncertainty", "planner=cem"])
