import io

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.read_metrics import read_metrics
from trainers.training.progress import RunProgress, _sparkline


class Clock:
    """Time that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def _progress(clock, live=False):
    stream = io.StringIO()
    return RunProgress(title="toy", stream=stream, live=live, clock=clock), stream


def _picture(progress, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(progress.render(width))
    return console.file.getvalue()


def test_a_log_file_gets_a_line_for_each_episode_and_else_every_ten_seconds(clock):
    progress, stream = _progress(clock)
    for step in range(100):  # 0.1 s apart: no news, no line
        clock.now = step * 0.1
        progress.update(env_steps=step, total_env_steps=1000, phase="collect")
    assert stream.getvalue() == ""
    progress.update(train_return=12.0)
    progress.update(train_return=12.0)
    assert stream.getvalue().count("\n") == 1
    clock.now += 10.5
    progress.update(env_steps=200)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "200 / 1,000 env steps" in lines[1] and "train 12" in lines[1] and "collect" in lines[1]


def test_lines_are_never_wrapped(clock):
    progress, stream = _progress(clock)
    known = {"env_steps": 99_999, "total_env_steps": 100_000, "updates": 12_345, "updates_per_s": 7.3, "phase": "learn"}
    progress.update(**known, train_return=812.3, eval_return=800.1, loss=231.4, decisions=12_000)
    assert stream.getvalue().count("\n") == 1


def test_stdout_stays_clean(clock, capsys):
    progress = RunProgress(clock=clock)
    progress.update(env_steps=1, train_return=1.0)
    progress.print("a line")
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == "" and "a line" in captured.err


def test_time_left_is_what_remains_at_the_present_rate(clock):
    progress, _ = _progress(clock)
    progress.update(env_steps=20_000, total_env_steps=50_000)  # resumed: these 20k took no time here
    assert "left" not in _picture(progress)
    clock.now = 60.0
    progress.update(env_steps=30_000)
    assert "1:00 gone · 2:00 left" in _picture(progress)


def test_a_resumed_run_does_not_count_what_it_found_as_speed(clock):
    progress, _ = _progress(clock)
    progress.update(phase="seed", total_env_steps=50_000)
    clock.now = 1.0
    progress.update(env_steps=40_000)
    clock.now = 11.0
    assert "left" not in _picture(progress)


def test_updates_per_second_are_measured_while_learning(clock):
    progress, _ = _progress(clock)
    for step in range(31):
        clock.now = step * 0.1
        progress.update(phase="learn", updates=2 * step)
    assert progress.status.updates_per_s == pytest.approx(20.0)
    progress.update(phase="collect")
    clock.now += 100.0
    progress.update(phase="learn", updates=61)
    assert progress.status.updates_per_s == pytest.approx(20.0)


def test_the_panel_shows_what_is_known(clock):
    progress, _ = _progress(clock)
    assert "–" in _picture(progress)
    for value in (5.0, 300.0, 100.0):
        progress.update(train_return=value, eval_return=value, loss=0.25, decisions=125, updates=1200, phase="learn")
    picture = _picture(progress)
    for wanted in ("toy", "seed › collect › learn › evaluate", "evaluation 100 best 300", "loss 0.25", "1,200", "125"):
        assert wanted in picture, wanted


def test_the_terminal_is_redrawn_five_times_a_second_at_most(clock, monkeypatch):
    progress, _ = _progress(clock, live=True)
    drawn = []
    render = progress.render
    monkeypatch.setattr(progress, "render", lambda width: drawn.append(clock.now) or render(width))
    for step in range(1000):
        clock.now = step * 0.01
        progress.update(env_steps=step)
    progress.close()
    progress.close()
    assert 40 <= len(drawn) <= 52


def test_non_finite_numbers_are_shown_not_raised(clock):
    progress, stream = _progress(clock)
    progress.update(
        train_return=float("nan"), eval_return=float("inf"), loss=float("nan"), env_steps=0, total_env_steps=0
    )
    assert "nan" in stream.getvalue() and "nan" in _picture(progress)


def test_unknown_fields_are_named(clock):
    with pytest.raises(TypeError, match="env_step'"):
        _progress(clock)[0].update(env_step=3)


def test_other_ranks_are_silent(clock):
    progress, stream = _progress(clock)
    progress.disable()
    progress.update(train_return=1.0)
    progress.print("a line")
    progress.close()
    assert stream.getvalue() == ""


def test_sparkline_runs_from_lowest_to_highest():
    assert _sparkline([0.0, 7.0, 3.5]) == "▁█▄"
    assert _sparkline([2.0, 2.0]) == "▁▁"
    assert _sparkline([1.0]) == _sparkline([float("nan"), 1.0]) == ""


class _Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        for logger in self.trainer.loggers:
            logger.log_metrics({"env_steps": batch_idx, "decisions": 0, "updates": batch_idx, "seconds": 0.0})
        return (self.weight * batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_takes_both_as_its_own(tmp_path, clock):
    progress, _ = _progress(clock)
    log = CSVMetrics(run_dir=tmp_path)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=3, callbacks=[progress], logger=[log], enable_checkpointing=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(_Module(), DataLoader(torch.ones(8, 1), batch_size=1))
    assert trainer.progress_bar_callback is progress
    assert read_metrics(log.path)["updates"].tolist() == [0, 1, 2]
