"""How every entry point begins and ends: tuned memory, threads, a clear error in one line, one JSON line of results."""

import json
import logging
import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

from trainers.process.allocator import tune_allocator
from worldmodel.errors import UserError

# Lightning's advice about data loaders that this project does not use, and what torch tells Lightning's authors
ADVICE = (
    ".*does not have many workers.*",
    ".*your dataloader is not resumable.*",
    ".*smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*barrier\\(\\): using the device under current context.*",
)
SPINS = "30000"  # turns of an empty loop before a thread that waits sleeps; libgomp takes 300,000 by itself


def run(main: Callable[[Sequence[str]], dict[str, Any]], *, usage: str | Callable[[Sequence[str]], str]) -> int:
    """Run an entry point on sys.argv and print one JSON line, of its results or of why there are none.

    Args:
        main: takes the arguments, returns the results.
        usage: what --help prints, or what gives it for the arguments.

    Returns:
        The exit code: 0, 2 for an error that the user can mend, 1 for any other, 128 + N for signal N.
    """
    arguments = sys.argv[1:]
    if any(a in ("-h", "--help") for a in arguments):
        print(usage if isinstance(usage, str) else usage(arguments))
        return 0
    _require_utf8()
    tune_allocator()
    _bound_spinning()
    warnings.formatwarning = _one_line
    try:
        # the results alone are on standard output, whatever a library has to say
        with redirect_stdout(sys.stderr):
            results = main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ended("interrupted", 128 + signal.SIGINT)
    except UserError as error:
        if os.environ.get("WORLDMODEL_TRACEBACK"):
            traceback.print_exc()
        line = f"{type(error).__name__}: {error}"
        print(line, file=sys.stderr)
        return ended("failed", 2, error=line)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is said
        traceback.print_exc()
        return ended("failed", 1, error=f"{type(error).__name__}: {error}")
    # another code than 0 from one of the other ranks would make the launcher kill this run's first rank
    if not is_first_rank():
        return 0
    sys.stdout.flush()
    print_json(results)
    return int(results.get("exit_code", 0))


def ended(status: str, code: int, **why: str) -> int:
    """Print the last line of a command that has no results, on the first rank; returns its exit code."""
    if is_first_rank():
        print_json({"status": status, **why, "exit_code": code})
    return code


def print_json(record: Mapping[str, Any]) -> None:
    """A line on standard output, which is not `sys.stdout` while a command runs; null for what is not finite."""
    print(
        json.dumps(_strict(record), allow_nan=False),
        file=sys.__stdout__ if sys.stdout is sys.stderr else sys.stdout,
        flush=True,
    )


def _strict(value: Any) -> Any:
    """JSON has no NaN: other languages' readers refuse the whole line."""
    if isinstance(value, Mapping):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bound_spinning() -> None:
    """Let threads that wait for one another sleep at last; what OMP_WAIT_POLICY or GOMP_SPINCOUNT says is kept.

    Before torch is loaded, whose libgomp reads the environment then. Sooner, every one of an update's thousands of
    parallel sections waits for a thread to wake up; later, a program beside this one gets no turn on the core that it
    shares: docs/log.md, "Two threads and a busy core".
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _require_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale says otherwise: paths and results may hold any character."""
    if sys.getfilesystemencoding() != "utf-8" or (sys.stdout.encoding or "utf-8").lower() != "utf-8":
        if os.environ.get("PYTHONUTF8") != "1":
            sys.stdout.flush()
            os.execve(
                sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"}
            )
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]


def is_first_rank() -> bool:
    """Whether this process is the one of its run that writes and prints, by what launchers say in the environment."""
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


def silence_advice(*, profiled: bool = False) -> None:
    """Leave Lightning's warnings and drop its hints; call once it is loaded. `profiled`: it reports as a hint does."""
    warnings.formatwarning = _one_line  # importing Lightning puts its own there
    for message in ADVICE:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.INFO if profiled else logging.WARNING)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"warning: {message}\n"
