"""The time left of runs whose end is known: a recorded one, and others of known costs."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from trainers.run_folder.read_metrics import read_metrics
from trainers.training.time_left import Status, TimeLeft

# the default agent on two cores that it shared with other work: its updates took from 0.18 to 0.50 s
RECORDED = Path(__file__).with_name("timelines") / "cartpole_swingup.csv"
PARTS = ("env", "plan", "wait", "update", "evaluation")
SECOND_MINUTE, WITHIN, SLACK_S = 60.0, 0.25, 5.0


@dataclass(frozen=True)
class Costs:
    """Seconds of an update, of an env_step of the agent and of random actions, of a round of evaluation."""

    update: float
    step: float
    seed_step: float
    evaluation: float


def plan(*, env_steps, updates, every=10_000, episode_steps=1000, step_s):
    return {
        "total_env_steps": env_steps, "total_updates": updates, "evaluate_every": every, "evaluation_episodes": 2,
        "final_episodes": 10, "episode_steps": episode_steps, "evaluation_envs": 2, "step_s": step_s,
    }  # fmt: skip


def recorded():
    """What a loop would have said in the recorded run, with the seconds since it said something before."""
    rows = read_metrics(RECORDED)
    seconds = {part: np.diff(rows[f"time/{part}"]) for part in PARTS}
    whole = np.diff(rows["seconds"])
    yield 0.0, {"phase": "seed", **plan(env_steps=50_000, updates=10_000, step_s=0.0065)}
    yield rows["seconds"][0], {"env_steps": int(rows["env_steps"][0])}
    for i, (before, after) in enumerate(pairwise(rows["updates"].astype(int))):
        evaluated = np.isfinite(rows["eval/return_mean"][i + 1])
        acting = seconds["env"][i] + seconds["plan"][i]
        learning = whole[i] - seconds["evaluation"][i] - acting
        yield 0.0, {"phase": "learn"}
        for update in range(before + 1, after + 1):
            yield learning / (after - before), {"updates": update}
        yield 0.0, {"phase": "evaluate"} if evaluated else {"phase": "collect"}
        for _ in range(int(seconds["evaluation"][i])):  # nothing is said, but somebody looks
            yield seconds["evaluation"][i] / int(seconds["evaluation"][i]), {}
        if not evaluated:
            yield acting, {"env_steps": int(rows["env_steps"][i + 1])}


def of_known_costs(costs, *, env_steps, seed_steps, updates_per_step, episode_steps=1000, every=10_000, step_s=None):
    """What a loop says in a run of steady costs."""
    updates, steps, evaluated = 0, seed_steps, 0
    total = round(env_steps * updates_per_step)
    known = plan(
        env_steps=env_steps, updates=total, every=every, episode_steps=episode_steps, step_s=step_s or costs.step
    )
    yield 0.0, {"phase": "seed", "updates": 0, **known}
    yield seed_steps * costs.seed_step, {"env_steps": steps}
    while True:
        yield 0.0, {"phase": "learn"}
        while updates < round(steps * updates_per_step):
            updates += 1
            yield costs.update, {"updates": updates}
        if steps >= env_steps:
            break
        if steps // every > evaluated:
            evaluated = steps // every
            yield 0.0, {"phase": "evaluate"}
            yield costs.evaluation, {}
        yield 0.0, {"phase": "collect"}
        steps += episode_steps
        yield episode_steps * costs.step, {"env_steps": steps}
    yield 0.0, {"phase": "evaluate"}
    for _ in range(20):
        yield 5 * costs.evaluation / 20, {}


def errors(timeline):
    """Of every moment from the second minute on: seconds that it lasted, the time left as told, and as it was."""
    now, status, left, moments = 0.0, Status(), TimeLeft(0.0), []
    for passed, known in timeline:
        if passed and now >= SECOND_MINUTE:
            moments.append((passed, now, left.seconds(status)))
        now += passed
        before, status = status, replace(status, **known)
        left.advance(before, status, now)
    return [(lasted, told, now - at) for lasted, at, told in moments]


def is_right(told, true):
    return told is not None and abs(told - true) <= WITHIN * true + SLACK_S


LONG = {"env_steps": 50_000, "seed_steps": 5000, "updates_per_step": 0.8}
STEADY = {
    # the recorded run at its mean costs: 1000 updates catch up for five minutes
    "cartpole": (Costs(0.32, 0.0049, 0.0004, 13.0), LONG | {"updates_per_step": 0.2}),
    # action repeat 2: a third of the time is planning, of which nothing was seen in the first three minutes
    "planning": (Costs(0.05, 0.025, 0.001, 25.0), LONG),
    "evaluation": (Costs(0.02, 0.012, 0.0004, 16.0), LONG | {"every": 2000}),
    "gpu": (Costs(0.004, 0.006, 0.0005, 8.0), LONG | {"env_steps": 100_000}),
    "toy": (
        Costs(0.03, 0.0065, 0.0001, 0.5),
        {"env_steps": 20_000, "seed_steps": 500, "updates_per_step": 0.7, "episode_steps": 50, "every": 1000},
    ),
}


@pytest.mark.parametrize("name", STEADY)
def test_at_steady_costs_the_time_left_is_always_right(name):
    costs, run = STEADY[name]
    moments = errors(of_known_costs(costs, **run))
    wrong = [(round(told or -1), round(true)) for _, told, true in moments if not is_right(told, true)]
    assert len(moments) > 500 and not wrong, (len(wrong), wrong[:3], wrong[-3:])


def test_in_a_recorded_run_on_a_shared_machine_it_is_mostly_right():
    """The speed of the machine changed by a factor of two under it: nothing told that before."""
    moments = errors(recorded())
    whole = sum(lasted for lasted, _, _ in moments)
    assert whole == pytest.approx(3592, abs=30)
    right = sum(lasted for lasted, told, true in moments if is_right(told, true)) / whole
    assert right > 0.75
    worst = max(abs(told / true - 1) for _, told, true in moments[: len(moments) // 2])
    assert worst < 0.35  # while the first updates catch up, too


def test_a_phase_that_got_slower_is_told_anew():
    costs, run = STEADY["gpu"]
    timeline = list(of_known_costs(costs, **run))
    later = [(3 * passed if i > len(timeline) // 4 else passed, known) for i, (passed, known) in enumerate(timeline)]
    moments = errors(later)
    assert all(is_right(told, true) for _, told, true in moments[int(0.6 * len(moments)) :])
