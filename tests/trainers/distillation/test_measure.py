import numpy as np
import pytest
from torch import nn

from trainers.distillation import measure
from trainers.distillation.labelled import LabelledEpisode
from trainers.distillation.teachers import Teacher
from worldmodel.agents.student import Student

ROWS = np.zeros((1, 1), np.float32)


def blank(kind):
    """One without content: nothing of it is asked for but its weights."""
    made = kind.__new__(kind)
    if isinstance(made, nn.Module):
        nn.Module.__init__(made)
    return made


@pytest.mark.parametrize(("best", "own", "share"), [(200.0, 150.0, 0.75), (-100.0, -50.0, None), (0.0, 1.0, None)])
def test_there_is_a_share_of_what_is_above_zero_alone(monkeypatch, best, own, share):
    """A student that loses half of what its teacher loses is not half as good."""
    monkeypatch.setattr(measure, "decision_ms", lambda agents, along, *, device: [2.0, 1.0])
    teacher = blank(Teacher)
    for name, value in {"agent": nn.Linear(2, 1), "name": "task", "config": {"planner": {"name": "cem"}}}.items():
        object.__setattr__(teacher, name, value)
    along = LabelledEpisode({"x": ROWS}, ROWS, ROWS, ROWS)
    _, row = measure.rows_of(teacher, blank(Student), returns=([best], [own]), along=along, device="cpu")
    assert row["return"] == own and row["share"] == share
