"""A bundle in real time: `python -m trainers.drive bundle=bundle/ env=dmc:cartpole_swingup hz=20 episodes=3`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.arguments import Command, Key

COMMAND = Command(
    name="drive",
    summary=(
        "Runs a bundle's controller at a fixed rate on a simulated robot, whose frames come from a process of its own "
        "and do not wait: every decision, what chose its action and what it took is written as CSV and drawn into a "
        "report. Episodes start as those of `trainers.evaluate` with the same seed. Ctrl-C or SIGTERM ends it with a "
        "report of what was driven until then."
    ),
    keys={
        "bundle": Key("a folder that `trainers.export` wrote", required=True),
        "env": Key("a task, as dmc:walker_walk, gym:Id-v0 or toy_point", required=True),
        "hz": Key("decisions per second; the bundle's own by default"),
        "episodes": Key("how many", "1"),
        "seed": Key("what the episodes' starts come from", "0"),
        "budget_ms": Key("from a frame to its action; 0.7 of a period by default, 0.8 with server="),
        "planner": Key("process, which a watchdog can kill and start again, or inline", "process"),
        "realtime": Key("true: before all ordinary processes of this machine, which needs the permission", "false"),
        "delay": Key("decisions by which the robot's actuator is late", "0"),
        "camera": Key("WIDTHxHEIGHT of the camera's frames, such as 640x480; the environment's own by default"),
        "server": Key("ws://host:port of `trainers.serve`, whose actions are taken instead"),
        "api_key_file": Key("a file with the key that the server asks for; or set WORLDMODEL_API_KEY"),
        "rerun": Key("a new file, such as drive.rrd, of frames, actions and statuses for the Rerun viewer"),
        "out": Key("a folder for report and CSV; without an earlier one; BUNDLE_drive, BUNDLE_drive_2, ... by default"),
    },
    first="bundle",
    word="BUNDLE",
    overrides="of the environment (see python -m trainers.fit --help), such as task.env.look=fast",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Drive; returns the results that are printed as the last line."""
    parsed = COMMAND.parse(arguments)
    # torch takes seconds to load: help is answered before
    import torch

    from trainers.command.configuration import true_or_false
    from trainers.deployment.drive import drive
    from trainers.process.realtime import realtime

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    own = dict(parsed.own)
    with realtime(true_or_false("realtime", str(own.pop("realtime")))):
        return drive(**own, overrides=parsed.overrides)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
