"""Children that run a module of the project: with its code, whatever folder they are started in."""

import subprocess
from pathlib import Path

import trainers
from trainers.process.child import start_module, thread_variables

PROGRAM = "import os, sys, trainers; print(trainers.__file__, os.environ['PYTHONUNBUFFERED'], *sys.argv[1:])"


def test_a_child_has_this_code_its_arguments_and_unbuffered_output(tmp_path, monkeypatch):
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "stand_in.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "extra"))
    child = start_module("stand_in", "a b", cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    said, _ = child.communicate(timeout=60)
    assert said.split() == [str(Path(trainers.__file__)), "1", "a", "b"] and child.returncode == 0


def test_threads_are_those_that_a_person_has_set(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert set(thread_variables(3).values()) == {"3"}
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    assert set(thread_variables(3).values()) == {"2"}
