"""Moving averages of weights."""

import copy

import torch
from torch import Tensor, nn


class SlowCopy(nn.Module):
    """An exponential moving average of a module, which gives targets that do not chase themselves."""

    def __init__(self, module: nn.Module, *, rate: float) -> None:
        super().__init__()
        self.module, self.rate = copy.deepcopy(module).requires_grad_(False), rate

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Move every weight by `rate` towards the module's."""
        slow: list[Tensor] = [*self.module.parameters()]
        fast: list[Tensor] = [*module.parameters()]
        torch._foreach_lerp_(slow, fast, self.rate)
