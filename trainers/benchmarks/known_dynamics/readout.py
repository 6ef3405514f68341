"""What a Simulator with a known reward, but no learned heads, says of values and policies."""

from jaxtyping import Float
from torch import Tensor

from worldmodel.interfaces import Noise


class OwnReward:
    """No value and no policy: planners look as far as their horizon, and sample on their own."""

    def value(self, latent: Float[Tensor, "*R D"]) -> Float[Tensor, "*R"]:
        """Nothing is known of what follows."""
        return latent.new_zeros(latent.shape[:-1])

    def propose(self, latent: Float[Tensor, "R D"], generator: Noise) -> Float[Tensor, "R A"] | None:
        """There is no policy."""
        return None
