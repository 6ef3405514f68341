"""The page on many runs, its tables and its figures."""

import csv
import json
import re

import numpy as np
import pytest

from tests.trainers.reporting.run_folders import add_record, record, write_run, write_sweep
from trainers import report
from trainers.command.configuration import BadConfig
from trainers.reporting.published_curves import best_published, published_curves, return_at
from trainers.reporting.run_curves import exploitation, mean_over_seeds, over_tasks
from trainers.reporting.run_set import read_runs
from trainers.reporting.set_summary import return_at_mark, summary
from trainers.reporting.sweep_page import write_sweep_report

FINALS = {"walker_walk": [100.0, 300.0], "cheetah_run": [200.0, 400.0]}


@pytest.fixture
def sweep(tmp_path):
    write_sweep(tmp_path / "x", FINALS)
    return tmp_path / "x"


def test_figures_are_over_finished_runs(sweep):
    add_record(sweep, record("hopper_hop-seed=0", "hopper_hop", 0, state="failed", exit_code=2, error="env: bad"))
    known = summary(read_runs(sweep))
    assert (known["runs"], known["finished"], known["failed"]) == (5, 4, 1)
    assert known["return_mean"] == 250.0 and known["iqm"] == 250.0 and known["seeds"] == 2
    low, high = known["iqm_ci95"]
    assert 150.0 <= low < 250.0 < high <= 350.0
    # evaluated every 10k: the trailing window of 50k holds 40k and 50k
    walk = {"return_mean": 200.0, "return_ci95": (100.0, 300.0), "seeds": 2, "return_at_50000": 180.0}
    assert known["tasks"]["walker_walk"] == walk
    assert known["tasks"]["hopper_hop"] == {"return_mean": None, "return_ci95": None, "seeds": 0}
    assert json.loads(json.dumps(known))["out"] == str(sweep)


def test_variants_have_figures_of_their_own(tmp_path):
    write_sweep(tmp_path, FINALS, variants=("planner=cem", "planner=icem"))
    known = summary(read_runs(tmp_path))
    assert [one["return_mean"] for one in known["variants"].values()] == [250.0, 251.0]
    text = write_sweep_report(read_runs(tmp_path)).read_text()
    assert "planner=icem" in text and "2 variants" in text


def test_a_variant_is_not_a_seed(tmp_path):
    write_sweep(tmp_path / "one", {"walker_walk": [100.0]}, variants=("planner=cem", "planner=icem"))
    known = summary(read_runs(tmp_path / "one"))
    assert (known["seeds"], known["iqm_ci95"]) == (1, None)
    task = {"return_mean": 100.5, "return_ci95": None, "seeds": 1, "return_at_50000": 90.45}
    assert known["tasks"]["walker_walk"] == pytest.approx(task)
    write_sweep(tmp_path / "two", FINALS, variants=("planner=cem", "planner=icem"))
    known = summary(read_runs(tmp_path / "two"))
    assert known["seeds"] == known["tasks"]["walker_walk"]["seeds"] == 2 and known["iqm_ci95"] is not None


def test_small_returns_keep_their_digits(tmp_path):
    write_sweep(tmp_path, {"maze": [0.392, 0.784]})
    text = write_sweep_report(read_runs(tmp_path)).read_text()
    assert ">0.588<" in text and "0.588 (0.392 to 0.784)" in text


def test_the_page_has_every_part_and_loads_nothing(sweep, tmp_path):
    write_sweep(tmp_path / "y", {"walker_walk": [50.0, 60.0], "pendulum_swingup": [1.0]})
    add_record(
        sweep, record("b-seed=0", "b", 0, state="failed", error="<script>alert(1)</script>", last_lines=["last <b>"])
    )
    text = write_sweep_report(read_runs(sweep), against=read_runs(tmp_path / "y")).read_text()
    for part in ("Learning curves by task", "Final returns", "Performance profile", "Return against wall-clock"):
        assert f"<h2>{part}</h2>" in text
    assert "Against y" in text and "Planner exploitation" in text and "env_steps" in text
    assert "<script" not in text and "&lt;script&gt;" in text and "last &lt;b&gt;" in text
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    row = re.search(r"<th>walker_walk</th>(.*?)</tr>", text)[1]
    assert re.findall(r"<td>(.*?)</td>", row)[:3] == ["2", "200 (100 to 300)", "180"]
    assert "+3" in row and "fast" in row and "392 (DrQ)" in row


