"""What is in a data set: `python -m trainers.inspect_data npz:data/walker`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.configuration import BadConfig
from trainers.command.entry import run

USAGE = """python -m trainers.inspect_data URI [out=inspect/NAME] [episodes=N]

Reads recorded episodes (segments, npz, hdf5, minari, lerobot, mp4: see docs/offline.md) and says what is there: counts,
lengths, returns, ranges, whether actions and frames are paired as read, and what could not be read. Writes a contact
sheet of episodes (their first, middle and last frames) and a film of the best one.

The last line of standard output is one JSON object."""


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Inspect; returns the findings that are printed as the last line."""
    own = {"out": None, "episodes": None}
    uris = []
    for text in arguments:
        key, mark, value = text.partition("=")
        if mark and key in own:
            own[key] = value
        else:
            uris.append(text)
    if len(uris) != 1:
        raise BadConfig(f"expected one URI, got {' '.join(uris) or 'none'}; see --help")
    # the readers load numpy and more: help is answered before
    from trainers.reporting.inspection import inspect

    return inspect(uris[0], out=own["out"], episodes=own["episodes"])


if __name__ == "__main__":
    sys.exit(run(main, usage=USAGE))
