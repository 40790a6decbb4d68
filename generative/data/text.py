"""Texts as tokens: words with punctuation, or characters. Any text file.

tokeniser = Tokeniser.fit(texts, "words", most=10_000)
rows = tokeniser.rows(texts, length=201)         # int64 (N, 201), 0 after the end of a text
tokeniser.decode(rows[0])                        # "recipe for ham persillade with ..."
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsInt

import numpy as np

from generative.training.files import (
    MAX_LIST_BYTES,
    DamagedFileError,
    decode_text,
    read_file,
    read_json,
    write_json,
)

__all__ = ["TokenKind", "Tokeniser", "load_text", "read_records", "split_words"]

TokenKind = Literal["words", "characters"]
RESERVED = ("", "[UNK]")
"""Tokens 0 and 1: the end of a text, and any word outside the vocabulary."""
MAX_BYTES = 2**30
"""Largest file of texts, in bytes."""
MAX_RECORDS_BYTES = 256 * 2**20
"""Largest data set in JSON, in bytes; parsed, it takes several times as much."""
PUNCTUATION = re.compile(f"([{re.escape(string.punctuation)}])")


def split_words(text: str) -> list[str]:
    """Split into lower-case words; each of the 32 ASCII punctuation characters is its own word."""
    return PUNCTUATION.sub(r" \1 ", text).lower().split()


@dataclass(frozen=True)
class Tokeniser:
    """Converts text to tokens and back.

    Args:
        kind: "words" (lower-case, with punctuation as words) or "characters".
        vocabulary: what each token stands for; the first two are "" and "[UNK]".
    """

    kind: TokenKind
    vocabulary: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.vocabulary[:2] != RESERVED or len(set(self.vocabulary)) < len(self.vocabulary):
            raise ValueError(
                f"the vocabulary begins with {self.vocabulary[:2]}; it has to begin with "
                f"{RESERVED}, and to have everything once"
            )

    @classmethod
    def fit(cls, texts: Iterable[str], kind: TokenKind, most: int | None = None) -> Tokeniser:
        """Build a tokeniser of the most frequent words or characters, equal counts in order.

        Args:
            most: largest number of tokens, including the first two; None keeps all.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text) if kind == "words" else text)
        known = sorted(counts, key=lambda piece: (-counts[piece], piece))
        return cls(kind, RESERVED + tuple(known[: None if most is None else most - 2]))

    def __len__(self) -> int:
        """Size of the vocabulary."""
        return len(self.vocabulary)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {piece: token for token, piece in enumerate(self.vocabulary) if token > 1}

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, 1 for unknown words or characters; no end is added."""
        pieces = split_words(text) if self.kind == "words" else text
        return [self._index.get(piece, 1) for piece in pieces]

    def decode(self, tokens: Iterable[SupportsInt]) -> str:
        """The text of tokens up to the first 0."""
        pieces = self.pieces(tokens)
        return (" " if self.kind == "words" else "").join(pieces)

    def pieces(self, tokens: Iterable[SupportsInt]) -> list[str]:
        """Word or character of each token up to the first 0; "<number>" outside the vocabulary."""
        found = []
        for token in map(int, tokens):
            if token == 0:
                break
            found.append(self.vocabulary[token] if token < len(self) else f"<{token}>")
        return found

    def rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Texts as rows int64 (N, length), cut at the end or filled with 0."""
        rows = np.zeros((len(texts), length), dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = self.encode(text)[:length]
            row[: len(tokens)] = tokens
        return rows

    def save(self, path: Path | str) -> None:
        """Write a JSON file."""
        write_json(Path(path), {"kind": self.kind, "vocabulary": list(self.vocabulary)})

    @classmethod
    def load(cls, path: Path | str) -> Tokeniser:
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFileError: the file was not written by `save`.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: no such file; training a text model writes it beside the model's folder"
            )
        content = read_json(path, MAX_LIST_BYTES)
        try:
            return cls(content["kind"], tuple(content["vocabulary"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{path}: is not a vocabulary: {error}") from error


def load_text(path: Path | str) -> str:
    """Read a text file in UTF-8, or in UTF-16 or UTF-32 with its mark; lines end in a newline.

    Raises:
        FileNotFoundError: there is none; says what to pass.
        DamagedFileError: it is empty or in another encoding; says where, and how to convert it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; pass any text in UTF-8 by --text FILE")
    text = decode_text(read_file(path, MAX_BYTES, links=True), path)
    if not text.strip():
        raise DamagedFileError(f"{path}: holds no text")
    return text


def read_records(path: Path, page: str) -> list[dict[str, Any]]:
    """The records of a data set that is one list in a JSON file.

    Raises:
        FileNotFoundError: says where to get the file and where to put it.
        DamagedFileError: it is not a list of records.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; download it by hand from {page} and put it there"
        )
    records = read_json(path, MAX_RECORDS_BYTES, links=True)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DamagedFileError(f"{path}: is not a list of records; get it anew from {page}")
    return records
