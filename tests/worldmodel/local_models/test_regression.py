"""Bayesian linear regression against a posterior computed in another way, its limits, and what a prior is worth."""

import itertools

import torch
from torch import Tensor

from worldmodel.local_models.fitting import fit_dynamics
from worldmodel.local_models.linear_gaussian import LinearGaussianDynamics
from worldmodel.local_models.regression import LinearRegression

IN, OUT = 4, 3


def double(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(n: int, seed: int) -> Tensor:
    root = double(n, n, seed=seed)
    return root @ root.mT + 0.3 * torch.eye(n, dtype=torch.float64)


def prior(strength: float = 5.0) -> LinearRegression:
    mean, moment, noise = double(OUT, IN, seed=1), positive(IN, 2), positive(OUT, 3)
    return LinearRegression.prior(mean, moment, noise, strength=strength)


def samples(count: int) -> tuple[Tensor, Tensor]:
    return double(count, IN, seed=4), double(count, OUT, seed=5)


def test_the_posterior_is_that_of_conditioning_the_joint_gaussian() -> None:
    """For any noise Σ the coefficients and outputs are jointly Gaussian: no formula of the conjugate update is used."""
    belief, (inputs, outputs) = prior(), samples(7)
    noise = positive(OUT, 6)
    design = torch.kron(inputs, torch.eye(OUT, dtype=torch.float64))  # rows: sample, output; columns: input, output
    covariance = torch.kron(torch.linalg.inv(belief.precision).contiguous(), noise)
    of_outputs = design @ covariance @ design.mT + torch.kron(torch.eye(7, dtype=torch.float64), noise)
    gain = torch.linalg.solve(of_outputs, design @ covariance).mT
    flat = belief.mean.mT.flatten()
    mean = (flat + gain @ (outputs.flatten() - design @ flat)).view(IN, OUT).mT
    spread = covariance - gain @ design @ covariance
    after = belief.posterior(inputs, outputs)
    torch.testing.assert_close(after.mean, mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        torch.kron(torch.linalg.inv(after.precision).contiguous(), noise), spread, rtol=0, atol=1e-8
    )


def test_the_noise_is_that_of_the_evidence() -> None:
    """p(outputs | Σ) p(Σ) / p(Σ | outputs) is the same for every Σ: checks Ψ and ν, with densities of the library."""
    belief, (inputs, outputs) = prior(), samples(7)
    after = belief.posterior(inputs, outputs)

    def log_inverse_wishart(noise: Tensor, of: LinearRegression) -> Tensor:
        trace = torch.linalg.solve(noise, of.scale).diagonal().sum()
        volume = torch.logdet(of.scale) * of.degrees / 2
        return volume - (of.degrees + OUT + 1) / 2 * torch.logdet(noise) - trace / 2

    def log_evidence(noise: Tensor) -> Tensor:
        covariance = torch.eye(7, dtype=torch.float64) + inputs @ torch.linalg.solve(belief.precision, inputs.mT)
        full = torch.kron(covariance, noise)
        mean = (inputs @ belief.mean.mT).flatten()
        return torch.distributions.MultivariateNormal(mean, full).log_prob(outputs.flatten())

    constants = [
        log_evidence(noise) + log_inverse_wishart(noise, belief) - log_inverse_wishart(noise, after)
        for noise in (positive(OUT, 7), positive(OUT, 8), positive(OUT, 9))
    ]
    torch.testing.assert_close(torch.stack(constants), constants[0].expand(3), rtol=0, atol=1e-8)


def test_in_parts_or_at_once_is_the_same() -> None:
    belief, (inputs, outputs) = prior(), samples(9)
    whole = belief.posterior(inputs, outputs)
    parts = belief.posterior(inputs[:2], outputs[:2]).posterior(inputs[2:], outputs[2:])
    for name in ("mean", "precision", "scale", "degrees"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-9)


def test_a_weak_prior_is_least_squares_and_a_strong_one_stays() -> None:
    inputs, outputs = samples(20)
    squares = torch.linalg.lstsq(inputs, outputs).solution.mT
    torch.testing.assert_close(prior(1e-10).posterior(inputs, outputs).mean, squares, rtol=0, atol=1e-8)
    strong = prior(1e12)
    torch.testing.assert_close(strong.posterior(inputs, outputs).mean, strong.mean, rtol=0, atol=1e-8)


def fitted_error(strength: float, count: int) -> float:
    """Root mean square error of F, fitted to `count` trajectories from a prior that is wrong by a third."""
    n, m, H, B = 4, 6, 3, 40
    F = 0.5 * double(B, H, n, m, seed=21)
    wrong = LinearGaussianDynamics(
        F + 0.15 * double(B, H, n, m, seed=22),
        torch.zeros(B, H, n, dtype=torch.float64),
        0.01 * torch.eye(n, dtype=torch.float64).expand(B, H, n, n),
    )
    states, controls = [double(B, 16, n, seed=23)], double(B, 16, H, 2, seed=24)
    for t in range(H):
        z = torch.cat([states[-1], controls[:, :, t]], -1)
        states.append(z @ F[:, t].mT + 0.1 * double(B, 16, n, seed=25 + t))
    paths = torch.stack(states, 2)
    spread = torch.ones(m, dtype=torch.float64)
    found = fit_dynamics(wrong, paths[:, :count], controls[:, :count], spread=spread, strength=strength)
    return float((found.F - F).square().mean().sqrt())


def test_a_wrong_prior_is_corrected_by_samples_and_beats_least_squares_while_they_are_few() -> None:
    counts = (2, 4, 6, 8, 16)  # of one trajectory nothing can be told but where it led
    errors = [fitted_error(0.3, count) for count in counts]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.3 * errors[0]
    for count, error in zip(counts, errors, strict=True):
        if count < 7:  # coefficients of an output
            assert error < fitted_error(1e-9, count), count
