"""Files that would run something if they were read carelessly: none does, and all are named."""

import copy
import gzip
import io
import json
import math
import os
import pickle
import re
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from agents.configs import NetworkConfig, PolicyConfig, SpaceConfig
from agents.loading import load_agent
from agents.rounds import own_episodes
from generative.data.cifar10 import load_cifar10
from generative.data.idx import read_idx
from generative.data.images import load_images, read_image
from generative.training.checkpoint import Checkpoints, load_state, read_tensors, save_state
from generative.training.files import (
    DamagedFileError,
    append_file,
    json_bytes,
    open_file,
    read_file,
    write_folder,
)
from generative.training.lock import FolderLock
from generative.training.pretrained import Pretrained
from generative.training.settings import to_json
from generative.vae import VAE, ConvVAE, ConvVAEConfig, ImageVAEConfig
from tests.generative.families import FAMILIES
from tests.generative.test_families import KINDS
from tests.reliability.memory import MIB, little_memory
from worldmodels.configs import MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.importers.checkpoints import read_state_dict
from worldmodels.importers.source import ForeignWeightsError
from worldmodels.memory import MDNRNN
from worldmodels.memory.transformer import TransformerMemory
from worldmodels.rollouts import Episode, RolloutStore
from worldmodels.vision import load_vision


class Trap:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture
def sprung(tmp_path):
    """The file that tells that something ran; the traps do work."""
    path = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(path))).close()
    assert path.exists()
    path.unlink()
    yield path
    assert not path.exists()


def as_pt(trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weights": trap}, buffer)
    return buffer.getvalue()


def as_npz(trap) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, frames=np.array([trap], dtype=object))
    return buffer.getvalue()


