#!/usr/bin/env bash
# highway-env 1.12.1 returns black frames, without a word, where SDL has no screen in the way that pygame's own
# documentation names: SDL_VIDEODRIVER=dummy. It takes the variable as a wish to draw nothing, even with
# render_mode="rgb_array" and offscreen_rendering. SDL's other driver without a screen, offscreen, is drawn with.
# Seen: parking-v0, mean of a frame 0.0 with dummy, over 100 with offscreen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check highway-env==1.12.1 gymnasium==1.4.0 \
    pygame==2.6.1 numpy==2.4.6
cd "$folder"
cat > draw.py <<'PY'
import gymnasium
import highway_env

env = gymnasium.make("parking-v0", render_mode="rgb_array", config={"offscreen_rendering": True})
env.reset(seed=0)
print(f"{env.render().mean():.1f}")
PY
export PYGAME_HIDE_SUPPORT_PROMPT=1
venv/bin/pip freeze --disable-pip-version-check | grep -iE '^(highway-env|gymnasium|pygame|numpy)=='
echo "source: $(grep -n SDL_VIDEODRIVER venv/lib/python3*/site-packages/highway_env/envs/common/graphics.py)"
dummy=$(SDL_VIDEODRIVER=dummy venv/bin/python -W ignore draw.py)
offscreen=$(SDL_VIDEODRIVER=offscreen venv/bin/python -W ignore draw.py)
echo "mean of a frame: $dummy with dummy, $offscreen with offscreen"
if [ "$dummy" = 0.0 ] && [ "${offscreen%.*}" -gt 50 ]; then echo "as described"; else echo "CHANGED"; exit 1; fi
