"""What a run leaves in its folder beside checkpoints, replay and metrics: records, pictures, films."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.acting.evaluation import Evaluation
from trainers.acting.windows import window_batch
from trainers.run_folder.video import (
    enlarged,
    filmstrip,
    newest_image,
    open_loop_still,
    open_loop_strip,
    side_by_side,
    write_mp4,
    write_png,
)
from worldmodel.agents.latent_mpc import LatentMPC
from worldmodel.interfaces import Acts, Batch
from worldmodel.openloop import open_loop
from worldmodel.spec import EnvSpec

CONTEXT_ROWS = 5
IMAGINED_ROWS = 25


def write_pictures(
    folder: Path,
    agent: Acts,
    evaluation: Evaluation,
    spec: EnvSpec,
    *,
    name: str,
    drawn: NDArray[np.uint8] | None = None,
) -> list[Path]:
    """A film and a strip of the filmed episode, its images side by side; and what an agent with a model predicts.

    drawn: its frames [T, H, W, 3] where the agent saw none.
    """
    episode = evaluation.filmed
    if episode is None:  # every episode that could be filmed was cut short by a fault
        return []
    if spec.images:
        images = [newest_image(torch.from_numpy(episode.observation[image]), spec) for image in spec.images]
        frames = enlarged(side_by_side(images).numpy())
    elif drawn is not None:
        frames = enlarged(drawn.transpose(0, 3, 1, 2))
    else:
        return []
    fps = max(1.0, min(60.0, spec.episode_decisions / 20))  # a whole episode in 20 s
    paths = [
        write_mp4(folder / f"evaluation_{name}.mp4", frames, fps),
        write_png(folder / f"evaluation_{name}.png", filmstrip(frames, columns=10)),
    ]
    if not isinstance(agent, LatentMPC):
        return paths
    rows = min(CONTEXT_ROWS + IMAGINED_ROWS, len(episode))
    window, context = window_batch([(episode, 0, rows)]), min(CONTEXT_ROWS, rows - 1)
    return paths + write_open_loop(folder, agent, window, spec, context=context, name=name, fps=fps)


def write_open_loop(
    folder: Path, agent: LatentMPC, batch: Batch, spec: EnvSpec, *, context: int, name: str, fps: float = 10.0
) -> list[Path]:
    """A film of all windows of a batch, and a strip of the first ones: real, imagined after `context` rows, error.

    Of every image; nothing where the model decodes none.
    """
    batch = batch.to(next(agent.parameters()).device)
    expected = open_loop(agent, batch, context=context).observation or {}
    paths = []
    for image in [name for name in expected if name in spec.images]:
        imagined = newest_image(expected[image].cpu(), spec)
        real = newest_image(batch.observation[image].cpu(), spec).float() / 255
        film = open_loop_strip(real, imagined, context=context)
        still = open_loop_still(real, imagined, context=context)
        stem = f"open_loop_{name}" if len(spec.images) == 1 else f"open_loop_{name}_{image.replace('/', '_')}"
        paths += [write_mp4(folder / f"{stem}.mp4", film, max(1.0, fps / 2)), write_png(folder / f"{stem}.png", still)]
    return paths
