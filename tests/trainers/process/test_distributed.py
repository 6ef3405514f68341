"""What is combined over ranks, by two real ones."""

import pytest
import torch

from tests.rigs.gloo import in_ranks
from trainers.process.distributed import average_over_ranks, mean_metrics, rank_seed, sum_over_ranks


def combine(rank):
    spread, same = torch.tensor([0.0, 10.0, 20.0][rank]), torch.full((5,), 0.1)
    gram = torch.eye(2, dtype=torch.float64) * rank
    for _ in range(7):
        average_over_ranks([spread, same, gram])
    metrics = mean_metrics({"train/return": 10.0 * rank, **({"eval/return_mean": 4.0} if rank == 0 else {})})
    return rank, spread.item(), same.tolist(), gram.tolist(), metrics, sum_over_ranks([rank, 1])


@pytest.fixture(scope="module")
def combined():
    return in_ranks(combine, 3)


def test_statistics_are_means_over_the_ranks(combined):
    """Rank 0 was fed 0, rank 1 10, rank 2 20."""
    for _, spread, _, gram, _, _ in combined:
        assert spread == pytest.approx(10.0) and gram == [[1.0, 0.0], [0.0, 1.0]]


def test_what_is_the_same_on_all_ranks_stays_to_the_bit(combined):
    for _, _, same, _, _, _ in combined:
        assert same == torch.full((5,), 0.1).tolist()


def test_a_metric_is_the_mean_of_the_ranks_that_have_it(combined):
    for _, _, _, _, metrics, total in combined:
        assert metrics == {"train/return": 10.0, "eval/return_mean": 4.0} and total == [3, 3]


def test_one_process_needs_no_group():
    alone = torch.tensor([3.0])
    average_over_ranks([alone])
    assert alone.item() == 3.0 and mean_metrics({"a": 1.5}) == {"a": 1.5} and sum_over_ranks([2]) == [2]


def test_no_two_ranks_of_neighbouring_seeds_share_their_noise():
    seeds = [rank_seed(seed, rank) for seed in range(20) for rank in range(8)]
    assert len(set(seeds)) == len(seeds) and rank_seed(7, 0) == 7
