import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from trainers.command.entry import run

def main(arguments):
    return {"loaded": "torch" in sys.modules, "spins": os.environ.get("GOMP_SPINCOUNT")}

sys.exit(run(main, usage=""))
"""


@pytest.mark.parametrize(
    ("said", "spins"),
    [({}, '"30000"'), ({"GOMP_SPINCOUNT": "7"}, '"7"'), ({"OMP_WAIT_POLICY": "active"}, "null")],
)
def test_waiting_is_bounded_before_torch_is_loaded(said: dict[str, str], spins: str) -> None:
    environ = {name: text for name, text in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environ | said, capture_output=True, text=True, timeout=60, check=True)
    assert f'{{"loaded": false, "spins": {spins}}}' in done.stdout
