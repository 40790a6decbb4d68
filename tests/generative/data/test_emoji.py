"""The packed emoji: whole, named, split as told, and changed only where the caption stays true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data import emoji_sheet
from generative.data.emoji import (
    HELD_OUT,
    PACKED,
    Augmentation,
    Emoji,
    EmojiImages,
    load_emoji,
    may_mirror,
)
from generative.data.image_set import ImageSet
from generative.training.files import DamagedFileError

torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def emoji() -> EmojiImages:
    return load_emoji()


def named(emoji: EmojiImages, name: str) -> Emoji:
    [found] = [entry for entry in emoji.emoji if entry.name == name]
    return found


def test_all_emoji_are_there(emoji):
    assert len(emoji) == len({entry.character for entry in emoji.emoji}) == 1360
    assert emoji.image_shape == (3, 32, 32)
    assert named(emoji, "red heart").character == "\N{HEAVY BLACK HEART}"
    assert "heart" in named(emoji, "red heart").keywords
    pictures = emoji.images.images.reshape(len(emoji), -1)
    assert len(np.unique(pictures, axis=0)) == 1360  # no two are drawn alike, none is missing
    assert (pictures.min(1) < 200).sum() > 1340
    assert "1360 images" in repr(emoji)
    assert (PACKED / "NOTICE").is_file()


def test_pictures_belong_to_their_names(emoji):
    """The colour in the middle of the coloured hearts, squares and circles."""
    for name, (high, low) in {
        "red heart": (0, 2), "blue heart": (2, 0), "green heart": (1, 0), "blue square": (2, 0),
        "red circle": (0, 2), "green circle": (1, 0), "orange square": (0, 2),
    }.items():  # fmt: skip
        row = [entry.name for entry in emoji.emoji].index(name)
        middle = emoji.images.images[row, 12:18, 13:19].mean((0, 1))
        assert middle[high] > middle[low] + 50, name


def test_the_split_holds_out_a_tenth_and_combinations(emoji):
    train, val, test = (emoji.part(name) for name in ("train", "val", "test"))
    assert len(train) + len(val) + len(test) == 1360
    assert 125 <= len(test) <= 136
    names = {entry.name for entry in val.emoji}
    assert {"blue heart", "green circle", "purple square", "orange book"} <= names
    assert "cat with tears of joy" in names
    assert len(names) < 10
    seen = {word for entry in train.emoji for word in entry.name.lower().split()}
    assert {word for pair in HELD_OUT for word in pair} <= seen
    other = load_emoji(held_out=(("grinning", "cat"),)).part("val")
    assert all("cat" in entry.name for entry in other.emoji)
    assert load_emoji(held_out=()).images.split.max() == 2
    with pytest.raises(ValueError, match="is called green and elephant"):
        load_emoji(held_out=(("green", "elephant"),))


def test_captions_are_the_name_and_one_more_word(emoji):
    face = named(emoji, "grinning face")
    row = emoji.emoji.index(face)
    assert emoji.captions[row][0] == "grinning face"
    assert "grinning face, grin" not in emoji.captions[row]  # the name says it
    every = {text for texts in emoji.captions for text in texts}
    names = {entry.name for entry in emoji.emoji}
    _, texts = emoji.batch(400, generator())
    assert set(texts) <= every
    assert 120 < sum(text in names for text in texts) < 280
    _, texts = emoji.plain().batch(50, generator())
    assert set(texts) <= names


def test_without_augmentation_a_batch_is_of_the_pictures(emoji):
    data = emoji.part("train").plain()
    images, texts = data.batch(8, generator(4))
    assert (images.shape, images.dtype) == ((8, 3, 32, 32), torch.float32)
    rows = [[entry.name for entry in data.emoji].index(text) for text in texts]
    assert torch.equal(images, data.images.as_tensor(np.array(rows)))
    again, same = data.batch(8, generator(4))
    assert torch.equal(images, again)
    assert texts == same
    with pytest.raises(ValueError, match="at least 1"):
        data.batch(0)


def one(picture: np.ndarray, name: str, augmentation: Augmentation) -> EmojiImages:
    images = ImageSet(picture[None], np.zeros((1, 1), np.int64), np.zeros(1, np.uint8))
    return EmojiImages(images, (Emoji("\N{CAT}", name, ("cat",)),), augmentation)


def test_pictures_are_moved_by_whole_steps_and_white_comes_in():
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[10:20, 12:22] = (0, 100, 200)
    only_shift = Augmentation(shift=5, scale=0, mirror=False, keywords=0)
    images, texts = one(picture, "cat", only_shift).batch(40, generator())
    assert texts == ["cat"] * 40
    ink = (1 - images).sum((1, 2, 3))
    torch.testing.assert_close(ink, ink[:1].expand(40), rtol=1e-4, atol=0)  # nothing is lost
    dark = 1 - images[:, 0]
    rows = (dark.sum(2) * torch.arange(32)).sum(1) / dark.sum((1, 2))
    assert 9 <= float(rows.min()) < 11
    assert 18 < float(rows.max()) <= 20
    assert bool((images[:, :, 0, 0] == 1).all())


def test_pictures_are_enlarged_and_mirrored():
    picture = np.full((32, 32, 3), 255, np.uint8)
    picture[8:24, 4:16] = 0
    images, _ = one(picture, "cat", Augmentation(0, 0, True, 0)).batch(60, generator())
    plain = torch.from_numpy(picture).movedim(2, 0) / 255
    kept = [bool((image - plain).abs().max() < 1e-4) for image in images]
    turned = [bool((image - plain.flip(2)).abs().max() < 1e-4) for image in images]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert 15 < sum(turned) < 45
    images, _ = one(picture, "left cat", Augmentation(0, 0, True, 0)).batch(60, generator())
    assert all(bool((image - plain).abs().max() < 1e-4) for image in images)
    images, _ = one(picture, "cat", Augmentation(0, 0.2, False, 0)).batch(60, generator())
    area = (1 - images[:, 0]).sum((1, 2)) / (16 * 12)
    assert 0.6 < float(area.min()) < 0.75
    assert 1.3 < float(area.max()) < 1.5
    assert images.amin() >= 0
    assert images.amax() <= 1


def test_what_has_a_side_is_not_mirrored(emoji):
    for name in ("right arrow", "backhand index pointing left", "three o’clock", "one-thirty",
                 "black flag", "OK button", "Aries", "red question mark",
                 "musical note", "dollar banknote", "world map", "waxing crescent moon", "hotel",
                 "input latin letters", "calendar", "1st place medal", "no smoking"):  # fmt: skip
        assert not may_mirror(named(emoji, name)), name
    for name in ("grinning face", "cat", "red heart", "banana", "umbrella", "bicycle", "pizza"):
        assert may_mirror(named(emoji, name)), name
    assert sum(not may_mirror(entry) for entry in emoji.emoji) == 385


def test_a_sheet_that_is_missing_or_not_whole_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"emoji-64\.webp: no such file; .* --side 64"):
        load_emoji(64)
    (tmp_path / "emoji.tsv").write_text("1f600\tface\tgrin\n1f601\tbeam\tgrin, eye\n")
    Image.new("RGB", (640, 16)).save(tmp_path / "emoji-16.webp", lossless=True)
    found = load_emoji(16, held_out=(), folder=tmp_path)
    assert found.emoji[1] == Emoji("\N{GRINNING FACE WITH SMILING EYES}", "beam", ("grin", "eye"))
    assert found.image_shape == (3, 16, 16)
    Image.new("RGB", (640, 32)).save(tmp_path / "emoji-16.webp", lossless=True)
    with pytest.raises(DamagedFileError, match=r"has 640 x 32 pixels; 2 emoji .* take 640 x 16"):
        load_emoji(16, folder=tmp_path)
    (tmp_path / "emoji-16.webp").write_bytes(b"RIFF")
    with pytest.raises(DamagedFileError, match="cannot be read as an image"):
        load_emoji(16, folder=tmp_path)
    (tmp_path / "emoji.tsv").write_text("1f600 face\n")
    with pytest.raises(DamagedFileError, match="cannot be read as a table"):
        load_emoji(16, folder=tmp_path)


ANNOTATIONS = """<ldml><annotations>
<annotation cp="😀">face | grin</annotation>
<annotation cp="😀" type="tts">grinning face</annotation>
<annotation cp="👨‍👩" type="tts">a sequence</annotation>
<annotation cp="✋" type="tts">raised hand</annotation>
</annotations></ldml>"""


def test_names_are_read_from_unicodes_file():
    assert emoji_sheet.names_and_keywords(ANNOTATIONS.encode(), "en.xml") == {
        "😀": ("grinning face", ("face", "grin")),
        "✋": ("raised hand", ()),
    }
    with pytest.raises(DamagedFileError, match=r"en\.xml: is no XML"):
        emoji_sheet.names_and_keywords(b"<ldml>", "en.xml")
    with pytest.raises(DamagedFileError, match="names no character"):
        emoji_sheet.names_and_keywords(b"<ldml></ldml>", "en.xml")


def test_packing_without_the_files_says_where_they_come_from(tmp_path):
    font, names = tmp_path / "a.ttf", tmp_path / "en.xml"
    words = ["--font", str(font), "--names", str(names), "--out", str(tmp_path)]
    with pytest.raises(FileNotFoundError, match="fonts-noto-color-emoji"):
        emoji_sheet.pack_emoji(font, names, 32, tmp_path)
    with pytest.raises(SystemExit, match=r": .*a\.ttf: no such file; .*fonts-noto-color-emoji"):
        emoji_sheet.main(words)
    font.write_bytes(b"no font")
    names.write_text("<ldml>")
    with pytest.raises(SystemExit, match=r"en\.xml: is no XML"):
        emoji_sheet.main(words)
    names.write_text(ANNOTATIONS)
    with pytest.raises(SystemExit, match=r"a\.ttf: is no font"):
        emoji_sheet.main(words)


class OneColour:
    """Stands in for a font with bitmaps, which Pillow cannot make: it draws one of the two."""

    def getbbox(self, character: str) -> tuple[int, int, int, int]:
        return (0, 0, 136, 128) if character == "😀" else (0, 101, 136, 101)


def test_packed_pictures_are_those_that_the_font_draws(tmp_path, monkeypatch):
    from PIL import ImageDraw, ImageFont

    (tmp_path / "en.xml").write_text(ANNOTATIONS)
    (tmp_path / "font.ttf").write_bytes(b"")
    monkeypatch.setattr(ImageFont, "truetype", lambda path, size: OneColour())

    def text(self, place, character, font, embedded_color):
        assert (place, embedded_color) == ((0, 4), True)
        self.rectangle((34, 34, 101, 101), fill=(200, 0, 0))

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    assert emoji_sheet.pack_emoji(tmp_path / "font.ttf", tmp_path / "en.xml", 8, tmp_path) == 1
    [picture] = load_packed(tmp_path)
    assert picture[4, 4].tolist() == pytest.approx([200, 0, 0], abs=8)  # Lanczos swings
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert (tmp_path / "emoji.tsv").read_text() == "1f600\tgrinning face\tface, grin\n"


def load_packed(folder) -> np.ndarray:
    sheet = np.asarray(Image.open(folder / "emoji-8.webp"))
    assert sheet.shape == (8, 320, 3)
    return sheet[None, :, :8]
