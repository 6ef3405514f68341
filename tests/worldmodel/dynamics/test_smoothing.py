"""The smoother's bound on a linear-Gaussian model, where the exact posterior is known, and the filter beside it."""

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from tests.conftest import A, small_dynamics, window
from worldmodel.dynamics.smoothing import SmoothingDynamics
from worldmodel.interfaces import Belief

# s' = F s + a + N(0, Q), o = C s + N(0, R), s_1 ~ N(0, 1)
F, C, Q, R = 0.9, 1.3, 0.4, 0.7
B, T, E = 50, 8, 10


class Exact(SmoothingDynamics):
    """The networks replaced by what they should learn: b_t is the message p(o_t..t+reach | s_t) as (Λ, η), and
    whether s_t is the first."""

    def __init__(self, reach: int) -> None:
        super().__init__(embed_dim=1, action_dim=1, latent_dim=1, hidden=3)
        self.reach = reach

    def _look_back(self, embed: Tensor, action: Tensor, keep: Tensor) -> Tensor:
        after = torch.cat([action[:, 1:], torch.zeros_like(action[:, :1])], 1)
        single = torch.full_like(embed, C**2 / R), C * embed / R
        precision, pull = single
        for _ in range(self.reach):
            later = [torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1) for x in (precision, pull)]
            spread = 1 + Q * later[0]
            precision = single[0] + F**2 * later[0] / spread
            pull = single[1] + F * (later[1] - later[0] * after) / spread
        start = torch.zeros_like(embed)
        start[:, 0] = 1
        return torch.cat([precision, pull, start], -1)

    def prior(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return F * latent + action, torch.full_like(latent, math.sqrt(Q))

    def moments(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = statistics.chunk(2, -1)
        return mean, std


class Posterior(torch.nn.Module):
    """q(s_t | s_t-1, a, b_t) as mean and std: the prior times the message."""

    def forward(self, seen: Tensor) -> Tensor:
        latent, action, precision, pull, start = seen.split(1, -1)
        variance = torch.where(start > 0, 1.0, Q)
        mean = torch.where(start > 0, 0.0, F * latent + action)
        total = 1 / variance + precision
        return torch.cat([(mean / variance + pull) / total, total.rsqrt()], -1)


def record() -> tuple[Tensor, Tensor]:
    """Observations and actions [B T 1]."""
    action = torch.randn(B, T, 1, dtype=torch.float64)
    state = torch.randn(B, 1, dtype=torch.float64)
    seen = []
    for t in range(T):
        state = F * state + action[:, t] + math.sqrt(Q) * torch.randn_like(state) if t else state
        seen.append(C * state + math.sqrt(R) * torch.randn_like(state))
    return torch.stack(seen, 1), action


def kalman(seen: Tensor, action: Tensor) -> Tensor:
    """log p(o_1..T | a_1..T) of every record, [B]."""
    mean, variance, total = torch.zeros_like(seen[:, 0]), 1.0, 0.0
    for t in range(T):
        if t:
            mean, variance = F * mean + action[:, t], F**2 * variance + Q
        spread = C**2 * variance + R
        total = total + Normal(C * mean, math.sqrt(spread)).log_prob(seen[:, t])
        gain = C * variance / spread
        mean, variance = mean + gain * (seen[:, t] - C * mean), (1 - gain * C) * variance
    return total[:, 0]


def integrand(reach: int, seen: Tensor, action: Tensor) -> Tensor:
    """log p(o, s) - log q(s) on one sampled path of every record, [B], from what `observe` reports."""
    model = Exact(reach).double()
    model.smoother = Posterior()
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    belief = model.observe(seen, action, first, torch.zeros(B, 3, dtype=torch.float64), sample=True)
    log = {
        name: Normal(belief.statistics[f"{name}_mean"], belief.statistics[f"{name}_std"]).log_prob(belief.latent)
        for name in ("prior", "posterior")
    }
    evidence = Normal(C * belief.latent, math.sqrt(R)).log_prob(seen)
    return (evidence + log["prior"] - log["posterior"]).sum((1, 2))


def test_with_the_exact_posterior_every_path_gives_the_kalman_likelihood() -> None:
    seen, action = record()
    torch.testing.assert_close(integrand(T, seen, action), kalman(seen, action), rtol=0, atol=1e-6)


def test_a_posterior_that_sees_less_of_the_future_has_a_lower_bound() -> None:
    seen, action = record()
    likelihood = kalman(seen, action).mean()
    bounds = [torch.stack([integrand(reach, seen, action) for _ in range(200)]).mean() for reach in (0, 1, T)]
    assert bounds[0] + 0.01 < bounds[1] < likelihood - 0.001
    torch.testing.assert_close(bounds[2], likelihood, rtol=0, atol=1e-6)


def smoothed(model: SmoothingDynamics, embed: Tensor, is_first: Tensor) -> Belief:
    torch.manual_seed(3)
    rows = embed.shape[1]
    return model.observe(embed, torch.ones(2, rows, A), is_first, torch.zeros(2, model.carry_dim), sample=True)


def test_the_smoother_sees_the_future_but_no_other_episode() -> None:
    model, embed = small_dynamics("smoothing", E), torch.randn(2, 6, E)
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[:, 3] = True
    before = smoothed(model, embed, is_first)
    for row, moved in ((5, [3, 4, 5]), (0, [0, 1, 2]), (2, [0, 1, 2])):
        changed = embed.clone()
        changed[:, row] += 1
        differs = (smoothed(model, changed, is_first).latent != before.latent).any(-1).any(0)
        assert differs.nonzero()[:, 0].tolist() == moved
    first = before.statistics["prior_mean"][:, [0, 3]], before.statistics["prior_std"][:, [0, 3]]
    assert (first[0] == 0).all() and (first[1] == 1).all()


def test_the_filter_learns_without_moving_anything_else() -> None:
    model, embed = small_dynamics("smoothing", E), torch.randn(2, 6, E, requires_grad=True)
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    belief = smoothed(model, embed, is_first)
    model.losses(belief, window(torch.ones(2, 6, A), is_first))["filter"].sum().backward()
    moved = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert moved == {"forward_in", "forward_cell", "filter"} and embed.grad is None


def test_fresh_latents_do_not_wander() -> None:
    rows = 60
    model, embed = small_dynamics("smoothing", E), torch.randn(2, rows, E)
    latent = smoothed(model, embed, torch.zeros(2, rows, dtype=torch.bool)).latent
    assert latent[:, -20:].std() < 1.5 * latent[:, :20].std()


def test_a_rows_own_frame_reaches_both_posteriors_past_shut_recurrences() -> None:
    model, embed = small_dynamics("smoothing", E), torch.randn(2, 6, E)
    for cell in (model.forward_cell, model.backward_cell):
        torch.nn.init.constant_(cell.norm.bias.chunk(3)[2], -50.0)  # the update gate: what is remembered stays
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    before, changed = smoothed(model, embed, is_first), embed.clone()
    changed[:, 3] += 1
    after = smoothed(model, changed, is_first)
    for name, rows in (("filter_mean", [3]), ("posterior_mean", [3, 4, 5])):
        moved = (after.statistics[name] - before.statistics[name]).abs().amax((0, 2)) > 1e-4
        assert moved.nonzero()[:, 0].tolist() == rows, name
