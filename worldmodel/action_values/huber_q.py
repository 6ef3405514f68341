"""Q values as numbers, learned by Huber's loss."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldmodel.action_values.discrete_q import DiscreteQ


class HuberQ(DiscreteQ):
    """A perceptron with an output for every choice, in units of `scale`."""

    def forward(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R groups choices"]:
        return self.net(latent).float().unflatten(-1, (self.actions.groups, -1)) * self.scale

    def loss(
        self, latent: Float[Tensor, "*R D"], action: Float[Tensor, "*R A"], target: Float[Tensor, "*R"]
    ) -> Float[Tensor, "*R"]:
        """Huber's loss of the error, linear from one unit of scale on."""
        value = self.of(latent, action) / self.scale
        return F.huber_loss(value, target / self.scale, reduction="none")
