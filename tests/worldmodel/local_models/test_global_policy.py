"""Networks as linear-Gaussian policies, and the KL that they learn by."""

import torch
from torch import nn

from tests.worldmodel.local_models.linear_plants import double, positive
from worldmodel.actors.squashed_normal import SquashedNormalActor
from worldmodel.local_models.control_space import ControlSpace, Paths, roll_out, surely_worse
from worldmodel.local_models.fitting import linearise
from worldmodel.local_models.global_policy import linearise_policy, supervised_kl
from worldmodel.local_models.linear_gaussian import LinearGaussianPolicy
from worldmodel.local_models.teachers import Teachers
from worldmodel.records import choose


def test_a_linear_network_is_itself_whatever_the_samples() -> None:
    net = nn.Linear(4, 2).double()
    spread = torch.ones(4).double()

    def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return net(x), torch.full((*x.shape[:-1], 2), 0.3).double()

    for strength in (1e-9, 1.0, 1e9):
        found = linearise_policy(moments, double(3, 5, 6, 4, seed=0), spread=spread, strength=strength)
        torch.testing.assert_close(found.K, net.weight.expand(3, 6, 2, 4), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.k, net.bias.expand(3, 6, 2), rtol=0, atol=1e-6)
        torch.testing.assert_close(found.covariance, 0.09 * torch.eye(2).double().expand(3, 6, 2, 2))


def test_many_samples_make_it_the_regression_and_few_the_derivatives() -> None:
    actor = SquashedNormalActor(latent_dim=4, action_dim=2, hidden=16).double()
    spread, states = torch.ones(4).double(), double(1, 200, 1, 4, seed=1)
    with torch.no_grad():
        regressed = linearise_policy(actor.moments, states, spread=spread, strength=1e-9)
        derived = linearise_policy(actor.moments, states, spread=spread, strength=1e12)
        inputs = torch.cat([states[0, :, 0], torch.ones(200, 1).double()], -1)
        squares = torch.linalg.lstsq(inputs, actor.moments(states[0, :, 0])[0].double()).solution
    torch.testing.assert_close(regressed.K[0, 0], squares[:4].mT, rtol=0, atol=1e-6)
    torch.testing.assert_close(regressed.k[0, 0], squares[4], rtol=0, atol=1e-6)
    step, centre = 1e-4, states.mean(1)[0]
    nudges = torch.cat([centre + sign * step * torch.eye(4).double() for sign in (1, -1)])
    with torch.no_grad():
        around = actor.moments(nudges)[0].double()
    torch.testing.assert_close(derived.K[0, 0], ((around[:4] - around[4:]) / (2 * step)).mT, rtol=0, atol=1e-3)


