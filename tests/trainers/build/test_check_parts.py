"""Options are checked by building parts without memory; nothing of that may stay."""

import subprocess
import sys

import pytest

from trainers.build.check_parts import fit_options
from trainers.command.configuration import load_config

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


@pytest.mark.parametrize("size", ["experiment=toy", "size=small"])
def test_sizes_of_imagination_do_not_count_controllers(size: str) -> None:
    """An experiment once asked for 64, eight times the work, by a name that both had."""
    words = [size, "policy=gps"]
    policy = fit_options(load_config(words), words)["policy"]
    assert policy["controllers"] == 8 and "starts" not in policy
