"""λ-returns against their definition as a mixture of n-step returns."""

import pytest
import torch

from worldmodel.imagination import lambda_return


def n_step(reward: torch.Tensor, value: torch.Tensor, t: int, n: int, discount: float) -> float:
    """r[t] + γ r[t+1] + ... + γ^n v[t+n-1], with value[k] the value of the state that arrives with reward[k]."""
    total = sum(discount**k * reward[t + k].item() for k in range(n))
    return total + discount**n * value[t + n - 1].item()


@pytest.mark.parametrize("mix", [0.0, 0.3, 0.95, 1.0])
def test_lambda_return_is_the_mixture_of_n_step_returns(mix: float) -> None:
    reward, value = torch.rand(6, 1, dtype=torch.float64), torch.rand(6, 1, dtype=torch.float64)
    got = lambda_return(reward, value, discount=0.9, mix=mix)
    for t in range(6):
        left = 6 - t
        parts = [n_step(reward, value, t, n, 0.9) for n in range(1, left + 1)]
        weights = [(1 - mix) * mix ** (n - 1) for n in range(1, left)] + [mix ** (left - 1)]
        assert got[t].item() == pytest.approx(sum(w * p for w, p in zip(weights, parts, strict=True)), abs=1e-6)


def test_rollouts_do_not_mix() -> None:
    reward, value = torch.rand(5, 2), torch.rand(5, 2)
    before = lambda_return(reward, value, discount=0.99, mix=0.95)[:, 0].clone()
    reward[:, 1] += 100
    assert torch.equal(lambda_return(reward, value, discount=0.99, mix=0.95)[:, 0], before)
