"""Captions as rows of tokens: by hand, and what cannot be written is named."""

from __future__ import annotations

import string

import pytest
import torch

from generative.data.caption_tokens import BOS, EOS, PAD, UNKNOWN, CaptionTokeniser, ends
from generative.known.captions import KINDS, WORDS, captions
from generative.training.files import DamagedFileError

WRITTEN = ["a red disc", "a blue disc", "three red discs !"]


def test_rows_by_hand():
    tokeniser = CaptionTokeniser(("a", "disc", "red"), length=6)
    assert len(tokeniser) == 7
    rows = tokeniser.encode(["A red disc", "disc", ""])
    assert rows.dtype == torch.int64
    assert rows.tolist() == [
        [BOS, 4, 6, 5, EOS, PAD],
        [BOS, 5, EOS, PAD, PAD, PAD],
        [BOS, EOS, PAD, PAD, PAD, PAD],
    ]
    assert ends(rows).tolist() == [4, 2, 1]
    assert [tokeniser.decode(row) for row in rows] == ["a red disc", "disc", ""]
    assert tokeniser.decode([BOS, 4, UNKNOWN, 99]) == "a [UNK] <99>"
    assert tokeniser.encode([]).shape == (0, 6)


def test_fitted_words_are_the_most_frequent_first():
    tokeniser = CaptionTokeniser.fit(WRITTEN)
    assert tokeniser.words == ("a", "disc", "red", "!", "blue", "discs", "three")
    assert CaptionTokeniser.fit(WRITTEN, most=6).words == ("a", "disc")
    rows = tokeniser.encode(WRITTEN)
    assert [tokeniser.decode(row) for row in rows] == WRITTEN


def test_the_end_is_found_without_the_highest_id():
    """[EOS] is 3 and words are higher, so argmax of the ids is another place."""
    rows = CaptionTokeniser.fit(WRITTEN).encode(WRITTEN)
    assert ends(rows).tolist() == [4, 4, 5]
    assert rows.argmax(1).tolist() != ends(rows).tolist()
    with pytest.raises(ValueError, match=r"row 1 has no \[EOS\]"):
        ends(torch.tensor([[BOS, EOS], [BOS, 4]]))


def test_unknown_words_are_named_once_and_go_on(capsys):
    tokeniser = CaptionTokeniser.fit(WRITTEN)
    rows = tokeniser.encode(["a red disk", "a disk"])
    assert rows[0, 3] == rows[1, 2] == UNKNOWN
    [line] = capsys.readouterr().err.splitlines()
    assert line == (
        "the word 'disk' is read as [UNK]; did you mean 'disc'? 7 words are known: !, a, blue, "
        "disc, discs, red, three"
    )
    tokeniser.encode(["xylophone"])
    assert "did you mean" not in capsys.readouterr().err


def test_a_caption_that_is_too_long_is_refused():
    tokeniser = CaptionTokeniser.fit(WRITTEN, length=5)
    tokeniser.encode(["a red disc"])
    with pytest.raises(ValueError, match=r"^'a red red.* 6 tokens .* a row has 5; .* length=6"):
        tokeniser.encode(["a red red disc"])
    long = "red " * 90
    with pytest.raises(ValueError, match=r"^2 of 3 captions .*: 'red .*length=92") as told:
        tokeniser.encode(["a red red disc", "a red disc", long])
    assert len(str(told.value)) < 250
    assert tokeniser.count(long) == 92


def test_signs_are_spelled():
    tokeniser = CaptionTokeniser((*WORDS, *sorted({*string.ascii_lowercase} - {*WORDS})), 13, True)
    row = tokeniser.encode(["a sign that says cat"])[0]
    letters = [tokeniser.words.index(letter) + 4 for letter in "cat"]
    assert row[5:9].tolist() == [*letters, EOS]
    assert tokeniser.decode(row) == "a sign that says cat"
    with pytest.raises(ValueError, match="lack the letters b, c"):
        CaptionTokeniser(("a", "says"), spelled=True)
    assert CaptionTokeniser.fit(["a sign that says ox"], spelled=True).words[-1] == "z"
    few = CaptionTokeniser.fit(["a disc", "a disc", "a cross"], spelled=True, most=31)
    assert few.words == ("disc", *string.ascii_lowercase)


def test_every_caption_of_the_micro_world_fits_a_row(capsys):
    tokeniser = CaptionTokeniser.fit((*WORDS, "says a"), spelled=True)
    for kind in KINDS:
        some = captions(kind)[:: max(1, len(captions(kind)) // 50)]
        assert [tokeniser.decode(row) for row in tokeniser.encode(some)] == list(some)
    assert capsys.readouterr().err == ""


def test_saved_and_loaded(tmp_path):
    tokeniser = CaptionTokeniser.fit(WRITTEN, length=9)
    tokeniser.save(tmp_path / "words.json")
    assert CaptionTokeniser.load(tmp_path / "words.json") == tokeniser
    (tmp_path / "words.json").write_text('{"words": ["a", 3], "length": 5, "spelled": false}')
    with pytest.raises(DamagedFileError, match="not a vocabulary of captions"):
        CaptionTokeniser.load(tmp_path / "words.json")
    with pytest.raises(FileNotFoundError, match="no such file"):
        CaptionTokeniser.load(tmp_path / "none.json")


def test_wrong_vocabularies_are_refused():
    with pytest.raises(ValueError, match="'a' twice"):
        CaptionTokeniser(("a", "a"))
    with pytest.raises(ValueError, match=r"'\[PAD\]' twice"):
        CaptionTokeniser(("[PAD]",))
    with pytest.raises(ValueError, match="at least 3 tokens"):
        CaptionTokeniser(("a",), length=2)
