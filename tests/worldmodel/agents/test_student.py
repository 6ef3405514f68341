"""A student acts as it learns, keeps its tasks apart, and learns only from rows that have a target and all frames."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import PIXELS, random_batch, small_dynamics
from worldmodel.agents.student import Student, TaskInput, reading
from worldmodel.distillation.planner_gaussian import PlannerTarget
from worldmodel.encoders.patch import PatchEncoder
from worldmodel.encoders.vector import VectorEncoder
from worldmodel.interfaces import ActionNoise, Acts
from worldmodel.observations import ObservationEncoder, ObservationNorm, PixelNorm, VectorNorm

B, T, STACK, FEATURES = 3, 7, 3, 8


def task_input(
    action_dim: int = 2, *, like: TaskInput | None = None, vector: int = 0, filtered: bool = False
) -> TaskInput:
    encoders = {"pixels": PatchEncoder(pixels=PIXELS, channels=(4, 8))}
    norms = {"pixels": PixelNorm(PIXELS)}
    if vector:
        encoders["state"], norms["state"] = VectorEncoder(size=vector, embed_dim=4, hidden=8), VectorNorm(vector)
    encoder = ObservationEncoder(encoders) if like is None else like.encoder
    read = reading(encoder.embed_dim, FEATURES) if like is None else like.read
    if not filtered:
        return TaskInput(ObservationNorm(norms), encoder, read, action_dim=action_dim)
    latents = small_dynamics("rssm_gaussian", encoder.embed_dim)
    read = reading(latents.latent_dim, FEATURES)
    return TaskInput(ObservationNorm(norms), encoder, read, action_dim=action_dim, filter=latents)


def student(*tasks: TaskInput, task: int = 0) -> Student:
    return Student(tasks or [task_input()], features=FEATURES, hidden=16, stack=STACK, task=task)


def policy(model: Student, batch, task: int = 0):
    embed = model.embed(batch.observation, batch.action, batch.is_first, task=task)
    return model.moments(embed, batch.action, batch.is_first, model._blank(len(embed)), task=task)


def loss_of(model: Student, batch, target: PlannerTarget, task: int = 0) -> torch.Tensor:
    embed = model.embed(batch.observation, batch.action, batch.is_first, task=task)
    return model.losses(embed, batch.action, batch.is_first, target, task=task).total


def some_target(batch, action_dim: int = 2) -> PlannerTarget:
    shape = (*batch.reward.shape, action_dim)
    return PlannerTarget(torch.rand(shape) * 2 - 1, torch.rand(shape) + 0.1)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("first", [0, 4])
def test_it_acts_as_it_learns(first: int, filtered: bool) -> None:
    model, batch = student(task_input(filtered=filtered)), random_batch(B, T, first=first)
    batch.is_first[:, 0] = True
    (mean, _), _, _ = policy(model, batch)
    assert isinstance(model, Acts)
    carry = model.initial_carry(B)
    for t in range(T):
        seen = {name: rows[:, t] for name, rows in batch.observation.items()}
        decision = model.act(seen, batch.is_first[:, t], carry)
        torch.testing.assert_close(decision.action, mean[:, t])
        if t + 1 < T:  # what is done is another's choice
            carry = replace(decision.carry, action=batch.action[:, t + 1])


def test_rows_and_the_future_change_nothing() -> None:
    model, batch = student(), random_batch(B, T)
    before = policy(model, batch)[0][0]
    batch.observation["pixels"][1:] = 0
    batch.observation["pixels"][0, 5:] = 0
    torch.testing.assert_close(policy(model, batch)[0][0][0, :5], before[0, :5])
    batch.observation["pixels"][0, 0] = 0  # beyond the stack of row 3, within that of row 2
    after = policy(model, batch)[0][0]
    torch.testing.assert_close(after[0, 3:5], before[0, 3:5])
    assert not torch.allclose(after[0, 2], before[0, 2])


def test_the_student_that_is_the_planner_has_nothing_to_learn() -> None:
    model, batch = student(), random_batch(B, T)
    mean, std = (moment.detach() for moment in policy(model, batch)[0])
    loss = loss_of(model, batch, PlannerTarget(mean, std))
    assert loss.abs() < 1e-6
    assert loss_of(model, batch, PlannerTarget(mean + 0.1, std)) > loss


def test_only_rows_with_a_target_and_all_their_frames_count() -> None:
    model, batch = student(), random_batch(B, T, first=None)
    target = some_target(batch)
    target.mean[:, -1] = torch.nan
    loss = loss_of(model, batch, target)
    loss.backward()
    assert loss.isfinite() and all(w.grad is None or w.grad.isfinite().all() for w in model.parameters())
    target.mean[:, : STACK - 1] += 1  # these windows begin in the midst of an episode
    target.std[:, -1] = 7.0
    torch.testing.assert_close(loss_of(model, batch, target), loss)
    target.mean[:, STACK - 1] += 1
    assert not torch.allclose(loss_of(model, batch, target), loss)
    nothing = PlannerTarget(torch.full_like(target.mean, torch.nan), target.std)
    assert loss_of(model, batch, nothing) == 0


def test_tasks_of_different_actions_and_observations_share_what_follows() -> None:
    first, second = task_input(2), task_input(1, vector=5)
    model, batch = student(first, second), random_batch(B, T)
    other = replace(
        batch, observation={**batch.observation, "state": torch.randn(B, T, 5)}, action=batch.action[..., :1]
    )
    assert policy(model, batch)[0][0].shape[-1] == 2 and policy(model, other, task=1)[0][0].shape[-1] == 1
    loss_of(model, other, some_target(other, 1), task=1).backward()
    assert all(w.grad is None for w in first.parameters()) and any(w.grad is not None for w in second.parameters())
    output = model.net[-1].weight.grad
    assert output[0].any() and output[2].any() and not output[1].any() and not output[3].any()
    model.task = 1
    assert model.action_dim == 1 and model.initial_carry(B).action.shape == (B, 1)


def test_tasks_that_look_alike_share_an_encoder_and_are_still_told_apart() -> None:
    first = task_input()
    model, batch = student(first, task_input(like=first)), random_batch(B, T)
    alone = sum(w.numel() for w in student().parameters())
    assert sum(w.numel() for w in model.parameters()) == alone + 16  # one input more, for the task
    assert not torch.allclose(policy(model, batch)[0][0], policy(model, batch, task=1)[0][0])


def test_whatever_is_seen_actions_are_finite_and_within_bounds() -> None:
    model = student(task_input(vector=5))
    frames = torch.randint(0, 256, (64, *PIXELS), dtype=torch.uint8)
    carry, is_first = model.initial_carry(64), torch.zeros(64, dtype=torch.bool)
    for worst in (0.0, torch.nan, torch.inf, -torch.inf, 3e38, -1e30):
        state = torch.randn(64, 5)
        state[::2, 1:3] = worst
        for exploration in (None, ActionNoise(5 * torch.randn(64, model.action_dim))):
            decision = model.act({"pixels": frames, "state": state}, is_first, carry, exploration=exploration)
            carry = decision.carry
            assert (decision.action.abs() <= 1).all(), worst


@pytest.mark.parametrize("options", [{"stack": 0}, {"hidden": 0}, {"task": 1}, {"min_std": 0.0}, {"min_std": 2.0}])
def test_options_out_of_range_are_named(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Student([task_input()], **{"features": FEATURES, **options})
