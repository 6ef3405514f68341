#!/usr/bin/env bash
# The first step of an episode of MinAtar 1.0.15 can repeat the last action of the episode before: `reset` forgets
# everything but `last_action`, which sticky actions (one in ten) take instead of the one that is given. The random
# numbers are those of the seed, so equal seeds and actions give other episodes after another one.
# Seen: of 100 seeds of Breakout 12 differ in the frame after the same first action, by what the episode before ended with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check minatar==1.0.15 gymnasium==1.4.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import inspect
import sys
from importlib.metadata import version

import gymnasium
from minatar.environment import Environment
from minatar.gym import register_envs

print(*(f"{name} {version(name)}" for name in ("MinAtar", "gymnasium", "numpy")))
lines, first = inspect.getsourcelines(Environment)
print("source: minatar.environment, last_action in lines", [first + k for k, line in enumerate(lines) if "last_action" in line])

register_envs()


def first_frame(env, seed, before):
    """After the first step of `seed`'s episode, which follows one that ended with `before`."""
    env.reset(seed=1000)
    env.step(before)
    env.reset(seed=seed)
    return env.step(0)[0].copy()


env = gymnasium.make("MinAtar/Breakout-v1")
differ = sum(bool((first_frame(env, seed, 1) != first_frame(env, seed, 2)).any()) for seed in range(100))
print(f"first frames that differ by what the episode before ended with: {differ} of 100")
same = differ > 0
print("as described" if same else "CHANGED")
sys.exit(0 if same else 1)
PY
