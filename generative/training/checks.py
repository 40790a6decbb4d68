"""Checks of a model's input, whose errors say what the model got and what it needs.

A model computes in the type of its weights: tensors that it draws or makes have that type
(`placed`), and its input must have it. Nothing is cast silently.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import numbers
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import torch
from torch import Tensor, nn

from generative.training.files import short
from generative.training.ranges import Range

Function = TypeVar("Function", bound=Callable[..., Any])

CASTS = {
    torch.float64: "double",
    torch.float32: "float",
    torch.float16: "half",
    torch.bfloat16: "bfloat16",
}
"""Names of the methods of tensors and modules that convert to a type."""
ENCODE_FIRST = "encode texts first, with the tokeniser in vocabulary.json of the model's run"
"""Advice for texts where tokens are needed."""


def placed(model: nn.Module) -> dict[str, Any]:
    """{"device": ..., "dtype": ...} of a model's weights, for tensors drawn or made for it."""
    weight = _weight(model)
    weight = torch.empty(0) if weight is None else weight
    return {"device": weight.device, "dtype": weight.dtype}


def at_least_float32(x: Tensor) -> torch.dtype:
    """Type for a computation that bfloat16 is too coarse for, or has no kernels for."""
    return torch.promote_types(x.dtype, torch.float32)


def check_dtype(x: Tensor, what: str, model: nn.Module) -> Tensor:
    """Return x if it has the type in which a model computes, that of its weights.

    Under autocast, which casts by itself, 16-bit types are accepted as well. A network without
    weights accepts any type.

    Raises:
        ValueError: x has another type.
    """
    weight = _weight(model)
    half = x.dtype in (torch.float16, torch.bfloat16)
    if weight is None or x.dtype == weight.dtype:
        return x
    if half and torch.is_autocast_enabled(x.device.type):
        return x
    wanted = weight.dtype
    other = f", or model.{CASTS[x.dtype]}()" if x.dtype in CASTS else ""
    raise ValueError(
        f"got {what} of {x.dtype}; {_name(model)} computes in {_short(wanted)} here: "
        f"pass x.{CASTS[wanted]}(){other}"
    )


def check_tensor(x: Any, what: str, wanted: str) -> None:
    """Refuse what is no tensor, such as a list of texts or an array.

    Args:
        what: name of x in the plural, for errors.
        wanted: what the model needs, for errors.
    Raises:
        ValueError: it is none.
    """
    if not isinstance(x, Tensor):
        shape = getattr(x, "shape", None)
        got = short(x) if shape is None else f"{type(x).__name__} of shape {tuple(shape)}"
        raise ValueError(f"got {what} that are no tensor, {got}; {wanted}")


def check_batch(x: Tensor, shape: tuple[int, ...], what: str, model: nn.Module) -> Tensor:
    """Return x if it is (B, *shape) of the type in which a model computes.

    Raises:
        ValueError: x has another shape or type.
    """
    check_tensor(x, what, _needs(shape, model))
    if x.dim() != 1 + len(shape) or tuple(x.shape[1:]) != tuple(shape):
        raise ValueError(
            f"got {what} of shape {tuple(x.shape)} and {x.dtype}; {_needs(shape, model)}"
        )
    return check_dtype(x, what, model)


def check_images(
    x: Tensor, shape: tuple[int, ...], model: nn.Module, what: str = "images", pixels: bool = True
) -> Tensor:
    """Return x if it is (B, *shape) in [0, 1] of the type in which a model computes.

    Args:
        pixels: check their range, which is not possible while a model is traced.
    Raises:
        ValueError: wrong shape or type, or a pixel outside [0, 1] (or not a number).
    """
    wanted = f"{_needs(shape, model)} in [0, 1]"
    check_tensor(x, what, wanted)
    if not x.is_floating_point():
        raise ValueError(
            f"got {what} of shape {tuple(x.shape)} and {x.dtype}; {wanted}: convert uint8 frames "
            "(B, H, W, C) with to_float_bchw"
        )
    check_batch(x, shape, what, model)
    if pixels and len(x) and not bool((x.detach().amin() >= 0) & (x.detach().amax() <= 1)):
        low, high = float(x.detach().amin()), float(x.detach().amax())
        raise ValueError(f"got pixels from {low:.4g} to {high:.4g}; {wanted}: scale them first")
    return x


def check_vectors(x: Tensor, dim: int, what: str, model: nn.Module) -> Tensor:
    """Return x if it is (B, dim) of the type in which a model computes.

    Raises:
        ValueError: x has another shape or type.
    """
    return check_batch(x, (dim,), what, model)


