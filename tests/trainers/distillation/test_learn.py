import numpy as np
import pytest
import torch

from tests.worldmodel.agents.test_student import student, task_input
from trainers.distillation import learn as learning
from trainers.distillation.labelled import LabelledEpisode, LabelledEpisodes
from trainers.distillation.learn import learn

A = 2
SCHEDULE = {
    "updates": 60,
    "check_every": 10,
    "patience": 3,
    "windows": 16,
    "length": 4,
    "learning_rate": 3e-3,
    "seed": 0,
}


def labels(folder, seed: int = 0, *, episodes: int = 12, rows: int = 9) -> LabelledEpisodes:
    """What to do is how bright the frame is."""
    rng, store = np.random.default_rng(seed), LabelledEpisodes(folder)
    for _ in range(episodes):
        light = rng.uniform(0, 1, rows).astype(np.float32)
        pixels = np.broadcast_to((255 * light).astype(np.uint8)[:, None, None, None], (rows, 3, 16, 16)).copy()
        mean = np.repeat(2 * light[:, None] - 1, A, 1)
        mean[-1] = np.nan
        store.add(LabelledEpisode({"pixels": pixels}, np.zeros((rows, A), np.float32), mean, np.full_like(mean, 0.1)))
    return store


def run(model, tasks, **options):
    return learn(model, tasks, **{**SCHEDULE, **options}, on_turn=lambda: None)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_student_learns_what_the_frames_say_and_a_frozen_encoder_stays(tmp_path, frozen):
    model, store = student(), labels(tmp_path)
    encoder = model.tasks[0].encoder.requires_grad_(not frozen)
    before = [weight.clone() for weight in encoder.parameters()]
    first = run(model, [store], updates=1)
    learned = run(model, [store])
    assert learned.held_out < 0.5 * first.held_out, (first, learned)
    unchanged = [torch.equal(a, b) for a, b in zip(before, encoder.parameters(), strict=True)]
    assert all(unchanged) if frozen else not any(unchanged)


def test_the_student_is_left_with_its_best_weights(tmp_path, monkeypatch):
    model, store, errors, seen = student(), labels(tmp_path), iter([5.0, 3.0, 4.0, 4.0, 4.0, 0.0]), []

    def measure(of, measured):
        seen.append([weight.clone() for weight in of.parameters()])
        return next(errors)

    monkeypatch.setattr(learning, "_held_out", measure)
    learned = run(model, [store])
    assert (learned.updates, learned.held_out) == (40, 3.0)  # three measurements without a better one
    assert all(torch.equal(a, b) for a, b in zip(seen[1], model.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(seen[2], model.parameters(), strict=True))


def test_tasks_have_as_many_windows_whatever_their_data(tmp_path, monkeypatch):
    few, many = labels(tmp_path / "few", episodes=3), labels(tmp_path / "many", episodes=20)
    counts, sample = [], learning.sample
    monkeypatch.setattr(
        learning, "sample", lambda episodes, **k: counts.append((len(episodes), k["windows"])) or sample(episodes, **k)
    )
    run(student(task_input(), task_input()), [few, many], updates=2)
    assert counts == [(2, 8), (18, 8)] * 2


def test_rounds_with_one_seed_are_the_same(tmp_path):
    store, weights = labels(tmp_path), []
    for _ in range(2):
        torch.manual_seed(0)
        model = student()
        run(model, [store], updates=5)
        weights.append([*model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
