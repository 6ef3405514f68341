"""Returns of rollouts that end, against sums over what can come, and the weights of their decisions."""

import pytest
import torch
from torch import Tensor

from worldmodel.imagination import endings, lambda_return


def brute_force(reward: Tensor, value: Tensor, goes_on: Tensor, t: int, *, discount: float, mix: float) -> float:
    """The mixture of n-step returns from t of one rollout whose ends are certain: nothing is earned after one."""
    left, parts = len(reward) - t, []
    for n in range(1, left + 1):
        total, alive = 0.0, 1.0
        for k in range(n):
            total += alive * discount**k * reward[t + k].item()
            alive *= goes_on[t + k].item()
        parts.append(total + alive * discount**n * value[t + n - 1].item())
    weights = [(1 - mix) * mix ** (n - 1) for n in range(1, left)] + [mix ** (left - 1)]
    return sum(w * p for w, p in zip(weights, parts, strict=True))


@pytest.mark.parametrize("mix", [0.0, 0.4, 0.95, 1.0])
def test_lambda_returns_stop_at_terminal_rows(mix: float) -> None:
    generator = torch.Generator().manual_seed(1)
    reward, value, draw = torch.rand(3, 7, 40, generator=generator, dtype=torch.float64)
    goes_on = (draw > 0.3).double()
    got = lambda_return(reward, value, discount=0.9 * goes_on, mix=mix)
    for t in range(7):
        for row in range(40):
            columns = (reward[:, row], value[:, row], goes_on[:, row])
            assert got[t, row].item() == pytest.approx(brute_force(*columns, t, discount=0.9, mix=mix), abs=1e-6)


def test_termination_and_truncation_differ_by_the_discounted_value() -> None:
    reward, value = torch.rand(2, 5, 3, dtype=torch.float64)
    cut = lambda_return(reward, value, discount=0.9, mix=1.0)
    factor = torch.full_like(reward, 0.9)
    factor[-1] = 0
    ended = lambda_return(reward, value, discount=factor, mix=1.0)
    torch.testing.assert_close(cut - ended, 0.9 ** torch.arange(5, 0, -1)[:, None] * value[-1])


class Immortal:
    """Nothing is earned, nothing ends."""

    action_dim, discount = 1, 0.5

    def reward(self, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent[..., 0])

    def value(self, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent[..., 0])

    def propose(self, latent: Tensor, generator: object) -> None:
        return None


class Ends(Immortal):
    """Goes on with the probability that a latent says."""

    terminates = True

    def continues(self, latent: Tensor) -> Tensor:
        return latent[..., 0]


def test_decisions_count_as_often_as_they_are_made() -> None:
    states = torch.tensor([[0.5], [1.0], [0.2], [0.0]])[..., None].requires_grad_()
    ends = endings(Ends(), states)
    assert isinstance(ends.discount, Tensor) and ends.weight is not None
    assert not ends.weight.requires_grad and ends.discount.requires_grad
    torch.testing.assert_close(ends.discount.squeeze(-1), torch.tensor([0.5, 0.1, 0.0]))
    torch.testing.assert_close(ends.weight.squeeze(-1), torch.tensor([0.5, 0.5, 0.1]))
    torch.testing.assert_close(ends.mean(torch.ones(3, 1)), torch.tensor(1.1 / 3))


def test_where_nothing_ends_the_mean_is_the_plain_one() -> None:
    ends = endings(Immortal(), torch.zeros(4, 2, 1))
    rows = torch.randn(3, 2)
    assert ends.discount == 0.5 and torch.equal(ends.mean(rows), rows.mean())
