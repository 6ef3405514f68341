"""How every entry point begins and ends: tuned memory, a clear error in one line, one JSON line of results."""

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from datamodules.envs.errors import EnvError
from trainers.process.allocator import tune_allocator
from trainers.run_folder.paths import RunFolderInUse, RunFolderReadOnly

# Lightning's advice about data loaders that this project does not use, and what torch tells Lightning's authors
ADVICE = (
    ".*does not have many workers.*",
    ".*your dataloader is not resumable.*",
    ".*smaller than the logging interval.*",
    ".*treespec, LeafSpec.*",
    ".*barrier\\(\\): using the device under current context.*",
)


def run(main: Callable[[Sequence[str]], dict[str, Any]], *, usage: str | Callable[[Sequence[str]], str]) -> int:
    """Run an entry point on sys.argv; returns the exit code, 2 for an error that the user can mend."""
    arguments = sys.argv[1:]
    if any(a in ("-h", "--help") for a in arguments):
        print(usage if isinstance(usage, str) else usage(arguments))
        return 0
    tune_allocator()
    warnings.formatwarning = _one_line
    try:
        results = main(arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("WORLDMODEL_TRACEBACK") or not _mendable(error):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    # another code than 0 from one of the other ranks would make the launcher kill this run's first rank
    if not is_first_rank():
        return 0
    sys.stdout.flush()
    print(json.dumps(results), flush=True)
    return int(results.get("exit_code", 0))


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


def _mendable(error: Exception) -> bool:
    """Whether a user can cause and mend it: shown as one line. Anything else is our bug and keeps its traceback."""
    if isinstance(error, ValueError | EnvError | RunFolderInUse | RunFolderReadOnly):
        return True
    # whoever raises these has loaded torch already; a wrong word on the command line is answered without it
    from datamodules.storage.budget import ReplayDamaged, ReplayTooLarge
    from datamodules.storage.durable import ReplayWriteFailed
    from datamodules.storage.rows import ReplayMismatch
    from datamodules.windows import ReplayEmpty
    from trainers.run_folder.checkpoint import CheckpointDamaged
    from trainers.training.module import NonFiniteTraining

    replay = ReplayEmpty | ReplayMismatch | ReplayTooLarge | ReplayDamaged | ReplayWriteFailed
    return isinstance(error, replay | CheckpointDamaged | NonFiniteTraining)


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"warning: {message}\n"
