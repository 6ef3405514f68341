#!/usr/bin/env bash
# The first frame of an episode of gym-pusht 0.1.8 shows where the last action of the episode before aimed: PushT draws a
# red cross at `_last_action`, which `__init__` sets to None and `reset` leaves as it was. Equal seeds so have other first
# frames after another episode, and a model of frames sees an action that is not of its episode.
# Seen: the frames of reset(seed=5) in a new environment and after one step of another episode differ in 2,950 numbers, by
# 255; the states are equal.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gym-pusht==0.1.8 gymnasium==1.4.0 \
    pymunk==6.11.1 pygame==2.6.1 numpy==2.4.6
cd "$folder"
SDL_VIDEODRIVER=dummy PYGAME_HIDE_SUPPORT_PROMPT=1 venv/bin/python -W ignore - <<'PY'
import inspect
import sys
from importlib.metadata import version

import gym_pusht
import gymnasium
import numpy as np
from gym_pusht.envs.pusht import PushTEnv

print(*(f"{name} {version(name)}" for name in ("gym-pusht", "gymnasium", "pymunk", "pygame", "numpy")))
lines, first = inspect.getsourcelines(PushTEnv)
print("source: gym_pusht.envs.pusht, _last_action in lines", [first + k for k, line in enumerate(lines) if "_last_action" in line])

env = gymnasium.make("gym_pusht/PushT-v0", render_mode="rgb_array")
state, _ = env.reset(seed=5)
frame = env.render().astype(int)
env.reset(seed=6)
env.step(np.array([100.0, 400.0], np.float32))
again, _ = env.reset(seed=5)
difference = np.abs(frame - env.render())
print(f"states equal: {np.array_equal(state, again)}; numbers of the frame that differ: {(difference > 0).sum()}, by {difference.max()}")
same = np.array_equal(state, again) and difference.max() > 100
print("as described" if same else "CHANGED")
sys.exit(0 if same else 1)
PY
