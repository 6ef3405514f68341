"""What is in a data set: `python -m trainers.inspect_data npz:data/walker`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.arguments import PARTS, Command, Key

COMMAND = Command(
    name="inspect_data",
    summary=(
        "Reads recorded episodes and says what is there: counts, lengths, returns, ranges, whether actions and frames "
        "are paired as read, and what could not be read. Writes a contact sheet of episodes (their first, middle and "
        "last frames) and a film of the best one."
    ),
    keys={
        "uri": Key("segments, npz, hdf5, minari, lerobot or mp4 (see docs/offline.md), or a run folder", required=True),
        "out": Key("a folder for the findings: inspect/NAME by default"),
        "episodes": Key("so many at most: all by default"),
        "parts": PARTS,
    },
    first="uri",
    word="URI",
    notes="""  npz:data/walker
  runs/cartpole_swingup/x            the episodes that a run collected""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Inspect; returns the findings that are printed as the last line."""
    own = COMMAND.parse(arguments).own
    # the readers load numpy and more: help is answered before
    from trainers.reporting.inspection import inspect
    from trainers.run_folder.find import data_uri_with_parts

    return inspect(data_uri_with_parts(own["uri"] or "", own["parts"]), out=own["out"], episodes=own["episodes"])


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