def as_sb3_zip(trap) -> bytes:
    """As Stable-Baselines3 saves an agent: a zip with pickles in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", '{"policy_class": {":serialized:": "gASV"}}')
        archive.writestr("policy.pth", as_pt(trap))
    return buffer.getvalue()


FORMS = {"pt": as_pt, "npz": as_npz, "SB3 zip": as_sb3_zip, "pickle": pickle.dumps}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("load", [ConvVAE.from_pretrained, MDNRNN.from_pretrained, load_vision])
def test_weights_that_are_something_else(tmp_path, sprung, form, load):
    """With a manifest that fits, as one who means it would have."""
    model = MDNRNN() if load == MDNRNN.from_pretrained else ConvVAEConfig().build()
    model.save_pretrained(tmp_path / "good")
    config = (tmp_path / "good" / "config.json").read_bytes()
    files = {"config.json": config, "model.safetensors": FORMS[form](Trap(sprung))}
    write_folder(tmp_path / "model", files)
    with pytest.raises(DamagedFileError, match=r"model/model\.safetensors"):
        load(tmp_path / "model")


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_that_are_something_else(tmp_path, sprung, form):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(10, {"weights": torch.ones(3)})
    folder = checkpoints.path(10)
    names = [path.name for path in folder.iterdir() if path.name != "manifest.json"]
    files = {name: (folder / name).read_bytes() for name in names}
    tensors = next(name for name in names if name.endswith(".safetensors"))
    write_folder(folder, {**files, tensors: FORMS[form](Trap(sprung))})
    with pytest.raises(DamagedFileError, match=tensors):
        checkpoints.load_latest()


@pytest.mark.parametrize("form", FORMS)
def test_episodes_that_are_something_else(tmp_path, sprung, form):
    store = RolloutStore(tmp_path / "episodes")
    store.append(
        Episode(
            frames=np.zeros((3, 64, 64, 3), np.uint8),
            actions=np.zeros((2, 3), np.float32),
            rewards=np.zeros(2, np.float32),
            terminated=np.zeros(2, bool),
        )
    )
    (tmp_path / "episodes" / "episode-000000.npz").write_bytes(FORMS[form](Trap(sprung)))
    with pytest.raises(DamagedFileError, match=r"episode-000000\.npz \(.* is damaged"):
        RolloutStore(tmp_path / "episodes")


# ---------------------------------------------------------------------------------------------
# Small files that ask for much memory
# ---------------------------------------------------------------------------------------------


def safetensors_header(tensors: dict) -> bytes:
    header = json.dumps(tensors).encode()
    return len(header).to_bytes(8, "little") + header


def saved(folder: Path, config: dict, weights: bytes, name: str) -> Path:
    """A folder as `save_pretrained` writes it, with a manifest that fits."""
    content = {"class": name, "format": 1, "config": config}
    write_folder(folder, {"config.json": json_bytes(content), "model.safetensors": weights})
    return folder


@pytest.mark.parametrize("hidden_dim", [12_000, 22_000])
@pytest.mark.parametrize("offsets", ["none", "all"])
def test_weights_that_a_header_only_claims(tmp_path, hidden_dim, offsets):
    config = to_json(MDNRNNConfig(hidden_dim=hidden_dim))
    with torch.device("meta"):
        state = MDNRNN(MDNRNNConfig(hidden_dim=hidden_dim)).state_dict()
    header, end = {}, 0
    for key, tensor in state.items():
        begin, end = end, end + tensor.nbytes
        place = [0, 0] if offsets == "none" else [begin, end]
        header[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": place}
    folder = saved(tmp_path / "m", config, safetensors_header(header), "MDNRNN")
    with little_memory(), pytest.raises(DamagedFileError, match=r"m/model\.safetensors: is damag"):
        MDNRNN.from_pretrained(folder)


BAD_HEADERS = {
    "unknown type": {"dtype": "F3", "shape": [2], "data_offsets": [0, 8]},
    "no offsets": {"dtype": "F32", "shape": [2]},
    "shape is no list": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
    "negative": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
    "shape in floats": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
    "true": {"dtype": "F64", "shape": [True], "data_offsets": [0, 8]},
    "too small": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
    "hole before": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
    "rest behind": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    "reversed": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
    "beyond": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    "many axes": {"dtype": "F64", "shape": [1] * 10_000, "data_offsets": [0, 8]},
    "large numbers": {"dtype": "F32", "shape": [10**300, 0], "data_offsets": [0, 0]},
    "no object": 7,
}


@pytest.mark.parametrize("entry", BAD_HEADERS.values(), ids=BAD_HEADERS)
def test_headers_of_safetensors(entry):
    data = safetensors_header({"w": entry}) + bytes(8)
    with pytest.raises(DamagedFileError, match=r"^x\.safetensors: is (damaged|not)") as caught:
        read_tensors(data, Path("x.safetensors"))
    assert len(str(caught.value)) < 400


def test_tensors_that_share_their_bytes():
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    data = safetensors_header({"a": entry, "b": entry}) + bytes(8)
    with pytest.raises(DamagedFileError, match="not all of its bytes in turn"):
        read_tensors(data, Path("x"))


TYPES = {"I8": torch.int8, "BOOL": torch.bool, "I64": torch.int64, "U8": torch.uint8,
         "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn}  # fmt: skip


@pytest.mark.parametrize(("name", "dtype"), TYPES.items(), ids=TYPES)
def test_weights_of_another_type_are_refused(tmp_path, name, dtype):
    model = ConvVAEConfig(2, (2, 2, 2, 2)).build()
    weights = {key: tensor.to(dtype) for key, tensor in model.state_dict().items()}
    data = safetensors.torch.save(weights)
    folder = saved(tmp_path / "v", to_json(model.config), data, "ConvVAE")
    with pytest.raises(DamagedFileError, match=rf"safetensors: \S+ is of type {name}, needed is"):
        ConvVAE.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_of_types_that_are_written_are_read(tmp_path, dtype):
    model = ConvVAEConfig(2, (2, 2, 2, 2)).build()
    model.save_pretrained(tmp_path / "v", dtype)
    read = ConvVAE.from_pretrained(tmp_path / "v")
    for ours, theirs in zip(model.parameters(), read.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours.to(dtype).float(), rtol=0, atol=0)


def test_counts_of_another_type_are_refused(tmp_path):
    """Batch norm counts its batches in int64."""
    model = ImageVAEConfig((1, 8, 8), 2, (2,), batch_norm=True).build()
    state = model.state_dict()
    count = next(key for key in state if key.endswith("num_batches_tracked"))
    for other in (torch.int32, torch.float32):
        data = safetensors.torch.save({**state, count: state[count].to(other)})
        folder = saved(tmp_path / "v", to_json(model.config), data, "ImageVAE")
        with pytest.raises(DamagedFileError, match=rf"{count} is of type \w+, needed is I64"):
            VAE.from_pretrained(folder)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, bad):
    model = ConvVAEConfig(2, (2, 2, 2, 2)).build()
    state = model.state_dict()
    state["posterior.to_mu.bias"] = torch.tensor([0.0, bad])
    data = safetensors.torch.save(state)
    folder = saved(tmp_path / "v", to_json(model.config), data, "ConvVAE")
    with pytest.raises(DamagedFileError, match=r"posterior\.to_mu\.bias is not finite"):
        ConvVAE.from_pretrained(folder)


def test_a_weight_by_its_old_and_its_new_name_is_refused(tmp_path):
    model = ConvVAEConfig(2, (2, 2, 2, 2)).build()
    state = model.state_dict() | {"to_mu.bias": torch.zeros(10**6)}
    folder = saved(tmp_path / "v", to_json(model.config), safetensors.torch.save(state), "ConvVAE")
    with pytest.raises(DamagedFileError, match=r"posterior\.to_mu\.bias twice"):
        ConvVAE.from_pretrained(folder)


def leaves(value, path=()):
    """Paths to every number of nested JSON."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from leaves(item, (*path, key))
    elif type(value) is int:
        yield path


