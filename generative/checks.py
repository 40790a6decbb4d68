"""What a model says to input that it was not made for: what it got, what it needs."""

from __future__ import annotations

from torch import Tensor


def check_images(x: Tensor, shape: tuple[int, ...], who: str) -> Tensor:
    """Return x if it is float (B, *shape) in [0, 1].

    Raises:
        ValueError: another shape or type, or a pixel outside [0, 1] (or not a number).
    """
    wanted = f"{who} needs float (B, {', '.join(map(str, shape))}) in [0, 1]"
    if x.dim() != 1 + len(shape) or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(f"got images of shape {tuple(x.shape)}; {wanted}")
    if not x.is_floating_point():
        raise ValueError(f"got images of {x.dtype}; {wanted}: convert with to_float_bchw")
    if len(x) and not bool((x.detach().amin() >= 0) & (x.detach().amax() <= 1)):
        low, high = float(x.detach().amin()), float(x.detach().amax())
        raise ValueError(f"got pixels from {low:.4g} to {high:.4g}; {wanted}: scale them first")
    return x


def check_vectors(x: Tensor, dim: int, what: str, who: str) -> Tensor:
    """Return x if it is float (B, dim).

    Raises:
        ValueError: another shape or type.
    """
    if x.dim() != 2 or x.shape[1] != dim or not x.is_floating_point():
        raise ValueError(
            f"got {what} of shape {tuple(x.shape)} and {x.dtype}; {who} needs float (B, {dim})"
        )
    return x