def test_tables_lie_beside_the_page(sweep):
    write_sweep_report(read_runs(sweep))
    runs = list(csv.DictReader((sweep / "report_runs.csv").open()))
    assert {(run["task"], run["seed"], float(run["return_mean"])) for run in runs} == {
        (task, str(seed), value) for task, values in FINALS.items() for seed, value in enumerate(values)
    }
    assert {run["action_repeat"] for run in runs} == {"2"} and float(runs[0]["env_steps"]) == 50_000
    curves = list(csv.DictReader((sweep / "report_curves.csv").open()))
    last = [row for row in curves if row["env_steps"] == "50000.0"]
    assert {(row["task"], float(row["return_mean"]), row["seeds"]) for row in last} == {
        ("walker_walk", 200.0, "2"),
        ("cheetah_run", 300.0, "2"),
    }


def test_runs_that_no_sweep_recorded_are_told_apart_by_their_settings(tmp_path):
    for seed in (0, 1):
        for horizon in (4, 8):
            folder, settings = tmp_path / "walker_walk" / f"{seed}_{horizon}", f"planner: {{horizon: {horizon}}}\n"
            write_run(folder, seed=seed, final=10.0, curve=[(10, 1.0)], settings=settings)
    runs = read_runs(tmp_path)
    assert runs.variants == ["planner.horizon=4", "planner.horizon=8"] and len(runs.runs) == 4
    assert read_runs(tmp_path / "walker_walk").tasks == ["walker_walk"]


def test_an_unfinished_folder_still_has_a_page(tmp_path):
    write_run(tmp_path / "a", curve=[(1000, 5.0)])
    write_run(tmp_path / "b", task="toy", curve=[])
    known = summary(read_runs(tmp_path))
    assert known["finished"] == 0 and known["iqm"] is None and known["return_mean"] is None
    assert "unfinished" in write_sweep_report(read_runs(tmp_path)).read_text()


def test_the_command_prints_the_figures(sweep, tmp_path, monkeypatch):
    write_sweep(tmp_path / "y", {"walker_walk": [50.0, 400.0]})
    results = report.main([str(sweep), f"against={tmp_path / 'y'}", f"out={tmp_path / 'page.html'}"])
    assert results["report"] == str(tmp_path / "page.html") and (tmp_path / "page.html").exists()
    assert results["probability_of_improvement"] == 0.5 and results["iqm"] == 250.0
    monkeypatch.chdir(tmp_path)
    assert report.main(["x"]) == {"report": str(sweep / "report.html"), **summary(read_runs(sweep))}
    with pytest.raises(BadConfig, match="against: expected a folder of many runs"):
        report.main([str(sweep / "walker_walk-seed=0"), f"against={sweep}"])
    assert report.main([str(sweep / "walker_walk-seed=0")])["run_dir"] == str(sweep / "walker_walk-seed=0")


def test_a_curve_over_seeds_ends_where_its_first_run_does(tmp_path):
    write_run(tmp_path / "a", seed=0, final=1.0, curve=[(10, 1.0), (20, 2.0), (30, 3.0)])
    write_run(tmp_path / "b", seed=1, final=1.0, curve=[(10, 3.0), (20, 6.0)])
    write_run(tmp_path / "c", seed=2, curve=[(10, 100.0)])  # not finished: it has no part in the mean
    band = mean_over_seeds(read_runs(tmp_path).runs)
    assert band.x.tolist() == [10, 20] and band.y.tolist() == [2.0, 4.0] and band.seeds == 2
    assert (band.low <= band.y).all() and (band.high >= band.y).all() and band.low[1] == 2.0


