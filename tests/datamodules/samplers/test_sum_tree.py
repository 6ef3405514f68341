"""The tree draws what a plain list of weights would, and is what a tree built in one go would be."""

import numpy as np
import pytest

from datamodules.samplers.prioritised import SumTree


@pytest.mark.parametrize("size", [1, 5, 32, 33, 1025, 40_000])
def test_equals_brute_force_after_any_changes(size):
    rng, tree, weights = np.random.default_rng(size), SumTree(size), np.zeros(size)
    for _ in range(30):
        leaf = rng.integers(0, size, rng.integers(1, 60))
        values = rng.random(len(leaf)) * rng.choice([0.0, 1.0, 1e6], len(leaf))
        tree.set(leaf, values)
        for i, value in zip(leaf, values, strict=True):
            weights[i] = value
        assert (tree.weights(np.arange(size)) == weights).all()
        assert tree.total == pytest.approx(weights.sum(), rel=1e-12)
    fresh = SumTree(size)
    fresh.set(np.arange(size), weights)
    assert all((a == b).all() for a, b in zip(tree._levels, fresh._levels, strict=True))


def test_draws_in_proportion():
    weights = np.arange(1500) % 7 * 1.0
    tree = SumTree(len(weights))
    tree.set(np.arange(1500), weights)
    expected = 400_000 * weights / weights.sum()
    counts = np.bincount(tree.draw(400_000, np.random.default_rng(0)), minlength=1500)
    assert (counts[weights == 0] == 0).all()
    some = weights > 0
    chi_square, freedom = ((counts - expected)[some] ** 2 / expected[some]).sum(), some.sum() - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


class Edge(np.random.Generator):
    """Random numbers that were rounded up to the end of [0, 1)."""

    def random(self, batch: int) -> np.ndarray:
        return np.full(batch, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_rounding_never_reaches_a_leaf_of_no_weight(seed):
    rng, tree = np.random.default_rng(seed), SumTree(3000)
    leaf = np.sort(rng.choice(2900, 40, replace=False))
    tree.set(leaf, rng.random(40) * 10.0 ** rng.integers(-12, 12, 40))
    assert set(tree.draw(3, Edge(np.random.PCG64())).tolist()) <= set(leaf.tolist())
    assert set(tree.draw(3000, rng).tolist()) <= set(leaf.tolist())
