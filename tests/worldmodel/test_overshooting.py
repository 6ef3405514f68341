"""Overshooting against rolling by hand; its first step is the ELBO's own term."""

import pytest
import torch

from worldmodel.distributions import gaussian_kl
from worldmodel.overshooting import latent_overshooting


def prior(latent: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return 0.5 * latent + action, torch.full_like(latent, 1e-6)


def test_every_entry_is_the_kl_of_the_rolled_prior() -> None:
    latent, action = torch.randn(2, 6, 3, requires_grad=True), torch.randn(2, 6, 3)
    std = torch.full_like(action, 1e-6)
    posterior = latent + 1e-6, std
    found = latent_overshooting(prior, latent, posterior, action, steps=3)
    assert found.shape == (2, 3, 3)
    for t in range(3):
        state = latent[:, t]
        for k in range(3):
            state = 0.5 * state + action[:, t + k + 1]
            expected = gaussian_kl((posterior[0][:, t + k + 1], std[:, 0]), (state, std[:, 0]))
            torch.testing.assert_close(found[:, t, k], expected, rtol=1e-3, atol=1e-3)


def test_posteriors_are_held_still_and_steps_must_fit() -> None:
    latent, action = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    mean = latent.clone().requires_grad_()
    assert not latent_overshooting(prior, latent, (mean, torch.ones_like(mean)), action, steps=2).requires_grad
    for steps in (0, 6):
        with pytest.raises(ValueError, match="steps"):
            latent_overshooting(prior, latent, (mean, mean), action, steps=steps)