def test_the_loss_is_the_library_s_kl_and_its_best_std_that_of_the_mean_precision() -> None:
    mean, std, target = double(5, 2, seed=1), double(5, 2, seed=2).exp(), double(5, 2, seed=3)
    precision = positive(5, 2, seed=4)
    ours = supervised_kl(mean, std, target, precision)
    normal = torch.distributions.MultivariateNormal
    theirs = torch.distributions.kl_divergence(
        normal(mean, torch.diag_embed(std.square())), normal(target, precision_matrix=precision)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    best = precision.diagonal(dim1=-2, dim2=-1).mean(0).rsqrt().requires_grad_()
    loss = supervised_kl(mean, best.expand(5, 2), target, precision).mean()
    (slope,) = torch.autograd.grad(loss, best)
    assert slope.abs().max() < 1e-9
    assert supervised_kl(mean, (1.1 * best).expand(5, 2), target, precision).mean() > loss


class Bend:
    """x' = x + sin(x) + (a, a²) with a curved reward, in two dimensions."""

    action_dim, discount = 1, 0.9

    def step(self, latent: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return latent + latent.sin() + torch.cat([action, action.square()], -1)

    def reward(self, latent: torch.Tensor) -> torch.Tensor:
        return -(latent**4).sum(-1)

    def value(self, latent: torch.Tensor) -> torch.Tensor:
        return -latent.square().sum(-1)

    def propose(self, latent: torch.Tensor, generator: object) -> None:
        return None


def test_the_local_problem_is_taylor_s_in_absolute_coordinates() -> None:
    """Near a path, predicted states are right to second order and predicted costs to third."""
    world, start = ControlSpace(Bend()), 0.3 * double(2, 2, seed=5)
    path = roll_out(world, start, lambda x, noise, t: 0.3 * noise, samples=1, horizon=4)
    states, controls = path.states[:, 0], path.controls[:, 0]
    dynamics, cost = linearise(world, states, controls, noise=torch.eye(2).double(), control_cost=0.2)

    def true_cost(moved: torch.Tensor) -> torch.Tensor:
        rewards = world.reward(moved[:, 1:]) * 0.9 ** torch.arange(4)
        return -rewards.sum(1) - 0.9**4 * world.value(moved[:, -1])

    def quadratic(moved: torch.Tensor) -> torch.Tensor:
        z = torch.cat([moved[:, :-1], torch.zeros_like(controls)], -1)
        last = moved[:, -1]
        along = 0.5 * torch.einsum("bti,btij,btj->b", z, cost.curvature, z) + (cost.slope * z).sum((1, 2))
        end = 0.5 * torch.einsum("bi,bij,bj->b", last, cost.last_curvature, last) + (cost.last_slope * last).sum(1)
        return along + end

    errors = []
    for size in (1e-2, 5e-3):
        nudge = size * double(2, 5, 2, seed=6)
        nudge[:, 0] = 0  # nobody chooses where paths begin
        z = torch.cat([states + nudge, torch.cat([controls, controls[:, :1]], 1) + size], -1)[:, :-1]
        after = world.step(z[..., :2].flatten(0, 1), z[..., 2:].flatten(0, 1)).unflatten(0, (2, 4))
        predicted = (dynamics.F @ z[..., None])[..., 0] + dynamics.f
        change = true_cost(states + nudge) - true_cost(states)
        expected = quadratic(states + nudge) - quadratic(states)
        errors.append((float((after - predicted).abs().max()), float((change - expected).abs().max())))
    (far, far_cost), (near, near_cost) = errors
    assert near < 0.3 * far < 1e-3 and near_cost < 0.2 * far_cost < 1e-4
    effort = cost.curvature[:, :, 2, 2]
    torch.testing.assert_close(effort, (0.2 * 0.9 ** torch.arange(4).double()).expand(2, 4))


def test_what_is_not_finite_does_not_teach() -> None:
    teachers = Teachers(starts=3, samples=2, steps=2, latent_dim=4, action_dim=2)
    K, k = double(3, 3, 2, 4, seed=1), double(3, 3, 2, seed=2)
    policy = LinearGaussianPolicy(K, k, positive(3, 3, 2, seed=3))
    paths = Paths(double(3, 2, 4, 4, seed=4).float(), double(3, 2, 3, 2, seed=5).float())
    paths.states[1, 0, 2] = torch.inf
    teachers.take(policy, paths, torch.ones(3).double())
    assert teachers.weight.tolist() == [1.5, 0.0, 1.5]
    mean = policy.mean(paths.states[:, :, :3].double())[:, :, :2]
    torch.testing.assert_close(teachers.target[[0, 2]], mean[[0, 2]].float())
    assert teachers.loss((torch.zeros(3, 2, 2, 2), torch.ones(3, 2, 2, 2))).isfinite()


class Edge(Bend):
    """Episodes end, the likelier the further out."""

    terminates = True

    def continues(self, latent: torch.Tensor) -> torch.Tensor:
        return (-latent.square().sum(-1)).exp()

    def reward(self, latent: torch.Tensor) -> torch.Tensor:
        return 1 + latent[..., 0]

    def value(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(latent[..., 0])


def test_where_episodes_can_end_slopes_are_those_of_the_return_that_is_expected() -> None:
    world, start = ControlSpace(Edge()), 0.3 * double(2, 2, seed=5)
    path = roll_out(world, start, lambda x, noise, t: 0.3 * noise, samples=1, horizon=4)
    states, controls = path.states[:, 0], path.controls[:, 0]
    _, cost = linearise(world, states, controls, noise=torch.eye(2).double())
    arrivals = states[:, 1:].clone().requires_grad_()
    continues = world.continues(arrivals)
    under_way = torch.cat([torch.ones(2, 1).double(), continues[:, :-1]], 1).cumprod(1)
    expected = (under_way * 0.9 ** torch.arange(4).double() * world.reward(arrivals)).sum()
    (uphill,) = torch.autograd.grad(expected, arrivals)
    bend = torch.cat([cost.curvature[:, 1:, :2, :2], cost.last_curvature[:, None]], 1)
    slope = torch.cat([cost.slope[:, 1:, :2], cost.last_slope[:, None]], 1) + (bend @ states[:, 1:, :, None])[..., 0]
    torch.testing.assert_close(slope, -uphill, rtol=0, atol=1e-9)
    assert uphill[:, :3, 1].abs().max() > 0.1


def test_steps_are_refuted_by_more_than_noise_and_by_more_than_was_meant() -> None:
    before = torch.tensor([[1.0, 1.2, 0.8]]).repeat(5, 1)
    change = torch.tensor([0.3, -0.1, -1.0, -1.0, torch.nan])
    expected = torch.tensor([0.5, 0.5, 0.5, -0.9, 0.5])
    found = surely_worse(before + change[:, None], before, expected=expected)
    assert found.tolist() == [False, False, True, False, True]
    paths = [Paths(torch.full((5, 3, 2, 1), value), torch.full((5, 3, 1, 1), value)) for value in (0.0, 1.0)]
    assert choose(found, *paths).controls[:, 0, 0, 0].tolist() == [1.0, 1.0, 0.0, 1.0, 0.0]


def test_the_standard_error_of_a_step_is_that_of_a_mean_of_samples() -> None:
    """Of two pairs of samples, -1 and 1, it is √(2 / 2 + 2 / 2): a fall of 2.5 is within two of them, one of 3 not."""
    before = torch.tensor([[-1.0, 1.0]]).repeat(2, 1)
    after = before + torch.tensor([[-2.5], [-3.0]])
    assert surely_worse(after, before, expected=torch.zeros(2)).tolist() == [False, True]
    assert surely_worse(after[:, :1], before[:, :1], expected=torch.zeros(2)).all()
