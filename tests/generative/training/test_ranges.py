"""Ranges of settings, whether they come from Python, a command line or a file."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import pytest

from generative.training.cli import parse
from generative.training.ranges import (
    Checked,
    Count,
    CountOrZero,
    Finite,
    NonNegative,
    Positive,
    Probability,
    Range,
    Share,
    Size,
)
from generative.training.settings import from_json, to_json


@dataclass(frozen=True)
class Inner(Checked):
    """A nested group."""

    width: Size = 4
    widths: tuple[Size, ...] = (1, 2)


@dataclass(frozen=True)
class Args(Checked):
    """Settings."""

    steps: Count = 10
    workers: CountOrZero = 0
    seconds: Positive | None = None
    dropout: Share = 0.0
    temperature: NonNegative = 1.0
    racing: Probability = 0.0
    eta: Annotated[float, Range(0, 1)] = 0.0
    shift: Finite = 0.0
    pair: tuple[Finite, Positive] | None = None
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("steps", 0, "steps is 0, and must be at least 1"),
        ("steps", 2**41, "at most 1,099,511,627,776"),
        ("workers", -2, "workers is -2, and must be at least 0"),
        ("seconds", 0.0, "seconds is 0.0, and must be above 0 and finite"),
        ("seconds", math.inf, "seconds is inf"),
        ("seconds", math.nan, "seconds is nan"),
        ("dropout", 1.0, "dropout is 1.0, and must be at least 0 and below 1"),
        ("temperature", math.nan, "temperature is nan, and must be at least 0 and finite"),
        ("temperature", math.inf, "temperature is inf"),
        ("racing", 1.5, "racing is 1.5, and must be at least 0 and at most 1"),
        ("eta", -0.1, "eta is -0.1"),
        ("shift", -math.inf, "shift is -inf, and must be finite"),
        ("pair", (0.0, -1.0), r"pair is \(0.0, -1.0\), and must be above 0"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_range(name, value, words):
    with pytest.raises(ValueError, match=words):
        replace(Args(), **{name: value})


def test_ends_of_ranges_are_in():
    Args(1, 0, 1e-9, 0.0, 0.0, 1.0, 1.0, -1e300, (-3.0, 0.1), Inner(1, ()))


def test_only_what_is_wrong_is_named():
    with pytest.raises(ValueError) as error:
        Args(steps=0, workers=3, dropout=2.0)
    assert str(error.value).count(";") == 1
    assert "workers" not in str(error.value)


def test_values_of_tuples_and_nested_groups():
    with pytest.raises(ValueError, match=r"widths is \(1, 0\)"):
        Inner(widths=(1, 0))
    with pytest.raises(ValueError, match=r"widths is .{1,60}, and must"):
        Inner(widths=tuple([0] * 10_000))


def test_a_file_with_a_value_out_of_range():
    data = to_json(Args())
    data["inner"]["width"] = -1
    with pytest.raises(ValueError, match="width is -1"):
        from_json(Args, data)


@pytest.mark.parametrize("words", [["--steps", "0"], ["--inner.width", "-3"], ["--dropout=7"]])
def test_a_command_line_with_a_value_out_of_range(words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse({"one": Args()}, argv=words, prog="run.py")
    assert stop.value.code == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert words[0].partition("=")[0].rpartition(".")[2].strip("-") in shown
    assert "must be at least" in shown


def test_a_command_line_in_range():
    args = parse({"one": Args()}, argv=["--steps", "3", "--seconds", "2.5", "--pair", "0", "1"])
    assert args == Args(steps=3, seconds=2.5, pair=(0.0, 1.0))


def test_an_end_that_is_far_away_is_told_to_those_who_pass_it():
    with pytest.raises(ValueError, match=r"steps is -5, and must be at least 1$"):
        Args(steps=-5)
    with pytest.raises(ValueError, match=r"and must be at least 1 and at most 1,0"):
        Args(steps=2**41)
