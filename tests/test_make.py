"""What `make` does, with a Python of our own that writes down how it is called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# A Python that is new enough, has venv, makes a venv with itself in it, and fails where the test wants it to.
STAND_IN = """#!/bin/sh
echo "$(basename "$(dirname "$0")") $*" >> {record}
case "$*" in *'{fails}'*) exit 1;; esac
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


def stand_in(folder: Path, *, fails: str = "nothing that is ever said") -> Path:
    path = folder / "anypython"
    path.write_text(STAND_IN.format(record=folder / "calls", fails=fails))
    path.chmod(0o755)
    return path


def make(*words: str, python: Path | str, venv: Path) -> subprocess.CompletedProcess[str]:
    # a make that runs the tests leaves its own flags and overrides behind
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", *words, f"PYTHON={python}", f"VENV={venv}"]
    return subprocess.run(command, cwd=ROOT, env=environ, check=False, capture_output=True, text=True, timeout=60)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_setup_installs_once_and_checks_the_drawing_every_time(tmp_path: Path) -> None:
    python, venv = stand_in(tmp_path), tmp_path / "env"
    draw = "bin -m trainers.doctor --render-only --install-gl"
    assert make("setup", python=python, venv=venv).returncode == 0
    said = calls(tmp_path)
    assert [line for line in said if line.startswith("bin ")] == [
        "bin -m pip install --quiet --upgrade pip",
        "bin -m pip install --quiet -e .[dev,tensorboard]",
        draw,
    ]
    assert any(line.endswith(f"-m venv {venv}") for line in said)
    assert make("setup", python=python, venv=venv).returncode == 0
    assert calls(tmp_path) == [*said, draw]


def test_training_and_tests_set_up_first_and_pass_arguments_on(tmp_path: Path) -> None:
    python, venv = stand_in(tmp_path), tmp_path / "env"
    assert make("train", "ARGS=experiment=toy seed=1", python=python, venv=venv).returncode == 0
    assert calls(tmp_path)[-2:] == [
        "bin -m trainers.doctor --render-only --install-gl",
        "bin -m trainers.fit experiment=toy seed=1",
    ]
    assert make("test", "ARGS=tests/test_make.py", python=python, venv=venv).returncode == 0
    assert calls(tmp_path)[-1] == "bin -m pytest -n 2 --dist loadfile tests/test_make.py"


def test_without_a_frame_nothing_is_trained(tmp_path: Path) -> None:
    found = make("train", python=stand_in(tmp_path, fails="trainers.doctor"), venv=tmp_path / "env")
    assert found.returncode != 0
    assert "trainers.fit" not in (tmp_path / "calls").read_text()


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    venv = tmp_path / "env"
    assert make("setup", python=stand_in(tmp_path, fails="install --quiet -e"), venv=venv).returncode != 0
    assert make("setup", python=stand_in(tmp_path), venv=venv).returncode == 0


@pytest.mark.parametrize(
    ("fails", "sentence"),
    [
        ("version_info", "Python 3.11 or newer is needed and"),
        ("ensurepip", "run `sudo apt-get install -y anypython-venv` and try again"),
    ],
)
def test_what_python_lacks_is_one_sentence(tmp_path: Path, fails: str, sentence: str) -> None:
    found = make("setup", python=stand_in(tmp_path, fails=fails), venv=tmp_path / "env")
    assert found.returncode != 0
    ours = [line for line in found.stderr.splitlines() if not line.startswith("make: ")]
    assert len(ours) == 1 and sentence in ours[0]
    assert not (tmp_path / "env").exists()


def test_no_python_is_one_sentence(tmp_path: Path) -> None:
    found = make("setup", python="no-such-python", venv=tmp_path / "env")
    assert found.returncode != 0 and "No no-such-python here: install Python 3.11 or newer" in found.stderr


def test_checks_need_no_graphics(tmp_path: Path) -> None:
    found = make("-n", "check", python=stand_in(tmp_path), venv=tmp_path / "env")
    assert found.returncode == 0
    assert "doctor" not in found.stdout
    assert [word in found.stdout for word in ("ruff format --check", "ruff check", "mypy", "test_layout")] == [True] * 4
