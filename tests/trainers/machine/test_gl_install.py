"""apt-get is called for one reason only, and what it cannot do is said in one sentence."""

import os
from pathlib import Path

import pytest

from trainers import doctor
from trainers.machine import gl_install
from trainers.machine.gl_install import ensure_gl
from trainers.machine.rendering import FIXES, Check

MISSING = "egl: its library cannot be loaded; osmesa: its library cannot be loaded"
NO_GL = Check("render", MISSING, "fail", FIXES["egl"])
DRAWN = Check("render", "egl: fast 1.0 ms")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with stand-ins for apt-get and sudo that write down how they were called; returns the record."""
    record = tmp_path / "calls"
    stand_in(tmp_path / "apt-get", f'echo "$(basename $0) $* as $WHO" >> {record}\nexit $(cat {tmp_path}/status)')
    stand_in(tmp_path / "sudo", 'shift; WHO=sudo exec "$@"')
    (tmp_path / "status").write_text("0")
    record.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    become(monkeypatch, root=True)
    return record


def stand_in(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def become(monkeypatch: pytest.MonkeyPatch, *, root: bool) -> None:
    monkeypatch.setattr(gl_install.os, "geteuid", lambda: 0 if root else 1000)


def draws(*checks: Check):
    """A machine that draws as told, one check after another."""
    left = list(checks)
    return lambda: left.pop(0)


def test_where_a_frame_is_drawn_nothing_is_installed(machine: Path) -> None:
    assert ensure_gl(draws(DRAWN)) is DRAWN
    assert machine.read_text() == ""


@pytest.mark.parametrize(
    "check",
    [
        Check("render", "egl: No module named x; osmesa: its library cannot be loaded", "fail", "make setup"),
        Check("render", "egl: UnknownTask: no 'x'", "fail", "choose a task of the control suite"),
        Check("render", "glfw: its library cannot be loaded", "fail", "unset MUJOCO_GL"),
        Check("render", "egl: no frame within 30 s: the driver hangs; osmesa: its library cannot be loaded", "fail"),
        Check("render", "egl: the drawing process was killed by signal 11", "fail", FIXES["egl"]),
        Check("render", "egl: llvmpipe draws a blank frame", "fail", FIXES["egl"]),
        Check("render", "egl: TypeError: a bug of ours", "fail", FIXES["egl"]),
    ],
)
def test_another_fault_never_calls_apt(machine: Path, check: Check) -> None:
    assert ensure_gl(draws(check)) is check
    assert machine.read_text() == ""


def test_root_installs_and_draws_again(machine: Path) -> None:
    assert ensure_gl(draws(NO_GL, DRAWN)) is DRAWN
    expected = ["apt-get -q update as ", "apt-get -q install -y libegl1 libgl1-mesa-dri as "]
    assert machine.read_text().splitlines() == expected


def test_without_root_sudo_is_used_where_it_asks_no_password(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, root=False)
    assert ensure_gl(draws(NO_GL, DRAWN)) is DRAWN
    assert [line.endswith(" as sudo") for line in machine.read_text().splitlines()] == [True, True]


def test_without_any_right_the_command_is_in_one_sentence(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, root=False)
    stand_in(machine.parent / "sudo", "exit 1")
    check = ensure_gl(draws(NO_GL))
    assert check.state == "fail" and f"`{FIXES['egl']}`" in check.finding and "\n" not in check.finding
    assert machine.read_text() == ""


def test_without_apt_the_command_is_in_one_sentence(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl_install.shutil, "which", lambda name: None)
    assert f"`{FIXES['egl']}`" in ensure_gl(draws(NO_GL)).finding
    assert machine.read_text() == ""


def test_the_second_library_is_tried_after_the_first(machine: Path) -> None:
    assert ensure_gl(draws(NO_GL, NO_GL, DRAWN)) is DRAWN
    assert "libosmesa6" in machine.read_text().splitlines()[-1]


def test_the_chosen_backend_alone_is_installed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    no_osmesa = Check("render", "osmesa: its library cannot be loaded", "fail", FIXES["osmesa"])
    assert ensure_gl(draws(no_osmesa, DRAWN)) is DRAWN
    assert "libegl1" not in machine.read_text()


def test_an_installation_that_fails_says_how(machine: Path) -> None:
    (machine.parent / "status").write_text("100")
    check = ensure_gl(draws(NO_GL, NO_GL, NO_GL))
    assert check.state == "fail" and "status 100" in check.finding and FIXES["egl"] in check.finding


def test_the_doctor_installs_only_when_told(machine: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(doctor, "check_render", lambda task: NO_GL if task else DRAWN)
    assert doctor.main(["--render-only"])["exit_code"] == 1
    assert machine.read_text() == ""
    assert doctor.main(["--render-only", "--install-gl"])["exit_code"] == 1
    assert "libegl1" in machine.read_text()
    assert doctor.main(["--render-only", "--install-gl", "task=toy_point"])["exit_code"] == 0
    assert FIXES["egl"] in capfd.readouterr().err
