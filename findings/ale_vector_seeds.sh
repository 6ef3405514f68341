#!/usr/bin/env bash
# Atari's vector environment refuses seeds that a single one takes: ALE/Pong-v5 alone can be reset with any seed of 32
# bits. Its own vector environment adds the lane's number to the seed and hands the sums to C++ as 32-bit signed
# numbers, so that half of all 32-bit seeds end in a TypeError about incompatible arguments, and so does 2**31 - 1 with
# two lanes.
# Expected: the same seeds as for the single environment, or an error that names the seed.
# Seen: with two lanes 2**31 - 2 is taken; 2**31 - 1, 2**31 and 2**32 - 1 are refused, all four are taken by one
# environment.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gymnasium==1.4.0 ale-py==0.12.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import inspect
import sys
from importlib.metadata import version

import ale_py
import gymnasium
from ale_py.vector_env import AtariVectorEnv

print(f"ale-py {version('ale-py')}, gymnasium {gymnasium.__version__}")
place = AtariVectorEnv.reset
print(f"source: {place.__module__}, {place.__qualname__}, line {inspect.getsourcelines(place)[1]}")


def answer(env, seed):
    try:
        env.reset(seed=seed)
    except TypeError as error:
        return f"TypeError: {str(error).splitlines()[0]}"
    return "taken"


gymnasium.register_envs(ale_py)
single = gymnasium.make("ALE/Pong-v5")
lanes = gymnasium.make_vec("ALE/Pong-v5", num_envs=2, vectorization_mode="vector_entry_point")
seeds = {"2**31 - 2": 2**31 - 2, "2**31 - 1": 2**31 - 1, "2**31": 2**31, "2**32 - 1": 2**32 - 1}
answers = {name: (answer(single, seed), answer(lanes, seed)) for name, seed in seeds.items()}
for name, (one, two) in answers.items():
    print(f"seed {name}: alone {one}; two lanes {two}")
sys.stdout.flush()
by_lanes = [two == "taken" for _, two in answers.values()]
same = all(one == "taken" for one, _ in answers.values()) and by_lanes == [True, False, False, False]
print("as described" if same else "CHANGED")
sys.exit(0 if same else 1)
PY
