"""Record episodes for later: `python -m trainers.collect_data task=walker_walk episodes=100 out=npz:data/walker`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.arguments import Command, Key
from trainers.command.configuration import BadConfig

POLICIES = ("random", "checkpoint", "planner", "actor")
COMMAND = Command(
    name="collect_data",
    summary=(
        "Plays episodes in parallel environments and writes them in any format that can be written. An episode that a "
        "fault of its environment cuts short is kept as truncated, and counted."
    ),
    keys={
        "out": Key("segments, npz, hdf5, minari, lerobot or mp4: see docs/offline.md", required=True),
        "model": Key("a run folder or a checkpoint, whose agent acts", aliases=("run", "run_dir", "checkpoint")),
        "policy": Key("random, or with a model: checkpoint (as its run acts), planner or actor"),
        "episodes": Key("how many", "10"),
        "envs": Key("environments side by side", "1"),
        "seed": Key("what the episodes' starts come from", "0"),
        "device": Key("where the agent computes", "cpu"),
    },
    first="model",
    word="[RUN]",
    overrides="of the configuration (see python -m trainers.fit --help), with a model on top of its run's",
    notes="""  task=walker_walk out=npz:data/walker                    smooth random actions
  runs/cartpole_swingup/x out=npz:data/swingup            a trained agent in its own task, unless task= names another
  runs/cartpole_swingup/x policy=actor out=mp4:data/films
  task=walker_walk render=fast task.env.action_repeat=4 out=segments:data/walker""",
)


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Record; returns the counts that are printed as the last line."""
    parsed = COMMAND.parse(arguments)
    own = parsed.own
    own["policy"] = own["policy"] or ("random" if own["model"] is None else "checkpoint")
    if own["policy"] not in POLICIES:
        raise BadConfig(f"policy: expected one of {', '.join(POLICIES)}, got {own['policy']!r}")
    if (own["policy"] == "random") != (own["model"] is None):
        raise BadConfig(
            "model: expected model=<run folder or checkpoint> with policy=checkpoint, planner or actor, and only then"
        )
    # torch takes seconds to load: help is answered before
    from trainers.acting.record_episodes import record

    return record(**own, overrides=parsed.overrides)


command = COMMAND.program(main)

if __name__ == "__main__":
    sys.exit(command())
