"""What a run on states leaves to be looked at: its episodes as arrays, and a film of one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.envs.errors import EnvError
from datamodules.envs.protocol import Fault
from datamodules.transitions import StateEpisode
from trainers import build
from trainers.ladder.shift import imagined
from trainers.video import filmstrip, write_mp4, write_png
from worldmodel.state_dynamics import StateDynamics

FILM_SIZE = 128
FILM_SECONDS = 10


def write_episodes(
    root: Path, dynamics: StateDynamics, collected: Sequence[StateEpisode], evaluated: Sequence[StateEpisode]
) -> Path:
    """Write episodes.npz: `collected` and `evaluated` states [n, T + 1, D] with their actions, and what the model
    expected of the first evaluated episode [T + 1, D]; episodes of different lengths are padded with NaN."""
    arrays = {"expected": imagined(dynamics, evaluated[0]).numpy()}
    for name, episodes in (("collected", collected), ("evaluated", evaluated)):
        longest = max(len(e.state) for e in episodes)
        for part in ("state", "action"):
            rows = [getattr(e, part) for e in episodes]
            arrays[f"{name}_{part}"] = np.stack([_padded(x, longest) for x in rows])
    path = root / "episodes.npz"
    np.savez_compressed(path, **arrays)
    return path


def write_film(folder: Path, config: dict[str, Any], episode: StateEpisode, *, report: Callable[[str], None]) -> None:
    """Draw an episode by playing its actions again in the task's environment with frames, where that can draw."""
    try:
        frames = _drawn(config, episode)
    except EnvError as error:
        report(f"no film: {error}")
        return
    write_mp4(folder / "evaluation_final.mp4", frames, max(1.0, len(frames) / FILM_SECONDS))
    write_png(folder / "evaluation_final.png", filmstrip(frames, columns=10))


def _drawn(config: dict[str, Any], episode: StateEpisode) -> np.ndarray:
    # what was observed has no look; whatever the machine, software draws this one fast
    task = {**config["task"], "env": {**config["task"]["env"], "look": "fast"}}
    with build.open_pool({**config, "task": task}, 1, visuals={}) as pool:
        pool.reset({0: episode.seed})
        frames = [pool.render(0, FILM_SIZE)]
        for action in episode.action:
            row = pool.step({0: action})[0]
            if isinstance(row, Fault):
                raise EnvError(row.message)
            frames.append(pool.render(0, FILM_SIZE))
    return np.stack(frames)


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows, ((0, length - len(rows)), (0, 0)), constant_values=np.nan)
