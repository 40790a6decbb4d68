"""Requests of a page to a `Session`: an object with one or more of

keys: list of `KEYS` held now; a key ends a pause
paused: bool
driver: "you" or "agent"; the agent ends a pause
eyes: observations of the agent, "track" or "dream"
temperature: 0 to 3
wake_after: seconds until the dream looks at the game again, 0.1 to 60, or null for never
rewind: decisions to go back; rewind_to: the decision to go back to
dream: true; the dream begins again from here
track: seed of the track, or null for the next one
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["KEYS", "checked_request"]

KEYS = ("left", "right", "gas", "brake")
MAX_TEMPERATURE = 3.0
MIN_WAKE_AFTER, MAX_WAKE_AFTER = 0.1, 60.0


def checked_request(request: Any) -> dict[str, Any]:
    """Check a request and convert its values, in its order, to those of `Session`.

    Raises:
        ValueError: it names an unknown request, or a value does not fit.
    """
    known = ", ".join(REQUESTS)
    if not isinstance(request, Mapping) or not request:
        raise ValueError(f"a request is {request!r}; send an object of {known}")
    values = {}
    for name, value in request.items():
        if name not in REQUESTS:
            raise ValueError(f"there is no request {name!r}; known are {known}")
        try:
            values[name] = REQUESTS[name](value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return values


def _keys(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or any(key not in KEYS for key in value):
        raise ValueError(f"got {value!r}; send a list of {', '.join(KEYS)}")
    return frozenset(value)


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"got {value!r}; send true or false")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError(f"got {value!r}; send a whole number, 0 or more")
    return value


def _between(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not low <= value <= high:
            raise ValueError(f"got {value!r}; send a number between {low:g} and {high:g}")
        return float(value)

    return check


def _one_of(*choices: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"got {value!r}; send {' or '.join(choices)}")
        return value

    return check


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


REQUESTS: dict[str, Callable[[Any], Any]] = {
    "keys": _keys,
    "paused": _yes_or_no,
    "driver": _one_of("you", "agent"),
    "eyes": _one_of("track", "dream"),
    "temperature": _between(0, MAX_TEMPERATURE),
    "wake_after": _or_none(_between(MIN_WAKE_AFTER, MAX_WAKE_AFTER)),
    "rewind": _whole,
    "rewind_to": _whole,
    "dream": _yes_or_no,
    "track": _or_none(_whole),
}
