"""Discounted returns of many candidates, in chunks of rows that stay near the processor."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel._packed import Perceptron
from worldmodel.heads.head import Head
from worldmodel.interfaces import Rollout

# Measured on one core, GRU of 200: fewer rows make products slower, more rows fall out of the cache.
ROWS = 1024  # of a rollout at once
STATES = 2048  # whose rewards are read at once


class Scorer:
    """J of action sequences by a `Rollout` and the heads' perceptrons, products in `precision`, sums in float32."""

    def __init__(
        self,
        *,
        rollout: Rollout,
        reward: Head,
        value: nn.Module | None,
        continuation: Head | None = None,
        discount: float,
        precision: torch.dtype,
    ) -> None:
        self._rollout, self._discount, self._precision = rollout, discount, precision
        self._reward = _reader(reward, precision)
        self._value = None if value is None else _reader(value, precision)
        self._continues = None if continuation is None else _reader(continuation, precision)

    def __call__(self, latent: Float[Tensor, "B D"], actions: Float[Tensor, "B N H A"]) -> Float[Tensor, "B N"]:
        """The return of every candidate."""
        share = actions.shape[1] if latent.device.type != "cpu" else max(1, ROWS // len(latent))
        with torch.autocast(latent.device.type, enabled=False):  # policies that plan as they learn are within one
            return torch.cat([self._returns(latent, chunk) for chunk in actions.split(share, 1)], 1)

    def _returns(self, latent: Tensor, actions: Tensor) -> Tensor:
        B, N, H, A = actions.shape
        R, by_time = B * N, actions.permute(2, 0, 1, 3).reshape(H, B * N, A)
        group = min(H, max(1, STATES // R))
        states = torch.empty(group, R, latent.shape[1], dtype=self._precision, device=latent.device)
        total, alive = torch.zeros(R, device=latent.device), None
        if self._continues is not None:
            alive = torch.ones(1, R, device=latent.device)
        for k, _ in enumerate(self._rollout(latent, by_time, states)):
            slot = k % group
            if slot == group - 1 or k == H - 1:
                arrivals = states[: slot + 1].flatten(0, 1)
                rewards = self._reward(arrivals).view(slot + 1, R)
                if self._continues is not None and alive is not None:
                    alive = torch.cat([alive, self._continues(arrivals).view(slot + 1, R)]).cumprod(0)
                    rewards, alive = alive[:-1] * rewards, alive[-1:]
                total += self._weights(k - slot, rewards) @ rewards
        last = states[(H - 1) % group]
        if self._value is not None:
            value = self._value(last)
            total += self._discount**H * (value if alive is None else alive[0] * value)
        total += 0 * last.sum(-1, dtype=total.dtype)  # ReLU hides a state that is not finite
        return total.view(B, N)

    def _weights(self, start: int, rewards: Tensor) -> Tensor:
        steps = torch.arange(start, start + len(rewards), device=rewards.device, dtype=rewards.dtype)
        return self._discount**steps


def _reader(head: nn.Module, precision: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A head by its perceptron in a precision, read in float32; whatever else reads latents, as it is."""
    if not isinstance(head, Head):
        return lambda latent: head(latent.float())
    net, read = Perceptron(head.net, precision), head.read
    return lambda latent: read(net(latent))
