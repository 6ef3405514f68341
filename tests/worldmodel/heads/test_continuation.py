"""The probability that an episode goes on: where it starts, what it minimises, and what windows do to its mean."""

import pytest
import torch
from torch.nn import functional as F

from worldmodel.heads.continuation import ContinuationHead
from worldmodel.interfaces import Belief
from worldmodel.unrolling import later_rows


def test_it_begins_with_ends_that_are_rare_everywhere() -> None:
    head = ContinuationHead(latent_dim=3, hidden=8)
    torch.testing.assert_close(head(torch.randn(5, 3)), torch.full((5,), 4.0).sigmoid())


def test_the_loss_is_the_cross_entropy_of_what_it_says() -> None:
    head = ContinuationHead(latent_dim=3, hidden=8)
    torch.nn.init.normal_(head.net[-1].weight)
    latent, ended = torch.randn(50, 3), torch.rand(50) < 0.5
    expected = F.binary_cross_entropy(head(latent), (~ended).float(), reduction="none")
    torch.testing.assert_close(head.loss(latent, (~ended).float()), expected, rtol=1e-4, atol=1e-5)
    weight = torch.where(ended, 7.0, 1.0)
    torch.testing.assert_close(head.rows_loss(latent, ended, rows=7), weight * expected, rtol=1e-4, atol=1e-5)


def test_where_windows_run_over_ends_a_terminal_row_is_as_frequent_as_any() -> None:
    head, ended = ContinuationHead(latent_dim=3, hidden=8, even=True), torch.rand(50) < 0.5
    latent = torch.randn(50, 3)
    torch.testing.assert_close(head.rows_loss(latent, ended, rows=7), head.loss(latent, (~ended).float()))


def test_over_all_predictions_of_an_episode_the_best_constant_is_the_true_hazard() -> None:
    rows, length, steps = 12, 600, 3
    windows = (torch.arange(length) == length - 1).unfold(0, rows, 1)
    ended = later_rows(windows, steps=steps)
    weight = torch.where(ended, float(ended[0].numel()), 1.0)
    head = ContinuationHead(latent_dim=1, hidden=4)
    with torch.no_grad():
        loss = head.rows_loss(torch.zeros(*ended.shape, 1), ended, rows=ended[0].numel())
        torch.testing.assert_close(loss, weight * head.loss(torch.zeros(*ended.shape, 1), (~ended).float()))
    assert (weight * ended).sum() / weight.sum() == pytest.approx(1 / length, rel=0.05)


@pytest.mark.parametrize("steps", [0, 3])
def test_windows_whose_first_rows_do_not_count_do_not_make_ends_more_likely(steps: int) -> None:
    """All windows of an episode, of latents that read three frames; of their rows, or of predictions from these."""
    rows, length, stack = 8, 2000, 3
    windows = (torch.arange(length) == length - 1).unfold(0, rows, 1)
    valid = torch.ones_like(windows)
    valid[1:, : stack - 1] = False
    belief = Belief(torch.zeros(*windows.shape, 1), torch.zeros(len(windows), 0), {}, valid)
    ended, starts = (later_rows(windows, steps=steps), rows - steps) if steps else (windows, rows)
    head = ContinuationHead(latent_dim=1, hidden=4)
    with torch.no_grad():
        latent = torch.zeros(*ended.shape, 1)
        loss = head.rows_loss(latent, ended, rows=max(steps, 1) * belief.counted(starts))
        weight = loss / head.loss(latent, (~ended).float())
    # of which a constant minimises the sum where it is the terminal row's share
    hazard = belief.mean(weight * ended) / belief.mean(weight)
    assert hazard.item() == pytest.approx(1 / length, rel=0.01)


def test_over_all_windows_of_an_episode_the_best_constant_is_the_true_hazard() -> None:
    rows, length = 6, 400
    ended = torch.arange(length) == length - 1
    windows = ended.unfold(0, rows, 1)
    head = ContinuationHead(latent_dim=1, hidden=4)
    with torch.no_grad():
        loss = head.rows_loss(torch.zeros(*windows.shape, 1), windows, rows=rows)
        weight = torch.where(windows, rows, 1).sum()
    # a constant p minimises -(W - w) log p - w log(1 - p) at 1 - p = w / W, and the terminal row's weight is `rows`
    hazard = rows / weight
    assert loss.shape == windows.shape
    assert hazard.item() == pytest.approx(1 / length, rel=0.05)
