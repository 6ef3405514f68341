"""Open-loop rollouts for planning: many action sequences from few latents, without gradients.

A dynamics model may offer them beside `predict`, as `rollout(dtype)`. They equal a loop over `predict` but for
rounding, and are faster: what all candidates share is computed once, weights are packed once, and activations are made
where the products leave them.
"""

from collections.abc import Iterator
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Rollout(Protocol):
    """Weights of a dynamics model as they were when it was made; products in a precision of its own."""

    def __call__(
        self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "H R A"], out: Float[Tensor, "G R D"]
    ) -> Iterator[Tensor]:
        """Step through the actions of R = B n rows, n for each latent; state k is yielded, and lies in out[k % G].

        out has the precision of the products.
        """
