"""Captions as rows of tokens of one length, for text encoders.

tokeniser = CaptionTokeniser.fit(["a red disc", "three blue discs"])
tokens = tokeniser.encode(["a blue disc"])     # int64 (1, 24): [BOS] a blue disc [EOS] [PAD] ...
ends(tokens)                                   # tensor([4]), the place of [EOS]
tokeniser.decode(tokens[0])                    # "a blue disc"
"""

from __future__ import annotations

import difflib
import string
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import SupportsInt

import torch
from torch import Tensor

from generative.data.text import split_words
from generative.training.files import (
    MAX_LIST_BYTES,
    DamagedFileError,
    read_json,
    short,
    write_json,
)

__all__ = ["BOS", "EOS", "PAD", "RESERVED", "SPELLED_AFTER", "UNKNOWN", "CaptionTokeniser", "ends"]

PAD, UNKNOWN, BOS, EOS = range(4)
"""Tokens that fill a row after its end, stand for a word outside the vocabulary, begin and end."""
RESERVED = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
SPELLED_AFTER = "says"
"""Word whose next one a tokeniser with `spelled` writes letter by letter."""
SHOWN = 12
"""Known words that a message about an unknown one lists."""


@dataclass(frozen=True)
class CaptionTokeniser:
    """Converts captions to tokens and back: lower-case words, punctuation apart.

    Args:
        words: word of each token from 4 on, each once.
        length: tokens in a row, [BOS] and [EOS] included.
        spelled: write the word after "says" as its letters, which must be among `words`, so that a
            model can learn to spell.
    Raises:
        ValueError: a word occurs twice or is reserved, the rows hold no word, or letters are
            missing.
    """

    words: tuple[str, ...]
    length: int = 24
    spelled: bool = False
    _told: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        twice = [word for word, n in Counter((*RESERVED, *self.words)).items() if n > 1]
        if twice:
            raise ValueError(f"words hold {twice[0]!r} twice, or it is reserved; give each once")
        if self.length < 3:
            raise ValueError(
                f"length is {self.length}; a row needs at least 3 tokens, [BOS], a word and [EOS]"
            )
        missing = [letter for letter in string.ascii_lowercase if letter not in self._index]
        if self.spelled and missing:
            raise ValueError(
                f"words lack the letters {', '.join(missing)}, with which a spelled word is "
                "written; add them, or give spelled=False"
            )

    @classmethod
    def fit(
        cls,
        captions: Iterable[str],
        length: int = 24,
        spelled: bool = False,
        most: int | None = None,
    ) -> CaptionTokeniser:
        """Build a tokeniser of the words of some captions, the most frequent first.

        Args:
            spelled: keep the 26 letters in any case.
            most: largest number of tokens, the four reserved ones included; None keeps all.
        """
        counts: Counter[str] = Counter()
        for caption in captions:
            counts.update(_pieces(caption, spelled))
        letters = set(string.ascii_lowercase if spelled else "")
        words = sorted(counts.keys() - letters, key=lambda word: (-counts[word], word))
        words = words[: None if most is None else max(0, most - len(RESERVED) - len(letters))]
        return cls((*words, *sorted(letters)), length, spelled)

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(RESERVED) + len(self.words)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.words, len(RESERVED))}

    @cached_property
    def _every(self) -> tuple[str, ...]:
        return (*RESERVED, *self.words)

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Tokens of captions, int64 (n, length): `[BOS]`, words, `[EOS]`, then `[PAD]`.

        Words outside the vocabulary become [UNK]; each is named once on stderr.

        Raises:
            ValueError: captions have more words than a row takes; says which length does.
        """
        rows = torch.full((len(captions), self.length), PAD)
        pieces = [_pieces(caption, self.spelled) for caption in captions]
        self._check_lengths(captions, [len(words) + 2 for words in pieces])
        for row, words in zip(rows, pieces, strict=True):
            tokens = [BOS, *(self._token(word) for word in words), EOS]
            row[: len(tokens)] = torch.tensor(tokens)
        return rows

    def count(self, caption: str) -> int:
        """Tokens of a caption of any length, [BOS] and [EOS] included."""
        return len(_pieces(caption, self.spelled)) + 2

    def _check_lengths(self, captions: Sequence[str], needed: list[int]) -> None:
        most = max(needed, default=0)
        if most > self.length:
            long = [i for i, number in enumerate(needed) if number > self.length]
            which = f"{len(long)} of {len(captions)} captions are too long: " if long[1:] else ""
            raise ValueError(
                f"{which}{short(captions[needed.index(most)])} needs {most} tokens with [BOS] and "
                f"[EOS], and a row has {self.length}; shorten it, or build the tokeniser with "
                f"length={most} (the text encoder's max_len must be as large)"
            )

    def unknown(self, caption: str) -> dict[str, list[str]]:
        """Words of a caption that are read as [UNK], each with up to three known ones like it."""
        words = dict.fromkeys(_pieces(caption, self.spelled))
        return {
            word: difflib.get_close_matches(word, self.words, 3)
            for word in words
            if word not in self._index
        }

    def _token(self, word: str) -> int:
        token = self._index.get(word, UNKNOWN)
        if token == UNKNOWN and word not in self._told:
            self._told.add(word)
            print(self._unknown(word), file=sys.stderr)
        return token

    def _unknown(self, word: str) -> str:
        close = difflib.get_close_matches(word, self.words, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = sorted(self.words)
        shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
        return f"the word {word!r} is read as [UNK]; {hint}{len(known)} words are known: {shown}"

    def decode(self, tokens: Iterable[SupportsInt]) -> str:
        """The caption of a row, up to its [EOS]; "<number>" for what is outside the vocabulary."""
        pieces = []
        for token in map(int, tokens):
            if token == EOS:
                break
            if token not in (PAD, BOS):
                known = 0 <= token < len(self)
                pieces.append(self._every[token] if known else f"<{token}>")
        if self.spelled and SPELLED_AFTER in pieces:
            start = pieces.index(SPELLED_AFTER) + 1
            pieces[start:] = ["".join(pieces[start:])]
        return " ".join(pieces)

    def save(self, path: Path | str) -> None:
        """Write a JSON file."""
        content = {"words": list(self.words), "length": self.length, "spelled": self.spelled}
        write_json(Path(path), content)

    @classmethod
    def load(cls, path: Path | str) -> CaptionTokeniser:
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFileError: the file was not written by `save`.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file; a command that trains on captions writes it beside the "
                "model's folder"
            )
        content = read_json(path, MAX_LIST_BYTES)
        try:
            words, length, spelled = content["words"], content["length"], content["spelled"]
            if not all(isinstance(word, str) for word in words):
                raise TypeError("a word is no text")
            return cls(tuple(words), int(length), bool(spelled))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{path}: is not a vocabulary of captions: {error}") from error


def ends(tokens: Tensor) -> Tensor:
    """Place of the first [EOS] of each row (n, length), int64 (n,).

    Raises:
        ValueError: a row has none.
    """
    found = tokens == EOS
    if not bool(found.any(1).all()):
        row = int((~found.any(1)).nonzero()[0, 0])
        raise ValueError(
            f"row {row} has no [EOS] (token {EOS}): {tokens[row].tolist()}; encode captions with "
            "a CaptionTokeniser, which ends each"
        )
    return found.int().argmax(1)


def _pieces(caption: str, spelled: bool) -> list[str]:
    words = split_words(caption)
    if spelled and SPELLED_AFTER in words:
        start = words.index(SPELLED_AFTER) + 1
        words[start:] = [letter for word in words[start:] for letter in word]
    return words
