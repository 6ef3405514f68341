"""A prior with mean-field weights: its limit without spread, its KL's share, and what acting draws."""

import math

import pytest
import torch

from tests.conftest import A, random_batch, small_agent, window
from worldmodel.dynamics.prior_steps import FILTERS, prior_step
from worldmodel.dynamics.variational import VariationalDynamics
from worldmodel.uncertainty.variational import VariationalLinear

E = 10


def small(name: str, **options: float) -> VariationalDynamics:
    return VariationalDynamics(embed_dim=E, action_dim=A, filter={"name": name, "hidden": 16}, **options)


@pytest.mark.parametrize("name", FILTERS)
def test_weights_without_spread_are_the_plain_model(name: str) -> None:
    torch.manual_seed(3)
    plain = FILTERS[name](embed_dim=E, action_dim=A, hidden=16)
    torch.manual_seed(3)
    model = small(name)
    with torch.no_grad():
        for parameter_name, weight in model.named_parameters():
            if parameter_name.endswith("raw"):
                weight.fill_(-30.0)
        latent, action = torch.randn(5, plain.latent_dim), torch.randn(5, A)
        mean, std = model.of_all(latent, action)
        torch.testing.assert_close(mean, plain.predict(latent, action).expand(5, -1, -1))
        torch.testing.assert_close(std[2, ..., -model.noisy_dims :], plain.ahead(latent, action)[1][1])
        assert model.disagreement(latent, action).max() < 1e-8


@pytest.mark.parametrize("name", FILTERS)
def test_the_filter_itself_predicts_with_the_mean_weights(name: str) -> None:
    model = small(name).eval()
    latent, action = torch.randn(5, model.latent_dim), torch.randn(5, A)
    step = prior_step(model.filter, latent, action)
    expected = step.moments(model.net(step.inputs), model.filter.min_std)[0]
    torch.testing.assert_close(model.filter.predict(latent, action), expected)
    model.filter.predict(latent, action).sum().backward()
    assert all(layer.mean.grad.abs().sum() > 0 for layer in model.net.layers if isinstance(layer, VariationalLinear))
    if hasattr(model.filter, "rollout"):
        with torch.inference_mode():
            (rolled,) = model.filter.rollout(torch.float32)(latent, action[None], torch.empty(1, *latent.shape))
        torch.testing.assert_close(rolled, expected)


def test_every_row_s_kl_has_its_share_of_the_weights() -> None:
    model = small("rssm_gaussian", temperature=0.5).eval()
    embed, action, is_first = torch.randn(2, 6, E), torch.randn(2, 6, A), torch.zeros(2, 6, dtype=torch.bool)
    belief = model.observe(embed, action, is_first, torch.zeros(2, model.carry_dim), sample=True)
    own = model.filter.losses(belief, window(action, is_first))["kl"]
    for rows, counted in ((12, None), (3000, 3000)):
        if counted is not None:
            model.count_rows(counted)
        share = model.losses(belief, window(action, is_first))["kl"] - own
        torch.testing.assert_close(share, (0.5 * model.net.kl() / rows).expand(2, 6))
    assert model.report(belief, window(action, is_first))["model/weights_kl"] == model.net.kl()


def test_learning_samples_weights_and_acting_draws_nothing() -> None:
    agent, batch = small_agent("variational", act_with="actor"), random_batch()
    state = torch.get_rng_state()
    agent.observe(batch, sample=False)
    assert not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    agent.eval().act({"pixels": batch.pixels[:, 0]}, batch.is_first[:, 0], agent.initial_carry(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_few_data_leave_more_disagreement_than_many() -> None:
    """s' = sin 6s + noise, from 20 rows and from 2,000 of the same line."""
    found = []
    for rows in (20, 2000):
        options = {"name": "gaussian", "latent_dim": 1, "hidden": 16, "min_std": 0.01}
        model = VariationalDynamics(embed_dim=1, action_dim=1, filter=options, members=20)
        x = torch.linspace(-1, 1, rows)[:, None]
        y, still = torch.sin(6 * x) + 0.1 * torch.randn_like(x), torch.ones_like(x)
        optimizer = torch.optim.Adam(model.net.parameters(), lr=2e-2)
        for _ in range(250):
            mean, std = model.filter.prior(x, still)
            optimizer.zero_grad()
            ((0.5 * ((y - mean) / std).square() + std.log()).mean() + model.net.kl() / rows).backward()
            optimizer.step()
        with torch.no_grad():
            found.append(model.eval().disagreement(x, still).mean().item())
    assert found[0] > 3 * found[1]


@pytest.mark.parametrize("wrong", [{"prior_scale": 0.0}, {"temperature": math.nan}, {"members": 0}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}: expected"):
        small("gaussian", **wrong)
