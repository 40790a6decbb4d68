"""Images with captions: pairs stay together, and what is missing is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data.captioned import CaptionedImages, caption_classes, load_captioned_folder
from generative.data.fashion_mnist import CAPTIONS, CLASSES
from generative.data.image_set import ImageSet
from generative.training.files import DamagedFileError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey_images(n: int = 20) -> ImageSet:
    """Image i is of level i all over, and of class i % 4; the last four are for testing."""
    levels = np.arange(n, dtype=np.uint8)[:, None, None, None]
    split = np.where(np.arange(n) >= n - 4, 2, 0).astype(np.uint8)
    factors = (np.arange(n) % 4)[:, None]
    return ImageSet(np.broadcast_to(levels, (n, 8, 8, 1)).copy(), factors, split)


def fill(folder, n: int = 4, texts: bool = True) -> None:
    for i in range(n):
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(folder / f"{i}.png")
        if texts:
            (folder / f"{i}.txt").write_text(f"picture {i}\n\n  another of {i} \n")


def test_a_batch_keeps_pictures_and_captions_together():
    images = grey_images()
    data = CaptionedImages(images, tuple((f"level {i}", f"{i}") for i in range(20)))
    assert (len(data), data.image_shape) == (20, (1, 8, 8))
    assert "40 captions of ImageSet(20 images" in repr(data)
    x, texts = data.batch(300, generator())
    assert (x.shape, x.dtype) == ((300, 1, 8, 8), torch.float32)
    levels = (x[:, 0, 0, 0] * 255).round().long().tolist()
    assert levels == [int(text.removeprefix("level ")) for text in texts]
    assert set(levels) == set(range(20))
    assert 100 < sum(text.startswith("level") for text in texts) < 200
    again, same = data.batch(300, generator())
    assert torch.equal(x, again)
    assert texts == same
    assert texts != data.batch(300, generator(1))[1]


def test_parts_keep_their_captions():
    data = CaptionedImages(grey_images(), tuple((str(i),) for i in range(20)))
    test = data.part("test")
    assert test.captions == (("16",), ("17",), ("18",), ("19",))
    assert test.images.images[:, 0, 0, 0].tolist() == [16, 17, 18, 19]
    assert len(data.part("train", "test")) == 20
    with pytest.raises(ValueError, match="no image is in val"):
        data.part("val")
    with pytest.raises(ValueError, match="at least 1"):
        data.batch(0)


def test_images_without_captions_are_refused():
    with pytest.raises(ValueError, match="20 images and captions of 1"):
        CaptionedImages(grey_images(), (("a",),))
    with pytest.raises(ValueError, match="image 0 has no caption, and so have 19 others"):
        CaptionedImages(grey_images(), ((),) * 20)


def test_classes_are_captioned_by_their_names():
    data = caption_classes(grey_images(), ("a cup", "a hat", "boots", "a bag"), ("{}", "see {}"))
    assert data.captions[:2] == (("a cup", "see a cup"), ("a hat", "see a hat"))
    with pytest.raises(ValueError, match="classes up to 3, and 1 names"):
        caption_classes(grey_images(), ("a cup",))
    for templates in ((), ("a photo",), ("{} {}",)):
        with pytest.raises(ValueError, match=r"each needs \{\} once"):
            caption_classes(grey_images(), "abcd", templates)
    assert len(CAPTIONS) == len(CLASSES)


def test_a_folder_with_texts_beside_its_images(tmp_path):
    below = tmp_path / "more"
    below.mkdir()
    fill(tmp_path)
    Image.new("RGB", (8, 8), (90, 0, 0)).save(below / "x.png")
    (below / "x.txt").write_text("picture 9")
    data = load_captioned_folder(tmp_path, side=8)
    assert data.captions[0] == ("picture 0", "another of 0")
    for picture, texts in zip(data.images.images, data.captions, strict=True):
        assert texts[0] == f"picture {picture[0, 0, 0] // 10}"
    assert sorted(np.bincount(data.images.split)) == [1, 1, 3]
    assert len(load_captioned_folder(tmp_path, side=8, max_images=3)) == 3
    assert load_captioned_folder(tmp_path, side=8, colour=False).image_shape == (1, 8, 8)


def test_a_folder_with_a_list(tmp_path):
    fill(tmp_path, 5, texts=False)
    lines = [{"file": f"{i}.png", "caption": f"picture {i}"} for i in range(3)]
    lines += [{"file": "0.png", "caption": ["one more", "and one"]}]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    data = load_captioned_folder(tmp_path, side=8)
    assert data.captions == (
        ("picture 0", "one more", "and one"), ("picture 1",), ("picture 2",),
    )  # fmt: skip
    for line, message in (
        ("{", "line 5: is no JSON"),
        ('{"file": "1.png"}', "line 5: needs a file and a caption"),
        ('{"file": "1.png", "caption": ["a", 3]}', "line 5: needs"),
        ('{"file": "../1.png", "caption": "a"}', "inside the folder"),
    ):
        path.write_text("\n".join([*map(json.dumps, lines), line]))
        with pytest.raises(DamagedFileError, match=message):
            load_captioned_folder(tmp_path)
    path.write_text("\n")
    with pytest.raises(DamagedFileError, match="lists no image"):
        load_captioned_folder(tmp_path)
    path.write_text(json.dumps({"file": "gone.png", "caption": "a"}))
    with pytest.raises(FileNotFoundError, match=r"names gone\.png, and there is no such file"):
        load_captioned_folder(tmp_path)
    path.write_text(json.dumps(lines[0]))
    with pytest.raises(FileNotFoundError, match="lists 1 images; at least 3"):
        load_captioned_folder(tmp_path)


def test_images_of_a_folder_know_their_files(tmp_path):
    fill(tmp_path, 6)
    data = load_captioned_folder(tmp_path, side=8)
    assert data.files == tuple(f"{i}.png" for i in range(6))
    assert data.part("train").files == tuple(np.array(data.files)[data.images.split == 0])
    with pytest.raises(ValueError, match="6 images and 2 files"):
        CaptionedImages(data.images, data.captions, ("a.png", "b.png"))


def test_what_a_folder_lacks_is_named(tmp_path):
    needed = r"at least 3 images are needed, as \.bmp.*, each with its captions in a \.txt"
    with pytest.raises(FileNotFoundError, match=f"holds 0 images; {needed}"):
        load_captioned_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"none: no such folder; {needed}"):
        load_captioned_folder(tmp_path / "none")
    fill(tmp_path, 6)
    for i in (0, 2, 3, 5):
        (tmp_path / f"{i}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"4 of 6 images .*: 0\.png, 2\.png, 3\.png and 1 "
                                                r"more; write one into 0\.txt beside"):  # fmt: skip
        load_captioned_folder(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    with pytest.raises(DamagedFileError, match=r"2\.png"):
        load_captioned_folder(tmp_path)
