"""What policies are given of recorded windows."""

import torch

from worldmodel.interfaces import Batch, Belief
from worldmodel.latent_rows import LatentRows


def rows(valid=None):
    """Two windows of four rows, whose latents, actions and rewards are their numbers."""
    number = torch.arange(8.0).view(2, 4)
    is_first, is_last, is_terminal = torch.zeros(3, 2, 4, dtype=torch.bool)
    is_first[0, 2] = is_last[0, 1] = is_last[1, 3] = is_terminal[1, 3] = True
    batch = Batch({}, number[..., None] * 10, number * 100, is_first, is_last, is_terminal)
    latent = number[..., None].requires_grad_()
    return LatentRows.of(batch, Belief(latent * 1, torch.zeros(2, 1), {"mean": latent * 1}, valid))


def test_transitions_stay_within_episodes_and_end_where_those_terminate():
    steps = rows().transitions()
    assert steps.latent.flatten().tolist() == [0, 2, 4, 5, 6]  # row 2 opens an episode: nothing leads to it
    assert steps.next_latent.flatten().tolist() == [1, 3, 5, 6, 7]
    assert steps.action.flatten().tolist() == [10, 30, 50, 60, 70]
    assert steps.reward.tolist() == [100, 300, 500, 600, 700]
    assert steps.continues.tolist() == [1, 1, 1, 1, 0]  # row 1 was cut, row 7 is an end


def test_rows_that_may_not_teach_are_left_out():
    valid = torch.ones(2, 4, dtype=torch.bool)
    valid[1, :2] = False
    assert rows(valid).starts().flatten().tolist() == [0, 1, 2, 3, 6, 7]
    assert rows(valid).transitions().latent.flatten().tolist() == [0, 2, 6]


def test_no_gradient_leads_back_to_the_model():
    given = rows()
    assert not given.starts().requires_grad and not given.belief.statistics["mean"].requires_grad
