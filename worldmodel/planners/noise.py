"""Noise over action sequences whose power falls with frequency, so that samples push in one direction for a while."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def mixing(horizon: int, beta: float) -> Float[Tensor, "H H"]:
    """The matrix that turns white noise over time into noise of unit variance with power f^-beta.

    Rows are times. The spectrum of period H is drawn as real amplitudes of cosines and sines; the constant term has
    the power of the lowest frequency. beta = 0 is white. Timmer and König (1995); Pinneri et al. (2020), iCEM.
    """
    times = torch.arange(horizon, dtype=torch.float64)
    columns = [torch.full((horizon,), math.sqrt(0.5) * horizon ** (beta / 2), dtype=torch.float64)]
    for k in range(1, horizon // 2 + 1):
        amplitude, phase = (k / horizon) ** (-beta / 2), 2 * math.pi * k * times / horizon
        if 2 * k == horizon:  # the highest frequency of an even horizon has no sine
            columns.append(math.sqrt(0.5) * amplitude * phase.cos())
        else:
            columns += [amplitude * phase.cos(), amplitude * phase.sin()]
    matrix = torch.stack(columns, 1)
    return (matrix / matrix.square().sum(1, keepdim=True).sqrt()).float()


def colour(white: Float[Tensor, "B N H A"], matrix: Float[Tensor, "H H"]) -> Float[Tensor, "B N H A"]:
    """White noise mixed over time."""
    return torch.einsum("hk,bnka->bnha", matrix.to(white), white)
