"""Evaluate a trained agent: `python -m trainers.evaluate runs/x episodes=10`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.arguments import Command, Key

COMMAND = Command(
    name="evaluate",
    summary=(
        "Plays seeded episodes without exploration, in parallel environments with one batched planner call for all, "
        "and writes what was measured (JSON) and films into RUN/evaluations. Standard error gets a short table for a "
        "person."
    ),
    keys={
        "checkpoint": Key(
            "a run folder (its newest intact checkpoint), or a checkpoint", required=True, aliases=("run", "run_dir")
        ),
        "episodes": Key("how many", "10"),
        "envs": Key("environments side by side", "10"),
        "seed": Key("what the episodes' starts come from: the run's own by default"),
        "device": Key("where the agent computes", "cpu"),
        "out": Key("a folder for the results: RUN/evaluations by default, another where that cannot be written"),
    },
    first="checkpoint",
    overrides="a key of the run's configuration, on top of it",
    notes="""  runs/cartpole_swingup/x planner=planet planner.horizon=15
  runs/cartpole_swingup/x agent.act_with=actor            the learned policy without looking ahead""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Evaluate a checkpoint; returns the results that are printed as the last line."""
    parsed = COMMAND.parse(arguments)
    # torch takes seconds to load: help is answered before
    from trainers.acting.evaluate_checkpoint import evaluate

    return evaluate(**parsed.own, overrides=parsed.overrides)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