def changed(value, path, new):
    value = copy.deepcopy(value)
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return value


FOLDERS = {name: family.make for name, family in FAMILIES.items()}
FOLDERS |= {kind.__name__: kind for kind in (MDNRNN, TransformerMemory, LinearController)}
OTHERS = FAMILIES.keys() - KINDS
"""Every night; in every run one for each class of learners, and so of every package."""


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=pytest.mark.nightly if name in OTHERS else ())
        for name, make in FOLDERS.items()
    ],
)
def test_sizes_in_a_config(tmp_path, make):
    """Every whole number in every config: 10^9 is refused by its name, none costs memory."""
    model = make()
    if not isinstance(model, Pretrained):
        pytest.skip("is not saved by itself")
    model.save_pretrained(tmp_path / "m")
    weights = (tmp_path / "m/model.safetensors").read_bytes()
    config, name = to_json(model.config), model.saved_name
    type(model).from_pretrained(tmp_path / "m")  # what torch loads for it takes memory, once
    for path in leaves(config):
        field = [key for key in path if isinstance(key, str)][-1]
        for size in (10**9, 2**20):
            saved(tmp_path / "m", changed(config, path, size), weights, name)
            told = ""
            with little_memory():
                try:
                    type(model).from_pretrained(tmp_path / "m")
                except DamagedFileError as error:
                    told = str(error)
            if size == 10**9:
                assert re.search(rf"m/config\.json: .*\b{field}\b.*\b1000000000\b", told), told


@pytest.mark.parametrize("content", ["list", "string", "digits", "deep", "keys"])
def test_long_values_in_a_config_are_not_repeated(tmp_path, content):
    long = {
        "list": [0] * 300_000,
        "string": "x" * 900_000,
        "digits": 10**4000,
        "keys": {f"key {i}": i for i in range(50_000)},
    }.get(content)
    model = ConvVAEConfig(2, (2, 2, 2, 2)).build()
    config = {**to_json(model.config), "latent_dim": long}
    folder = saved(tmp_path / "v", config, safetensors.torch.save({}), "ConvVAE")
    if content == "deep":
        text = json_bytes({"class": "ConvVAE", "format": 1, "config": "?"})
        text = text.replace(b'"?"', b"[" * 200_000)
        write_folder(folder, {"config.json": text, "model.safetensors": b""})
    with little_memory(), pytest.raises(DamagedFileError, match=r"v/config\.json: ") as caught:
        ConvVAE.from_pretrained(folder)
    assert len(str(caught.value)) < 400
    write_folder(folder, {"config.json": b"[" + b"0," * 30_000_000, "model.safetensors": b""})
    with little_memory(), pytest.raises(DamagedFileError, match="has 60000001 bytes, at most 8388"):
        ConvVAE.from_pretrained(folder)


