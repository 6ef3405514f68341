"""What teacher and student are worth: return, time of a decision, parameters."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainers.distillation.labelled import LabelledEpisode
from trainers.reporting.tables import as_text, write_csv
from trainers.run_folder.statistics import mean_ci95
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


def row_of(returns: Sequence[float], *, best: Sequence[float], ms: float, parameters: int) -> dict[str, Any]:
    """The numbers of a row of COLUMNS.

    Args:
        returns: of the policy's episodes.
        best: of its teacher's, of which `share` is a part.
        ms: of a decision.
        parameters: that it has learned.
    """
    low, high = mean_ci95(returns) or (None, None)
    mean, of = float(np.mean(returns)), float(np.mean(best))
    numbers = {"return": mean, "ci95_low": low, "ci95_high": high, "share": mean / of if of else None}
    return {**numbers, "decision_ms": ms, "parameters": parameters}


def table(rows: Sequence[dict[str, Any]], folder: Path) -> str:
    """Rows of COLUMNS as distillation.csv in a folder, and as text for a person."""
    write_csv(folder / "distillation.csv", rows, COLUMNS)
    return as_text(rows, COLUMNS)
