#!/usr/bin/env bash
# A simulation that blew up goes on as if nothing had been: when a state exceeds MuJoCo's bounds, MuJoCo puts the model
# back to its first pose in the midst of a step, prints a line and counts it in data.warning. Gymnasium 1.4.0 does not
# look there: the reward of HalfCheetah is that of the jump back, finite and large, neither terminated nor truncated is
# set, and the observation is an ordinary one. Here the task's own model, read by xml_file, has a coarse time step of
# 0.1 s; all actions are within their bounds. dm_control raises PhysicsError in the same case.
# Seen: step 3 jumps from x = -25.5 m to 0.1 m with reward 50.6, terminated and truncated False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check "gymnasium[mujoco]==1.4.0" mujoco==3.17.0 numpy==2.4.6
cd "$folder"
MUJOCO_GL=disabled venv/bin/python -W ignore - <<'PY'
import inspect
import re
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco import half_cheetah_v5

print(f"gymnasium {gymnasium.__version__}, mujoco {mujoco.__version__}, numpy {np.__version__}")
place = half_cheetah_v5.HalfCheetahEnv.step
print(f"source: {place.__module__}, {place.__qualname__}, line {inspect.getsourcelines(place)[1]}")

text = (Path(half_cheetah_v5.__file__).parent / "assets/half_cheetah.xml").read_text()
Path("coarse.xml").write_text(re.sub('timestep="[0-9.]+"', 'timestep="0.1"', text))
env = gymnasium.make("HalfCheetah-v5", xml_file=str(Path("coarse.xml").resolve()))
env.reset(seed=0)
data, rng = env.unwrapped.data, np.random.default_rng(0)
for step in range(1, 1001):
    before = float(data.qpos[0])
    action = rng.choice([-1.0, 1.0], 6).astype(np.float32)
    assert env.action_space.contains(action)
    observation, reward, terminated, truncated, info = env.step(action)
    if data.warning.number.any():
        break
after, warned = info["x_position"], int(data.warning.number.sum())
print(f"step {step}: x from {before:.1f} m to {after:.1f} m, reward {reward:.1f}; clock {data.time:.1f} s, not {step * 0.5:.1f}")
finite = bool(np.isfinite(observation).all())
print(f"terminated {terminated}, truncated {truncated}, observation finite {finite}, warnings {warned}")
sys.stdout.flush()
quiet = not terminated and not truncated and np.isfinite(reward) and finite
same = bool(warned and quiet and data.time < step * 0.5 - 1e-6 and abs(after) < 1 < abs(before))
print("as described" if same else "CHANGED")
sys.exit(0 if same else 1)
PY
