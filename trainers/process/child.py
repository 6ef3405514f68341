"""Modules of this project as child processes: `python -m module`, from whatever folder this process was started."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start_module(
    module: str, *arguments: str, environ: Mapping[str, str] | None = None, **options: Any
) -> "subprocess.Popen[Any]":
    """Start `python -m module arguments`, whose standard input is empty and whose output is written as it is made.

    Args:
        module: of this project, or on PYTHONPATH.
        arguments: of the command line.
        environ: the child's variables, to which those are added that it needs; None: this process's.
        options: of subprocess.Popen.
    """
    environ = dict(os.environ if environ is None else environ)
    paths = [*filter(None, [environ.get("PYTHONPATH")]), str(ROOT)]  # last: what a person has put there is found first
    environ |= {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, **options)


def thread_variables(count: int) -> dict[str, str]:
    """Variables by which each rank of a run has `count` threads, or as many as a person has set for this process."""
    said = {name: os.environ[name] for name in THREADS if os.environ.get(name)}
    return dict.fromkeys(THREADS, next(iter(said.values()), str(count))) | said
