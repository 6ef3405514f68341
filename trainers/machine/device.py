"""The device that a command was told to compute on."""

import torch

from trainers.command.configuration import BadConfig


def usable_device(text: object) -> torch.device:
    """A device that torch can put numbers on; raises BadConfig for `device`."""
    try:
        device = torch.device(text)  # type: ignore[call-overload]
        torch.zeros(1, device=device).item()  # of "meta" there are no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BadConfig(f"device: expected cpu or what torch finds on this machine, got {text!r}") from error
    return device
