import csv
import re

from trainers.benchmarks.models import measure


def row(dynamics, error, mean):
    errors = {"reward": error, "reward_1": error, "reward_5": 2 * error, "reward_15": None}
    return {"dynamics": dynamics, "updates": 7, **errors, "return": mean, "returns": [mean] * 2, "update_ms": 1.0}


ROWS = [row("gaussian", 0.25, 400.0), row("deterministic", 0.5, 100.0)]


def test_text_csv_and_drawing_hold_every_row(tmp_path):
    measure.write(ROWS, tmp_path)
    lines = (tmp_path / "models.txt").read_text().splitlines()
    assert lines[1].split() == ["gaussian", "7", "0.25", "0.25", "0.5", "-", "400", "1"]
    assert len({len(line) for line in lines}) == 1
    with (tmp_path / "models.csv").open() as file:
        assert [found["returns"] for found in csv.DictReader(file)] == ["400 400", "100 100"]
    assert len(re.findall("<svg", (tmp_path / "models.svg").read_text())) == 1


def test_what_is_drawn_are_the_rows():
    errors, returns = measure.drawing(ROWS).axes
    one, five, fifteen = (dots.get_offsets().tolist() for dots in errors.collections)
    assert [x for x, _ in one] == [0.25, 0.5] and [x for x, _ in five] == [0.5, 1.0] and fifteen == []
    assert [x for dots in returns.collections for x, _ in dots.get_offsets()] == [400, 400, 400, 100, 100, 100]
