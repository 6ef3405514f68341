"""The device that a command was told to compute on."""

import torch

from trainers.command.configuration import BadConfig


def usable_device(text: str) -> torch.device:
    """A device that torch can put numbers on; raises BadConfig for `device`."""
    try:
        device = torch.device(text)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadConfig(f"device: expected cpu or what torch finds on this machine, got {text!r}") from error
    return device
