"""The data sets: what they hold, their splits, and what they say to files that are not theirs."""

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from generative.data import digits, fashion_mnist
from generative.data.digits import load_digits
from generative.data.fashion_mnist import load_fashion_mnist
from generative.data.image_set import ImageSet, fit_images, random_split
from generative.data.images import load_images
from generative.known.sprites import COLOURS, FACTORS, SHAPES, draw, nearest, sprites
from generative.training.files import DamagedFileError


def tiny_set() -> ImageSet:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 3, 1), np.uint8)
    split = np.array([0, 0, 1, 2, 0, 1], dtype=np.uint8)
    return ImageSet(images, np.arange(6)[:, None], split, levels=6)


def test_parts_and_tensors():
    images = tiny_set()
    assert images.image_shape == (1, 2, 3)
    assert images.part("train").factors[:, 0].tolist() == [0, 1, 4]
    assert images.part("train", "val").factors[:, 0].tolist() == [0, 1, 2, 4, 5]
    x = images.as_tensor()
    assert x.shape == (6, 1, 2, 3)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, 0, 0, 0], torch.arange(6) / 5)


def test_rows_as_tensors():
    x = tiny_set().as_tensor()
    torch.testing.assert_close(tiny_set().as_tensor(np.array([4, 1])), x[[4, 1]])
    torch.testing.assert_close(tiny_set().as_tensor(slice(2, 4)), x[2:4])


def random_images(n: int, h: int, w: int, c: int) -> ImageSet:
    pixels = np.random.default_rng(0).integers(256, size=(n, h, w, c), dtype=np.uint8)
    return ImageSet(pixels, np.zeros((n, 1), np.int64), np.zeros(n, np.uint8))


def test_small_images_get_a_black_border():
    images = random_images(2, 28, 28, 1)
    fitted = fit_images(images, (1, 32, 32)).images
    np.testing.assert_array_equal(fitted[:, 2:-2, 2:-2], images.images)
    assert fitted.sum() == images.images.sum(dtype=np.int64)


def test_large_images_shrink_by_area_averages():
    images = random_images(2, 12, 8, 3)
    fitted = fit_images(images, (3, 6, 4)).images
    means = images.images.reshape(2, 6, 2, 4, 2, 3).mean((2, 4))
    assert np.abs(fitted - means).max() <= 1.0  # Pillow rounds after each axis


