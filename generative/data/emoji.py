"""Emoji: 1,360 small pictures with names and keywords, which come with this package.

    data = load_emoji()                               # 32x32, in parts train, val and test
    images, texts = data.part("train").batch(64, generator)
    data.emoji[37].name                               # "grinning face"

Pictures are those of Noto Color Emoji on white, captions the English names and keywords of
Unicode's CLDR. A tenth is kept for testing; what names two words of a held-out combination, such as
"blue heart", is the part `val`, so that a model can be asked for what it never saw together.
`generative.data.emoji_sheet` packed them; NOTICE beside the sheet names the licences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from generative.data.emoji_sheet import COLUMNS
from generative.data.image_set import PARTS, ImageSet, random_split
from generative.training.files import DamagedFileError, reading
from generative.training.ranges import Checked, CountOrZero, Probability, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["HELD_OUT", "PACKED", "Augmentation", "Emoji", "EmojiImages", "load_emoji", "may_mirror"]

PACKED = Path(str(resources.files("generative.data") / "packed"))
"""Folder of the sheet of 32x32 pixels that comes with this package."""
HELD_OUT = (
    ("blue", "heart"), ("green", "circle"), ("purple", "square"), ("orange", "book"),
    ("cat", "tears"),
)  # fmt: skip
"""Pairs of words whose combinations are held out; each word occurs with others in training."""
_SIDED = frozenset({
    "left", "right", "leftwards", "rightwards", "arrow", "arrows", "clock", "o’clock", "thirty",
    "clockwise", "counterclockwise", "watch", "stopwatch", "timer", "flag", "flags", "button",
    "sign", "symbol", "symbols", "mark", "letter", "letters", "latin", "input", "abc", "abcd",
    "alphabet", "number", "numbers", "ideograph", "badge", "music", "musical", "calendar", "date",
    "banknote", "money", "currency", "dollar", "euro", "yen", "pound", "chart", "graph", "card",
    "map", "globe", "world", "zodiac", "astrology", "copyright", "registered", "trademark", "tm",
    "100", "zzz", "ok", "atm", "medal", "dvd", "newspaper", "news", "keyboard", "memo", "ticket",
    "tickets", "receipt", "moon", "crescent", "quarter", "dna", "om", "hotel", "hospital", "bank",
    "store", "school", "taxi", "police", "ambulance", "bus", "post", "office", "pool", "game",
    "cinema", "prohibited", "forbidden", "not", "no", "information", "slash", "text", "license",
    "page", "document", "compass", "wc", "restroom", "circled", "off", "pager", "check", "bars",
    "fax", "label",
})  # fmt: skip
"""Words of names and keywords of pictures with writing, a direction or a side."""
_SIDED_CODES = (
    range(0x2648, 0x2654), range(0x1F100, 0x1F300), range(0x1F550, 0x1F568), range(0x2700, 0x2710),
)  # fmt: skip
"""Blocks of signs of the zodiac, letters in boxes, clock faces, and hands that write."""


class Emoji(NamedTuple):
    """A character and what it is called."""

    character: str
    name: str
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Augmentation(Checked):
    """Changes that leave a caption true."""

    shift: CountOrZero = 2
    """Largest shift on either axis, in pixels."""
    scale: Share = 0.1
    """Largest share by which a picture is enlarged or shrunk."""
    mirror: bool = True
    """Mirror half of the pictures that have no writing and no side, see `may_mirror`."""
    keywords: Probability = 0.5
    """Share of the captions to which a keyword is added, as in "grinning face, grin"."""


@dataclass(frozen=True, eq=False, repr=False)
class EmojiImages:
    """Emoji in memory with their split.

    Args:
        images: uint8 (N, side, side, 3), on white.
        emoji: of each image.
        augmentation: what `batch` changes; None changes nothing and gives the names alone.
    """

    images: ImageSet
    emoji: tuple[Emoji, ...]
    augmentation: Augmentation | None = Augmentation()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"EmojiImages({self.images!r})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as models take it."""
        return self.images.image_shape

    @property
    def captions(self) -> tuple[tuple[str, ...], ...]:
        """Every caption of each: its name, and its name with each keyword that says more."""
        return tuple(
            (entry.name, *(f"{entry.name}, {word}" for word in _more(entry)))
            for entry in self.emoji
        )

    def part(self, *names: str) -> EmojiImages:
        """The emoji of one part of the split, or of several.

        Raises:
            ValueError: no such part, or nothing in it.
        """
        images = self.images.part(*names)
        kept = np.isin(self.images.split, [PARTS.index(name) for name in names])
        return replace(self, images=images, emoji=_rows(self.emoji, np.flatnonzero(kept)))

    def plain(self) -> EmojiImages:
        """The same without augmentation."""
        return replace(self, augmentation=None)

    def batch(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, list[str]]:
        """Draw n emoji evenly, float32 (n, 3, side, side) in [0, 1], and a caption of each.

        Raises:
            ValueError: n is below 1.
        """
        import torch

        if n < 1:
            raise ValueError(f"{n} images are asked for; ask for at least 1")
        u = torch.rand(n, 7, generator=generator, dtype=torch.float64)
        rows = (u[:, 0] * len(self)).long().clamp(max=len(self) - 1).numpy()
        images, entries = self.images.as_tensor(rows), _rows(self.emoji, rows)
        if self.augmentation is None:
            return images, [entry.name for entry in entries]
        settings = self.augmentation
        texts = []
        for entry, (chance, which) in zip(entries, u[:, 1:3].tolist(), strict=True):
            more = _more(entry)
            told = chance < settings.keywords and more
            texts.append(f"{entry.name}, {more[int(which * len(more))]}" if told else entry.name)
        sided = torch.tensor([not may_mirror(entry) for entry in entries])
        mirror = (u[:, 3] < 0.5) & ~sided & settings.mirror
        size = 1 + settings.scale * (2 * u[:, 4] - 1)
        shift = settings.shift * (2 * u[:, 5:7] - 1)
        return _moved(images, mirror, size, shift), texts


