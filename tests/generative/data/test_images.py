"""Folders of images as users have them: other modes, turned, hidden, of other formats."""

import io

import numpy as np
import pytest
from PIL import Image

from generative.data.bricks import load_bricks
from generative.data.image_set import ImageSet, random_split
from generative.data.images import find_images, load_images, read_image
from generative.training.files import DamagedFileError

RAMP = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(64, 0)
"""Grey from left to right."""


def png(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(image: Image.Image, kind: str = "PNG", colour: bool = False, **options) -> np.ndarray:
    return read_image(png(image, kind, **options), "a", 64, colour)[..., 0]


def test_sixteen_bits_of_grey_are_scaled():
    wide = Image.fromarray(RAMP.astype(np.uint16) * 257)
    for colour in (False, True):
        np.testing.assert_array_equal(seen(wide, colour=colour), RAMP)
    small = Image.fromarray(np.full((64, 64), 300, np.uint16))
    np.testing.assert_array_equal(seen(small), 1)  # 300 / 257


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_modes_without_transparency(mode):
    grey = Image.fromarray(RAMP)
    ours = grey.convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    options = {"quality": 100} if kind == "JPEG" else {}
    wanted = np.asarray(ours.convert("L")).astype(int)
    error = np.abs(seen(ours, kind, **options).astype(int) - wanted)
    assert error.max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_is_laid_over_white(mode, kind):
    """Black that fades to the right is a ramp from black to white."""
    black = np.zeros((64, 64), np.uint8)
    image = Image.merge("LA", [Image.fromarray(black), Image.fromarray(255 - RAMP)])
    if mode == "P":  # one colour is transparent, all or nothing
        image = Image.new("P", (64, 64), 0)
        image.putpalette([0, 0, 0, 90, 90, 90])
        image.paste(1, (0, 0, 32, 64))
        pixels = seen(image, transparency=0) if kind == "PNG" else None
        if pixels is not None:
            assert pixels[:, :32].max() == 90
            assert pixels[:, 32:].min() == 255
        return
    options = {} if kind == "PNG" else {"lossless": True, "exact": True}
    error = seen(image.convert(mode), kind, **options).astype(int) - RAMP
    assert np.abs(error).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_images_are_turned_as_the_camera_says(kind, turn):
    """Orientation t says how the stored picture has to be turned to be the seen one."""
    corner = np.zeros((64, 64), np.uint8)
    corner[:32, :32], corner[:32, 32:] = 240, 120  # top left, top right
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = Image.fromarray(corner)
    if turn > 1:
        stored = stored.transpose(back[turn])
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = seen(stored.convert("RGB"), kind, exif=exif)
    quarters = [pixels[8:24, 8:24], pixels[8:24, 40:56], pixels[40:56, 8:24], pixels[40:56, 40:56]]
    np.testing.assert_allclose([q.mean() for q in quarters], [240, 120, 0, 0], atol=4)


def test_an_exif_that_is_damaged_turns_nothing():
    pixels = seen(Image.fromarray(RAMP), exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    np.testing.assert_array_equal(pixels, RAMP)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_picture_of_a_film(kind):
    frames = [Image.new("L", (64, 64), value) for value in (40, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = seen(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(pixels, 40)


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO"])
def test_other_formats_are_refused_whatever_their_name(kind):
    with pytest.raises(DamagedFileError, match=r"a: cannot be read as an image"):
        seen(Image.fromarray(RAMP).convert("RGB"), kind)


def fill(folder, *names):
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * i).save(path, "PNG")


def test_hidden_and_companion_files_are_left_out(tmp_path, capsys):
    fill(tmp_path, "cat/1.png", "cat/2.png", "dog/3.PNG", "dog/4.png")
    fill(tmp_path, ".ipynb_checkpoints/1-checkpoint.png", "cat/.ipynb_checkpoints/2.png")
    fill(tmp_path, "__MACOSX/cat/1.png", ".git/x.png", "dog/.hidden.png")
    for name in ("cat/._1.png", "dog/Thumbs.db", ".DS_Store", "desktop.ini", "__MACOSX/._cat"):
        (tmp_path / name).write_bytes(b"no image")
    images = load_images(tmp_path, side=4)
    assert images.factors[:, 0].tolist() == [0, 0, 1, 1]
    assert capsys.readouterr().err == ""


def test_files_of_other_formats_are_counted(tmp_path, capsys):
    fill(tmp_path, "a.png", "b.png", "c.png", "d.tif", "e.tif", "f.heic")
    (tmp_path / "README").write_text("of the images")
    assert len(find_images(tmp_path)) == 3
    assert capsys.readouterr().err == (
        f"{tmp_path}: 3 files are read, 4 of other formats are not "
        "(2 .tif, 1 without an ending, 1 .heic)\n"
    )


def test_a_folder_that_is_called_like_an_image(tmp_path):
    fill(tmp_path, "a.png", "b.png", "c.png", "d.png/e.png")
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "b.png", "c.png", "e.png"]


def test_bricks_have_no_hidden_ones(tmp_path):
    fill(tmp_path, "3001 brick 000L.png", "3001 brick 001L.png", "3003 brick 000L.png")
    (tmp_path / "._3001 brick 000L.png").write_bytes(b"")
    assert load_bricks(tmp_path, side=4).factors[:, 0].tolist() == [0, 0, 1]


def test_a_set_of_images_is_shown_in_a_line():
    n = 50_000
    images = ImageSet(
        np.zeros((n, 4, 4, 1), np.uint8), np.zeros((n, 1), np.int64), random_split(n, 500, 100)
    )
    assert repr(images) == (
        "ImageSet(50000 images (4, 4, 1) of 256 levels with 1 factors: "
        "49400 train, 500 val, 100 test)"
    )
