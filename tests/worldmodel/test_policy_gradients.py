"""Both gradients of an expected return against a linear system's, whose gradient a Lyapunov equation gives."""

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor, nn

from tests.worldmodel.policies.linear_plants import Plant, QuadraticReward, double
from worldmodel.imagination import imagine, lambda_return
from worldmodel.policy_gradients import score_function
from worldmodel.simulators.latent import LatentSimulator

N, A, GAMMA, STD = 3, 2, 0.8, 0.3


class Sampled(Plant):
    """A plant without noise of its own."""

    def imagine(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.predict(latent, action)


class Linear(nn.Module):
    """u ~ N(K x, std²)."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.gain, self.std = nn.Parameter(0.1 * double(A, N, seed=2)), std

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """A reparameterised action."""
        mean = latent @ self.gain.mT
        return mean + self.std * torch.randn_like(mean), torch.zeros_like(mean[:, 0])

    def held(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """An action without gradients, and its log density but for a constant."""
        mean = latent @ self.gain.mT
        action = (mean + self.std * torch.randn_like(mean)).detach()
        return action, -0.5 * ((action - mean) / self.std).square().sum(-1)


def system() -> tuple[Tensor, Tensor, Tensor]:
    """A stable plant and a cost."""
    F, G, Q = double(N, N, seed=0), double(N, A, seed=1), double(N, N, seed=3)
    return 0.6 * F / torch.linalg.eigvals(F).abs().max(), 0.5 * G, Q @ Q.mT + torch.eye(N, dtype=torch.float64)


def world() -> LatentSimulator:
    F, G, Q = system()
    parts = {"dynamics": Sampled(F, G), "reward": QuadraticReward(Q), "value": None, "actor": None}
    return LatentSimulator(**parts, action_dim=A, discount=GAMMA)


def in_closed_form(gain: Tensor, start: Tensor, std: float) -> tuple[np.ndarray, np.ndarray]:
    """dJ/dK of J = E Σ γ^(t-1) -½ x[t]ᵀ Q x[t], and P of the value -½ xᵀ P x.

    With M = F + G K: P = Mᵀ (Q + γ P) M, S = Σ γ^t E x[t] x[t]ᵀ solves S = Σ0 + γ (M S Mᵀ + std² G Gᵀ / (1 - γ)), and
    dJ/dK = -Gᵀ (Q + γ P) M S.
    """
    F, G, Q = (matrix.numpy() for matrix in system())
    M = F + G @ gain.numpy()
    P = solve_discrete_lyapunov(np.sqrt(GAMMA) * M.T, M.T @ Q @ M)
    first = (start.mT @ start / len(start)).numpy() + GAMMA / (1 - GAMMA) * std**2 * G @ G.T
    S = solve_discrete_lyapunov(np.sqrt(GAMMA) * M, first)
    return -G.T @ (Q + GAMMA * P) @ M @ S, P


def test_the_pathwise_gradient_is_that_of_the_lyapunov_equation() -> None:
    policy, start = Linear(std=0.0), double(50, N, seed=4)
    rewards = imagine(world(), policy, start, horizon=150).rewards
    J = lambda_return(rewards, torch.zeros_like(rewards), discount=GAMMA, mix=1.0)[0].mean()
    (found,) = torch.autograd.grad(J, policy.gain)
    expected, _ = in_closed_form(policy.gain.detach(), start, 0.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert np.abs(expected).min() > 0.01


@pytest.mark.parametrize("kind", ["pathwise", "score", "score with lambda"])
def test_of_a_noisy_policy_both_are_unbiased(kind: str) -> None:
    """100,000 rollouts: the mean within three standard errors, each entry; their value as baseline and at the end."""
    torch.manual_seed(0)
    policy, start = Linear(std=STD), double(2000, N, seed=4)
    expected, P = in_closed_form(policy.gain.detach(), start, STD)
    G, Q = system()[1:]
    noise = float((STD**2 * (G.mT @ (Q + GAMMA * torch.from_numpy(P)) @ G).trace()) / (1 - GAMMA))

    def value(x: Tensor) -> Tensor:
        return -0.5 * ((x @ torch.from_numpy(P)) * x).sum(-1) - 0.5 * noise

    options = {"discount": GAMMA, "mix": 0.7 if "lambda" in kind else 1.0}
    horizon, samples = 15 if "lambda" in kind else 40, []
    for _ in range(50):
        act = policy if kind == "pathwise" else policy.held
        imagined = imagine(world(), act, start, horizon=horizon)
        values = value(imagined.states)
        if kind == "pathwise":
            J = lambda_return(imagined.rewards, values[1:].detach() * 0, **options)[0].mean()
        else:
            returns = lambda_return(imagined.rewards, values[1:], **options)
            J = score_function(imagined.kept, returns, values[:-1], **options)
        samples.append(torch.autograd.grad(J, policy.gain)[0])
    found = torch.stack(samples)
    if kind == "score with lambda":
        # values bootstrap, and are held still: the gradient is through the first decisions alone
        expected = truncated(policy.gain.detach(), start, horizon=horizon, mix=0.7, P=torch.from_numpy(P))
    error, standard_error = (found.mean(0) - torch.as_tensor(expected)).abs(), found.std(0) / 50**0.5
    assert (error < 3 * standard_error).all(), (error, standard_error)
    assert (standard_error < 0.1 * torch.as_tensor(expected).abs().max()).all()


def truncated(gain: Tensor, start: Tensor, *, horizon: int, mix: float, P: Tensor) -> Tensor:
    """dJ/dK of the λ-return of the first state, whose values are held, from exact moments by autograd."""
    (F, G, Q), K = system(), gain.clone().requires_grad_()
    M, second = F + G @ K, start.mT @ start / len(start)
    J = torch.zeros((), dtype=torch.float64)
    for t in range(horizon):
        second = M @ second @ M.mT + STD**2 * G @ G.mT
        reward, value = -0.5 * (Q * second).sum(), -0.5 * (P * second).sum()
        last = t == horizon - 1
        J = J + (GAMMA * mix) ** t * (reward + GAMMA * (1.0 if last else 1 - mix) * value)
    return torch.autograd.grad(J, K)[0]


def test_the_score_function_by_hand() -> None:
    log_prob = torch.tensor([[1.0], [2.0]], requires_grad=True)
    returns, baseline, factor = torch.tensor([[5.0], [3.0]]), torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [0.0]])
    J = score_function(log_prob, returns.requires_grad_(), baseline, discount=factor, mix=0.5)
    assert J.item() == pytest.approx(1 * 4 + 2 * 0.25 * 2)
    J.backward()
    assert returns.grad is None and log_prob.grad.flatten().tolist() == [4.0, 0.5]


def test_a_held_sample_scores_as_the_density_does() -> None:
    from worldmodel.actors.squashed_normal import SquashedNormalActor

    torch.manual_seed(0)
    actor, latent = SquashedNormalActor(latent_dim=4, action_dim=2, hidden=8).double(), double(6, 4, seed=5)
    torch.manual_seed(1)
    action, parts = actor.held_sample(latent)
    torch.manual_seed(1)
    again, log_prob = actor(latent)
    assert not action.requires_grad and torch.equal(action, again.detach())
    torch.testing.assert_close(parts[:, 0], log_prob)
    torch.testing.assert_close(parts[:, 1], -log_prob)
    # the score: of log N(u | mean, std) at a fixed u; the change of variables has no parameters
    mean, std = actor.moments(latent)
    density = torch.distributions.Normal(mean, std).log_prob(action.atanh()).sum()
    weights = [*actor.parameters()]
    expected = torch.autograd.grad(density, weights)
    for found, wanted in zip(torch.autograd.grad(parts[:, 0].sum(), weights), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
