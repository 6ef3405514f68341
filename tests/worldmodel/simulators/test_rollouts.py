"""The fast rollout equals the loop over `predict`, whatever the chunks, in float32 and nearly so in bfloat16."""

import pytest
import torch
from torch import Tensor

from worldmodel.actors.squashed_normal import SquashedNormalActor as Actor
from worldmodel.dynamics._packed_rollout import State
from worldmodel.dynamics.rssm_gaussian import GaussianRSSM
from worldmodel.heads.continuation import ContinuationHead
from worldmodel.heads.scalar import ScalarHead
from worldmodel.heads.two_hot import TwoHotHead
from worldmodel.simulators import _packed_scorer as scorer
from worldmodel.simulators.latent import LatentSimulator, score, score_by_steps

A, H, N, B = 2, 7, 11, 3


def world(
    head=ScalarHead, *, with_value: bool = True, mortal: bool = False, precision: torch.dtype = torch.float32
) -> LatentSimulator:
    """Every weight is moved, gains and shifts of norms too."""
    torch.manual_seed(0)
    dynamics = GaussianRSSM(embed_dim=4, action_dim=A, deterministic=24, stochastic=5, hidden=16)
    reward, value = (head(latent_dim=29, scale=scale, hidden=16) for scale in (2.0, 50.0))
    continuation = ContinuationHead(latent_dim=29, hidden=16)
    torch.nn.init.ones_(continuation.net[-1].bias)
    for module in (dynamics, reward, value, continuation):
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return LatentSimulator(
        dynamics=dynamics.requires_grad_(False),
        reward=reward.requires_grad_(False),
        value=value.requires_grad_(False) if with_value else None,
        actor=Actor(latent_dim=29, action_dim=A),
        action_dim=A,
        discount=0.97,
        precision=precision,
        continuation=continuation.requires_grad_(False) if mortal else None,
    )


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(B, 29, generator=generator), 2 * torch.rand(B, N, H, A, generator=generator) - 1


@pytest.mark.parametrize("head", [ScalarHead, TwoHotHead])
@pytest.mark.parametrize("with_value", [True, False])
@pytest.mark.parametrize("mortal", [False, True])
def test_returns_are_those_of_single_steps(head: type, with_value: bool, mortal: bool) -> None:
    simulator, (latent, actions) = world(head, with_value=with_value, mortal=mortal), inputs()
    expected = score_by_steps(simulator, latent, actions)
    assert expected.std(1).min() > 0.03  # actions matter
    with torch.no_grad():
        torch.testing.assert_close(score(simulator, latent, actions), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "states"), [(1, 1), (B, 2 * B), (4 * B, 10_000), (10_000, 3)])
def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch, rows: int, states: int) -> None:
    simulator, (latent, actions) = world(mortal=True), inputs()
    with torch.inference_mode():
        whole = simulator.returns(latent, actions)
        monkeypatch.setattr(scorer, "ROWS", rows)
        monkeypatch.setattr(scorer, "STATES", states)
        torch.testing.assert_close(simulator.returns(latent, actions), whole, rtol=1e-5, atol=1e-4)


def test_a_row_depends_on_its_own_latent_and_actions_alone() -> None:
    simulator, (latent, actions) = world(), inputs()
    with torch.inference_mode():
        alone = simulator.returns(latent[1:2], actions[1:2, 3:5])
        torch.testing.assert_close(simulator.returns(latent, actions)[1:2, 3:5], alone, rtol=1e-5, atol=1e-4)


def test_the_same_call_gives_the_same_bits() -> None:
    simulator, (latent, actions) = world(precision=torch.bfloat16), inputs()
    with torch.inference_mode():
        assert torch.equal(simulator.returns(latent, actions), simulator.returns(latent, actions))


def test_bfloat16_moves_returns_by_little_of_what_tells_candidates_apart() -> None:
    latent, actions = inputs()
    expected = score_by_steps(world(), latent, actions)
    with torch.inference_mode():
        found = world(precision=torch.bfloat16).returns(latent, actions)
    assert found.dtype == torch.float32
    error = (found - expected) - (found - expected).mean(1, keepdim=True)  # what all share ranks nothing
    assert (error.std(1) < 0.1 * expected.std(1)).all()
    assert error.abs().max() > 1e-4  # products were made in bfloat16


def test_a_model_without_a_rollout_is_stepped_in_the_precision_too() -> None:
    simulator, (latent, actions) = world(precision=torch.bfloat16), inputs()
    expected = score_by_steps(simulator, latent, actions)
    predict = simulator.dynamics.predict
    simulator.dynamics = type("Plain", (), {"predict": staticmethod(predict)})()
    with torch.inference_mode():
        error = (simulator.returns(latent, actions) - expected).abs().max()
    assert 1e-5 < error < 0.1 * expected.abs().max()


def test_where_gradients_are_wanted_they_flow() -> None:
    simulator, (latent, actions) = world(), inputs()
    actions.requires_grad_()
    score(simulator, latent, actions).sum().backward()
    assert actions.grad is not None and actions.grad.abs().min() > 0


def test_a_gate_that_hardly_opens_still_moves_a_state_kept_in_float32() -> None:
    state = State(torch.ones(1, 1))
    low = torch.empty(1, 1, dtype=torch.bfloat16)
    for _ in range(1000):
        half = torch.full((1, 1), 0.5, dtype=torch.bfloat16)  # σ of a candidate of 0
        state.mix(half, torch.full((1, 1), 1e-3, dtype=torch.bfloat16), out=low)
    assert abs(low.item() - (1 - 1e-3) ** 1000) < 0.01


def test_a_state_moves_to_the_tanh_of_half_of_what_the_gate_was_given() -> None:
    x, before, update = torch.linspace(-40, 40, 1001)[None], torch.rand(1, 1001) * 2 - 1, torch.rand(1, 1001)
    after = torch.empty_like(x)
    State(before).mix((2 * x).sigmoid(), update, out=after)
    torch.testing.assert_close(after, torch.lerp(before, x.tanh(), update), rtol=0, atol=3e-7)


def test_a_state_that_is_not_finite_gets_no_finite_return() -> None:
    simulator, (latent, actions) = world(), inputs()
    simulator.dynamics.cell.norm.bias.data[0] = torch.nan
    with torch.inference_mode():
        assert not simulator.returns(latent, actions).isfinite().any()