@pytest.mark.parametrize("field", ["policy", "value"])
@pytest.mark.parametrize("sizes", [[30_000, 30_000], [10**9], [64] * 100, [2**20, 2**20]])
def test_layers_of_a_policy(tmp_path, field, sizes):
    from agents.policy_agent import PolicyAgent, build_policy

    box = SpaceConfig("Box", (4,), (-1.0,), (1.0,))
    network = NetworkConfig((2,), (2,))
    config = PolicyConfig("ppo", "pixels", box, SpaceConfig("Discrete", n=2), network)
    weights = safetensors.torch.save(dict(build_policy(config).state_dict()))
    saved(tmp_path / "agent" / "policy", to_json(config), weights, "PolicyAgent")
    PolicyAgent.from_pretrained(tmp_path / "agent")
    hostile = changed(to_json(config), ("network", field), sizes)
    saved(tmp_path / "agent" / "policy", hostile, weights, "PolicyAgent")
    words = r"policy/(config\.json: .*must be|model\.safetensors: (\S+ has shape|does not fit))"
    with little_memory(), pytest.raises(DamagedFileError, match=words):
        PolicyAgent.from_pretrained(tmp_path / "agent")


def bomb_of_stride(path: Path, folder: Path) -> None:
    numbers = torch.zeros(1).expand(1_550_000_000)
    torch.save({"state_dict": {"fc.weight": numbers}}, path)


def bomb_of_sharing(path: Path, folder: Path) -> None:
    numbers = torch.zeros(2**20)
    torch.save({"state_dict": {f"w{i}": numbers for i in range(1000)}}, path)


def bomb_of_names(name: str, argument: int):
    def write(path: Path, folder: Path) -> None:
        module, _, what = name.rpartition(".")
        code = b"\x80\x02c%s\n%s\n(J%sl." % (
            module.encode(), what.encode(), argument.to_bytes(4, "little", signed=True)
        )  # fmt: skip
        code = code[:-2] + b"tR."
        torch.save({"state_dict": {}}, folder / "good.pt")
        with zipfile.ZipFile(folder / "good.pt") as good, zipfile.ZipFile(path, "w") as bad:
            for entry in good.infolist():
                data = code if entry.filename.endswith("data.pkl") else good.read(entry)
                bad.writestr(entry.filename, data)

    return write


BOMBS = {
    "stride 0": bomb_of_stride,
    "shared": bomb_of_sharing,
    "bytearray": bomb_of_names("builtins.bytearray", 2_000_000_000),
    "Tensor": bomb_of_names("torch.Tensor", 1_000_000_000),
}


@pytest.mark.parametrize("write", BOMBS.values(), ids=BOMBS)
def test_checkpoints_of_others(tmp_path, write):
    path = tmp_path / "best.tar"
    write(path, tmp_path)
    with little_memory(), pytest.raises((DamagedFileError, ForeignWeightsError), match=str(path)):
        read_state_dict(path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """What Stable-Baselines3 saves of a small policy of CarRacing64's frames."""
    import gymnasium
    from stable_baselines3 import PPO

    class Frames(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
        action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    layers = {"net_arch": [2]}
    model = PPO("MlpPolicy", Frames(), n_steps=2, batch_size=2, policy_kwargs=layers, device="cpu")
    path = tmp_path_factory.mktemp("sb3") / "model.zip"
    model.save(path)
    assert load_agent(path, trust=True).predict(np.zeros((64, 64, 3), np.uint8))[0].shape == (3,)
    return model, path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.parametrize("kind", ["zeros", "packed twice", "layers", "stride 0", "NaN", "cut"])
def test_trusted_archives_are_bounded_too(archive, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("agents.loading.MAX_ARCHIVE_BYTES", 90 * MIB)
    model, good = archive
    path, content = tmp_path / "model.zip", members(good)
    weights = torch.load(io.BytesIO(content["policy.pth"]), weights_only=True)
    if kind in ("stride 0", "NaN"):
        name = "action_net.weight"
        number = torch.full((1, 1), math.nan if kind == "NaN" else 0.0)
        weights[name] = number.expand(weights[name].shape if kind == "NaN" else (40_000, 40_000))
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        content["policy.pth"] = buffer.getvalue()
    if kind == "packed twice":
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as inner,
            inner.open("archive/data/0", "w", force_zip64=True) as file,
        ):
            for _ in range(100):
                file.write(bytes(MIB))
        content["policy.pth"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in content.items():
            file.writestr(name, data)
        if kind == "zeros":
            with file.open("policy.optimizer.pth.2", "w", force_zip64=True) as member:
                for _ in range(100):
                    member.write(bytes(MIB))
    if kind == "layers":
        model.policy_kwargs = {"net_arch": [30_000, 30_000]}
        model.save(path)
        model.policy_kwargs = {"net_arch": [2]}
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-1000] + path.read_bytes()[-500:])
    with little_memory(), pytest.raises(DamagedFileError, match=r"model\.zip: "):
        load_agent(path, trust=True)


def zeros_in_gzip(path: Path, header: bytes, megabytes: int) -> None:
    with gzip.open(path, "wb") as file:
        file.write(header)
        for _ in range(megabytes):
            file.write(bytes(MIB))


def test_idx_that_unpacks_to_gigabytes(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    fits = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (2, 2, 2))
    zeros_in_gzip(path, fits, 100)  # far more than its header says
    with little_memory(), pytest.raises(DamagedFileError, match=r"ubyte\.gz: .*fewer or more"):
        read_idx(path, 3)
    many = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (6_200, 1000, 1000))
    zeros_in_gzip(path, many, 1)
    with little_memory(), pytest.raises(DamagedFileError, match=r"gz: has shape \(6200, 1000"):
        read_idx(path, 3)
    zeros_in_gzip(path, bytes([0, 0, 8, 3]) + b"\xff" * 12, 1)
    with little_memory(), pytest.raises(DamagedFileError, match=r"gz: has shape"):
        read_idx(path, 3)


