"""A small pixels-to-action policy from agents that plan: `python -m trainers.distill runs/cartpole_swingup/x`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainers.command.arguments import Command
from trainers.command.configuration import BadConfig, read_yaml, run_title
from trainers.command.new_run import new_run_folder
from trainers.distillation.options import KEYS, Options
from trainers.process.launched import require_one_process
from trainers.run_folder.find import find_run

COMMAND = Command(
    name="distill",
    summary=(
        "Teaches a small policy from observations to actions what planners do: rounds of episodes that teacher and "
        "student share, every decision of which the teacher's planner labels, and of the teacher's replayed episodes. "
        "The student's run folder is an ordinary one: evaluate, report, collect_data and load_agent take it."
    ),
    keys=KEYS,
    first="checkpoint",
    word="RUN ...",
    notes="""  runs/cartpole_swingup/x student.size=small rounds=8
  runs/toy_point/x runs/cartpole_swingup/y                one student of both tasks, tasks/<name> is the second's folder
  resume=runs/cartpole_swingup-student/z                  continue where it stopped""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Distil planners into a student; returns the results that are printed as the last line."""
    own = COMMAND.parse(arguments).own
    require_one_process("distill")
    if own["resume"]:
        if others := [text for text in arguments if not text.startswith("resume=")]:
            raise BadConfig(f"resume: expected no other key, since the run has its own options, got {' '.join(others)}")
        root = find_run(Path(own["resume"]), key="resume")
        options = Options.saved(root)
    elif not own["checkpoint"]:
        raise BadConfig("checkpoint: expected a run folder that teaches, or resume=RUN, got neither; see --help")
    else:
        options = Options.typed(own)
        root = new_run_folder(own["run_dir"], title=_title(own["checkpoint"]))
    # torch takes seconds to load: what is wrong on the command line is answered before
    from trainers.distillation.distill import distill

    return distill(options, root.resolve(), resumed=bool(own["resume"]))


def _title(checkpoints: Sequence[str]) -> str:
    """What a student of these runs' tasks is called."""
    titles = [run_title(read_yaml(find_run(Path(path), key="checkpoint") / "config.yaml")) for path in checkpoints]
    return f"{'+'.join(dict.fromkeys(titles))}-student"


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
