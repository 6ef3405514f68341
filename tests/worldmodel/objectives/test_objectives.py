"""Objectives: their closed forms, and that any dynamics can be trained with each."""

import math
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import DYNAMICS, OBJECTIVES, random_batch, small_agent
from worldmodel.model import Seen
from worldmodel.objectives.barlow import Barlow
from worldmodel.objectives.info_nce import InfoNCE
from worldmodel.objectives.reconstruction import Reconstruction
from worldmodel.objectives.sigreg import Normality
from worldmodel.openloop import open_loop

R, D = 64, 6


def sizes(latent_dim: int = D, embed_dim: int = D) -> dict[str, SimpleNamespace]:
    return {"encoder": SimpleNamespace(embed_dim=embed_dim), "dynamics": SimpleNamespace(latent_dim=latent_dim)}


def straight(objective: torch.nn.Module) -> torch.nn.Module:
    """With the identity as the projection."""
    torch.nn.init.eye_(objective.project.weight)
    torch.nn.init.zeros_(objective.project.bias)
    return objective


def test_info_nce_of_a_constant_is_the_log_of_the_rows_and_of_itself_almost_none() -> None:
    objective = straight(InfoNCE(**sizes(), temperature=0.01))
    embed = torch.randn(R, D)
    same = embed[:1].expand(R, D)
    assert objective(same, same).item() == pytest.approx(math.log(R), rel=1e-5)
    assert objective(embed, embed) < 0.01 < objective(embed.flip(0), embed)


def test_barlow_is_zero_for_white_rows_that_agree_and_counts_what_is_repeated() -> None:
    objective = straight(Barlow(**sizes(), redundancy=0.1))
    white = torch.linalg.qr(torch.cat([torch.ones(R, 1), torch.randn(R, D)], 1))[0][:, 1:]
    assert objective(3 * white + 1, white).abs() < 1e-5  # of any scale and offset
    repeated = white[:, :1].expand(R, D)
    assert objective(repeated, repeated).item() == pytest.approx(0.1 * D * (D - 1), rel=1e-4)
    assert objective(-white, white).item() == pytest.approx(4 * D, rel=1e-4)


@pytest.mark.parametrize("c", [0.0, 1.5])
def test_sigreg_of_a_constant_is_the_epps_pulley_integral(c: float) -> None:
    # ∫ |exp(ict) - φ|² φ dt with φ = exp(-t²/2); what lies beyond |t| = 6 is nothing
    statistic = Normality(knots=200, reach=6.0)
    expected = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) * math.exp(-(c**2) / 4) + 1 / math.sqrt(3))
    assert statistic(torch.full((R, 1), c)).item() == pytest.approx(expected, rel=1e-4)


def test_normality_prefers_the_standard_normal() -> None:
    statistic = Normality()
    normal = torch.randn(4000, D)
    fit = statistic(normal)
    for other in (0.1 * normal, 2 * normal, normal + 1, normal[:, :1].expand(-1, D)):
        assert statistic(other) > 10 * fit


@pytest.mark.parametrize("make", [InfoNCE, Barlow])
def test_embeddings_are_held_still(make: type[torch.nn.Module]) -> None:
    latent, embed = torch.randn(R, D, requires_grad=True), torch.randn(R, 4, requires_grad=True)
    make(**sizes(embed_dim=4))(latent, embed).backward()
    assert latent.grad is not None and latent.grad.abs().sum() > 0 and embed.grad is None


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", DYNAMICS)
def test_any_dynamics_is_trained_and_acts_with_any_objective(name: str, objective: str) -> None:
    agent, batch = small_agent(name, objective=objective), random_batch()
    torch.nn.init.normal_(agent.reward.net[-1].weight, std=0.1)  # heads start at zero, where no gradient passes
    loss = agent.losses(batch)
    loss.total.backward()
    assert loss.total.isfinite()
    own = [*agent.objective.parameters(), *agent.encoder.parameters()]
    grads = [weight.grad for weight in own if weight.requires_grad]
    assert all(grad is not None and grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)
    decision = agent.act({"pixels": batch.pixels[:, 0]}, batch.is_first[:, 0], agent.initial_carry(3))
    assert decision.action.isfinite().all()
    assert (open_loop(agent, batch, context=3).observation is None) == (
        objective not in ("reconstruction", "overshooting")
    )


def seen_by(agent: torch.nn.Module) -> Seen:
    batch = random_batch()
    embed = agent.encoder(agent.norm(batch.observation))
    return Seen(batch, embed, agent.observe(batch, sample=False))


def test_slow_targets_begin_as_the_model_s_own_latents_and_follow_at_their_rate() -> None:
    agent = small_agent("deterministic", objective="slow_consistency")
    seen = seen_by(agent)
    torch.testing.assert_close(agent.objective.targets(agent, seen), seen.belief.latent)
    weight, slow = agent.encoder.parts[0].stem.weight, agent.objective.encoder.module.parts[0].stem.weight
    before = slow.clone()
    with torch.no_grad():
        weight += 1
    agent.after_step()
    torch.testing.assert_close(slow, before + 0.1)
    assert not torch.allclose(agent.objective.targets(agent, seen), seen_by(agent).belief.latent)


def test_consistent_latents_pass_no_gradient_into_their_targets() -> None:
    """A model whose prediction is right by shrinking: the full gradient would shrink, half of it is missing."""
    agent = small_agent("deterministic", objective="latent_consistency")
    seen = seen_by(agent)
    latent = seen.belief.latent.detach().requires_grad_()
    belief = type(seen.belief)(latent, seen.belief.carry, {})
    agent.objective.losses(agent, Seen(seen.batch, seen.embed, belief))["consistency"].backward()
    # windows of 7 rows, 2 steps: predictions start from the first 5 rows alone
    assert latent.grad is not None and latent.grad[:, :5].abs().sum() > 0 and latent.grad[:, 5:].abs().sum() == 0


def test_a_share_of_the_frames_has_the_error_of_all_in_the_mean() -> None:
    agent = small_agent()
    seen = seen_by(agent)
    losses = [
        Reconstruction(encoder=agent.encoder, dynamics=agent.dynamics, decode_fraction=share) for share in (0.3, 1.0)
    ]
    some = torch.stack([losses[0].losses(agent, seen)["image"].detach() for _ in range(200)])
    torch.testing.assert_close(some.mean(), losses[1].losses(agent, seen)["image"], rtol=0.02, atol=0)
    with pytest.raises(ValueError, match="decode_fraction"):
        Reconstruction(encoder=agent.encoder, dynamics=agent.dynamics, decode_fraction=0.0)
