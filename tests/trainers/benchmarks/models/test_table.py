import csv
import xml.etree.ElementTree as ElementTree

from trainers.benchmarks.models import table


def row(family, error, mean):
    errors = {"reward": error, "reward_1": error, "reward_5": 2 * error, "reward_15": None}
    return {"family": family, "updates": 7, **errors, "return": mean, "returns": [mean] * 2, "update_ms": 1.0}


def test_text_csv_and_drawing_hold_every_row(tmp_path):
    rows = [row("gaussian", 0.25, 400.0), row("deterministic", 0.5, 100.0)]
    table.write(rows, tmp_path)
    lines = (tmp_path / "models.txt").read_text().splitlines()
    assert lines[1].split() == ["gaussian", "7", "0.25", "0.25", "0.5", "400", "1"]
    assert len({len(line) for line in lines}) == 1
    with (tmp_path / "models.csv").open() as file:
        assert [found["returns"] for found in csv.DictReader(file)] == ["400.0 400.0", "100.0 100.0"]
    drawn = ElementTree.fromstring((tmp_path / "models.svg").read_text())
    circles = list(drawn.iter("{http://www.w3.org/2000/svg}circle"))
    # two errors, two episodes and their mean in each row, and the three of the legend
    assert len(circles) == 2 * 5 + 3


def test_a_smaller_error_is_drawn_further_left():
    axis = table.Axis(2.0, 100, 300)
    assert axis(0.5) == 150 < axis(1.0) == 200 and axis(9.0) == 300
