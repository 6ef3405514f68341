#!/usr/bin/env bash
# Dog fetch without a dog: camera 0, by which the suite is usually drawn for learning from pixels, looks at the dog from
# the side in the dog domain. Fetch adds a ball with a camera of its own, which becomes number 0 and moves the others
# on. It rides on the thrown ball and sees the dog only if it happens to look that way.
# Expected: the same numbers as in the domain's other tasks.
# Seen: camera 0 is "ball"; its first frames show the dog in 6 of 16 episodes, those of "x-axis" in 16 of 16.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check dm-control==1.0.50 mujoco==3.17.0 numpy==2.4.6
cd "$folder"
MUJOCO_GL=${MUJOCO_GL:-egl} venv/bin/python -W ignore - <<'PY' 2> >(grep -v WARNING >&2)
import inspect
import sys
from importlib.metadata import version

import numpy as np
from dm_control import suite
from dm_control.suite import dog
from mujoco import mjtObj

print(f"dm-control {version('dm-control')}, mujoco {version('mujoco')}")
print(f"source: {dog.__name__}, fetch, line {inspect.getsourcelines(dog.fetch)[1]}, and its make_model")


def cameras(physics):
    return [physics.model.id2name(number, "camera") for number in range(physics.model.ncam)]


env = suite.load("dog", "fetch", task_kwargs={"random": 0})
names = {"walk": cameras(suite.load("dog", "walk").physics), "fetch": cameras(env.physics)}
print(f"cameras of walk: {names['walk']}; of fetch: {names['fetch']}")
shows = {name: 0 for name in names["fetch"]}
for _ in range(16):
    env.reset()
    for name in shows:
        kinds = env.physics.render(64, 64, camera_id=name, segmentation=True)[..., 1]
        shows[name] += bool((kinds == int(mjtObj.mjOBJ_SKIN)).any())
print("first frames that show the dog, of 16:", shows)
sys.stdout.flush()
same = names["walk"][0] == "y-axis" and names["fetch"][0] == "ball" and shows["ball"] < 12 and shows["x-axis"] == 16
print("as described" if same else "CHANGED")
sys.exit(0 if same else 1)
PY
