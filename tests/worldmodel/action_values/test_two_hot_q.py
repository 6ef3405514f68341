"""A distribution over bins never stops learning, however sure it was of something else."""

import torch

from worldmodel.action_values.action_sets import Grid
from worldmodel.action_values.discrete_q import TwoHotQ


def sure_of(bin_: int) -> TwoHotQ:
    q = TwoHotQ(actions=Grid(action_dim=1, bins=2), latent_dim=1, scale=1.0, hidden=4, layers=1)
    with torch.no_grad():
        q.net[-1].bias.view(2, -1)[:, bin_] = 40.0
    return q


def test_the_loss_of_a_certain_error_is_its_logit_and_its_gradient_stays() -> None:
    q = sure_of(50)
    loss = q.loss(torch.zeros(1, 1), torch.tensor([[-1.0]]), torch.tensor([5.0]))
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.tensor([40.0]), atol=1e-3, rtol=0)
    gradient = q.net[-1].bias.grad.view(2, -1)
    torch.testing.assert_close(gradient[0].abs().sum(), torch.tensor(2.0), atol=1e-3, rtol=0)
    assert gradient[1].abs().sum() == 0, "of the action that was not taken"


def test_between_two_choices_it_is_the_cross_entropy_to_their_mixture() -> None:
    q = sure_of(50)
    with torch.no_grad():
        q.net[-1].bias.copy_(torch.randn(202))
    action, target = torch.tensor([[0.5]]), torch.tensor([2.0])
    shares = q.net(torch.zeros(1, 1)).view(2, -1).softmax(-1)
    mixture = (q.actions.weights(action)[0, 0, :, None] * shares).sum(0)
    expected = -(q.code.encode(target)[0] * mixture.log()).sum()
    torch.testing.assert_close(q.loss(torch.zeros(1, 1), action, target)[0], expected)