def load_emoji(
    side: int = 32,
    seed: int = 0,
    held_out: Sequence[tuple[str, str]] = HELD_OUT,
    augmentation: Augmentation | None = Augmentation(),
    folder: Path | str | None = None,
) -> EmojiImages:
    """Load the emoji: a tenth for testing, the held-out combinations as the part `val`.

    Args:
        side: pixels on a side of a picture; 32 come with this package.
        seed: seed of the tenth.
        held_out: pairs of words; an emoji whose name has both is in the part `val`.
        augmentation: see `EmojiImages`.
        folder: where `emoji_sheet` wrote a sheet; None takes the one that comes with this package.
    Raises:
        FileNotFoundError: there is no sheet of this size; says how to make one.
        DamagedFileError: sheet and names do not belong together, or cannot be read.
        ValueError: no emoji has both words of a pair.
    """
    place = PACKED if folder is None else Path(folder)
    sheet, table = place / f"emoji-{side}.webp", place / "emoji.tsv"
    for path in (sheet, table):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; make it of a font: python -m generative.data.emoji_sheet "
                f"--font NotoColorEmoji.ttf --names en.xml --side {side} --out FOLDER, and give "
                "folder=FOLDER"
            )
    emoji = tuple(_read_table(table))
    images = _read_sheet(sheet, side, len(emoji))
    split = random_split(len(emoji), 0, len(emoji) // 10, seed)
    for pair in held_out:
        both = [set(pair) <= _words(entry.name) for entry in emoji]
        if not any(both):
            raise ValueError(f"no emoji is called {' and '.join(pair)}; give two words of one name")
        split[both] = PARTS.index("val")
    factors = np.arange(len(emoji))[:, None]
    images = ImageSet(images, factors, split, factor_names=("emoji",))
    return EmojiImages(images, emoji, augmentation)


def may_mirror(emoji: Emoji) -> bool:
    """True if a mirrored picture has the same caption: no side, no writing, no clock, no flag."""
    if any(ord(emoji.character) in block for block in _SIDED_CODES):
        return False
    words = _words(" ".join((emoji.name, *emoji.keywords)))
    return not words & _SIDED


def _words(text: str) -> set[str]:
    return set(re.findall(r"[\w’]+", text.lower()))


def _more(entry: Emoji) -> list[str]:
    """Keywords that the name does not hold."""
    return [word for word in entry.keywords if word.lower() not in entry.name.lower()]


def _rows(emoji: tuple[Emoji, ...], rows: np.ndarray) -> tuple[Emoji, ...]:
    return tuple(emoji[row] for row in rows.tolist())


def _moved(images: Tensor, mirror: Tensor, size: Tensor, shift: Tensor) -> Tensor:
    """Images mirrored where told, enlarged, and shifted by pixels (n, 2), with white around."""
    import torch
    from torch.nn import functional as F

    theta = torch.zeros(len(images), 2, 3, dtype=torch.float64)
    theta[:, 0, 0] = torch.where(mirror, -1.0, 1.0) / size
    theta[:, 1, 1] = 1 / size
    theta[:, :, 2] = shift * (2 / images.shape[-1])
    grid = F.affine_grid(theta.float(), list(images.shape), align_corners=False)
    # Outside lies 0, which is white in the negative.
    moved = F.grid_sample(1 - images, grid, padding_mode="zeros", align_corners=False)
    return (1 - moved).clamp(0, 1)


def _read_table(path: Path) -> list[Emoji]:
    emoji = []
    with reading(str(path), "cannot be read as a table of emoji"):
        for line in path.read_text(encoding="utf-8").splitlines():
            code, name, keywords = line.split("\t")
            emoji.append(Emoji(chr(int(code, 16)), name, tuple(keywords.split(", "))))
    if not emoji:
        raise DamagedFileError(f"{path}: lists no emoji")
    return emoji


def _read_sheet(path: Path, side: int, number: int) -> np.ndarray:
    from PIL import Image

    with reading(str(path), "cannot be read as an image"), Image.open(path, formats=("WEBP",)) as f:
        pixels = np.asarray(f.convert("RGB"))
    rows = -(-number // COLUMNS)
    if pixels.shape != (rows * side, COLUMNS * side, 3):
        raise DamagedFileError(
            f"{path}: has {pixels.shape[1]} x {pixels.shape[0]} pixels; {number} emoji of {side} "
            f"pixels take {COLUMNS * side} x {rows * side}: pack sheet and names together"
        )
    tiles = pixels.reshape(rows, side, COLUMNS, side, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, side, side, 3)[:number])
