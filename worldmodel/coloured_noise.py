"""Noise whose power falls with frequency: 0 is white, 1 is pink."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.transfer import send


def mixing(steps: int, beta: float) -> Float[Tensor, "T T"]:
    """The matrix that turns white noise over time into noise of unit variance with power f^-beta.

    Rows are times. The spectrum of period T is drawn as real amplitudes of cosines and sines; the constant term has
    the power of the lowest frequency. beta = 0 is white. Timmer and König (1995); Pinneri et al. (2020), iCEM.
    """
    times = torch.arange(steps, dtype=torch.float64)[:, None]
    k = torch.arange(1, steps // 2 + 1, dtype=torch.float64)
    amplitude, phase = (k / steps) ** (-beta / 2), 2 * math.pi * k * times / steps
    cosines, sines = amplitude * phase.cos(), amplitude * phase.sin()
    if steps % 2 == 0:  # the highest frequency of an even number has no sine
        cosines[:, -1] *= math.sqrt(0.5)
        sines = sines[:, :-1]
    constant = torch.full((steps, 1), math.sqrt(0.5) * steps ** (beta / 2), dtype=torch.float64)
    matrix = torch.cat([constant, cosines, sines], 1)
    return (matrix / matrix.square().sum(1, keepdim=True).sqrt()).float()


def colour(white: Float[Tensor, "*R T A"], matrix: Float[Tensor, "T T"]) -> Float[Tensor, "*R T A"]:
    """White noise mixed over time."""
    return torch.einsum("tk,...ka->...ta", send(matrix, white.device).to(white), white)
