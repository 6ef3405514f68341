"""Evaluate a trained agent: `python -m trainers.evaluate checkpoint=runs/x episodes=10`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.configuration import BadConfig
from trainers.command.entry import reject_unknown_flags, run

USAGE = """python -m trainers.evaluate checkpoint=PATH [episodes=10] [seed=N] [device=cpu] [envs=N] [key=value ...]

Plays seeded episodes without exploration, in parallel environments with one batched planner call for all, and writes
a receipt (JSON) and films into PATH/evaluations.

  checkpoint=runs/cartpole_swingup/20260101-120000      a run folder (its newest intact checkpoint), or a checkpoint
  planner=planet planner.horizon=15                     any key of the run's config, on top of it
  agent.act_with=actor                                  the learned policy without looking ahead

The last line of standard output is one JSON object with the results."""

OWN_KEYS = {"checkpoint": None, "episodes": "10", "seed": None, "envs": "10", "device": "cpu"}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Evaluate a checkpoint; returns the receipt that is printed as the last line."""
    reject_unknown_flags(arguments)
    named = dict(text.split("=", 1) for text in arguments)
    own = {key: named.get(key, default) for key, default in OWN_KEYS.items()}
    if own["checkpoint"] is None:
        raise BadConfig("checkpoint: expected checkpoint=<run folder or checkpoint>, got none; see --help")
    # torch takes seconds to load: help is answered before
    from trainers.acting.evaluate_checkpoint import evaluate

    return evaluate(**own, overrides=[text for text in arguments if text.split("=", 1)[0] not in OWN_KEYS])


if __name__ == "__main__":
    sys.exit(run(main, usage=USAGE))