def check_tokens(
    x: Tensor, vocab_size: int, max_len: int | None, model: nn.Module, part: str = ""
) -> Tensor:
    """Return x if it is int64 (B, T), T from 1 to max_len (None for any), in 0 .. vocab_size - 1.

    Args:
        part: part of the model that reads them, for errors: "stream 1 of ".
    Raises:
        ValueError: no tensor, wrong shape, length or type, or a token outside the vocabulary.
    """
    limit = "" if max_len is None else f" with T from 1 to {max_len},"
    wanted = f"{part}{_name(model)} needs int64 (B, T),{limit} in 0 to {vocab_size - 1}"
    check_tensor(x, "tokens", f"{wanted}: {ENCODE_FIRST}")
    too_long = x.dim() == 2 and max_len is not None and x.shape[1] > max_len
    if x.dim() != 2 or x.shape[1] < 1 or too_long:
        raise ValueError(f"got tokens of shape {tuple(x.shape)}; {wanted}")
    if x.dtype != torch.int64:
        raise ValueError(f"got tokens of {x.dtype}; {wanted}: convert with .long()")
    if len(x) and not bool((x.amin() >= 0) & (x.amax() < vocab_size)):
        raise ValueError(f"got tokens from {int(x.amin())} to {int(x.amax())}; {wanted}")
    return x


def checked(function: Function) -> Function:
    """Refuse arguments outside the range of their annotation, before the function starts.

        @checked
        def sample(self, n: CountOrZero, steps: Count | None = None, eta: Probability = 0.0):

    This is for functions what `Checked` is for settings: the range is stated once, beside the type,
    by the types of `generative.training.ranges`. A generator function raises when it is called,
    not at its first step.

    Raises:
        ValueError: names the argument, its value, and the range.
    """
    signature = inspect.signature(function)

    @functools.cache  # made at the first call, when all names of the module are defined
    def ranges() -> dict[str, tuple[type, Range, tuple[type, ...]]]:
        found = {}
        for name, hint in typing.get_type_hints(function, include_extras=True).items():
            parts = (hint,) if typing.get_origin(hint) is Annotated else typing.get_args(hint)
            for part in parts:
                if typing.get_origin(part) is Annotated:
                    others = tuple(typing.get_origin(p) or p for p in parts if p is not part)
                    found[name] = (*typing.get_args(part), others)
        return found

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        for name, (kind, limits, others) in ranges().items():
            value = given.get(name)
            if name not in given or isinstance(value, others):
                continue
            number = isinstance(value, numbers.Integral if kind is int else numbers.Real)
            if not number or isinstance(value, bool) or value not in limits:
                what = "an integer, " if kind is int else ""
                raise ValueError(f"{name} is {value!r}, and must be {what}{limits.asks(value)}")
        return function(*args, **kwargs)

    return typing.cast("Function", wrapper)


def check_labels(labels: Tensor, n: int, count: int, who: str, what: str = "labels") -> Tensor:
    """Return labels if they are int64 (n,), at least 0 and below count.

    Raises:
        ValueError: wrong shape or type, or a label out of range.
    """
    check_tensor(labels, what, f"{n} examples need int64 ({n},)")
    if labels.shape != (n,) or labels.dtype != torch.int64:
        raise ValueError(
            f"got {what} {tuple(labels.shape)} of {labels.dtype}; {n} examples need int64 ({n},)"
        )
    if n and not bool((labels.amin() >= 0) & (labels.amax() < count)):
        known = f"0 to {count - 1}" if count else "none"
        raise ValueError(
            f"got {what} from {int(labels.amin())} to {int(labels.amax())}; {who} knows {known}"
        )
    return labels


def check_some(x: Tensor, model: nn.Module) -> Tensor:
    """Return x if it is not empty, for a loss, which is a mean.

    Raises:
        ValueError: no examples.
    """
    if not len(x):
        raise ValueError(
            f"got a batch of 0 examples, {tuple(x.shape)}; a loss of {_name(model)} is a mean over "
            "the batch: give at least one"
        )
    return x


def to_levels(x: Tensor, levels: int) -> Tensor:
    """Pixels in [0, 1] -> their levels, 0 .. levels - 1, as floats.

    Raises:
        ValueError: a pixel between the levels.
    """
    most = levels - 1
    level = x.to(at_least_float32(x)) * most
    # As exact as the type of x allows: in bfloat16 hardly any pixel is exactly a level.
    tolerance = max(1e-3, torch.finfo(x.dtype).eps * most)
    if bool(((level - level.round()).abs() > tolerance).any()):
        raise ValueError(
            f"got pixels between the levels; needed are multiples of 1/{most}, one of {levels} "
            "levels: round them first"
        )
    return level.round().to(x.dtype)


def _weight(model: nn.Module) -> Tensor | None:
    """The first floating-point tensor of a model."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _name(model: nn.Module) -> str:
    return type(model).__name__


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _needs(shape: tuple[int, ...], model: nn.Module) -> str:
    return f"{_name(model)} needs float (B, {', '.join(map(str, shape))})"
