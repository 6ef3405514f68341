"""Recorded episodes in another format: `python -m trainers.convert_data npz:data/walker out=hdf5:walker.hdf5`."""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

from trainers.command.arguments import PARTS, Command, Key
from trainers.command.configuration import BadConfig

COMMAND = Command(
    name="convert_data",
    summary=(
        "Reads episodes in any format and writes them in another, one at a time in memory: see docs/offline.md for "
        "both. What cannot be read is left out, counted and named."
    ),
    keys={
        "uri": Key("what to read, or a run folder", required=True),
        "out": Key("what to write: segments, npz, hdf5, minari, lerobot or mp4", required=True),
        "parts": PARTS,
    },
    first="uri",
    word="URI",
    notes="""  npz:data/walker out=hdf5:walker.hdf5
  'lerobot:data/arm?camera=top,wrist&size=64' out=segments:data/arm64
  runs/walker_walk/x out=minari:data/walker""",
)
NAMED_PROBLEMS = 20


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Convert; returns the counts that are printed as the last line."""
    own = COMMAND.parse(arguments).own
    from trainers.run_folder.find import data_uri_with_parts

    return convert(data_uri_with_parts(own["uri"] or "", own["parts"]), own["out"] or "")


def convert(uri: str, out: str) -> dict[str, Any]:
    """Write every readable episode at `uri` to `out`; raises BadConfig, FormatError, OSError."""
    # the readers load numpy and more: help is answered before
    from datamodules.formats.protocol import in_short
    from datamodules.formats.uri import absolute, open_reader, open_writer, require_new

    start, episodes, rows, writer = time.monotonic(), 0, 0, None
    with closing(open_reader(uri)) as reader, ExitStack() as stack:
        require_new(out)
        for episode in reader.trajectories():
            if writer is None:  # only now: where nothing can be read, nothing is left behind
                writer = stack.enter_context(closing(open_writer(out, reader.spec)))
            writer.write(episode)
            episodes, rows = episodes + 1, rows + len(episode)
        problems = [str(problem) for problem in reader.problems]
        notes = reader.notes.texts()
        if not episodes:
            raise BadConfig(f"{uri}: expected an episode that can be read, got none ({in_short(problems)})")
        counts = {"task": reader.spec.task, "episodes": episodes, "rows": rows, "skipped": len(problems)}
    return {
        **counts,
        "problems": [*problems[:NAMED_PROBLEMS], *notes],
        "out": absolute(out),
        "seconds": round(time.monotonic() - start, 1),
    }


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
