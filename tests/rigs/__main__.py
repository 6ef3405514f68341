"""Long trials, with options as benchmarks have them: `python -m tests.rigs faults kills=200`."""

import sys
from functools import partial

from trainers.benchmark import main, usage
from trainers.command.entry import run

if __name__ == "__main__":
    package = "tests.rigs"
    sys.exit(run(partial(main, package=package), usage=partial(usage, package=package)))