@pytest.mark.parametrize("kind", ["zeros", "header", "bz2", "object", "twice"])
def test_episodes_of_a_user(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("worldmodels.episodes.MAX_EPISODE_BYTES", 90 * MIB)
    steps, path = 4, tmp_path / "a.npz"
    arrays = {
        "frames": np.zeros((steps + 1, 8, 8, 3), np.uint8),
        "actions": np.zeros(steps, np.int64),
        "rewards": np.zeros(steps),
        "ends": np.zeros(steps, bool),
    }
    if kind == "object":
        arrays["rewards"] = np.array([[]] * steps, object)
    np.savez(path, **arrays)
    if kind in ("zeros", "bz2"):
        method = {"zeros": zipfile.ZIP_DEFLATED, "bz2": zipfile.ZIP_BZIP2}[kind]
        with (
            zipfile.ZipFile(path, "w", method) as archive,
            archive.open("frames.npy", "w", force_zip64=True) as file,
        ):
            header = {"descr": "|u1", "fortran_order": False, "shape": (100 * MIB,)}
            np.lib.format.write_array_header_1_0(file, header)
            for _ in range(100):
                file.write(bytes(MIB))
    if kind in ("header", "twice"):
        mode: Any = "a" if kind == "twice" else "w"
        with warnings.catch_warnings(), zipfile.ZipFile(path, mode) as archive:
            warnings.simplefilter("ignore", UserWarning)
            raw = io.BytesIO()
            claim = {"descr": "<f8", "fortran_order": False, "shape": (10**10,)}
            np.lib.format.write_array_header_1_0(raw, claim)
            for name in ("frames", "actions", "rewards", "ends"):
                archive.writestr(f"{name}.npy", raw.getvalue())
    with little_memory(), pytest.raises(ValueError, match=rf"{path}: "):
        own_episodes.read(path, repeat_last=False)


def test_recorded_episodes_are_bounded(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("frames", "actions", "rewards", "terminated"):
            raw = io.BytesIO()
            claim = {"descr": "|u1", "fortran_order": False, "shape": (10**10,)}
            np.lib.format.write_array_header_1_0(raw, claim)
            archive.writestr(f"{name}.npy", raw.getvalue())
        archive.writestr("info.json", "{}")
    with (
        little_memory(),
        pytest.raises(DamagedFileError, match=r"e\.npz: frames is not"),
    ):
        Episode.from_bytes(buffer.getvalue(), Path("e.npz"))


# ---------------------------------------------------------------------------------------------
# Images and archives of images
# ---------------------------------------------------------------------------------------------


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [5_000, 13_000, 50_000, 2**31 - 1])
def test_pictures_that_claim_many_pixels(side):
    with little_memory(), pytest.raises(DamagedFileError, match=r"a\.png: cannot be read as an im"):
        read_image(png_that_claims(side, side), "a.png", 8)


def test_a_picture_that_really_has_them():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (6_000, 6_000)).save(buffer, "WEBP", lossless=True)
    with little_memory(), pytest.raises(DamagedFileError, match="6000 x 6000 pixels in"):
        read_image(buffer.getvalue(), "a.webp", 8)


