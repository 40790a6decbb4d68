"""What a model says to input that it was not made for: what it got, what it needs."""

from __future__ import annotations

import torch
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


def check_tokens(x: Tensor, vocab_size: int, max_len: int | None, who: str) -> Tensor:
    """Return x if it is int64 (B, T), T from 1 to max_len (None for any), in 0 .. vocab_size - 1.

    Raises:
        ValueError: another shape, length or type, or a token that is not in the vocabulary.
    """
    limit = "" if max_len is None else f" with T from 1 to {max_len},"
    wanted = f"{who} needs int64 (B, T),{limit} in 0 to {vocab_size - 1}"
    too_long = x.dim() == 2 and max_len is not None and x.shape[1] > max_len
    if x.dim() != 2 or x.shape[1] < 1 or too_long:
        raise ValueError(f"got tokens of shape {tuple(x.shape)}; {wanted}")
    if x.dtype != torch.int64:
        raise ValueError(f"got tokens of {x.dtype}; {wanted}: convert with .long()")
    if len(x) and not bool((x.amin() >= 0) & (x.amax() < vocab_size)):
        raise ValueError(f"got tokens from {int(x.amin())} to {int(x.amax())}; {wanted}")
    return x
