import json
import sys
import time
from dataclasses import asdict

import pytest

from trainers import doctor
from trainers.command.entry import run
from trainers.machine import checks
from trainers.machine import rendering as render_check
from trainers.machine.rendering import Check, check_backend, check_render, verdict

TOY = {"task": {"name": "toy_point", "source": "toy", "env": {"size": 16}}, "data": {"capacity": 1000}}


def _checks(checks):
    return {check.name: check for check in checks}


@pytest.mark.parametrize(
    ("version", "wanted", "state"),
    [
        ("2.6.6", ">=2.6.6,<2.7", "ok"),
        ("2.6.5", ">=2.6.6,<2.7", "fail"),
        ("2.7.0", ">=2.6.6,<2.7", "fail"),
        ("4.0.0", ">=3.17,<4", "fail"),
        ("2.11.0+cpu", ">=2.11", "ok"),
        (None, ">=1", "fail"),
    ],
)
def test_versions(monkeypatch, version, wanted, state):
    monkeypatch.setattr(checks, "_version", lambda name: version)
    check = checks.check_package("x", wanted)
    assert check.state == state
    assert check.fix == ("" if state == "ok" else f"pip install 'x{wanted}'")


def test_every_dependency_is_checked_wherever_they_are_listed(monkeypatch, tmp_path):
    own = {one.name: str(one.specifier) for one in checks.requirements()}
    assert {"torch", "matplotlib", "jinja2", "scipy"} <= own.keys() and own["pytorch-lightning"] == "<2.7,>=2.6.6"
    monkeypatch.setattr(checks, "PROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(checks.metadata, "requires", lambda name: ["torch>=2", 'gymnasium>=1; extra == "gym"'])
    assert [str(one) for one in checks.requirements()] == ["torch>=2"]


def test_torchvision_of_another_torch(monkeypatch):
    monkeypatch.setattr(checks, "_version", {"torchvision": "0.26.0", "torch": "2.15.0+cpu"}.get)
    monkeypatch.setattr(checks.metadata, "requires", lambda name: ["numpy", "torch==2.11.0"])
    check = checks.check_torchvision()
    assert check.state == "fail" and "for torch==2.11.0, here is torch 2.15.0+cpu" in check.finding


def test_torchvision_that_does_not_import(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(checks.importlib, "import_module", broken)
    check = checks.check_torchvision()
    assert check.state == "fail" and "nms" in check.finding and "one command" in check.fix


@pytest.mark.parametrize(("version", "state"), [("2.6.2", "fail"), ("2.6.3", "fail"), ("2.6.6", "ok"), (None, "ok")])
def test_malware(monkeypatch, version, state):
    monkeypatch.setattr(checks, "_version", lambda name: version)
    assert checks.check_malware("lightning", checks.MALWARE["lightning"]).state == state


def test_optional_packages_are_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(checks, "_version", lambda name: None)
    assert checks.check_optional("wandb") == Check("wandb", "not installed (optional)", "note", "pip install wandb")


def test_replay_that_does_not_fit_fails_with_a_fix(tmp_path):
    found = _checks(checks.check_replay({**TOY, "data": {"capacity": 10**12}}, tmp_path))
    assert {check.state for check in found.values()} == {"fail"} and found.keys() == {"memory", "disk"}
    assert "data.capacity=" in found["memory"].fix and str(tmp_path) in found["disk"].fix
    assert {check.state for check in checks.check_replay(TOY, tmp_path / "a" / "b")} == {"ok"}


def test_replay_bytes_are_those_of_its_frames(tmp_path):
    config = {**TOY, "task": {**TOY["task"], "env": {"size": 64}}, "data": {"capacity": 1_000_000}}
    config["data"]["memory_budget"] = "20GB"
    text = next(checks.check_replay(config, tmp_path)).finding
    takes = float(text.split("takes ")[1].split(" GB")[0])
    assert 1e6 * 3 * 64 * 64 / 1e9 <= takes <= 1.01 * 1e6 * 3 * 64 * 64 / 1e9 + 0.1


def test_a_replay_beyond_the_memory_budget_is_mapped(tmp_path):
    config = {**TOY, "task": {**TOY["task"], "env": {"size": 64}}, "data": {"capacity": "2GB", "memory_budget": "1GB"}}
    found = _checks(checks.check_replay(config, tmp_path))
    assert found["memory"].state == "ok" and "mapped" in found["memory"].finding
    assert "takes 4" in found["disk"].finding


@pytest.mark.parametrize("capacity", [0, -5, 1.5, True, "many", None])
def test_capacity_must_be_a_whole_number_of_rows(tmp_path, capacity):
    with pytest.raises(ValueError, match=r"data\.capacity"):
        list(checks.check_replay({**TOY, "data": {"capacity": capacity}}, tmp_path))


def test_folders_that_take_no_files(tmp_path):
    assert checks.check_writable(tmp_path / "runs" / "x").state == "ok"
    assert list(tmp_path.iterdir()) == []
    check = checks.check_writable(checks.Path("/proc/runs"))
    assert check.state == "fail" and "/proc" in check.fix


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Puts other code in the place of what draws."""

    def put(code):
        (tmp_path / "stand_in.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(render_check, "PROGRAM", "stand_in")

    return put


def test_a_hanging_driver_is_given_up(child):
    child("import time; time.sleep(120)")
    start = time.monotonic()
    check = check_backend("egl", timeout_s=0.5)
    assert check.state == "note" and "hangs" in check.finding and time.monotonic() - start < 60


def test_a_crashing_driver_does_not_take_this_process_down(child):
    child("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert check_backend("egl").finding == "the drawing process was killed by signal 11"


def test_blank_frames_do_not_count(child):
    found = {"fast_ms": 1.0, "suite_ms": 9.0, "blank": True, "renderer": "none"}
    child(f"import json; print(json.dumps({found!r}))")
    assert "blank" in check_backend("egl").finding


def test_backend_and_gpu_reach_the_child(child):
    echo = "import os, sys; print('[]'); sys.exit(os.environ['MUJOCO_GL'] + ' ' + sys.argv[1])"
    child(echo)
    assert check_backend("osmesa", task="walker_walk", gpu=(3, "a-b")).finding == 'osmesa ["walker_walk", [3, "a-b"]]'


def test_one_working_backend_is_enough(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    bad, good = Check("render egl", "its library cannot be loaded", "note"), Check("render osmesa", "fast 1 ms")
    assert verdict({"egl": bad, "osmesa": good}) == Check("render", "osmesa: fast 1 ms")
    failed = verdict({"egl": bad})
    assert failed.state == "fail" and "apt-get install -y libegl1 libgl1-mesa-dri" in failed.fix


def test_the_chosen_backend_must_work_itself(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    bad, good = Check("render osmesa", "its library cannot be loaded", "note"), Check("render egl", "fast 1 ms")
    assert "libosmesa6" in verdict({"egl": good, "osmesa": bad}).fix
    monkeypatch.setenv("MUJOCO_GL", "bogus")
    assert verdict({"bogus": bad}).fix == "unset MUJOCO_GL"


def test_a_frame_can_be_drawn_here(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    check = check_render()
    if "libegl1" in check.fix:
        pytest.skip("no GL on this machine")
    assert check.state == "ok" and "ms a frame" in check.finding, check


def test_the_command_ends_with_one_json_line(monkeypatch, capsys):
    good, bad = Check("a", "fine"), Check("b", "[broken]", "fail", "mend [it]")
    monkeypatch.setattr(doctor, "_configuration", lambda words: TOY)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    monkeypatch.setattr(doctor, "all_checks", lambda config: iter([good, bad]))
    assert run(doctor.main, usage="") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["checks"][1] == asdict(bad) and json.loads(captured.out)["ok"] is False
    assert "[broken]" in captured.err and "mend [it]" in captured.err
    monkeypatch.setattr(doctor, "all_checks", lambda config: iter([good]))
    assert run(doctor.main, usage="") == 0


def test_a_broken_configuration_reader_leaves_defaults(monkeypatch):
    monkeypatch.setitem(sys.modules, "trainers.command.configuration", None)
    config = doctor._configuration(["task=toy_point"])
    assert config["task"]["source"] == "toy" and checks._capacity(config) > 0


def test_a_task_without_gl_needs_no_frame():
    assert doctor.main(["--render-only", "task=toy_point"])["ok"]
