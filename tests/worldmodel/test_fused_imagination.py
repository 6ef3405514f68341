"""Imagination's one-operation form against the plain loop that its equations describe."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.dynamics.rssm_gaussian import GaussianRSSM
from worldmodel.heads.head import Head
from worldmodel.imagination import imagine
from worldmodel.simulators.latent import LatentSimulator

R, H, A, D, S = 6, 5, 2, 16, 5


@pytest.fixture(autouse=True)
def in_the_weights_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's moments are float32 for autocast's sake, which would hide errors below 1e-7."""
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)


def parts(dtype: torch.dtype = torch.float64, *, layers: int = 2) -> tuple[GaussianRSSM, SquashedNormalActor]:
    """Small, with weights that tell gains, shifts and biases apart from ones and zeros."""
    dynamics = GaussianRSSM(embed_dim=7, action_dim=A, deterministic=D, stochastic=S, hidden=11)
    actor = SquashedNormalActor(latent_dim=D + S, action_dim=A, hidden=13, layers=layers)
    for weight in [*dynamics.parameters(), *actor.parameters()]:
        torch.nn.init.normal_(weight, std=0.4)
    return dynamics.to(dtype).requires_grad_(False), actor.to(dtype)


class FirstNumber(Head):
    """A reward that is plain to see."""

    def forward(self, latent: Tensor) -> Tensor:
        return self.read(latent)

    def read(self, outputs: Tensor) -> Tensor:
        return outputs[..., 0]

    def loss(self, latent: Tensor, target: Tensor) -> Tensor:
        raise AssertionError


def imagined(dynamics: Any, actor: Any, start: Tensor, *, horizon: int = H) -> tuple[Tensor, Tensor]:
    simulator = LatentSimulator(
        dynamics=dynamics, reward=FirstNumber(), value=None, actor=actor, action_dim=A, discount=0.9, continuation=None
    )
    torch.manual_seed(1)
    rollouts = imagine(simulator, actor, start, horizon=horizon)
    assert rollouts.rewards.equal(rollouts.states[1:, :, 0])
    return rollouts.states, rollouts.kept


def both(
    dynamics: GaussianRSSM, actor: Any, start: Tensor, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Tensor, Tensor]]:
    """Fused, and by the plain loop, whose noise comes decision by decision."""
    fused = imagined(dynamics, actor, start)
    torch.manual_seed(1)
    streams = [start.new_empty(H, R, size).normal_() for size in (A, S)]
    noise: Iterator[Tensor] = iter([rows[k] for k in range(H) for rows in streams])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda like: next(noise))
        dynamics.fused = False
        plain = imagined(dynamics, actor, start)
    assert next(noise, None) is None  # the plain loop it was
    return [fused, plain]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("read", ["both", "states", "log_probs", "last"])
def test_states_densities_and_every_gradient_are_the_loops(
    monkeypatch: pytest.MonkeyPatch, read: str, layers: int
) -> None:
    dynamics, actor = parts(layers=layers)
    start = torch.randn(R, D + S, dtype=torch.float64, requires_grad=True)
    leaves = {"start": start, **dict(actor.named_parameters())}
    gradients = []
    results = both(dynamics, actor, start, monkeypatch)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    for states, log_probs in results:
        chosen = {"both": [states, log_probs], "states": [states], "log_probs": [log_probs], "last": [states[-1]]}[read]
        # a different weight for every entry, so that no two gradients can be swapped unnoticed
        loss = sum((x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x).cos()).sum() for x in chosen)
        gradients.append(torch.autograd.grad(loss, list(leaves.values())))
    for name, one, other in zip(leaves, *gradients, strict=True):
        assert other.abs().sum() > 0, name
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_low_precision_does_not_touch_it() -> None:
    dynamics, actor = parts(torch.float32)
    start = torch.randn(R, D + S)
    exact = imagined(dynamics, actor, start)
    with torch.autocast("cpu", torch.bfloat16):
        rough = imagined(dynamics, actor, start)
        sum(x.square().sum() for x in rough).backward()
    for one, other in zip(rough, exact, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() and weight.grad.any() for weight in actor.parameters()
    )


def test_without_gradients_nothing_is_recorded() -> None:
    dynamics, actor = parts()
    start = torch.randn(R, D + S, dtype=torch.float64)
    with torch.no_grad():
        alone = imagined(dynamics, actor, start)
    for one, other in zip(alone, imagined(dynamics, actor, start), strict=True):
        assert not one.requires_grad
        torch.testing.assert_close(one, other, atol=0, rtol=0)


class OtherStep(GaussianRSSM):
    """A model whose step is its own."""

    def imagine(self, latent: Tensor, action: Tensor) -> Tensor:
        return torch.cat([latent[..., A:], action], -1)


class OtherChoice(SquashedNormalActor):
    """A policy whose choice is its own."""

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return latent.new_full((len(latent), A), 0.25), latent.new_zeros(len(latent))


def test_parts_of_ones_own_are_asked() -> None:
    dynamics, actor = parts(torch.float32)
    start = torch.randn(R, D + S)
    other = OtherStep(embed_dim=7, action_dim=A, deterministic=D, stochastic=S).requires_grad_(False)
    states, _ = imagined(other, actor, start)
    assert states[1, :, : D + S - A].equal(start[:, A:])
    _, log_probs = imagined(dynamics, OtherChoice(latent_dim=D + S, action_dim=A), start)
    assert log_probs.equal(torch.zeros(H, R))


def test_a_model_that_learns_from_it_gets_its_gradients() -> None:
    dynamics, actor = parts()
    dynamics.requires_grad_(True)
    states, _ = imagined(dynamics, actor, torch.randn(R, D + S, dtype=torch.float64))
    states.square().sum().backward()
    assert all(w.grad is not None and w.grad.any() for n, w in dynamics.named_parameters() if "posterior" not in n)
