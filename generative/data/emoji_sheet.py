"""Pack the emoji of a font into one sheet of small pictures, with Unicode's names of them.

    python -m generative.data.emoji_sheet --font NotoColorEmoji.ttf --names en.xml --out FOLDER

The committed sheet was made so, of Debian's fonts-noto-color-emoji (NotoColorEmoji.ttf) and
unicode-cldr-core (common/annotations/en.xml). With `--side 64` the pictures have 64x64 pixels.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from generative.training.files import DamagedFileError, read_file, write_file
from generative.training.ranges import Size

__all__ = ["COLUMNS", "names_and_keywords", "pack_emoji"]

COLUMNS = 40
"""Pictures in a row of the sheet."""
BITMAP = 109
"""Size at which Noto Color Emoji holds its bitmaps, of 136 x 128 pixels."""
WIDTH, HEIGHT = 136, 128
MAX_BYTES = 2**26
NO_PICTURES = frozenset("*#0123456789\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
"""Code points that only change another: keys, and tones of skin."""


def pack_emoji(font: Path, names: Path, side: Size, out: Path) -> int:
    """Write emoji-SIDE.webp (without loss, on white) and emoji.tsv; return how many there are.

    A line of the table has the code point, the name and the keywords, between tabs. It holds the
    emoji of one code point that have a name and that the font draws, in the order of the names.

    Raises:
        FileNotFoundError: font or names are missing.
        DamagedFileError: the font is none, or the names are no file of CLDR's annotations.
        ValueError: the font draws none of them.
    """
    from PIL import Image, ImageDraw, ImageFont

    for path in (font, names):
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; the font is NotoColorEmoji.ttf (Debian: "
                "fonts-noto-color-emoji), the names are CLDR's common/annotations/en.xml (Debian: "
                "unicode-cldr-core)"
            )
    known = names_and_keywords(read_file(names, MAX_BYTES, links=True), str(names))
    try:
        bitmaps = ImageFont.truetype(str(font), BITMAP)
    except OSError as error:
        raise DamagedFileError(
            f"{font}: is no font with pictures of {BITMAP} points ({error}); give "
            "NotoColorEmoji.ttf"
        ) from error
    pictures, listed = [], []
    for character, (name, keywords) in known.items():
        # What the font lacks has no height.
        if bitmaps.getbbox(character)[1] or character in NO_PICTURES:
            continue
        picture = Image.new("RGB", (WIDTH, WIDTH), "white")
        place = (0, (WIDTH - HEIGHT) // 2)
        ImageDraw.Draw(picture).text(place, character, font=bitmaps, embedded_color=True)
        pictures.append(picture.resize((side, side), Image.Resampling.LANCZOS))
        listed.append(f"{ord(character):x}\t{name}\t{', '.join(keywords)}\n")
    if not pictures:
        raise ValueError(
            f"{font} draws none of the {len(known)} emoji of {names}; give another font"
        )
    sheet = Image.new("RGB", (COLUMNS * side, -(-len(pictures) // COLUMNS) * side), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % COLUMNS * side, i // COLUMNS * side))
    data = io.BytesIO()
    sheet.save(data, "WEBP", lossless=True, quality=80, method=4)
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / f"emoji-{side}.webp", data.getvalue())
    write_file(out / "emoji.tsv", "".join(listed).encode())
    return len(pictures)


def names_and_keywords(data: bytes, name: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name and keywords of every single code point in a file of CLDR's annotations, in its order.

    Raises:
        DamagedFileError: it is none.
    """
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DamagedFileError(f"{name}: is no XML ({error})") from error
    spoken: dict[str, str] = {}
    keywords: dict[str, tuple[str, ...]] = {}
    for entry in root.iter("annotation"):
        character, text = entry.get("cp", ""), entry.text or ""
        if entry.get("type") == "tts":
            spoken[character] = text.strip()
        else:
            keywords[character] = tuple(word.strip() for word in text.split("|"))
    if not spoken:
        raise DamagedFileError(f"{name}: names no character; give CLDR's common/annotations/en.xml")
    return {
        character: (text, keywords.get(character, ()))
        for character, text in spoken.items()
        if len(character) == 1
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Pack the emoji that a command line names.

    Raises:
        SystemExit: 2 for a wrong command line; or what a file lacks, in one line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--font", type=Path, required=True, help="NotoColorEmoji.ttf")
    parser.add_argument("--names", type=Path, required=True, help="CLDR's annotations/en.xml")
    parser.add_argument("--side", type=int, default=32, help="pixels on a side, 32")
    parser.add_argument("--out", type=Path, required=True, help="folder for sheet and names")
    args = parser.parse_args(argv)
    try:
        number = pack_emoji(args.font, args.names, args.side, args.out)
    except (OSError, ValueError) as error:  # a missing or damaged file, or a font that draws none
        raise SystemExit(f"{parser.prog}: {error}") from None
    print(f"{args.out}: {number} emoji of {args.side}x{args.side} pixels")


if __name__ == "__main__":
    main()
