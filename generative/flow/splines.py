"""Monotone rational-quadratic splines (Durkan et al. 2019, Neural Spline Flows)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["rational_quadratic"]

MIN_WIDTH = 1e-3
"""Smallest share of a piece in the width and in the height of a spline."""
MIN_SLOPE = 1e-3
"""Smallest slope of a spline at a knot."""
UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))
"""Unconstrained value that gives slope 1."""


def rational_quadratic(
    x: Tensor, raw: Tensor, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Monotone rational-quadratic spline, and the logarithm of its slope.

    Durkan et al. (2019), equations 4 to 8, with linear tails.

    Args:
        x: any shape.
        raw: (*x.shape, 3K - 1), unconstrained: K widths, K heights, K - 1 slopes at the inner
            knots. Zeros give the identity.
        bound: the spline maps [-bound, bound] onto itself and is the identity outside.
        inverse: compute x from y; the slope is then that of the inverse.
    Returns:
        y and log |dy/dx|, both of the shape of x.
    """
    num_bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = raw.split([num_bins, num_bins, num_bins - 1], -1)
    xs, ys = _knots(widths, bound), _knots(heights, bound)
    # The offset makes raw = 0 a slope of 1, and the ends join the identity smoothly.
    slopes = F.pad(MIN_SLOPE + F.softplus(slopes + UNIT_SLOPE), (1, 1), value=1.0)

    inside = (x > -bound) & (x < bound)
    point = x.clamp(-bound, bound)
    knots = ys if inverse else xs
    k = torch.searchsorted(knots[..., 1:-1].contiguous(), point[..., None].contiguous())
    x0, x1, y0, y1, d0, d1 = (
        values.gather(-1, index).squeeze(-1) for values in (xs, ys, slopes) for index in (k, k + 1)
    )
    # In float64: where the spline is flat its inverse magnifies every rounding.
    x0, x1, y0, y1, d0, d1, point = (v.double() for v in (x0, x1, y0, y1, d0, d1, point))
    width, height = x1 - x0, y1 - y0
    s = height / width
    bend = d0 + d1 - 2 * s
    if inverse:
        rise = point - y0
        a = height * (s - d0) + rise * bend
        b = height * d0 - rise * bend
        c = -s * rise
        # The root in [0, 1], in the form that does not cancel.
        xi = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
        y = x0 + width * xi
    else:
        xi = (point - x0) / width
        y = y0 + height * (s * xi.square() + d0 * xi * (1 - xi)) / (s + bend * xi * (1 - xi))
    numerator = d1 * xi.square() + 2 * s * xi * (1 - xi) + d0 * (1 - xi).square()
    log_slope = 2 * s.log() + numerator.log() - 2 * (s + bend * xi * (1 - xi)).log()
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, y.to(x), x), torch.where(inside, log_slope.to(x), 0.0)


def _knots(raw: Tensor, bound: float) -> Tensor:
    """(..., K) unconstrained -> (..., K + 1) rising from -bound to bound."""
    num_bins = raw.shape[-1]
    shares = MIN_WIDTH + (1 - MIN_WIDTH * num_bins) * raw.softmax(-1)
    inner = bound * (2 * shares.cumsum(-1)[..., :-1] - 1)
    # The ends exactly, free of the rounding of the sum.
    return F.pad(F.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)
