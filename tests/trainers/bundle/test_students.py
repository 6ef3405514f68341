"""A student's bundle: its task, its programs, and that the controller acts as the student does."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.rigs.tiny_bundle import SPEC
from tests.rigs.tiny_student import tiny_student
from trainers import export
from trainers.bundle.bundle import read_bundle
from trainers.bundle.files import AGENT, BundleDamaged, read_files, write_files
from trainers.deployment.controller import Controller
from trainers.deployment.lerobot_policy import LeRobotPolicy

OTHER = replace(SPEC, task="other", images={"pixels": (3, 32, 32)}, action_dim=1, action_low=None, action_high=None)


def exported(run, out, *arguments):
    return export.main([str(run), f"out={out}", "format=none", "frozen=0", "max_age_s=10", *arguments])


def frames(size=16):
    return np.random.default_rng(0).integers(0, 256, (6, size, size, 3), np.uint8)


@torch.no_grad()
def played(student, frames):
    """What the student itself does, in [-1, 1]."""
    carry, actions = student.initial_carry(1), []
    for t, frame in enumerate(frames):
        pixels = torch.from_numpy(np.moveaxis(frame, -1, 0).copy())[None]
        decision = student.act({"pixels": pixels}, torch.tensor([t == 0]), carry)
        carry = decision.carry
        actions.append(decision.action[0].numpy())
    return np.stack(actions)


def unit(actions, spec):
    if spec.action_low is None:
        return actions
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    return (actions - (low + high) / 2) / ((high - low) / 2)


@pytest.mark.parametrize("encoder", ["filter", "teacher", "own"])
def test_the_controller_acts_as_the_student_does(tmp_path, encoder):
    student = tiny_student(tmp_path / "run", encoder=encoder)
    results = exported(tmp_path / "run", tmp_path / "b")
    assert results["what"] == "policy"
    with Controller(tmp_path / "b") as controller:
        steps = [controller.step(frame) for frame in frames()]
        assert {status.source for _, status in steps} == {"policy"}
        assert controller.chunk().shape == (1 + 2, 2)  # plan_age=2 late replies can be bridged
        acted = np.stack([action for action, _ in steps])
        np.testing.assert_allclose(unit(acted, SPEC), played(student, frames()), atol=1e-5)
        controller.reset()
        np.testing.assert_array_equal(controller.step(frames()[0])[0], acted[0])
        # a frame that does not come is predicted, or held: the policy goes on
        assert controller.step(None)[1].source == "policy"


@pytest.mark.parametrize(("chosen", "number"), [("other", 1), ("1", 1), ("tiny", 0)])
def test_one_task_of_several_is_exported(tmp_path, chosen, number):
    student = tiny_student(tmp_path / "run", specs=(SPEC, OTHER))
    student.task = number
    exported(tmp_path / "run", tmp_path / "b", f"task={chosen}")
    bundle, spec = read_bundle(tmp_path / "b"), (SPEC, OTHER)[number]
    assert bundle.control.env == spec
    seen = frames(spec.images["pixels"][1])
    with Controller(bundle) as controller:
        acted = np.stack([controller.step(frame)[0] for frame in seen])
    np.testing.assert_allclose(unit(acted, spec), played(student, seen), atol=1e-5)
    assert sum(w.numel() for w in bundle.weights.values()) < sum(w.numel() for w in student.state_dict().values())


def test_the_name_that_a_folder_has_chooses_the_task(tmp_path):
    tiny_student(tmp_path / "run", specs=(SPEC, SPEC, replace(OTHER, task="tiny-2")))
    exported(tmp_path / "run", tmp_path / "b", "task=tiny-2")  # the second tiny is tiny-3
    assert read_bundle(tmp_path / "b").control.env.action_dim == OTHER.action_dim


def test_a_task_s_folder_names_it(tmp_path):
    tiny_student(tmp_path / "run", specs=(SPEC, OTHER), task=1)
    exported(tmp_path / "run", tmp_path / "b")
    assert read_bundle(tmp_path / "b").control.env == OTHER


def test_programs_have_a_receipt(tmp_path):
    pytest.importorskip("onnxruntime")
    tiny_student(tmp_path / "run", "dynamics=rssm_gaussian", encoder="filter")
    results = exported(tmp_path / "run", tmp_path / "b", "format=torch,onnx", "frames=20")
    parity = json.loads((tmp_path / "b" / "parity.json").read_text())
    assert results["parity_max"] == parity["parity_max"] <= 1e-4
    assert {form: set(of) for form, of in parity["differences"].items()} == {
        form: {"filter", "policy"} for form in ("torch", "onnx")
    }
    assert parity["frames"] == "noise" and results["exported_ms"] > 0  # its teacher's folder is gone


def test_lerobot_s_policies_can_be_students(tmp_path):
    tiny_student(tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "b")
    policy = LeRobotPolicy(tmp_path / "b")
    images = torch.from_numpy(np.moveaxis(frames()[:2], -1, 1).copy())
    assert policy.predict_action_chunk({"observation.images.pixels": images}).shape == (2, 1 + 2, 2)


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("what=planner", ("what", "expected policy", "a student has no planner")),
        ("hz=20", ("task", "tiny, other, or its number", "got none")),
        ("task=third", ("task", "tiny, other, or its number", "'third'")),
        ("task=2", ("task", "tiny, other, or its number", "'2'")),
        ("action_latency_s=0.1 task=0", ("action_latency_s", "expected a delay of 0 decisions", "got 2")),
    ],
)
def test_refused(tmp_path, refused, argument, parts):
    tiny_student(tmp_path / "run", specs=(SPEC, OTHER))
    line = refused(export.main, str(tmp_path / "run"), f"out={tmp_path / 'b'}", "format=none", *argument.split())
    assert "\n" not in line and all(part in line for part in parts), line
    assert not (tmp_path / "b").exists()


def test_an_agent_has_no_tasks_to_choose_from(finished, refused, tmp_path):
    line = refused(export.main, str(finished), f"out={tmp_path / 'b'}", "format=none", "task=0")
    assert "task: expected none, since the run is no student" in line


def test_a_bundle_cannot_ask_a_student_to_plan(tmp_path):
    tiny_student(tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "b")
    files, _ = read_files(tmp_path / "b")
    described = {**json.loads(files[AGENT]), "what": "both"}
    write_files(tmp_path / "other", {**files, AGENT: json.dumps(described).encode()})
    with pytest.raises(BundleDamaged, match="expected policy of a student, got 'both'"):
        read_bundle(tmp_path / "other")


def test_replies_of_a_server_bridge_those_that_are_late(tmp_path):
    pytest.importorskip("websockets")
    from trainers.deployment.server import PolicyServer

    tiny_student(tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "b", "plan_age=4")
    server = PolicyServer(tmp_path / "b", hz=5.0)
    assert server.metadata()["horizon"] == 1 + 4
    server.close()
