"""What a person sees of the runs of a sweep."""

import io

from rich.console import Console

from trainers.sweeping.grid import plan_runs
from trainers.sweeping.record import SweepRecord
from trainers.sweeping.table import SweepTable


def test_a_row_says_how_far_a_run_is_whatever_its_state(tmp_path):
    runs = plan_runs(["experiment=smoke", "seed=0,1,2"], group="x")
    record = SweepRecord(tmp_path)
    for run in runs:
        record.add(run)
    record.update(runs[1].name, state="failed", error="EnvError: the camera is unplugged")
    record.update(runs[2].name, state="interrupted")
    for run in runs[1:]:
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "metrics.csv").write_text("env_steps,eval/return_mean\n100,2.5\n")
    shown = io.StringIO()
    console = Console(file=shown, width=160)
    console.print(SweepTable(record, runs, title="x", stream=shown).render())
    rows = {
        line.split()[1]: line for line in map(str.rstrip, shown.getvalue().splitlines()) if line.startswith("toy_point")
    }
    assert rows["waiting"].split()[2:] == ["0", "/", "300"]
    assert rows["interrupted"].split()[2:] == ["100", "/", "300", "2.5"]
    assert rows["failed"].split(maxsplit=6)[2:] == ["100", "/", "300", "2.5", "EnvError: the camera is unplugged"]


def test_a_run_that_collects_nothing_is_as_far_as_its_updates(tmp_path):
    words = ["experiment=smoke", "data=offline", f"data.uri=npz:{tmp_path}", "data.updates=400"]
    (run,) = plan_runs(words, group="x")
    record = SweepRecord(tmp_path)
    record.add(run)
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "metrics.csv").write_text("env_steps,updates\n5000,100\n5000,200\n")
    shown = io.StringIO()
    Console(file=shown, width=160).print(SweepTable(record, [run], title="x", stream=shown).render())
    assert "200 / 400 updates" in shown.getvalue() and "5,000" not in shown.getvalue()
