"""Which estimator of a policy's gradient is the better one: by a smooth world, and by a chaotic one."""

import pytest
import torch

from trainers import benchmark
from trainers.benchmarks.gradients.measure import gradients, norms_by_distance, variance
from worldmodel.actors.squashed_normal import SquashedNormalActor


@pytest.fixture(scope="module")
def actor() -> SquashedNormalActor:
    torch.manual_seed(0)
    return SquashedNormalActor(latent_dim=4, action_dim=4, hidden=8)


def test_in_a_smooth_world_both_agree_and_the_pathwise_gradient_varies_less(actor: SquashedNormalActor) -> None:
    found = gradients("perceptron", actor, 5, estimates=60, rollouts=32)
    assert variance(found["score_function"]) > 2 * variance(found["pathwise"])
    difference = found["pathwise"].mean(0) - found["score_function"].mean(0)
    error = sum(rows.var(0) / len(rows) for rows in found.values())
    # over all weights: a sum of as many squares of standard normals, but for their correlations
    assert (difference.square() / error).mean() < 2.5
    assert found["pathwise"].mean(0).norm() > 3 * error.sum().sqrt()


def test_in_a_chaotic_one_the_pathwise_gradient_explodes(actor: SquashedNormalActor) -> None:
    found = gradients("chaotic", actor, 30, estimates=8, rollouts=16)
    assert variance(found["pathwise"]) > 1e4 * variance(found["score_function"])


@pytest.mark.parametrize(
    ("world", "least", "most"), [("linear 0.9", 0.8, 1.0), ("linear 1.1", 1.0, 1.2), ("chaotic", 1.4, 2.0)]
)
def test_norms_grow_as_the_world_stretches(actor: SquashedNormalActor, world: str, least: float, most: float) -> None:
    norms = norms_by_distance(world, actor, steps=20)
    assert norms[0] == 1 and least < (norms[-1] / norms[4]) ** (1 / 15) < most


def test_the_table_and_the_picture(tmp_path) -> None:
    out = tmp_path / "gradients.svg"
    result = benchmark.main(["gradients", "horizons=1,3", "estimates=3", "rollouts=4", f"out={out}"])
    assert [row["horizon"] for row in result["rows"]] == [1, 3, 1, 3] and result["growth"].keys() >= {"chaotic"}
    assert "<svg" in out.read_text()
