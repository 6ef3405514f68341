"""Draw frames of a suite task in both looks: `python -m trainers.machine.draw_frames '["cartpole_swingup", null]'`.

The environment's own code draws, so that what is measured is what training will use.
"""

import json
import sys
import time
from typing import Any

from datamodules.envs.dmc import make
from datamodules.envs.gl import GPU


def draw(task: str, gpu: GPU | None) -> dict[str, Any]:
    """Milliseconds of a frame as fast_ms and suite_ms, whether it is blank, and what drew it."""
    drawn: dict[str, Any] = {}
    for look in ("fast", "suite"):
        env = make(task=task, look=look, gpu=gpu)
        frame = env.reset(seed=0).pixels
        start = time.perf_counter()
        for _ in range(8):
            env.render(64)
        drawn[f"{look}_ms"] = round((time.perf_counter() - start) / 8 * 1e3, 2)
        drawn |= {"blank": bool(frame.min() == frame.max()), "renderer": env.renderer}
        env.close()
    return drawn


if __name__ == "__main__":
    print(json.dumps(draw(*json.loads(sys.argv[1]))))