def test_over_tasks_a_run_keeps_its_last_return(tmp_path):
    random = {"train/random_return": [0.0, "", ""]}
    write_run(tmp_path / "a", task="s", final=1.0, curve=[(0, ""), (20, 2.0), (40, 8.0)], **random)
    write_run(tmp_path / "b", task="t", final=1.0, curve=[(0, ""), (20, 4.0), (30, 4.0)], **random)
    band = over_tasks(read_runs(tmp_path), "", "env_steps")
    assert dict(zip(band.x.tolist(), band.y.tolist(), strict=True)) == {0: 0.0, 20: 3.0, 30: 4.5, 40: 6.0}
    assert over_tasks(read_runs(tmp_path), "", "seconds").x.tolist() == [0, 2, 3, 4]


def test_exploitation_is_predicted_minus_realised(sweep):
    band = exploitation(read_runs(sweep).of(task="walker_walk"))
    np.testing.assert_allclose(band.y, 3.0)


def test_the_return_at_a_place_is_the_trailing_window(sweep):
    places, returns = np.array([30_000.0, 30_001.0, 50_000.0, 50_001.0]), np.array([1.0, 2.0, 4.0, 100.0])
    assert return_at(50_000, places, returns) == 3.0
    assert np.isnan(return_at(10_000, places, returns))
    run = read_runs(sweep).runs[0]
    assert return_at_mark(run, 50_000) == pytest.approx(90.0) and np.isnan(return_at_mark(run, 100_000))


def test_the_best_published_method_plays_at_the_same_action_repeat():
    assert best_published("walker_walk", 50_000, action_repeat=2) == ("DrQ", 392.1)
    assert best_published("cartpole_swingup", 50_000, action_repeat=2) == ("DreamerV3", 280.9)
    assert best_published("walker_walk", 50_000, action_repeat=4) == ("DrQ", 392.1)  # nobody published one
    assert best_published("walker_walk", 50_001, action_repeat=2) is None
    assert best_published("toy_point", 50_000, action_repeat=2) is None
    assert {curve.action_repeat for curve in published_curves("cartpole_swingup")} == {2, 8}


def test_a_folder_of_runs_is_compared_with_another(sweep, tmp_path):
    write_sweep(tmp_path / "y", {task: [r - 50 for r in returns] for task, returns in FINALS.items()})
    written = report.main([str(sweep), f"against={tmp_path / 'y'}"])
    # of the four pairs of seeds of a task this folder's is the better in three
    assert written["probability_of_improvement"] == 0.75 and written["against"] == str(tmp_path / "y")
    assert report.main([str(sweep), f"against={sweep}"])["probability_of_improvement"] == 0.5
    with pytest.raises(BadConfig, match="against"):
        report.main([str(sweep), f"against={tmp_path / 'gone'}"])


def test_variants_are_compared_one_by_one(tmp_path):
    finals = {4: [100.0, 120.0], 8: [110.0, 300.0]}
    for horizon, returns in finals.items():
        for seed, final in enumerate(returns):
            settings = f"planner: {{horizon: {horizon}}}\n"
            write_run(
                tmp_path / "x" / f"{seed}_{horizon}", seed=seed, final=final, curve=[(10, 1.0)], settings=settings
            )
    write_sweep(tmp_path / "y", {"walker_walk": [105.0, 105.0]})
    against = report.main([str(tmp_path / "x"), f"against={tmp_path / 'y'}"])
    assert against["probability_of_improvement"] is None, "intervals are over seeds, never over variants"
    assert {name: one["probability"] for name, one in against["improvements"].items()} == {
        "planner.horizon=4 over default": 0.5,
        "planner.horizon=8 over default": 1.0,
    }
    itself = report.main([str(tmp_path / "x"), f"against={tmp_path / 'x'}"])["improvements"]
    assert list(itself) == ["planner.horizon=8 over planner.horizon=4"]
    assert itself["planner.horizon=8 over planner.horizon=4"]["probability"] == 0.75
    page = (tmp_path / "x" / "report.html").read_text()
    assert "walker_walk: planner.horizon=8 over planner.horizon=4" in page


def test_a_student_of_before_has_its_return(tmp_path):
    write_run(tmp_path / "x" / "student", final=None, curve=[(1000, 5.0)])
    (tmp_path / "x" / "student" / "results.json").write_text(
        json.dumps({"task": "walker_walk", "status": "finished", "student_return": 7.0, "returns": [7.0]})
    )
    assert read_runs(tmp_path / "x").runs[0].return_mean == 7.0
