import io
import json
from dataclasses import replace

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from trainers.command.configuration import load_config, read_yaml
from trainers.run_folder.metrics import CSVMetrics
from trainers.run_folder.read_metrics import read_metrics
from trainers.training.progress import RunProgress
from trainers.training.time_left import Status, planned
from worldmodel.spec import EnvSpec


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
    console.print(progress.render())
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
    known = {"env_steps": 99_999, "total_env_steps": 100_000, "updates": 12_345, "phase": "learn"}
    progress.update(**known, train_return=812.3, eval_return=800.1, loss=231.4, decisions=12_000)
    assert stream.getvalue().count("\n") == 1


def test_stdout_stays_clean(clock, capsys):
    progress = RunProgress(clock=clock)
    progress.update(env_steps=1, train_return=1.0)
    progress.print("a line")
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == "" and "a line" in captured.err


SEED_S, UPDATE_S, STEP_S, EVALUATION_STEP_S = 1e-3, 0.15, 0.004, 0.002
PLAN = {
    "total_env_steps": 20_000, "total_updates": 4000, "evaluate_every": 5000, "evaluation_episodes": 2,
    "final_episodes": 10, "episode_steps": 1000,
}  # fmt: skip


def _run(progress, clock, *, first_step=0, first_update=0):
    """A run of known costs with what the loop says of it; yields after everything that it says."""

    def spend(seconds, **known):
        clock.now += seconds
        progress.update(**known)
        return clock.now

    steps, updates, next_evaluation = first_step, first_update, 5000
    yield spend(0, phase="seed", **PLAN)
    if not first_step:
        steps = 5000
        yield spend(5000 * SEED_S, env_steps=steps)
    else:
        yield spend(0, env_steps=steps)
    while True:
        yield spend(0, phase="learn")
        while updates < steps / 5:
            updates += 1
            yield spend(UPDATE_S, updates=updates)
        if steps >= 20_000:
            break
        if steps >= next_evaluation:
            next_evaluation += 5000
            yield spend(0, phase="evaluate")
            yield spend(2 * 1000 * EVALUATION_STEP_S, eval_return=1.0)
        yield spend(0, phase="collect")
        steps += 1000
        yield spend(1000 * STEP_S, env_steps=steps)
    yield spend(0, phase="evaluate")
    for _ in range(100):  # the final one, in which nothing is said, but somebody looks
        yield spend(10 * 1000 * EVALUATION_STEP_S / 100)
    yield spend(0, eval_return=2.0)


@pytest.mark.parametrize(("first_step", "first_update"), [(0, 0), (10_000, 2000)])
def test_time_left_is_right_within_a_quarter_from_the_second_minute(clock, first_step, first_update):
    moments, end = [], 0.0
    progress, _ = _progress(clock)
    for now in _run(progress, clock, first_step=first_step, first_update=first_update):
        moments.append((now, progress._left.seconds(progress.status)))
        end = now
    late = [(end - now, left) for now, left in moments if now > 60.0]
    assert len(late) > 1000 and all(left is not None for _, left in late)
    wrong = [(true, left) for true, left in late if abs(left - true) > 0.25 * true + 2.0]
    assert not wrong, wrong[:5]
    true = late[0][0]
    assert abs(late[0][1] / true - 1) < 0.25 and all(left > 1 for true, left in late if true > 10)


def test_time_left_follows_a_machine_that_gets_slower(clock):
    progress, _ = _progress(clock)
    progress.update(total_updates=100_000, phase="learn", updates=0)
    for step in range(1, 20_001):
        clock.now += 0.01 if step < 10_000 else 0.1
        progress.update(updates=step)
    assert progress._left.seconds(progress.status) == pytest.approx(80_000 * 0.1, rel=0.15)


def test_times_of_the_panel(clock):
    progress, _ = _progress(clock)
    progress.update(total_env_steps=1000, total_updates=1000, phase="learn", updates=0)
    assert "left" not in _picture(progress)
    for step in range(1, 101):
        clock.now = step * 0.6
        progress.update(updates=step)
    assert "1:00 gone · 9:00 left" in _picture(progress)


