"""Public data sets: a few images in each official format, what damage is called, downloads."""

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import io
import socket
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from generative.data.bricks import load_bricks
from generative.data.celeba import load_celeba
from generative.data.cifar10 import load_cifar10
from generative.data.download import Source, download
from generative.data.flowers import load_flowers, read_mat_row
from generative.data.images import load_images
from generative.data.mnist import load_mnist
from generative.training.files import DamagedFileError
from scripts import download_data
from scripts.common.images import load_images as load_for_training


def flat(value: int, width: int, height: int, suffix: str = ".jpg") -> bytes:
    """An image of one grey; JPEG keeps it exactly."""
    data = io.BytesIO()
    image = Image.fromarray(np.full((height, width, 3), value, np.uint8))
    image.save(data, "PNG" if suffix == ".png" else "JPEG")
    return data.getvalue()


def make_tar(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


# ---------------------------------------------------------------------------------------------
# CIFAR-10
# ---------------------------------------------------------------------------------------------


def cifar_files(per_batch: int = 2) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Its six files, and the images (HWC) and classes that they should give."""
    n = 6 * per_batch
    images = np.random.default_rng(0).integers(256, size=(n, 32, 32, 3), dtype=np.uint8)
    classes = np.arange(n) % 10
    rows = [bytes([c]) + b"".join(i[..., k].tobytes() for k in range(3))
            for c, i in zip(classes, images, strict=True)]  # fmt: skip
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    batches = [b"".join(rows[i : i + per_batch]) for i in range(0, n, per_batch)]
    return dict(zip(names, batches, strict=True)), images, classes


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10(tmp_path, packed):
    files, images, classes = cifar_files()
    named = {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}
    if packed:
        make_tar(tmp_path / "cifar-10-binary.tar.gz", {"cifar-10-batches-bin/x.html": b"", **named})
    else:
        (tmp_path / "cifar-10-batches-bin").mkdir()
        for name, data in named.items():
            (tmp_path / name).write_bytes(data)
    found = load_cifar10(tmp_path)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.factors[:, 0], classes)
    assert found.split.tolist() == [0] * 10 + [2] * 2


def test_damaged_cifar10(tmp_path):
    files, _, _ = cifar_files()
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with pytest.raises(FileNotFoundError, match=r"cifar-10-binary\.tar\.gz is missing; get it"):
        load_cifar10(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").touch()
    with pytest.raises(FileNotFoundError) as found:
        load_cifar10(tmp_path)
    assert "pickles are not read" in found.value.__notes__[0]
    make_tar(archive, files)
    archive.write_bytes(archive.read_bytes()[:9000])
    with pytest.raises(DamagedFileError, match=r"binary\.tar\.gz: is not a whole tar\.gz"):
        load_cifar10(tmp_path)
    make_tar(archive, {name: data for name, data in files.items() if name != "data_batch_3.bin"})
    with pytest.raises(DamagedFileError, match=r"holds no data_batch_3\.bin"):
        load_cifar10(tmp_path)
    make_tar(archive, {**files, "data_batch_2.bin": files["data_batch_2.bin"][:-1]})
    with pytest.raises(DamagedFileError, match=r"data_batch_2\.bin: has 6145 bytes"):
        load_cifar10(tmp_path)
    make_tar(archive, {**files, "data_batch_2.bin": b"\x0a" + files["data_batch_2.bin"][1:]})
    with pytest.raises(DamagedFileError, match=r"data_batch_2\.bin: names a class 10"):
        load_cifar10(tmp_path)


# ---------------------------------------------------------------------------------------------
# CelebA
# ---------------------------------------------------------------------------------------------


def celeba(folder, n: int = 6, packed: bool = False, csv: bool = False) -> None:
    faces = {f"{i + 1:06d}.jpg": flat(40 * i, 178, 218) for i in range(n)}
    if packed:
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as file:
            for name, data in faces.items():
                file.writestr(f"img_align_celeba/{name}", data)
    else:
        place = folder / "img_align_celeba"
        place.mkdir()
        for name, data in faces.items():
            (place / name).write_bytes(data)
    signs = [[1 if i >> k & 1 else -1 for k in range(3)] for i in range(n)]
    parts = [0] * (n - 2) + [1, 2]
    names = ["Bald", "Blond_Hair", "Smiling"]
    if csv:
        rows = [",".join(map(str, [name, *s])) for name, s in zip(faces, signs, strict=True)]
        table = "\n".join([",".join(["image_id", *names]), *rows])
        (folder / "list_attr_celeba.csv").write_text(table)
        rows = [f"{name},{part}" for name, part in zip(faces, parts, strict=True)]
        (folder / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *rows]))
    else:
        rows = [
            f"{name} " + " ".join(f"{x:2d}" for x in s)
            for name, s in zip(faces, signs, strict=True)
        ]
        (folder / "list_attr_celeba.txt").write_text("\n".join([str(n), " ".join(names), *rows]))
        rows = [f"{name} {part}" for name, part in zip(faces, parts, strict=True)]
        (folder / "list_eval_partition.txt").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(("packed", "csv"), [(False, False), (True, False), (False, True)])
def test_celeba(tmp_path, packed, csv):
    celeba(tmp_path, packed=packed, csv=csv)
    faces = load_celeba(tmp_path, side=16)
    assert faces.images.shape == (6, 16, 16, 3)
    assert faces.images[:, 8, 8, 0].tolist() == [40 * i for i in range(6)]
    assert faces.factor_names == ("Bald", "Blond_Hair", "Smiling")
    assert (faces.factors @ [1, 2, 4]).tolist() == list(range(6))
    assert faces.split.tolist() == [0, 0, 0, 0, 1, 2]
    assert np.shares_memory(faces.part("train").images, faces.images)
    few = load_celeba(tmp_path, side=8, colour=False, max_images=3)
    assert few.images.shape == (3, 8, 8, 1)
    assert few.images[:, 4, 4, 0].tolist() == [0, 80, 160]


def test_celeba_without_lists(tmp_path):
    celeba(tmp_path)
    for path in tmp_path.glob("list_*"):
        path.unlink()
    faces = load_celeba(tmp_path, side=8)
    assert faces.factors.tolist() == [[0]] * 6
    assert faces.split.tolist() == [0, 0, 0, 0, 1, 2]


def test_middle_square_or_all_of_a_face(tmp_path):
    """218 rows, of which the upper 20 are white: cut away, or squeezed into the square."""
    place = tmp_path / "img_align_celeba"
    place.mkdir()
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[:20] = 255
    Image.fromarray(pixels).save(place / "000001.jpg", quality=100)
    assert load_celeba(tmp_path, side=32).images.mean() < 1
    assert load_celeba(tmp_path, side=32, stretch=True).images.mean() == pytest.approx(
        255 * 20 / 218, abs=1
    )


def test_damaged_celeba(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"img_align_celeba .* is missing; get it with"):
        load_celeba(tmp_path)
    celeba(tmp_path, packed=True)
    attributes, parts = tmp_path / "list_attr_celeba.txt", tmp_path / "list_eval_partition.txt"
    whole = attributes.read_text()
    for broken, message in (
        (whole.replace("000002.jpg", "000099.jpg"), "names 000099.jpg, which is not among"),
        (whole.replace("000003.jpg -1", "000003.jpg"), "000003.jpg has 2 numbers, others have 3"),
        (whole.replace("000003.jpg -1", "000003.jpg x"), "line of 000003.jpg .*'x'"),
        (whole.replace("000003.jpg -1", "000003.jpg  7"), "attributes are -1 or 1"),
        ("6\n", "has 0 images"),
    ):
        attributes.write_text(broken)
        with pytest.raises((DamagedFileError, FileNotFoundError), match=message):
            load_celeba(tmp_path)
    attributes.write_text(whole)
    whole = parts.read_text()
    parts.write_text(whole.replace("000001.jpg 0", "000001.jpg 3"))
    with pytest.raises(DamagedFileError, match="parts are 0, 1, 2"):
        load_celeba(tmp_path)
    parts.write_text(whole)
    archive = tmp_path / "img_align_celeba.zip"
    data = bytearray(archive.read_bytes())
    data[200:400] = bytes(200)
    archive.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"000001\.jpg"):
        load_celeba(tmp_path)
    archive.write_bytes(data[:-100])
    with pytest.raises(DamagedFileError, match=r"celeba\.zip: is not a whole zip"):
        load_celeba(tmp_path)


# ---------------------------------------------------------------------------------------------
# Bricks and flowers
# ---------------------------------------------------------------------------------------------


def test_bricks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset is missing; download it by hand from h"):
        load_bricks(tmp_path)
    place = tmp_path / "dataset"
    place.mkdir()
    for i, name in enumerate(
        ("3001 brick 2x4 000L", "3001 brick 2x4 000R", "2357 corner 1x2x2 001L")
    ):
        (place / f"{name}.png").write_bytes(flat(50 * i, 40, 40, ".png"))
    bricks = load_bricks(tmp_path, side=8)
    assert bricks.images.shape == (3, 8, 8, 1)
    assert bricks.images.mean((1, 2, 3)).tolist() == [100, 0, 50]
    assert bricks.factors[:, 0].tolist() == [0, 1, 1]
    assert load_bricks(tmp_path, side=8, max_images=3).images.shape[0] == 3


def flower_labels(path, kinds: list[int]) -> None:
    """As MATLAB writes it: version 5, the one matrix compressed."""
    scipy_io = pytest.importorskip("scipy.io", reason="SciPy writes MATLAB's files")
    scipy_io.savemat(path, {"labels": np.array([kinds], np.uint8)}, do_compression=True)


@pytest.mark.parametrize("packed", [False, True])
def test_flowers(tmp_path, packed):
    # In the archive the images are in no order.
    files = {f"jpg/image_{i:05d}.jpg": flat(30 * i, 60, 50) for i in (3, 1, 4, 2, 5)}
    if packed:
        make_tar(tmp_path / "102flowers.tgz", files)
    else:
        (tmp_path / "jpg").mkdir()
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
    assert load_flowers(tmp_path, side=8).factors.tolist() == [[0]] * 5
    flower_labels(tmp_path / "imagelabels.mat", [77, 77, 1, 102, 5])
    flowers = load_flowers(tmp_path, side=8)
    assert flowers.images.mean((1, 2, 3)).tolist() == [30, 60, 90, 120, 150]
    assert flowers.factors[:, 0].tolist() == [76, 76, 0, 101, 4]
    few = load_flowers(tmp_path, side=8, max_images=3)
    assert few.images.mean((1, 2, 3)).tolist() == [30, 60, 120]
    assert few.factors[:, 0].tolist() == [76, 76, 101]
    flower_labels(tmp_path / "imagelabels.mat", [1, 2, 3])
    with pytest.raises(
        DamagedFileError, match=r"imagelabels\.mat: has 3 labels from 1 to 3, for 5"
    ):
        load_flowers(tmp_path)


def test_flowers_in_folders_by_kind(tmp_path):
    for i, name in enumerate(
        ("train/10/image_07.jpg", "train/2/image_03.jpg", "valid/10/image_1.jpg")
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(flat(50 * i, 20, 20))
    flowers = load_flowers(tmp_path, side=8)
    assert flowers.images.mean((1, 2, 3)).tolist() == [100, 50, 0]
    assert flowers.factors[:, 0].tolist() == [9, 1, 9]


def test_damaged_flowers(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"102flowers\.tgz is missing; get it from https"):
        load_flowers(tmp_path)
    make_tar(tmp_path / "102flowers.tgz", {f"jpg/{i}.jpg": flat(i, 20, 20) for i in range(3)})
    (tmp_path / "imagelabels.mat").write_bytes(b"labels")
    with pytest.raises(DamagedFileError, match=r"imagelabels\.mat: cannot be read \(no MATLAB"):
        load_flowers(tmp_path)
    data = (tmp_path / "102flowers.tgz").read_bytes()
    (tmp_path / "102flowers.tgz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedFileError, match=r"102flowers\.tgz: is not a whole tar\.gz"):
        load_flowers(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("scipy") is None, reason="SciPy writes the files")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_rows_are_scipys(tmp_path, dtype, compressed):
    import scipy.io

    row = np.array([[3, 1, 102, 7, 9]], dtype)
    scipy.io.savemat(tmp_path / "a.mat", {"setid": row}, do_compression=compressed)
    np.testing.assert_array_equal(read_mat_row(tmp_path / "a.mat"), row[0])
    data = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(data[:140])
    with pytest.raises(DamagedFileError, match=r"a\.mat: cannot be read"):
        read_mat_row(tmp_path / "a.mat")


def test_a_folder_is_read_in_part(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(flat(20 * i, 9, 9, ".png"))
    images = load_images(tmp_path, side=4, max_images=5)
    assert images.images[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]
    with pytest.raises(ValueError, match="0 images are asked for"):
        load_images(tmp_path, max_images=0)


# ---------------------------------------------------------------------------------------------
# Downloads, from a server of our own
# ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """(its folder, its address)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_download(tmp_path, server):
    served, address = server
    (served / "a.bin").write_bytes(b"whole")
    md5 = hashlib.md5(b"whole").hexdigest()
    source, target = Source("b.bin", f"{address}/a.bin", md5), tmp_path / "new" / "folder"
    download([source], target)
    assert (target / "b.bin").read_bytes() == b"whole"
    (served / "a.bin").unlink()
    download([source], target)  # it is there, and not asked for again
    (target / "b.bin").write_bytes(b"changed")
    other = hashlib.md5(b"changed").hexdigest()
    with pytest.raises(
        DamagedFileError, match=rf"b\.bin: its MD5 is {other}, the published .*{md5}"
    ):
        download([source], target)
    assert (target / "b.bin").read_bytes() == b"changed"


def test_nothing_but_whole_files_stays_after_a_download(tmp_path, server):
    served, address = server
    (served / "a.bin").write_bytes(b"cut")
    with pytest.raises(
        DamagedFileError, match=rf"{address}/a\.bin: its MD5 is .* published one 00"
    ):
        download([Source("a.bin", f"{address}/a.bin", "00")], tmp_path / "data")
    with pytest.raises(
        ConnectionError, match=r"nothing\.bin cannot be had .*; get it on a machine"
    ):
        download([Source("a.bin", f"{address}/nothing.bin", "00")], tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


HEADERS = {
    "letters": "Content-Length: many",
    "negative": "Content-Length: -5",
    "digits": "Content-Length: " + "9" * 45_000,
    "other digits": "Content-Length: \u0663",
    "two": "Content-Length: 5\r\nContent-Length: 7",
    "long line": "X: " + "y" * 100_000,
    "many": "\r\n".join(f"X-{i}: y" for i in range(1000)),
    "no colon": "nonsense",
    "chunks": "Transfer-Encoding: chunked",
    "place": "Location: http://[::1",
}


@pytest.mark.parametrize("status", ["HTTP/1.0 200 OK", "HTTP/1.0 302 Found", "HTTP/1.0 abc", "?"])
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_server_that_sends_nonsense(tmp_path, status, header):
    """It is downloaded whole, or there is one error of ours and no file."""

    def answer(listener):
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.recv(10_000)
            connection.sendall(f"{status}\r\n{header}\r\n\r\nwhole".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.bin"
        source = Source("a.bin", url, hashlib.md5(b"whole").hexdigest())
        with contextlib.suppress(ConnectionError, DamagedFileError):
            download([source], tmp_path / "data")
            assert (tmp_path / "data/a.bin").read_bytes() == b"whole"
            return
    assert list((tmp_path / "data").iterdir()) == []


def test_mnist_says_how_to_get_it(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"ossci.*gz, or run scripts/download_data\.py mnist"
    ):
        load_mnist(tmp_path)


def test_data_sets_by_hand(tmp_path, capsys):
    args = download_data.Args("celeba", tmp_path)
    download_data.main(args)
    assert "list_attr_celeba.txt: put it there" in capsys.readouterr().out
    (tmp_path / "list_attr_celeba.txt").write_text("not it")
    with pytest.raises(DamagedFileError, match=r"list_attr_celeba\.txt: its MD5 is"):
        download_data.main(args)
    download_data.main(download_data.Args("bricks", tmp_path))
    assert "lego-brick-images" in capsys.readouterr().out


def test_downloads_know_where_each_set_is(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "generative.data.download.download",
        lambda sources, folder: seen.update({folder: [source.url for source in sources]}),
    )
    for name in ("mnist", "fashion-mnist", "cifar-10", "flowers"):
        download_data.main(download_data.Args(name, tmp_path / name))
    assert [len(urls) for urls in seen.values()] == [4, 4, 1, 2]
    assert all(url.startswith("https://") for urls in seen.values() for url in urls)


# ---------------------------------------------------------------------------------------------
# As the training scripts load them
# ---------------------------------------------------------------------------------------------


def fill(name: str, folder) -> None:
    """A tiny set of this name in its official form."""
    if name == "cifar-10":
        make_tar(folder / "cifar-10-binary.tar.gz", cifar_files(per_batch=1)[0])
    elif name == "celeba":
        celeba(folder)
    elif name == "flowers":
        make_tar(folder / "102flowers.tgz", {f"jpg/{i}.jpg": flat(i, 30, 20) for i in range(6)})
    else:
        (folder / "dataset").mkdir()
        for i in range(6):
            (folder / "dataset" / f"3001 brick {i:03d}L.png").write_bytes(flat(i, 30, 30, ".png"))


@pytest.mark.parametrize("name", ["cifar-10", "celeba", "flowers", "bricks"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 32, 32)])
def test_in_the_shape_of_a_model(tmp_path, name, shape):
    (tmp_path / name).mkdir()
    fill(name, tmp_path / name)
    images = load_for_training(name, tmp_path, shape)
    assert images.image_shape == shape
    assert len(images) == 6
    few = load_for_training(name, tmp_path / name, shape, levels=4, max_images=4)
    assert (len(few), few.levels) == (4, 4)
