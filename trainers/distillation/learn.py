"""A student's updates on labelled episodes, until what it gets wrong on held-out ones stops falling."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from trainers.distillation.labelled import LabelledEpisode, LabelledEpisodes, LabelledRows, evenly, sample
from worldmodel.agents.student import Student
from worldmodel.interfaces import Loss

EMBEDDING = "embedding"  # what is seen where a frozen encoder has read it already
HELD_OUT_WINDOWS = 256
GRAD_CLIP = 10.0
LAST_RATE = 0.1  # of the learning rate, which falls along a cosine


@dataclass(frozen=True, slots=True)
class Learned:
    """What a round of updates came to: their number, and mean losses of the last updates and on held-out episodes."""

    updates: int
    loss: float
    held_out: float


def learn(
    student: Student,
    tasks: Sequence[LabelledEpisodes],
    *,
    updates: int,
    windows: int,
    length: int,
    learning_rate: float,
    seed: int,
    on_turn: Callable[[], None],
    check_every: int = 100,
    patience: int = 12,
) -> Learned:
    """Updates with as many windows of every task, after which the student has its best weights.

    Args:
        student: is trained in place.
        tasks: labelled episodes of each.
        updates: at most.
        windows: of `length` rows, in a batch, over all tasks.
        learning_rate: of Adam, at the beginning.
        on_turn: called before every update.
        check_every: updates between measurements on held-out episodes.
        patience: measurements without a better one after which to stop.
    """
    rng, device = np.random.default_rng(seed), next(student.parameters()).device
    (weights,) = student.parameter_groups().values()
    optimizer = torch.optim.Adam(weights, lr=learning_rate, eps=1e-5)
    learned = [_read(student, t.learned(), task) for task, t in enumerate(tasks)]
    held = [_read(student, t.held_out(), task) for task, t in enumerate(tasks)]
    windows = -(-windows // len(tasks))
    measured = [evenly(episodes, windows=HELD_OUT_WINDOWS, length=length).to(device) for episodes in held]
    best, kept, worse, losses = _held_out(student, measured), copy.deepcopy(student.state_dict()), 0, []
    for update in range(updates):
        on_turn()
        for group in optimizer.param_groups:
            fall = 0.5 * (1 + math.cos(math.pi * update / updates))
            group["lr"] = learning_rate * (LAST_RATE + (1 - LAST_RATE) * fall)
        rows = [sample(episodes, windows=windows, length=length, rng=rng).to(device) for episodes in learned]
        total = torch.stack([_loss(student, part, task).total for task, part in enumerate(rows)]).mean()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(weights, GRAD_CLIP)
        optimizer.step()
        losses.append(total.detach())
        if (update + 1) % check_every == 0 or update + 1 == updates:
            error = _held_out(student, measured)
            worse = 0 if error < best else worse + 1
            if error < best:
                best, kept = error, copy.deepcopy(student.state_dict())
            if worse == patience:
                break
    student.load_state_dict(kept)
    return Learned(len(losses), float(torch.stack(losses[-check_every:]).mean()), best)


@torch.no_grad()
def _read(student: Student, episodes: Sequence[LabelledEpisode], task: int) -> Sequence[LabelledEpisode]:
    """The episodes, read by the student's encoder once and for all where that is frozen."""
    if not student.reads_frozen(task):
        return episodes
    device, read = next(student.parameters()).device, []
    for episode in episodes:
        seen = {name: torch.from_numpy(rows)[None].to(device) for name, rows in episode.observation.items()}
        action = torch.from_numpy(episode.action)[None].to(device)
        embed = student.embed(seen, action, torch.arange(len(episode), device=device)[None] == 0, task=task)
        read.append(replace(episode, observation={EMBEDDING: embed[0].cpu().numpy()}))
    return read


def _loss(student: Student, rows: LabelledRows, task: int) -> Loss:
    seen = rows.observation
    frozen = student.reads_frozen(task)
    embed = seen[EMBEDDING] if frozen else student.embed(seen, rows.action, rows.is_first, task=task)
    return student.losses(embed, rows.action, rows.is_first, rows.target, task=task)


@torch.no_grad()
def _held_out(student: Student, measured: Sequence[LabelledRows]) -> float:
    """The mean over tasks."""
    return float(torch.stack([_loss(student, rows, task).total for task, rows in enumerate(measured)]).mean())
