"""The states of this process's random number generators, which a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import torch


def random_state() -> dict[str, Any]:
    """The generators of the CPU and, where CUDA is in use, of the current GPU; None without one."""
    return {
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Draw on from where `random_state` was taken; other keys of `state` are left alone."""
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda_rng"])
