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

from typing import Any

from generative.pages.checks import (
    Check,
    between,
    checked_object,
    one_of,
    or_none,
    whole,
    yes_or_no,
)
from generative.training.files import short

__all__ = ["KEYS", "checked_request"]

KEYS = ("left", "right", "gas", "brake")
MAX_TEMPERATURE = 3.0
MIN_WAKE_AFTER, MAX_WAKE_AFTER = 0.1, 60.0


def checked_request(request: Any) -> dict[str, Any]:
    """Check a request and convert its values, in its order, to those of `Session`.

    Raises:
        ValueError: it names an unknown request, or a value does not fit.
    """
    return checked_object(request, REQUESTS)


def _keys(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or any(key not in KEYS for key in value):
        raise ValueError(f"got {short(value)}; send a list of {', '.join(KEYS)}")
    return frozenset(value)


REQUESTS: dict[str, Check] = {
    "keys": _keys,
    "paused": yes_or_no,
    "driver": one_of("you", "agent"),
    "eyes": one_of("track", "dream"),
    "temperature": between(0, MAX_TEMPERATURE),
    "wake_after": or_none(between(MIN_WAKE_AFTER, MAX_WAKE_AFTER)),
    "rewind": whole(),
    "rewind_to": whole(),
    "dream": yes_or_no,
    "track": or_none(whole()),
}
