"""Filter and policy of a student in its task are what `Student.act` does; what is predicted takes a frame's place."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import random_batch
from tests.worldmodel.agents.test_student import student, task_input
from worldmodel.agents.student_in_task import StudentInTask

B, T = 3, 7


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("task", [0, 1])
@torch.no_grad()
def test_it_acts_as_the_student(filtered: bool, task: int) -> None:
    whole = student(task_input(2, filtered=filtered), task_input(1), task=task)
    part, batch = StudentInTask(whole), random_batch(B, T, first=4)
    batch = replace(batch, action=batch.action[..., : whole.action_dim])
    batch.is_first[:, 0] = True
    carry, belief = whole.initial_carry(B), part.initial_carry(B).belief
    for t in range(T):
        seen = {name: rows[:, t] for name, rows in batch.observation.items()}
        decision = whole.act(seen, batch.is_first[:, t], replace(carry, action=batch.action[:, t]))
        embed = part.encoder(part.norm({name: rows[:, None] for name, rows in seen.items()}))
        row = slice(t, t + 1)
        found = part.dynamics.observe(embed, batch.action[:, row], batch.is_first[:, row], belief, sample=False)
        torch.testing.assert_close(part.actor.mode(found.latent[:, 0]), decision.action)
        carry, belief = decision.carry, found.carry


def test_only_its_task_is_kept() -> None:
    whole = student(task_input(2), task_input(1))
    names = {id(weight) for weight in StudentInTask(whole).parameters()}
    assert not names & {id(weight) for weight in whole.tasks[1].parameters()}
    assert {id(weight) for weight in whole.tasks[0].parameters()} < names


@pytest.mark.parametrize("filtered", [False, True])
@torch.no_grad()
def test_a_prediction_is_the_next_latent_of_the_teacher_s_model(filtered: bool) -> None:
    whole = student(task_input(2, filtered=filtered))
    part, batch = StudentInTask(whole), random_batch(B, 1)
    embed = part.encoder(part.norm(batch.observation))
    first = torch.ones(B, 1, dtype=torch.bool)
    belief = part.dynamics.observe(embed, batch.action, first, part.initial_carry(B).belief, sample=False)
    latent, action = belief.latent[:, 0], torch.rand(B, 2) * 2 - 1
    torch.testing.assert_close(belief.carry, latent)  # so it can take a missing frame's place
    after = part.dynamics.predict(latent, action)
    row, size = whole.row, part.dynamics.latent_dim
    torch.testing.assert_close(after[:, -2 * row : -row], latent[:, -row:])
    torch.testing.assert_close(after[:, -2:], action)
    assert part.predicts == filtered
    if filtered:
        z = size - whole.stack * row
        expected = whole.tasks[0].filter.predict(latent[:, :z], action)
        torch.testing.assert_close(after[:, :z], expected)
        torch.testing.assert_close(after[:, -row:-2], whole.tasks[0].read(expected))
    else:
        torch.testing.assert_close(after[:, -row:-2], latent[:, -row:-2])  # nothing else is known
