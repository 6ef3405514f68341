"""What teacher and student are worth: return, time of a decision, parameters."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainers.distillation.labelled import LabelledEpisode
from trainers.distillation.teachers import Teacher
from trainers.reporting.tables import as_text, write_csv
from trainers.run_folder.statistics import mean_ci95
from worldmodel.agents.student import Student
from worldmodel.interfaces import Acts

WARM_UP, TIMED = 5, 40  # decisions
COLUMNS = ("task", "policy", "acts_with", "return", "ci95_low", "ci95_high", "share", "decision_ms", "parameters")


def parameters(agent: nn.Module) -> int:
    """Numbers that an agent has learned."""
    return sum(weight.numel() for weight in agent.parameters())


def decision_ms(agents: Sequence[Acts], episode: LabelledEpisode, *, device: str) -> list[float]:
    """The median time of each agent's decision for one environment, in milliseconds, along an episode.

    They decide in turn, so that what else the machine does costs all of them alike.
    """
    carries, times = [agent.initial_carry(1) for agent in agents], [list[float]() for _ in agents]
    for k in range(WARM_UP + TIMED):
        row = k % len(episode)
        seen = {name: torch.from_numpy(rows[row : row + 1]).to(device) for name, rows in episode.observation.items()}
        is_first = torch.tensor([row == 0], device=device)
        for number, agent in enumerate(agents):
            start = time.perf_counter()
            with torch.inference_mode():
                decision = agent.act(seen, is_first, carries[number])
                decision.action.cpu()  # which a GPU's work has ended with
            times[number].append(1e3 * (time.perf_counter() - start))
            carries[number] = decision.carry
    return [float(np.median(each[WARM_UP:])) for each in times]


def rows_of(
    teacher: Teacher,
    student: Student,
    *,
    returns: tuple[Sequence[float], Sequence[float]],
    along: LabelledEpisode,
    device: str,
) -> list[dict[str, Any]]:
    """Rows of COLUMNS, the teacher's and the student's in its task.

    returns: of both evaluations. along: an episode on whose observations decisions are timed.
    """
    times = decision_ms([teacher.agent, student], along, device=device)
    best, rows = float(np.mean(returns[0])), []
    both = (("teacher", teacher.agent, teacher.acts_with), ("student", student, "actor"))
    for (policy, agent, acts_with), own, ms in zip(both, returns, times, strict=True):
        low, high = mean_ci95(own) or (None, None)
        mean = float(np.mean(own))
        row = {"task": teacher.name, "policy": policy, "acts_with": acts_with, "return": mean, "ci95_low": low}
        row |= {"ci95_high": high, "share": mean / best if best > 0 else None, "decision_ms": ms}
        rows.append({**row, "parameters": parameters(agent)})
    return rows


def table(rows: Sequence[dict[str, Any]], folder: Path) -> str:
    """Rows of COLUMNS as distillation.csv in a folder, and as text for a person."""
    write_csv(folder / "distillation.csv", rows, COLUMNS)
    return as_text(rows, COLUMNS)
