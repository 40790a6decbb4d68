"""Tokenisers against the book's rules, and texts of files that are or are not there."""

import json

import numpy as np
import pytest

from generative.data.recipes import load_recipes
from generative.data.text import Tokeniser, load_text, split_words
from generative.data.wine_reviews import load_wine_reviews
from generative.training.files import DamagedFileError


def test_words_are_lower_case_and_punctuation_is_one_by_one():
    assert split_words("Chop 1/4 cup (packed)  Parsley;\nmeasure.") == [
        "chop", "1", "/", "4", "cup", "(", "packed", ")", "parsley", ";", "measure", ".",
    ]  # fmt: skip
    for character in r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""":
        assert split_words(f"a{character}b") == ["a", character, "b"]
    assert split_words("crème brûlée") == ["crème", "brûlée"]


def test_vocabulary_is_by_frequency_and_then_in_order():
    texts = ["the cat. the dog.", "a dog, the end."]
    words = Tokeniser.fit(texts, "words")
    assert words.vocabulary == ("", "[UNK]", ".", "the", "dog", ",", "a", "cat", "end")
    few = Tokeniser.fit(texts, "words", most=5)
    assert len(few) == 5
    assert few.encode("The cat, the dog!") == [3, 1, 1, 3, 4, 1]
    assert few.decode([3, 4, 2, 0, 3]) == "the dog ."
    characters = Tokeniser.fit(["abAb"], "characters")
    assert characters.vocabulary == ("", "[UNK]", "b", "A", "a")
    assert characters.decode(characters.encode("bAc")) == "bA[UNK]"
    assert few.pieces([3, 7]) == ["the", "<7>"]


def test_rows_are_cut_or_filled():
    tokeniser = Tokeniser("words", ("", "[UNK]", "a", "b"))
    rows = tokeniser.rows(["a b", "a b b a b", ""], 4)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[2, 3, 0, 0], [2, 3, 3, 2], [0, 0, 0, 0]]


def test_saved_and_loaded(tmp_path):
    tokeniser = Tokeniser.fit(["ü a\nb"], "characters")
    tokeniser.save(tmp_path / "vocabulary.json")
    assert Tokeniser.load(tmp_path / "vocabulary.json") == tokeniser
    with pytest.raises(FileNotFoundError, match="beside the model's folder"):
        Tokeniser.load(tmp_path / "other.json")
    for content in ([], {"kind": "words"}, {"kind": "words", "vocabulary": ["a", "b"]}):
        (tmp_path / "vocabulary.json").write_text(json.dumps(content))
        with pytest.raises(DamagedFileError, match="not a vocabulary"):
            Tokeniser.load(tmp_path / "vocabulary.json")


def test_recipes_with_title_and_directions(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"full_format_recipes\.json is missing.*kaggle"):
        load_recipes(tmp_path)
    records = [
        {"title": "Ham ", "directions": ["Chop.", "Serve."]},
        {"title": None, "directions": ["Chop."]},
        {"title": "Peas"},
        {},
    ]
    (tmp_path / "full_format_recipes.json").write_text(json.dumps(records))
    assert load_recipes(tmp_path) == ["Recipe for Ham  | Chop. Serve."]


def test_wine_reviews_with_all_fields(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"130k-v2\.json is missing.*kaggle"):
        load_wine_reviews(tmp_path)
    full = {"country": "US", "province": "Oregon", "variety": "Pinot", "description": "Ripe."}
    records = [full, {**full, "country": None}, {"country": "US"}]
    (tmp_path / "winemag-data-130k-v2.json").write_text(json.dumps(records))
    assert load_wine_reviews(tmp_path) == ["wine review : US : Oregon : Pinot : Ripe."]


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_damaged_records(tmp_path, content):
    (tmp_path / "full_format_recipes.json").write_text(content)
    with pytest.raises(DamagedFileError, match=r"full_format_recipes\.json"):
        load_recipes(tmp_path)


def test_any_text(tmp_path):
    with pytest.raises(FileNotFoundError, match="--text FILE"):
        load_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("ä\nb", encoding="utf-8")
    assert load_text(tmp_path / "a.txt") == "ä\nb"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-be"]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_are_no_letters(tmp_path, encoding, newline):
    text = "Ä rose\n\f is a 玫瑰\n"
    mark = "\ufeff" if encoding[-2:] in ("le", "be") else ""  # the others write one
    (tmp_path / "a.txt").write_bytes((mark + text.replace("\n", newline)).encode(encoding))
    assert load_text(tmp_path / "a.txt") == text


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("ab\u00e9".encode("latin-1"), "byte 2 is 0xe9; .*iconv -f LATIN1"),
        ("a\u0142".encode("cp1250"), "byte 1 is 0xb3"),
        ("\ufeffab".encode("utf-16-le")[:-1], "UTF-16: byte 4 is 0x62"),
        ("ab".encode("utf-16-le"), "character 1 is a zero.*UTF-16LE"),
        (b"", "holds no text"),
        (b"\xef\xbb\xbf \r\n", "holds no text"),
    ],
)
def test_what_is_no_text_is_named_with_the_place(tmp_path, data, what):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(DamagedFileError, match=rf"a\.txt.*{what}"):
        load_text(tmp_path / "a.txt")


def test_vocabularies_that_cannot_be():
    with pytest.raises(ValueError, match="has to begin with"):
        Tokeniser("words", ("a", "b"))
    with pytest.raises(ValueError, match="everything once"):
        Tokeniser("words", ("", "[UNK]", "a", "a"))
