"""The demonstration of the outlier runs, and its figures are about the same action."""

import pytest

from trainers.benchmarks.uncertainty import measure as uncertainty
from trainers.command.configuration import BadConfig


def test_every_planner_is_measured_and_pessimism_predicts_less(tmp_path) -> None:
    picture = tmp_path / "plots" / "outlier.png"
    found = uncertainty.measure([], seeds=1, members=4, kappa=-2.0, steps=100, out=str(picture))
    rows = {row["planner"]: row for row in found["rows"]}
    assert set(rows) == {"single", "ensemble", "ensemble, kappa"} and picture.stat().st_size > 1000
    assert rows["ensemble, kappa"]["predicted"] < rows["ensemble"]["predicted"]
    assert all(0 <= row["earned"] <= 1 and row["exploits"] in (0, 1) for row in rows.values())
    with pytest.raises(BadConfig, match="seeds"):
        uncertainty.measure(["planner=cem"], seeds=1, members=2, kappa=0.0, steps=1, out="")
