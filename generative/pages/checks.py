"""Checks of the values in a page's requests: each returns the value, or says what to send.

    REQUESTS = {"paused": yes_or_no, "track": or_none(whole()), "temperature": between(0, 3)}
    checked_object({"paused": True}, REQUESTS)          # {"paused": True}

What a page sends is JSON, of which nothing is known: a number may be true, a list or 1e999.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from generative.training.files import short

__all__ = [
    "Check",
    "between",
    "checked_object",
    "one_of",
    "or_none",
    "text",
    "whole",
    "yes_or_no",
]

Check = Callable[[Any], Any]
"""A value of JSON -> the same value; ValueError says what to send instead."""


def checked_object(request: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    """Check the values of a JSON object, in its order.

    Args:
        request: what a page sent.
        checks: check of each value, by its name.
    Raises:
        ValueError: it is no object or empty, it has an unknown name, or a value does not fit.
    """
    known = ", ".join(checks)
    if not isinstance(request, Mapping) or not request:
        raise ValueError(f"a request is {short(request)}; send an object of {known}")
    values = {}
    for name, value in request.items():
        if name not in checks:
            raise ValueError(f"there is no request {short(name)}; known are {known}")
        try:
            values[name] = checks[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return values


def yes_or_no(value: Any) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"got {short(value)}; send true or false")
    return value


def whole(low: int = 0, high: int = 2**31 - 1) -> Check:
    """Check of a whole number from low to high."""
    asked = "a whole number, 0 or more" if (low, high) == (0, 2**31 - 1) else (
        f"a whole number from {low} to {high}"
    )  # fmt: skip

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"got {short(value)}; send {asked}")
        return value

    return check


def between(low: float, high: float) -> Check:
    """Check of a number between low and high, both included."""

    def check(value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not low <= value <= high:
            raise ValueError(f"got {short(value)}; send a number between {low:g} and {high:g}")
        return float(value)

    return check


def one_of(*choices: str) -> Check:
    """Check of one of some words."""

    def check(value: Any) -> str:
        if value not in choices:
            *others, last = choices
            asked = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"got {short(value)}; send {asked}")
        return value

    return check


def text(most: int) -> Check:
    """Check of a text of at most so many characters."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"got {short(value)}; send a text")
        if len(value) > most:
            raise ValueError(f"got {len(value)} characters; send at most {most}")
        return value

    return check


def or_none(check: Check) -> Check:
    """The same check, which accepts null too."""
    return lambda value: None if value is None else check(value)
