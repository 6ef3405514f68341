import gc
import math
import time

import numpy as np
import pytest

from tests.rigs.tiny_bundle import HIGH, LOW, SPEC, tiny_bundle
from trainers.bundle.bundle import read_bundle
from trainers.bundle.control_spec import DeviceDiffers
from trainers.command.configuration import BadConfig
from trainers.deployment.controller import Controller
from trainers.deployment.planning import Planned, Request


class Planner:
    """Plans that a test decides on, by the number of the call."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def ask(self, request: Request, *, until: float):
        self.requests.append(request)
        return self.answer(len(self.requests) - 1, request, until)

    def close(self):
        raise AssertionError("a shared planner is not the controller's to end")


def plan(t, horizon=5):
    return Planned(np.linspace(-0.5 + 0.01 * t, 0.5, 2 * horizon, dtype=np.float32).reshape(horizon, 2), 1.0)


def frame(t=0):
    return np.random.default_rng(t).integers(0, 256, (16, 16, 3), np.uint8)


def native(action):
    low, high = np.array(LOW), np.array(HIGH)
    return (low + high) / 2 + (high - low) / 2 * action


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    make = {"both": {}, "planner": {"what": "planner"}, "policy": {"what": "policy"}}
    return {
        name: tiny_bundle(root / name, **options, limits={"plan_age": 2, "missing": 2})
        for name, options in make.items()
    }


def test_a_plan_s_first_action_is_taken_in_the_robot_s_units(folders):
    controller = Controller(folders["both"], planner=Planner(lambda t, *_: plan(t)))
    action, status = controller.step(frame())
    assert (status.source, status.plan_age, status.number) == ("plan", 0, 0)
    assert action.dtype == np.float32 and action.shape == (2,)
    np.testing.assert_allclose(action, native(plan(0).mean[0]), rtol=1e-6)
    assert controller.chunk().shape == (5, 2)
    np.testing.assert_allclose(controller.chunk(), native(plan(0).mean), rtol=1e-5)


def test_the_ladder(folders):
    planner = Planner(lambda t, *_: plan(t) if t == 0 else None)
    controller = Controller(folders["planner"], planner=planner)
    seen = [controller.step(frame(t)) for t in range(8)]
    assert [status.source for _, status in seen] == [
        *("plan", "shifted_plan", "shifted_plan", "safe", "safe", "stopped", "stopped", "stopped")
    ]
    for t in range(3):
        np.testing.assert_allclose(seen[t][0], native(plan(0).mean[t]), rtol=1e-6)
    np.testing.assert_array_equal(seen[-1][0], seen[2][0])  # it holds
    assert [status.faults for _, status in seen][2:6] == [0, 1, 2, 3]
    planner.answer = lambda t, *_: plan(t)
    assert controller.step(frame(9))[1].source == "stopped"
    controller.reset()
    assert controller.step(frame(10))[1].source == "stopped"  # a new episode is no release
    controller.release()
    assert controller.step(frame(11))[1].source == "plan"
    assert len(planner.requests) == 7  # stopped: nobody is asked


def test_the_policy_stands_in_for_ever(folders):
    controller = Controller(folders["both"], planner=Planner(lambda *_: None))
    assert [controller.step(frame(t))[1].source for t in range(10)] == ["policy"] * 10
    alone = Controller(folders["policy"])
    action, status = alone.step(frame(0))
    assert status.source == "policy"
    np.testing.assert_array_equal(
        action, Controller(folders["both"], planner=Planner(lambda *_: None)).step(frame(0))[0]
    )


def test_a_bad_plan_falls_to_the_next_rung(folders):
    wrong = Planned(np.full((5, 2), math.nan, np.float32), 1.0)
    assert Controller(folders["both"], planner=Planner(lambda *_: wrong)).step(frame())[1].source == "policy"

    def explode(*_):
        raise RuntimeError("a planner's fault")

    action, status = Controller(folders["both"], planner=Planner(explode)).step(frame())
    assert status.source == "safe" and status.message == "RuntimeError: a planner's fault"
    np.testing.assert_allclose(action, native(np.zeros(2)), rtol=1e-6)


def test_missing_frames_are_bridged_for_a_while(folders):
    controller = Controller(folders["both"], planner=Planner(lambda t, *_: plan(t)))
    assert controller.step(None)[1].source == "safe"  # nothing was ever seen
    controller.step(frame(0))
    statuses = [controller.step(None if t < 3 else frame(t))[1] for t in range(4)]
    assert [s.source for s in statuses] == ["plan", "plan", "safe", "plan"]
    assert [s.observation for s in statuses] == ["none", "none", "none", "ok"]


def test_warm_starts_are_shifted_by_what_has_passed(folders):
    planner = Planner(lambda t, *_: plan(t) if t in (0, 3) else None)
    controller = Controller(folders["both"], planner=planner)
    for t in range(4):
        controller.step(frame(t))
    warm = [request.warm for request in planner.requests]
    assert np.isnan(warm[0]).all()
    for age in (1, 2, 3):
        np.testing.assert_array_equal(warm[age][: 5 - age], plan(0).mean[age:])
        np.testing.assert_array_equal(warm[age][5 - age :], np.broadcast_to(plan(0).mean[-1], (age, 2)))
    assert len({request.seed for request in planner.requests}) == 4


def test_equal_seeds_and_observations_give_equal_actions(folders):
    one, two, other = (Controller(folders["both"], planner="inline", budget_s=10.0, seed=seed) for seed in (0, 0, 1))
    for t in range(3):
        first = one.step(frame(t))
        np.testing.assert_array_equal(first[0], two.step(frame(t))[0])
        assert first[1].source == "plan"
    assert not np.array_equal(first[0], [other.step(frame(t))[0] for t in range(3)][-1])


def test_it_agrees_with_the_agent_itself(folders):
    """The policy's actions are those of `agent.act`, over an episode."""
    import dataclasses

    import torch

    bundle = read_bundle(folders["policy"])
    controller, agent = Controller(bundle), bundle.build()
    carry = agent.initial_carry(1)
    for t in range(6):
        action, _ = controller.step(frame(t))
        seen = {"pixels": torch.from_numpy(frame(t).transpose(2, 0, 1).copy())[None]}
        agent.act_with = "actor"
        decision = agent.act(seen, torch.tensor([t == 0]), carry, generator=torch.Generator())
        carry = dataclasses.replace(decision.carry)
        np.testing.assert_allclose(action, native(decision.action[0].numpy()), atol=1e-5)


