"""A student's updates on labelled episodes, until what it gets wrong on held-out ones stops falling."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainers.distillation.labelled import Labelled, LabelledEpisodes, evenly, sample
from worldmodel.agents.student import Student

HELD_OUT_WINDOWS = 64
GRAD_CLIP = 10.0


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
    check_every: int,
    patience: int,
    windows: int,
    length: int,
    learning_rate: float,
    seed: int,
    on_turn: Callable[[], None],
) -> Learned:
    """Updates with as many windows of every task, after which the student has its best weights.

    Args:
        student: is trained in place.
        tasks: labelled episodes of every task.
        updates: at most.
        check_every: updates between measurements on held-out episodes.
        patience: measurements without a better one after which to stop.
        windows: of a batch, over all tasks.
        length: rows of a window.
        learning_rate: of Adam.
        seed: of the draws.
        on_turn: called before every update.
    """
    rng, device = np.random.default_rng(seed), next(student.parameters()).device
    optimizer = torch.optim.Adam(student.parameters(), lr=learning_rate, eps=1e-5)
    each = -(-windows // len(tasks))
    held = [_to(evenly(t.held_out(), windows=HELD_OUT_WINDOWS, length=length), device) for t in tasks]
    best, weights, worse, losses, done = _held_out(student, held), copy.deepcopy(student.state_dict()), 0, [], 0
    while done < updates and worse < patience:
        on_turn()
        batches = [sample(t.learned(), windows=each, length=length, rng=rng) for t in tasks]
        total = torch.stack(
            [student.losses(*_to(labelled, device), task=task).total for task, labelled in enumerate(batches)]
        ).mean()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), GRAD_CLIP)
        optimizer.step()
        losses.append(total.detach())
        done += 1
        if done % check_every == 0 or done == updates:
            error = _held_out(student, held)
            worse = 0 if error < best else worse + 1
            if error < best:
                best, weights = error, copy.deepcopy(student.state_dict())
    student.load_state_dict(weights)
    return Learned(done, float(torch.stack(losses[-check_every:]).mean()), best)


@torch.no_grad()
def _held_out(student: Student, held: Sequence[Labelled]) -> float:
    """The mean over tasks."""
    student.eval()
    losses = [float(student.losses(*labelled, task=task).total) for task, labelled in enumerate(held)]
    student.train()
    return sum(losses) / len(losses)


def _to(labelled: Labelled, device: torch.device) -> Labelled:
    batch, target = labelled
    return batch.to(device), type(target)(target.mean.to(device), target.std.to(device))
