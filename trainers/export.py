"""A trained agent for a robot: `python -m trainers.export checkpoint=runs/x out=bundle/ hz=20`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.arguments import Command, Key
from trainers.process.launched import require_one_process

COMMAND = Command(
    name="export",
    summary=(
        "Writes a bundle: the agent's weights (safetensors), how to run it (JSON), a SHA-256 of every file, and beside "
        "them the filter, the policy and a planner iteration as programs for other runtimes, with a receipt of how far "
        "their actions are from the agent's on recorded frames. Nothing in a bundle is executed when it is read."
    ),
    keys={
        "checkpoint": Key(
            "a run folder (its newest intact checkpoint), or a checkpoint", required=True, aliases=("run", "run_dir")
        ),
        "out": Key("the bundle's folder, which must not exist yet", required=True),
        "what": Key(
            "planner, policy, or both: then the policy stands in for a late planner; what acts in the run by default"
        ),
        "task": Key("of a student of several tasks: the one that it is exported for, its name or its number"),
        "format": Key("of the programs: torch, onnx, both with a comma, or none", "torch,onnx"),
        "hz": Key("decisions per second", "20"),
        "safe_action": Key("[A] in the robot's units, one number for all, or hold: when nothing else is left", "hold"),
        "max_change": Key("[A] in the robot's units per decision, one number for all; no limit by default"),
        "action_latency_s": Key("seconds from a command to when it acts", "0"),
        "observation_age_s": Key("seconds from a frame's capture to the decision that sees it", "0"),
        "max_age_s": Key("older frames count as missing; three periods by default"),
        "missing": Key("missing frames in a row that predictions bridge", "5"),
        "plan_age": Key("decisions for which the rest of a plan is executed", "2"),
        "frozen": Key("equal frames of a camera in a row that count as frozen; 0: scenes may stand still", "20"),
        "faults": Key("safe actions in a row after which the controller stops", "3"),
        "frames": Key("recorded frames for the receipt", "200"),
        "data": Key("their address; the run's own by default, which it has learned from"),
        "alarm_rows": Key("of the newest recorded rows, on which the alarm is calibrated; 0: no alarm", "2000"),
        "tolerance": Key("largest difference of an action in [-1, 1]", "1e-4"),
    },
    first="checkpoint",
    overrides="a key of the run's configuration, on top of it",
    notes="""  runs/cartpole_swingup/x out=bundle hz=20 safe_action=0
  runs/cartpole_swingup/x out=bundle what=policy format=none planner=icem
  runs/cartpole_swingup-student/x out=bundle hz=200""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Export; returns the results that are printed as the last line."""
    parsed = COMMAND.parse(arguments)
    require_one_process("export")
    # torch takes seconds to load: help is answered before
    from trainers.bundle.export import export

    return export(**parsed.own, overrides=parsed.overrides)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
