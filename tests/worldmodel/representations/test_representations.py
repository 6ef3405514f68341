"""Objectives without a decoder: their closed forms, and that a collapsed latent pays."""

import math

import pytest
import torch

from worldmodel.representations.barlow import Barlow
from worldmodel.representations.info_nce import InfoNCE
from worldmodel.representations.sigreg import SIGReg

R, D = 64, 6
OBJECTIVES = {make.__name__: make for make in (InfoNCE, Barlow, SIGReg)}


def straight(objective: torch.nn.Module) -> torch.nn.Module:
    """With the identity as the projection."""
    torch.nn.init.eye_(objective.project.weight)
    torch.nn.init.zeros_(objective.project.bias)
    return objective


def test_info_nce_of_a_constant_is_the_log_of_the_rows_and_of_itself_almost_none() -> None:
    objective = straight(InfoNCE(latent_dim=D, embed_dim=D, temperature=0.01))
    embed = torch.randn(R, D)
    same = embed[:1].expand(R, D)
    assert objective(same, same).item() == pytest.approx(math.log(R), rel=1e-5)
    assert objective(embed, embed) < 0.01 < objective(embed.flip(0), embed)


def test_barlow_is_zero_for_white_rows_that_agree_and_counts_what_is_repeated() -> None:
    objective = straight(Barlow(latent_dim=D, embed_dim=D, redundancy=0.1))
    white = torch.linalg.qr(torch.cat([torch.ones(R, 1), torch.randn(R, D)], 1))[0][:, 1:]
    assert objective(3 * white + 1, white).abs() < 1e-5  # of any scale and offset
    repeated = white[:, :1].expand(R, D)
    assert objective(repeated, repeated).item() == pytest.approx(0.1 * D * (D - 1), rel=1e-4)
    assert objective(-white, white).item() == pytest.approx(4 * D, rel=1e-4)


@pytest.mark.parametrize("c", [0.0, 1.5])
def test_sigreg_of_a_constant_is_the_epps_pulley_integral(c: float) -> None:
    # ∫ |exp(ict) - φ|² φ dt with φ = exp(-t²/2); what lies beyond |t| = 6 is nothing
    objective = SIGReg(latent_dim=1, embed_dim=D, knots=200, reach=6.0)
    expected = math.sqrt(2 * math.pi) * (1 - math.sqrt(2) * math.exp(-(c**2) / 4) + 1 / math.sqrt(3))
    assert objective(torch.full((R, 1), c), torch.zeros(R, D)).item() == pytest.approx(expected, rel=1e-4)


def test_sigreg_prefers_the_standard_normal() -> None:
    objective = SIGReg(latent_dim=D, embed_dim=D)
    normal = torch.randn(4000, D)
    fit = objective(normal, normal)
    for other in (0.1 * normal, 2 * normal, normal + 1, normal[:, :1].expand(-1, D)):
        assert objective(other, other) > 10 * fit


@pytest.mark.parametrize("name", ["InfoNCE", "Barlow"])
def test_embeddings_are_held_still(name: str) -> None:
    latent, embed = torch.randn(R, D, requires_grad=True), torch.randn(R, 4, requires_grad=True)
    OBJECTIVES[name](latent_dim=D, embed_dim=4)(latent, embed).backward()
    assert latent.grad is not None and latent.grad.abs().sum() > 0 and embed.grad is None
