"""How every entry point begins and ends: tuned memory, a clear error in one line, one JSON line of results."""

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from datamodules.envs.errors import EnvError
from datamodules.replay import ReplayEmpty, ReplayMismatch, ReplayTooLarge
from trainers.allocator import tune_allocator
from trainers.run_paths import RunFolderInUse, RunFolderReadOnly

# what a user can cause and mend: shown as one line; anything else is our bug and keeps its traceback
USER_ERRORS = (ValueError, EnvError, ReplayEmpty, ReplayMismatch, ReplayTooLarge, RunFolderInUse, RunFolderReadOnly)


def run(main: Callable[[Sequence[str]], dict[str, Any]], *, usage: str) -> int:
    """Run an entry point on sys.argv; returns the exit code, 2 for an error that the user can mend."""
    arguments = sys.argv[1:]
    if any(a in ("-h", "--help") for a in arguments):
        print(usage)
        return 0
    tune_allocator()
    # loaded by a worker thread of Lightning's: advice about data loaders that this project does not use
    warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning")
    try:
        results = main(arguments)
    except USER_ERRORS as error:
        if os.environ.get("WORLDMODEL_TRACEBACK"):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        sys.stdout.flush()
        print(json.dumps(results), flush=True)
    return int(results.get("exit_code", 0))


def reject_unknown_flags(arguments: Sequence[str]) -> None:
    """Only key=value arguments are taken; a ValueError names the first that is not."""
    for argument in arguments:
        if "=" not in argument:
            raise ValueError(f"expected key=value, got {argument!r}; see --help")