def test_a_picture_of_another_format_under_this_name():
    """PostScript would be run by another program."""
    with pytest.raises(DamagedFileError, match=r"a\.png: cannot be read as an image"):
        read_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.png", 8)


def tar_gz(path: Path, members: dict[str, int]) -> None:
    """Members of so many zeros."""
    with tarfile.open(path, "w:gz") as archive:
        for name, size in members.items():
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, Zeros(size))


class Zeros(io.RawIOBase):
    def __init__(self, size):
        self.left = size

    def read(self, n=-1):
        n = self.left if n < 0 else min(n, self.left)
        self.left -= n
        return bytes(n)


@pytest.mark.parametrize(
    "name",
    [
        "cifar-10-batches-bin/data_batch_1.bin",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("long", "readme")),
    ],
)
def test_archives_that_unpack_to_gigabytes(tmp_path, name):
    path = tmp_path / "cifar-10-binary.tar.gz"
    if name == "long":  # a header of 300 MB
        info = tarfile.TarInfo("././@LongLink")
        info.size, info.type = 300 * MIB, tarfile.GNUTYPE_LONGNAME
        with gzip.open(path, "wb") as file:
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            for _ in range(300):
                file.write(bytes(MIB))
    else:
        tar_gz(path, {name: 300 * MIB})
    with little_memory(128 * MIB), pytest.raises(DamagedFileError, match=r"binary\.tar\.gz"):
        load_cifar10(tmp_path)


# ---------------------------------------------------------------------------------------------
# What is no ordinary file
# ---------------------------------------------------------------------------------------------


def make_special(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "nowhere": "nothing"}[kind])


