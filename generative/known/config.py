"""Settings of tasks whose optimum is known."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from generative.training.ranges import Checked, NonNegative

__all__ = ["CaptionMix"]


@dataclass(frozen=True)
class CaptionMix(Checked):
    """Weights with which the kinds of captions of the micro-world are drawn; need not sum to 1."""

    one: NonNegative = 1.0
    """ "a red square"."""
    one_placed: NonNegative = 1.0
    """ "a red square at the top left"."""
    two: NonNegative = 2.0
    """ "a red square and a blue disc"."""
    two_placed: NonNegative = 2.0
    """ "a red square at the top left and a blue disc in the middle"."""
    relation: NonNegative = 2.0
    """ "a red square left of a blue disc"."""
    count: NonNegative = 2.0
    """ "three red discs"."""
    sign: NonNegative = 0.0
    """ "a sign that says cat"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(asdict(self).values()):
            raise ValueError("every weight is 0; give one of them a value above 0")
