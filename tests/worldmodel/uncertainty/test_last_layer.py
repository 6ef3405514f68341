"""The posterior of a last layer against Bayesian linear regression written out."""

import math

import pytest
import torch

from worldmodel.uncertainty.last_layer import LastLayerPosterior, with_one


def regression(x: torch.Tensor, variance: torch.Tensor, precision: float) -> torch.Tensor:
    """Covariance of the weights of every output, [O K K], under the prior N(0, σ² / precision)."""
    row = with_one(x)
    prior = precision * torch.eye(row.shape[1], dtype=torch.float64)
    return torch.stack([torch.linalg.inv(row.T @ row / s + prior / s) for s in variance])


def conditioned(rows: int = 60, **options: float) -> tuple[LastLayerPosterior, torch.Tensor, torch.Tensor]:
    x, missed = torch.randn(rows, 4, dtype=torch.float64), torch.tensor([0.3, 2.0]) * torch.randn(rows, 2)
    posterior = LastLayerPosterior(4, 2, **{"rate": 0.0, **options})
    for part in torch.randperm(rows).split(13):
        posterior.add(x[part], missed[part], torch.ones(len(part)))
    return posterior, x, missed


def test_the_covariance_equals_bayesian_linear_regression_in_any_batches() -> None:
    posterior, x, missed = conditioned(precision=2.0)
    torch.testing.assert_close(posterior.variance, missed.double().square().mean(0))
    expected = regression(x, posterior.noise(), 2.0)
    for d in range(2):
        # every unit vector as noise: the draws are the columns of a root of the covariance
        unit = torch.eye(5, dtype=torch.float64)[:, :, None].expand(-1, -1, 2)
        root = posterior.draws(unit)[:, :, d]
        torch.testing.assert_close(root.T @ root, expected[d], rtol=0, atol=1e-6)
    z = torch.randn(3, 7, 4, dtype=torch.float64)
    by_hand = torch.einsum("abi,oij,abj->abo", with_one(z), expected, with_one(z))
    torch.testing.assert_close(posterior.epistemic(z), by_hand, rtol=0, atol=1e-6)


def test_the_noise_is_that_of_least_squares_which_has_followed_as_many_rows_as_it_has_weights() -> None:
    """RSS / (n - p) is unbiased; a prior that determines weights itself gives its share back."""
    truth, found = 0.5, {1e-9: [], 1e9: []}
    for seed in range(300):
        torch.manual_seed(seed)
        x, noise = torch.randn(12, 4, dtype=torch.float64), truth * torch.randn(12, 1, dtype=torch.float64)
        row = with_one(x)
        residual = noise - row @ torch.linalg.lstsq(row, noise).solution
        for precision, numbers in found.items():
            posterior = LastLayerPosterior(4, 1, precision=precision, rate=0.0)
            posterior.add(x, residual if precision < 1 else noise, torch.ones(12))
            numbers.append(posterior.noise()[0])
    strict, vague = (torch.stack(numbers) for numbers in (found[1e9], found[1e-9]))
    assert vague.mean().item() == pytest.approx(truth**2, rel=0.08)  # RSS / n would say 7 / 12 of it
    assert strict.mean().item() == pytest.approx(truth**2, rel=0.05)
    torch.testing.assert_close(vague[-1], residual.square().sum() / (12 - 5))


def test_rows_of_weight_zero_count_nothing_and_counted_rows_replace_those_added() -> None:
    posterior, x, missed = conditioned()
    twice = LastLayerPosterior(4, 2, rate=0.0)
    twice.add(torch.cat([x, 9 * x]), torch.cat([missed, missed]), torch.tensor([1.0, 0.0]).repeat_interleave(60))
    torch.testing.assert_close(twice.factor(), posterior.factor())
    for _ in range(4):  # the same rows again and again
        twice.add(x, missed, torch.ones(60))
    twice.count_rows(60)
    torch.testing.assert_close(twice.factor(), posterior.factor())


def test_moved_features_are_forgotten_and_what_is_not_finite_is_left_out() -> None:
    posterior, _, _ = conditioned(rate=0.5)
    for _ in range(30):
        posterior.add(torch.ones(8, 4), torch.zeros(8, 2), torch.ones(8))
    torch.testing.assert_close(posterior.gram, torch.ones(5, 5, dtype=torch.float64), rtol=0, atol=1e-6)
    before = {name: tensor.clone() for name, tensor in posterior.state_dict().items()}
    posterior.add(torch.full((8, 4), torch.nan), torch.zeros(8, 2), torch.ones(8))
    for name, tensor in posterior.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_what_is_saved_knows_as_much_of_its_rows() -> None:
    posterior, x, _ = conditioned()
    for rows in (0, 12, 900):  # none are counted yet, few, many
        posterior.count_rows(rows)
        again = LastLayerPosterior(4, 2)
        again.load_state_dict(posterior.state_dict())
        assert torch.equal(again.epistemic(x), posterior.epistemic(x))
        torch.testing.assert_close(posterior.factor()[0, 0] ** 2, (rows or 60) * posterior.gram[0, 0] + 1)


@pytest.mark.parametrize("wrong", [{"precision": 0.0}, {"precision": math.nan}, {"rate": math.nan}, {"rate": 1.5}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LastLayerPosterior(4, 2, **wrong)