SPECIAL = ["pipe", "device", "loop", "folder"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_in_place_of_ours(tmp_path, kind):
    ConvVAEConfig(2, (2, 2, 2, 2)).build().save_pretrained(tmp_path / "v")
    for name in ("manifest.json", "config.json", "model.safetensors"):
        whole = (tmp_path / "v" / name).read_bytes()
        make_special(tmp_path / "v" / name, kind)
        with little_memory(), pytest.raises(DamagedFileError, match=f"v/{name}: "):
            ConvVAE.from_pretrained(tmp_path / "v")
        (tmp_path / "v" / name).rmdir() if kind == "folder" else (tmp_path / "v" / name).unlink()
        (tmp_path / "v" / name).write_bytes(whole)
    ConvVAE.from_pretrained(tmp_path / "v")


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_among_recorded_episodes(tmp_path, kind):
    store = RolloutStore(tmp_path / "e")
    for _ in range(2):
        store.append(Episode(np.zeros((3, 4), np.float32), np.zeros((2, 1), np.float32),
                             np.zeros(2, np.float32), np.zeros(2, bool)))  # fmt: skip
    store.close()
    make_special(tmp_path / "e" / "episode-000000.npz", kind)
    with little_memory(), pytest.raises(DamagedFileError, match=r"episode-000000\.npz \("):
        RolloutStore(tmp_path / "e")


@pytest.mark.parametrize("kind", ["pipe", "device", "loop"])
def test_special_files_among_images(tmp_path, kind):
    from PIL import Image

    for i in range(3):
        Image.new("L", (4, 4)).save(tmp_path / f"{i}.png")
    make_special(tmp_path / "x.png", kind)
    with little_memory(), pytest.raises(DamagedFileError, match=r"x\.png: (cannot be|is )"):
        load_images(tmp_path, side=4)


def test_links_to_ordinary_files_are_the_users_own(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("L", (4, 4), 80 * i).save(tmp_path / f"{i}.png")
        (tmp_path / "images" / f"{i}.png").symlink_to(tmp_path / f"{i}.png")
    assert load_images(tmp_path / "images", side=4).images[:, 0, 0, 0].tolist() == [0, 80, 160]


def test_what_is_appended_follows_no_link(tmp_path):
    """A folder of somebody else's may say that run.lock is a file of ours."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name, write in {
        "run.lock": lambda path: FolderLock(path.parent),
        "metrics.jsonl": lambda path: append_file(path, b"more"),
        "index.jsonl": lambda path: RolloutStore(path.parent, create=True).lock(),
    }.items():
        (tmp_path / name).symlink_to(precious)
        with pytest.raises(DamagedFileError, match=f"{name}: is a link"):
            write(tmp_path / name)
        assert precious.read_text() == "mine"
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(DamagedFileError, match=f"{name}: is not an ordinary file"):
            write(tmp_path / name)
        (tmp_path / name).unlink()


def test_a_file_that_grows_is_read_as_it_was(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"12345")
    with open_file(path, 5) as file:
        append_file(path, b"67")
        assert os.fstat(file.fileno()).st_size == 7
    with pytest.raises(DamagedFileError, match="log: has 7 bytes, at most 5 are expected"):
        read_file(path, 5)
    os.truncate(path, 2**40)  # sparse: it takes no place on the disk
    with little_memory(), pytest.raises(DamagedFileError, match="log: has 1099511627776 bytes"):
        read_file(path, 2**30)


# ---------------------------------------------------------------------------------------------
# Whatever the bytes are: our error, with the file's name
# ---------------------------------------------------------------------------------------------


def vae_folder(folder: Path):
    ConvVAEConfig(2, (2, 2, 2, 2)).build().save_pretrained(folder)
    names = ("config.json", "model.safetensors")

    def read():
        files = {name: (folder / name).read_bytes() for name in names}
        write_folder(folder, files)  # a manifest that fits
        return ConvVAE.from_pretrained(folder)

    return [folder / name for name in names], read


def state_folder(folder: Path):
    save_state(folder, {"a": torch.ones(3), "b": [1, (2.0, None)], "c": np.ones(2), 3: {"x": 1}})
    names = ("state.json", "state.safetensors")

    def read():
        write_folder(folder, {name: (folder / name).read_bytes() for name in names})
        return load_state(folder)

    return [folder / name for name in names], read


def episode_file(folder: Path):
    folder.mkdir()
    episode = Episode(np.zeros((3, 8, 8, 3), np.uint8), np.zeros((2, 1), np.float32),
                      np.zeros(2, np.float32), np.zeros(2, bool), {"seed": 1})  # fmt: skip
    path = folder / "episode.npz"
    path.write_bytes(episode.to_bytes())
    return [path], lambda: Episode.from_bytes(path.read_bytes(), path)


def own_episode(folder: Path):
    folder.mkdir()
    path = folder / "own.npz"
    np.savez_compressed(
        path, frames=np.zeros((3, 8, 8, 3), np.uint8), actions=np.zeros(2, np.int64),
        rewards=np.zeros(2), ends=np.zeros(2, bool),
    )  # fmt: skip
    return [path], lambda: own_episodes.read(path, repeat_last=False)


def idx_file(folder: Path):
    folder.mkdir()
    path = folder / "labels.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3, 4])))
    return [path], lambda: read_idx(path, 1)


def picture(ending: str):
    def make(folder: Path):
        from PIL import Image

        folder.mkdir()
        path = folder / f"a{ending}"
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(path)
        return [path], lambda: read_image(read_file(path, 10_000), str(path), 4)

    return make


def checkpoint(legacy: bool):
    def make(folder: Path):
        folder.mkdir()
        path = folder / "best.tar"
        content = {"epoch": 3, "state_dict": {"w": torch.ones(3)}, "precision": np.float64(0.5)}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        return [path], lambda: read_state_dict(path)

    return make


KINDS = {
    "V": vae_folder, "state": state_folder, "episode": episode_file, "own episode": own_episode,
    "idx": idx_file, "png": picture(".png"), "jpg": picture(".jpg"), "gif": picture(".gif"),
    "bmp": picture(".bmp"), "webp": picture(".webp"), "zip": checkpoint(False),
    "legacy": checkpoint(True),
}  # fmt: skip


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_damaged_bytes_are_read_or_refused_by_name(tmp_path, make):
    """Bytes changed, cut, doubled and put in, a few hundred times."""
    files, read = make(tmp_path / "x")
    read()
    rng = np.random.default_rng(0)
    for path in files:
        whole = path.read_bytes()
        for _ in range(100):
            at, length = rng.integers(len(whole)), int(rng.integers(1, 9))
            noise = rng.bytes(length)
            data = [
                whole[:at] + noise + whole[at + length :],
                whole[:at],
                whole[:at] + whole[at // 2 :],
                whole[:at] + noise + whole[at:],
            ][rng.integers(4)]
            path.write_bytes(data)
            told = ""
            try:
                read()
            except (DamagedFileError, ForeignWeightsError) as error:
                told = str(error)
            assert not told or told.startswith(str(tmp_path / "x"))
            assert len(told) < 600
        path.write_bytes(whole)
