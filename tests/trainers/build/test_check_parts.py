"""Options are checked by building parts without memory; nothing of that may stay."""

import subprocess
import sys

# in a process of its own: what it imports, it imports for the first time
_CHECK = """
import sys

import torch

from trainers.build.check_parts import fit_options
from trainers.command.configuration import load_config

arguments = sys.argv[1:]
fit_options(load_config(arguments), arguments)
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] in ("worldmodel", "datamodules", "trainers"):
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor) and value.is_meta:
                print(f"{name}.{key}")
"""


def test_constants_of_modules_keep_their_numbers() -> None:
    arguments = ["planner=confidence", "planner.search=ilqr", "agent.heads.name=laplace"]
    done = subprocess.run([sys.executable, "-c", _CHECK, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == ""
