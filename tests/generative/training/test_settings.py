"""Settings: config.json reads back to an equal dataclass, and differences are named."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.training.settings import differences, flatten, from_json, may_change, to_json


@dataclass(frozen=True)
class Model:
    dim: int = 32
    channels: tuple[int, int] = (1, 2)
    act: Literal["relu", "gelu", 3] = "relu"


@dataclass(frozen=True)
class Settings:
    constant: ClassVar[int] = 5
    out: Path = Path("runs/a")
    model: Model = field(default_factory=Model)
    second: Model | None = None
    rates: tuple[float, ...] = ()
    clip: tuple[float, float] | None = None
    names: list[str] = field(default_factory=list)
    extra: dict[str, int | None] = field(default_factory=dict)
    lr: float = 1e-4
    flag: bool = False
    note: str | None = None
    computed: int = field(init=False, default=7)


floats = st.floats(allow_nan=False)
models = st.builds(
    Model,
    st.integers(),
    st.tuples(st.integers(), st.integers()),
    st.sampled_from(["relu", "gelu", 3]),
)
all_settings = st.builds(
    Settings,
    out=st.text("abcé /.", min_size=1).map(Path),
    model=models,
    second=st.none() | models,
    rates=st.lists(floats).map(tuple),
    clip=st.none() | st.tuples(floats, floats),
    names=st.lists(st.text()),
    extra=st.dictionaries(st.text(), st.none() | st.integers()),
    lr=floats,
    flag=st.booleans(),
    note=st.none() | st.text(),
)


@given(all_settings)
def test_settings_survive_strict_json(settings):
    text = json.dumps(to_json(settings), allow_nan=False)
    assert from_json(Settings, json.loads(text)) == settings


@given(all_settings, all_settings)
def test_differences_are_empty_exactly_for_equal_settings(a, b):
    assert differences(to_json(a), to_json(a)) == {}
    assert (differences(to_json(a), to_json(b)) == {}) == (a == b)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lr", "fast", "lr: is 'fast', which is not a float"),
        ("flag", 1, "flag: is 1, which is not a bool"),
        ("model", {"dim": 3}, "model: fields do not fit, missing: act, channels"),
        ("model", None, "model: is None, which is not a Model"),
        ("clip", [1.0], "clip: is .*, which fits none of"),
        ("nmaes", [], "unknown: nmaes"),
        ("out", None, "out: is None"),
        ("names", [1], r"names\[0\]: is 1, which is not a str"),
    ],
)
def test_what_does_not_fit_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        from_json(Settings, to_json(Settings()) | {name: value})


def test_literal_keeps_types_apart():
    with pytest.raises(ValueError, match="act: is True"):
        from_json(Model, to_json(Model()) | {"act": True})
    assert from_json(Model, to_json(Model(act=3))).act == 3


@dataclass(frozen=True)
class Odd:
    value: Any


def test_settings_refuse_what_json_cannot_hold():
    with pytest.raises(ValueError, match="NaN"):
        to_json(Odd(math.nan))
    for value in (object(), {1: 2}, b"x", {1, 2}):
        with pytest.raises(TypeError, match=type(value).__name__):
            to_json(Odd(value))


def test_differences_by_dotted_name():
    old = to_json(Settings(second=Model()))
    new = to_json(Settings(model=Model(dim=16), rates=(0.5,)))
    assert differences(old, new) == {
        "model.dim": (32, 16),
        "second.dim": (32, "(not there)"),
        "second.channels": ([1, 2], "(not there)"),
        "second.act": ("relu", "(not there)"),
        "second": ("(not there)", None),
        "rates": ([], [0.5]),
    }
    assert flatten({"a": {"b": 1}, "c": {}}) == {"a.b": 1, "c": {}}


def test_fields_that_may_change():
    free = frozenset({"steps", "model.log"})
    assert may_change("steps", free)
    assert may_change("model.log.every", free)
    assert not may_change("model", free)
    assert not may_change("steps_per_round", free)
