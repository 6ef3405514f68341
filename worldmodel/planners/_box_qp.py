"""Convex quadratic programs of a few dimensions within bounds, many at once, by projected Newton steps.

Bertsekas, Projected Newton Methods for Optimization Problems with Simple Constraints (1982), as used by Tassa, Mansard
and Todorov, Control-Limited Differential Dynamic Programming (2014).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldmodel.planners.lqr import matvec

_STEP_LENGTHS = 0.25 ** torch.arange(16)


def solve_box_qp(
    hessian: Float[Tensor, "B A A"],
    gradient: Float[Tensor, "B A"],
    low: Float[Tensor, "B A"],
    high: Float[Tensor, "B A"],
) -> tuple[Float[Tensor, "B A"], Bool[Tensor, "B A"]]:
    """Minimise ½ xᵀHx + gᵀx over low <= x <= high, where low <= 0 <= high and H is positive definite.

    Returns:
        The minimum x, and the dimensions that are free there: not at a bound with the gradient pointing outward.
    """
    everything = torch.ones_like(gradient, dtype=torch.bool)
    x = torch.clamp(solve_free(hessian, -gradient[..., None], everything)[..., 0], low, high)
    steps = _STEP_LENGTHS.to(gradient)[:, None, None]
    rounding = 4 * torch.finfo(gradient.dtype).eps
    curvature = hessian.diagonal(dim1=-2, dim2=-1)
    for _ in range(10 + 3 * gradient.shape[-1]):
        slope = gradient + matvec(hessian, x)
        free = ~_stopped(x, slope, low, high)
        if not (free & (slope.abs() > rounding * (gradient.abs() + matvec(hessian.abs(), x.abs())))).any():
            return x, free
        downhill = -slope / curvature
        # dimensions close to a bound count as at it: else full steps would be cut to the little that is left there
        margin = (torch.clamp(x + downhill, low, high) - x).square().sum(-1, keepdim=True).sqrt()
        free = ~_stopped(x, slope, low + margin, high - margin)
        direction = torch.where(free, solve_free(hessian, -slope[..., None], free)[..., 0], downhill)
        trials = torch.clamp(x + steps * direction, low, high)  # [lengths B A]
        # the change of cost, not the cost: near the minimum their difference would be rounding
        moves = trials - x
        changes = (moves * slope).sum(-1) + 0.5 * (moves * matvec(hessian, moves)).sum(-1)
        best = changes.argmin(0)
        improved = changes.gather(0, best[None])[0] < 0
        chosen = trials.gather(0, best[None, :, None].expand(1, *x.shape))[0]
        x = torch.where(improved[:, None], chosen, x)
        if not improved.any():
            break
    return x, ~_stopped(x, gradient + matvec(hessian, x), low, high)


def solve_free(
    matrix: Float[Tensor, "B A A"], right: Float[Tensor, "B A n"], free: Bool[Tensor, "B A"]
) -> Float[Tensor, "B A n"]:
    """matrix⁻¹ right over the free dimensions, zeros in the others and where the matrix cannot be inverted."""
    eye = torch.eye(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    block = torch.where(free[:, :, None] & free[:, None, :], matrix, eye.to(matrix.dtype))
    solution, failed = torch.linalg.solve_ex(block.nan_to_num(), torch.where(free[..., None], right, 0.0).nan_to_num())
    sound = (failed == 0)[:, None, None] & solution.isfinite()
    return torch.where(sound, solution, 0.0)


def _stopped(x: Tensor, slope: Tensor, low: Tensor, high: Tensor) -> Bool[Tensor, "B A"]:
    """Dimensions at a bound, or beyond it, whose cost falls outward."""
    return ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
