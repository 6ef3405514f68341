"""Record episodes for later: `python -m trainers.collect_data task=walker_walk episodes=100 out=npz:data/walker`."""

import sys
from collections.abc import Sequence
from typing import Any

from trainers.command.configuration import BadConfig
from trainers.command.entry import reject_unknown_flags, run

USAGE = """python -m trainers.collect_data task=NAME out=URI [episodes=10] [policy=random] [envs=1] [key=value ...]

Plays episodes in parallel environments and writes them in any format that can be written.

  policy=random                                         smooth random actions
  policy=checkpoint model=runs/cartpole_swingup/x       a trained agent as its run acts (in its own task, unless task=
                                                        names another)
  policy=planner|actor model=runs/cartpole_swingup/x    the same, acting by its planner or its policy whatever the run
  out=npz:data/walker                                   segments, npz, hdf5, minari, lerobot or mp4: see docs/offline.md
  render=fast task.env.action_repeat=4                  any key of the configuration

An episode that a fault of its environment cuts short is kept as truncated, and counted. The last line of standard
output is one JSON object."""

POLICIES = ("random", "checkpoint", "planner", "actor")
OWN_KEYS = {"policy": "random", "model": None, "episodes": "10", "envs": "1", "seed": "0", "out": None, "device": "cpu"}


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Record; returns the counts that are printed as the last line."""
    reject_unknown_flags(arguments)
    named = dict(text.split("=", 1) for text in arguments)
    own = {key: named.get(key, default) for key, default in OWN_KEYS.items()}
    if own["out"] is None:
        raise BadConfig("out: expected out=<scheme:path>, got none; see --help")
    if own["policy"] not in POLICIES:
        raise BadConfig(f"policy: expected one of {', '.join(POLICIES)}, got {own['policy']!r}")
    if (own["policy"] == "random") != (own["model"] is None):
        raise BadConfig(
            "model: expected model=<run folder or checkpoint> with policy=checkpoint, planner or actor, and only then"
        )
    # torch takes seconds to load: help is answered before
    from trainers.acting.record_episodes import record

    return record(**own, overrides=[text for text in arguments if text.split("=", 1)[0] not in OWN_KEYS])


if __name__ == "__main__":
    sys.exit(run(main, usage=USAGE))