def test_colour_and_grey():
    images = random_images(2, 4, 4, 3)
    grey = fit_images(images, (1, 4, 4)).images
    red, green, blue = images.images.astype(float).transpose(3, 0, 1, 2)
    assert np.abs(grey[..., 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 0.501
    back = fit_images(random_images(2, 4, 4, 1), (3, 4, 4)).images
    assert (back == back[..., :1]).all()


def test_fewer_levels_have_equal_shares():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images = ImageSet(pixels, np.zeros((1, 1), np.int64), np.zeros(1, np.uint8))
    fitted = fit_images(images, (1, 16, 16), levels=4)
    assert fitted.levels == 4
    np.testing.assert_array_equal(fitted.images.ravel(), np.arange(256) // 64)
    with pytest.raises(ValueError, match="2 to 4 levels"):
        fit_images(fitted, (1, 16, 16), levels=5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": 5}, "pixels reach 5"),
        ({"images": np.zeros((6, 2, 3, 1), np.float32)}, "images are float32"),
        ({"factors": np.zeros((6, 2), np.int64)}, r"factors are int64 \(6, 2\)"),
        ({"split": np.zeros(5, np.uint8)}, r"split are uint8 \(5,\)"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(changes, message):
    good = tiny_set()
    fields = {"images": good.images, "factors": good.factors, "split": good.split, "levels": 6}
    with pytest.raises(ValueError, match=message):
        ImageSet(**{**fields, **changes})


def test_unknown_parts_are_named():
    with pytest.raises(ValueError, match=r"no part \['valid'\]; parts are train, val, test"):
        tiny_set().part("valid")


def test_split_is_fixed_and_complete():
    split = random_split(100, 10, 20, seed=3)
    assert np.bincount(split).tolist() == [70, 10, 20]
    np.testing.assert_array_equal(split, random_split(100, 10, 20, seed=3))
    assert (split != random_split(100, 10, 20, seed=4)).any()
    with pytest.raises(ValueError, match="leave none to train on"):
        random_split(10, 5, 5)


# ---------------------------------------------------------------------------------------------
# Sprites
# ---------------------------------------------------------------------------------------------


def test_every_sprite_is_there_once():
    images = sprites()
    assert len(images) == np.prod(list(FACTORS.values())) == 4608
    assert len({image.tobytes() for image in images.images}) == len(images)
    assert len(np.unique(images.factors, axis=0)) == len(images)
    for row in (0, 777, 4607):
        np.testing.assert_array_equal(images.images[row], draw(*images.factors[row]))


def test_sprites_are_whole_and_in_one_colour():
    images = sprites()
    drawn = images.images.any(-1)
    for shape in range(len(SHAPES)):
        for size in range(FACTORS["size"]):
            alike = (images.factors[:, 0] == shape) & (images.factors[:, 4] == size)
            assert len(np.unique(drawn[alike].sum((1, 2)))) == 1  # none is cut off at an edge
    for name, index in (("red", 0), ("white", 5)):
        chosen = images.factors[:, 1] == index
        pixels = images.images[chosen][drawn[chosen]]
        assert (pixels == COLOURS[name]).all()


def test_sprites_move_and_grow_with_their_factors():
    for shape in range(len(SHAPES)):
        base = draw(shape, 0, 2, 3, 1).any(-1)
        np.testing.assert_array_equal(draw(shape, 0, 4, 3, 1).any(-1), np.roll(base, 4, axis=1))
        np.testing.assert_array_equal(draw(shape, 0, 2, 4, 1).any(-1), np.roll(base, 2, axis=0))
        assert draw(shape, 0, 2, 3, 2).any(-1).sum() > base.sum()


def test_nearest_finds_noisy_sprites():
    images = sprites()
    rng = np.random.default_rng(0)
    rows = rng.integers(len(images), size=20)
    noise = rng.normal(scale=20, size=(20, 32, 32, 3))
    noisy = np.clip(images.images[rows] + noise, 0, 255).astype(np.uint8)
    index, error = nearest(images, noisy)
    np.testing.assert_array_equal(index, rows)
    expected = np.square(noisy.astype(float) - images.images[rows]).mean((1, 2, 3))
    np.testing.assert_allclose(error, expected)
    with pytest.raises(ValueError, match="float64"):
        nearest(images, noise)


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------


def fake_digits(path, pixels: int = 64, largest: int = 16):
    table = np.random.default_rng(0).integers(largest + 1, size=(1797, pixels))
    table = np.hstack([table, np.arange(1797)[:, None] % 10])
    with gzip.open(path, "wt") as file:
        np.savetxt(file, table, fmt="%d", delimiter=",")
    return table


def test_digits_of_a_file(tmp_path):
    table = fake_digits(tmp_path / "digits.csv.gz")
    images = load_digits(tmp_path / "digits.csv.gz")
    np.testing.assert_array_equal(images.images.reshape(1797, 64), table[:, :64])
    np.testing.assert_array_equal(images.factors[:, 0], table[:, 64])
    assert np.bincount(images.split).tolist() == [1257, 180, 360]
    order = np.random.default_rng(0).permutation(1797)
    assert (images.split[order[1437:]] == 2).all()


def test_other_tables_are_no_digits(tmp_path):
    fake_digits(tmp_path / "large.csv.gz", largest=17)
    fake_digits(tmp_path / "wide.csv.gz", pixels=65)
    (tmp_path / "text.csv.gz").write_bytes(gzip.compress(b"a,b\n"))
    (tmp_path / "cut.csv.gz").write_bytes(b"no")
    for name in ("large", "wide", "text", "cut"):
        with pytest.raises(DamagedFileError, match=f"{name}.csv.gz"):
            load_digits(tmp_path / f"{name}.csv.gz")


def test_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r'pip install "scikit-learn.*extra digits'):
        load_digits()


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits as theirs

    ours = load_digits()
    np.testing.assert_array_equal(ours.images[..., 0], theirs().images)
    np.testing.assert_array_equal(ours.factors[:, 0], theirs().target)


def test_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate(["b/one.png", "a/two.png", "a/three.png", "b/four.png"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((20, 30, 3), 60 * i, np.uint8)
        pixels[:, :5] = rng.integers(256, size=(20, 5, 3))  # cut away: the middle square is kept
        pixels[:, 25:] = 0
        Image.fromarray(pixels).save(path)
    images = load_images(tmp_path, side=10)
    assert images.images.shape == (4, 10, 10, 3)
    # In the order of their names: a/three, a/two, b/four, b/one.
    np.testing.assert_array_equal(images.images.mean((1, 2, 3)), [120, 60, 180, 0])
    assert images.factors[:, 0].tolist() == [0, 0, 1, 1]
    assert sorted(images.split.tolist()) == [0, 0, 1, 2]
    assert load_images(tmp_path, side=10, colour=False).images.shape == (4, 10, 10, 1)

    (tmp_path / "a" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DamagedFileError, match=r"broken\.png: cannot be read as an image"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder; at least 3 images"):
        load_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds 0 images; at least 3 images"):
        load_images(tmp_path / "empty")


def test_images_of_few_levels_can_grow():
    """Digits have 17 levels; what is interpolated between them stays among these."""
    grown = fit_images(load_digits()[:20], (1, 32, 32))
    assert grown.levels == 17
    assert grown.images.shape == (20, 32, 32, 1)
    assert grown.images.max() == 16


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_fashion_mnist_of_an_installed_package_is_read_where_a_folder_has_none(
    tmp_path, monkeypatch
):
    def write(folder, value):
        folder.mkdir()
        for part in ("train", "t10k"):
            pixels = np.full((2, 28, 28), value, dtype=np.uint8)
            write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
            write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.zeros(2, dtype=np.uint8))

    write(tmp_path / "own", 1)
    write(tmp_path / "installed", 2)
    monkeypatch.setattr(fashion_mnist, "INSTALLED", tmp_path / "installed")
    assert load_fashion_mnist(tmp_path / "own").images.max() == 1
    assert load_fashion_mnist(tmp_path / "nothing").images.max() == 2
    # A folder that holds some of the files is not passed over.
    (tmp_path / "own" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="own/train-images"):
        load_fashion_mnist(tmp_path / "own")


def test_fashion_mnist_files(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "INSTALLED", tmp_path / "not installed")
    rng = np.random.default_rng(0)
    pixels = {part: rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
              for part, n in (("train", 5), ("t10k", 3))}  # fmt: skip
    for part, array in pixels.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", array)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(len(array), dtype=np.uint8))
    images = load_fashion_mnist(tmp_path)
    assert images.image_shape == (1, 32, 32)
    np.testing.assert_array_equal(images.part("train").images[:, 2:-2, 2:-2, 0], pixels["train"])
    np.testing.assert_array_equal(images.part("test").images[:, 2:-2, 2:-2, 0], pixels["t10k"])
    assert not images.images[:, :2].any()
    assert images.part("test").factors[:, 0].tolist() == [0, 1, 2]

    whole = (tmp_path / "train-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[:-20])
    with pytest.raises(DamagedFileError, match=r"train-images-idx3-ubyte\.gz: is not whole"):
        load_fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz is missing; get it"):
        load_fashion_mnist(tmp_path)
