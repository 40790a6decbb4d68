"""Checks of the values that a page sends."""

import pytest

from generative.pages.checks import between, checked_object, one_of, or_none, text, whole, yes_or_no

CHECKS = {
    "on": yes_or_no,
    "count": whole(1, 8),
    "share": between(0, 1),
    "kind": one_of("red", "green", "blue"),
    "words": text(5),
    "maybe": or_none(whole()),
}


def test_good_values_stay_as_they_are():
    good = {"on": True, "count": 8, "share": 0, "kind": "blue", "words": "a b c", "maybe": None}
    found = checked_object(good, CHECKS)
    assert found == good
    assert list(found) == list(good)
    assert isinstance(found["share"], float)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "a request is {}; send an object of on, count, share, kind, words, maybe"),
        ([1], "a request is [1]; send an object"),
        ({"off": 1}, "there is no request 'off'; known are on, count"),
        ({"on": 1}, "on: got 1; send true or false"),
        ({"count": 0}, "count: got 0; send a whole number from 1 to 8"),
        ({"count": True}, "count: got True"),
        ({"count": 2.0}, "count: got 2.0"),
        ({"count": "2"}, "count: got '2'"),
        ({"count": 10**4000}, "count: got 1000"),
        ({"share": 1.01}, "share: got 1.01; send a number between 0 and 1"),
        ({"share": float("nan")}, "share: got nan"),
        ({"share": float("inf")}, "share: got inf"),
        ({"share": None}, "share: got None"),
        ({"kind": "violet"}, "kind: got 'violet'; send red, green or blue"),
        ({"kind": ["red"]}, "kind: got ['red']"),
        ({"words": 3}, "words: got 3; send a text"),
        ({"words": "abcdef"}, "words: got 6 characters; send at most 5"),
        ({"maybe": -1}, "maybe: got -1; send a whole number, 0 or more"),
    ],
)
def test_other_values_are_refused_with_what_to_send(request_, message):
    with pytest.raises(ValueError) as caught:
        checked_object(request_, CHECKS)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200
