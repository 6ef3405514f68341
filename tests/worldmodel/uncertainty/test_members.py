"""Batched members against a loop of them, and the bootstrap that tells them apart."""

import torch

from worldmodel.nets import mlp
from worldmodel.uncertainty.members import MemberLinear, MemberNorm, bootstrap_weights, member_mlp


def test_members_equal_a_loop_of_networks() -> None:
    M, R = 4, 7
    batched = member_mlp(M, 5, 8, 2, 3).double()
    for weight in batched.parameters():
        torch.nn.init.normal_(weight)
    x = torch.randn(M, R, 5, dtype=torch.float64)
    for m, member in enumerate(mlp(5, 8, 2, 3).double() for _ in range(M)):
        with torch.no_grad():
            for mine, its in zip(batched, member, strict=True):
                if isinstance(mine, MemberLinear):
                    its.weight.copy_(mine.weight[m].T)
                    _ = mine.bias is None or its.bias.copy_(mine.bias[m, 0])
                elif isinstance(mine, MemberNorm):
                    its.weight.copy_(mine.gain[m, 0])
                    its.bias.copy_(mine.shift[m, 0])
        torch.testing.assert_close(batched(x)[m], member(x[m]), rtol=0, atol=1e-12)


def test_a_bootstrap_is_poisson_and_its_members_are_independent() -> None:
    weights = bootstrap_weights(torch.cartesian_prod(torch.arange(4), torch.arange(5000)), 5)
    share = torch.stack([(weights == k).float().mean() for k in range(4)])
    torch.testing.assert_close(share, torch.tensor([0.3679, 0.3679, 0.1839, 0.0613]), rtol=0, atol=0.005)
    torch.testing.assert_close(weights.mean(1), torch.ones(5), rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(weights), torch.eye(5), rtol=0, atol=0.06)


def test_a_transition_has_the_same_weights_wherever_it_is_met() -> None:
    key = torch.randint(0, 10**6, (6, 9, 2))
    whole = bootstrap_weights(key, 3)
    assert whole.shape == (3, 6, 9)
    for i, j in ((0, 0), (3, 5), (5, 8)):
        assert torch.equal(bootstrap_weights(key[i : i + 1, j], 3)[:, 0], whole[:, i, j])