def test_the_deadline_is_kept_by_a_slow_planner(folders):
    def slow(t, request, until):
        time.sleep(max(0.0, until - time.monotonic()))

    controller = Controller(folders["both"], planner=Planner(slow), hz=10.0)
    statuses = [controller.step(frame(t))[1] for t in range(5)]
    assert all(s.source == "policy" for s in statuses)
    assert sorted(s.latency_ms for s in statuses)[2] < 100  # the median, on a busy machine


def test_telemetry_counts_and_writes(folders, tmp_path):
    controller = Controller(folders["both"], planner=Planner(lambda t, *_: plan(t) if t else None))
    for t in range(4):
        last, _ = controller.step(frame(t) if t != 2 else None)
    summary = controller.telemetry.summary()
    assert summary["decisions"] == 4 and summary["missing"] == 1 and summary["fallbacks"] == 1
    assert summary["sources"] == {"plan": 3, "shifted_plan": 0, "policy": 1, "safe": 0, "stopped": 0}
    assert summary["p50_ms"] <= summary["p99_ms"] <= summary["p999_ms"]
    assert summary["disagreement"] is None  # one model alone
    for row in controller.telemetry.rows:
        assert row.margin_ms == pytest.approx(1e3 * controller.budget_s - row.latency_ms)
    assert summary["margin_min_ms"] == round(min(row.margin_ms for row in controller.telemetry.rows), 3)
    lines = controller.telemetry.write_csv(tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("episode,number,source,observation,late")
    assert lines[3].startswith("0,2,plan,none,False,")
    assert lines[0].endswith(",message,action_0,action_1")
    np.testing.assert_allclose([float(x) for x in lines[4].split(",")[-2:]], last, rtol=1e-5)
    np.testing.assert_array_equal(controller.telemetry.actions[-1], last)


def test_a_long_drive_leaves_the_garbage_collector_nothing_to_look_at(folders):
    controller = Controller(folders["policy"])
    gc.collect()
    before = len(gc.get_objects())
    statuses = [controller.step(frame(t))[1] for t in range(100)]
    assert [repr(row) for row in controller.telemetry.rows] == [repr(status) for status in statuses]
    del statuses
    gc.collect()
    assert len(gc.get_objects()) < before + 50, "an object a decision is a collection of 60 ms after an hour or two"


def test_a_bundle_for_another_device_is_refused(folders):
    with pytest.raises(DeviceDiffers, match="hz: the bundle has"):
        Controller(folders["both"], planner="inline", device={"hz": 5.0})
    assert SPEC.action_dim == 2


def stopped(folder, **options):
    """A controller that held the last of three actions of a plan, and then saw nothing until it stopped."""
    controller = Controller(folder, planner=Planner(lambda t, *_: plan(t)), **options)
    for t in range(3):
        controller.step(frame(t))
    while not controller.stopped:
        controller.step(None)
    return controller, controller.step(None)[0]


def test_a_stop_holds_what_it_held_through_a_new_episode(tmp_path):
    folder = tiny_bundle(tmp_path / "b", max_change=(0.01, 0.01), limits={"plan_age": 0, "missing": 0, "faults": 2})
    controller, held = stopped(folder)
    controller.reset()
    action, status = controller.step(frame())
    assert status.source == "stopped"
    np.testing.assert_array_equal(action, held)
    controller.release()
    action, status = controller.step(frame())
    assert status.source == "plan" and (np.abs(action - held) <= 0.01 + 1e-6).all()


def test_a_stopped_robot_is_told_what_is_wrong_with_what_it_sees(tmp_path):
    controller, _ = stopped(tiny_bundle(tmp_path / "b", limits={"plan_age": 0, "missing": 0, "faults": 2}))
    for _ in range(2):
        _, status = controller.step(frame().astype(np.float32))
        assert (status.source, status.observation) == ("stopped", "shape") and "uint8" in status.message
    _, status = controller.step(None)
    assert (status.source, status.observation) == ("stopped", "none") and status.message
    _, status = controller.step(frame())
    assert (status.source, status.observation, status.message) == ("stopped", "ok", ""), "it can be released now"


def test_a_chunk_goes_on_only_from_a_plan_and_no_faster_than_allowed(tmp_path):
    folder = tiny_bundle(tmp_path / "b", max_change=(0.01, 0.02), limits={"plan_age": 0, "missing": 0, "faults": 2})
    controller = Controller(folder, planner=Planner(lambda t, *_: plan(0)))
    controller.step(frame())
    chunk = controller.chunk()
    assert (np.abs(np.diff(chunk, axis=0)) <= np.array([0.01, 0.02]) + 1e-6).all() and np.ptp(chunk, axis=0).all()
    for source in ("safe", "stopped", "stopped"):
        action, status = controller.step(None)
        assert status.source == source
        np.testing.assert_array_equal(controller.chunk(), np.repeat(action[None], controller.horizon, 0))


def test_a_delay_in_seconds_is_as_many_decisions_as_the_rate_says(tmp_path):
    folder = tiny_bundle(tmp_path / "b", action_latency_s=0.1)
    delays = {hz: Controller(folder, hz=hz, planner=Planner(lambda t, *_: plan(t))).control.delay for hz in (10, 40)}
    assert delays == {10: 1, 40: 4} and read_bundle(folder).control.delay == 2


def test_a_goal_needs_a_planner(folders):
    controller = Controller(folders["policy"])
    with pytest.raises(BadConfig, match="goal: expected a bundle that plans"):
        controller.set_goal(frame())
    assert controller.step(frame())[1].source == "policy"


def test_a_robot_that_stopped_is_not_surprised(tmp_path):
    folder = tiny_bundle(tmp_path / "b", limits={"missing": 0, "plan_age": 0, "faults": 1, "prediction_error": 1e-9})
    controller = Controller(folder, planner=Planner(lambda t, *_: plan(t) if t < 3 else plan(t)._replace(mean=None)))
    for t in range(3):
        assert math.isfinite(controller.step(frame(t))[1].prediction_error) == (t > 0)
    controller.stopped = True
    rows = [controller.step(frame(t))[1] for t in range(200)]
    assert all(math.isnan(row.prediction_error) and not row.alarm for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"planner": "threads"}, "planner: expected inline, process or a Planning, got 'threads'"),
        ({"planner": "inline", "budget_s": 0.0}, "budget_s: expected a finite number above 0"),
        ({"planner": "inline", "budget_s": -1.0}, "budget_s: expected a finite number above 0"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_moves(folders, options, message):
    for what in ("both", "policy"):
        with pytest.raises(ValueError, match=message):
            Controller(folders[what], **options)


def test_before_the_first_step_a_chunk_is_the_safe_action(folders):
    controller = Controller(folders["both"], planner=Planner(lambda t, *_: plan(t)))
    np.testing.assert_allclose(controller.chunk(), np.repeat(native(np.zeros(2))[None], 5, 0), rtol=1e-6)


def test_it_is_said_why_something_stands_in(folders):
    controller = Controller(folders["both"], planner=Planner(lambda *_: None))
    _, status = controller.step(frame())
    assert (status.source, status.message) == ("policy", "planner: no plan in time")
    wrong = Planned(np.full((5, 2), math.nan, np.float32), 1.0)
    _, status = Controller(folders["both"], planner=Planner(lambda *_: wrong)).step(frame())
    assert status.source == "policy" and status.message.startswith("plan: expected finite numbers, got [nan")


def test_after_a_stop_the_robot_is_where_it_is_seen(tmp_path):
    """Nothing of before the stop is left in what is believed, nor in what is planned from."""
    folder = tiny_bundle(tmp_path / "b", limits={"plan_age": 2, "missing": 0, "faults": 1})
    controller, _ = stopped(folder)
    controller.release()
    _, status = controller.step(frame(9))
    new = Controller(folder, planner=Planner(lambda t, *_: plan(t)))
    new.step(frame(9))
    assert status.source == "plan" and math.isnan(status.prediction_error)
    after, fresh = controller.planner.requests[-1], new.planner.requests[-1]
    np.testing.assert_array_equal(after.latent, fresh.latent)
    assert np.isnan(after.warm).all()


def test_after_a_stop_a_camera_may_number_its_frames_from_0_on(tmp_path):
    folder = tiny_bundle(tmp_path / "b", limits={"missing": 0, "faults": 1})
    controller = Controller(folder, planner=Planner(lambda t, *_: plan(t)))
    controller.step(frame(), None, 100)
    assert controller.step(frame(1), None, 0)[1].source == "stopped"
    controller.release()
    assert controller.step(frame(2), None, 1)[1].observation == "ok"


def test_while_it_is_stopped_nothing_is_timed(tmp_path):
    controller, _ = stopped(tiny_bundle(tmp_path / "b", limits={"missing": 0, "faults": 1}))
    for _ in range(50):
        controller.step(None)
    deciding = [row.latency_ms for row in controller.telemetry.rows if row.source != "stopped"]
    assert controller.telemetry.summary()["p50_ms"] == round(float(np.median(deciding)), 3)
