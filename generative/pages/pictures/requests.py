"""Requests of the page of pictures, checked before anything is made of them.

    request = checked_drawing({"mode": "draw", "prompt": "a red disc", "pictures": 2, "steps": 30,
                               "scale": 3.0, "seed": 7}, (3, 24, 24))
    request.prompt, request.num                          # "a red disc", 2

Every mode has a prompt, steps, the scale of guidance and a seed. "over" and "fill" begin with a
picture, base64 of H * W * 3 bytes, row by row in RGB.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from generative.pages.checks import (
    Check,
    between,
    checked_object,
    one_of,
    text,
    whole,
    yes_or_no,
)
from generative.training.files import short

__all__ = [
    "MAX_PICTURES",
    "MAX_PROMPT",
    "MAX_SCALE",
    "MAX_SEED",
    "MAX_STEPS",
    "MAX_WALK",
    "Drawing",
    "Hole",
    "Mode",
    "Question",
    "checked_drawing",
    "checked_question",
    "picture_bytes",
]

Mode: TypeAlias = Literal["draw", "over", "fill", "walk"]
MAX_PROMPT = 400
"""Most characters of a prompt or a question."""
MAX_PICTURES, MAX_WALK = 8, 16
"""Most pictures of a drawing, and of a walk."""
MAX_STEPS = 250
MAX_SCALE = 20.0
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Hole:
    """Rectangle of a picture that is filled in, in pixels from the top left."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Drawing:
    """A checked request for pictures."""

    mode: Mode
    """draw: from noise; over: from a picture with noise; fill: a rectangle of a picture; walk: from
    one prompt to another."""
    prompt: str
    num: int
    """Number of pictures."""
    steps: int
    scale: float
    """Scale of guidance."""
    seed: int
    """Picture k has noise of the seed + k; of a walk, its ends have."""
    picture: np.ndarray | None = None
    """uint8 (H, W, 3)."""
    strength: float = 1.0
    """Share of the steps that a picture is drawn over by."""
    hole: Hole | None = None
    last: str = ""
    """Prompt at the end of a walk."""
    two_noises: bool = False
    """Let the noise of a walk change from that of the seed to that of seed + 1."""


@dataclass(frozen=True)
class Question:
    """A checked question about a picture."""

    question: str
    picture: np.ndarray
    """uint8 (H, W, 3)."""


def picture_bytes(image_shape: tuple[int, int, int]) -> int:
    """Characters of a picture in a request, in base64."""
    return 4 * -(-3 * image_shape[1] * image_shape[2] // 3)


def checked_drawing(request: Any, image_shape: tuple[int, int, int]) -> Drawing:
    """Check a request for pictures.

    Args:
        request: what the page sent.
        image_shape: (C, H, W) of the model's pictures.
    Raises:
        ValueError: a value is missing, unknown or out of its range, or the rectangle lies outside
            the picture.
    """
    mode = request.get("mode") if isinstance(request, dict) else None
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"mode is {short(mode)}; send one of {', '.join(MODES)}")
    found = _complete(request, MODES[mode] | {"mode": one_of(mode)}, image_shape)
    if "hole" in found:
        hole, (_, height, width) = found["hole"], image_shape
        if hole.left + hole.width > width or hole.top + hole.height > height:
            raise ValueError(
                f"the rectangle from {hole.left}, {hole.top} is {hole.width} wide and "
                f"{hole.height} high, and the picture {width} by {height}; keep it inside"
            )
    return Drawing(num=found.pop("pictures"), **found)


def checked_question(request: Any, image_shape: tuple[int, int, int]) -> Question:
    """Check a question about a picture.

    Raises:
        ValueError: a value is missing or does not fit, or the question is empty.
    """
    found = _complete(request, {"question": text(MAX_PROMPT), "picture": text(2**30)}, image_shape)
    if not found["question"].strip():
        raise ValueError("the question is empty; write one, such as: how many discs ?")
    return Question(**found)


def _complete(
    request: Any, checks: dict[str, Check], image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Checked values of a request that has each of them, its picture as an array."""
    found = checked_object(request, checks)
    missing = [name for name in checks if name not in found]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing; send {', '.join(checks)}")
    if "picture" in found:
        found["picture"] = _picture(found["picture"], image_shape)
    return found


def _picture(encoded: str, image_shape: tuple[int, int, int]) -> np.ndarray:
    _, height, width = image_shape
    asked = f"send the {width} by {height} pixels of RGB in base64, row by row"
    if len(encoded) != picture_bytes(image_shape):
        raise ValueError(f"picture: got {len(encoded)} characters; {asked}")
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"picture: this is not base64; {asked}") from None
    if len(content) != 3 * width * height:
        raise ValueError(f"picture: got {len(content)} bytes; {asked}")
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def _hole(value: Any) -> Hole:
    sides = {"left": whole(), "top": whole(), "width": whole(1), "height": whole(1)}
    found = checked_object(value, sides)
    missing = [name for name in sides if name not in found]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing; send {', '.join(sides)}")
    return Hole(**found)


COMMON: dict[str, Check] = {
    "prompt": text(MAX_PROMPT),
    "pictures": whole(1, MAX_PICTURES),
    "steps": whole(1, MAX_STEPS),
    "scale": between(0, MAX_SCALE),
    "seed": whole(0, MAX_SEED),
}
MODES: dict[str, dict[str, Check]] = {
    "draw": COMMON,
    "over": COMMON | {"picture": text(2**30), "strength": between(0, 1)},
    "fill": COMMON | {"picture": text(2**30), "hole": _hole},
    "walk": COMMON
    | {"pictures": whole(2, MAX_WALK), "last": text(MAX_PROMPT), "two_noises": yes_or_no},
}
"""Checks of the values of each mode, all of which a request has."""