def test_time_gone_never_jumps_back(clock, monkeypatch):
    progress, _ = _progress(clock)
    clock.now = 30.0  # loading takes its time
    before = progress.heading()
    progress.on_train_start(None, None)
    assert "0:30 gone" in before and progress.heading() == before


def test_no_more_than_the_whole(clock):
    progress, _ = _progress(clock)
    progress.update(env_steps=1270, total_env_steps=1000)
    assert "1,000 / 1,000 env steps 100%" in progress.count()


def test_evaluations_that_are_left():
    status = Status(total_env_steps=20_000, evaluate_every=5000, evaluation_episodes=2, final_episodes=10)
    left = {0: 16, 4999: 16, 5000: 14, 15_000: 10, 20_000: 10, 21_000: 10}
    assert {at: replace(status, env_steps=at).rounds_left for at in left} == left
    assert replace(status, env_steps=5000, phase="evaluate").rounds_left == 16
    assert Status(total_env_steps=20_000).rounds_left == 0
    assert replace(status, evaluation_envs=4).rounds_left == 3 + 3


def test_what_is_planned_is_what_a_run_does(finished):
    config, results = read_yaml(finished / "config.yaml"), json.loads((finished / "results.json").read_bytes())
    facts = json.loads((finished / "spec.json").read_bytes())
    spec = EnvSpec.from_json({name: fact for name, fact in facts.items() if name != "renderer"})
    plan = planned(config, spec)
    assert plan["total_updates"] == results["updates"] and plan["final_episodes"] == len(results["returns"])
    offline = {"data": {"updates": 7, "evaluate": False}, "evaluation": config["evaluation"], "task": config["task"]}
    assert planned(offline, spec) == {"total_updates": 7}
    nowhere = load_config(["data=offline", "data.uri=x", "data.updates=7"])  # no task, and none of its keys
    assert planned(nowhere, spec) == {"total_updates": 7}


def test_updates_per_second_are_measured_while_learning(clock):
    progress, _ = _progress(clock)
    for step in range(31):
        clock.now = step * 0.1
        progress.update(phase="learn", updates=2 * step)
    assert progress.updates_per_s == pytest.approx(20.0)
    progress.update(phase="collect")
    clock.now += 100.0
    progress.update(phase="learn", updates=60)
    assert progress.updates_per_s == pytest.approx(20.0)


def test_the_panel_shows_what_is_known(clock):
    progress, _ = _progress(clock)
    for value in (5.0, 300.0, 100.0):
        progress.update(train_return=value, eval_return=value, loss=0.25, decisions=125, updates=1200, phase="learn")
    picture = _picture(progress)
    for wanted in ("toy", "learn", "eval 100 (best 300)", "train 100", "loss 0.25", "1,200 updates"):
        assert wanted in picture, wanted


def test_small_returns_keep_their_digits(clock):
    progress, _ = _progress(clock)
    for value in (0.392, 0.784, 0.676):
        progress.update(eval_return=value, updates=10, phase="learn")
    assert "eval 0.676 (best 0.784)" in _picture(progress)


def test_a_return_of_zero_can_be_the_best(clock):
    progress, _ = _progress(clock)
    for value in (-7.0, 0.0, -5.0):
        progress.update(eval_return=value, updates=10, phase="learn")
    assert "best 0" in _picture(progress)


def test_the_terminal_is_redrawn_five_times_a_second_at_most(clock, monkeypatch):
    progress, _ = _progress(clock, live=True)
    drawn = []
    refresh = progress._panel.refresh
    monkeypatch.setattr(progress._panel, "refresh", lambda: drawn.append(clock.now) or refresh())
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


def test_brackets_in_a_line_are_no_markup(clock):
    """As in what an environment says of its state, and in paths."""
    progress, stream = _progress(clock)
    line = "state: expected finite values, got [nan, nan] in [/tmp/x]; [red] stays"
    progress.print(line)
    assert stream.getvalue() == f"{line}\n"


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
