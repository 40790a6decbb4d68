"""Saved models: loaded as they were saved, or refused with a word on what is wrong."""

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from generative.training.pretrained import DamagedFileError, Pretrained
from generative.training.words import with_article


@dataclass(frozen=True)
class NetConfig:
    dim: int = 4
    channels: tuple[int, ...] = (2, 3)


class Net(Pretrained, nn.Module):
    """Weights, a shared weight, a permuted one, a counter, a scalar and an empty buffer."""

    config_class = NetConfig

    def __init__(self, config: NetConfig):
        super().__init__()
        self.config = config
        self.first = nn.Linear(config.dim, config.dim)
        self.second = nn.Linear(config.dim, config.dim)
        self.second.weight = self.first.weight
        self.conv = nn.Conv2d(*config.channels, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm1d(config.dim)
        self.register_buffer("scale", torch.tensor(2.5))
        self.register_buffer("nothing", torch.zeros(0, 3))
        self.dropout = nn.Dropout(0.5)


class Other(Net):
    """The same weights under another name."""


@pytest.fixture
def net():
    torch.manual_seed(3)
    net = Net(NetConfig(5, (3, 2)))
    net.norm(torch.randn(8, 5))
    return net


def test_model_comes_back(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    assert sorted(os.listdir(tmp_path / "net")) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    loaded = Net.from_pretrained(str(tmp_path / "net"))
    assert loaded.config == net.config
    assert not loaded.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
        assert loaded.state_dict()[name].dtype == tensor.dtype
    assert loaded.first.weight is loaded.second.weight


def test_half_precision_halves_the_file_and_loads_as_float32(net, tmp_path):
    net.save_pretrained(tmp_path / "half", dtype=torch.float16)
    stored = safetensors.torch.load_file(tmp_path / "half/model.safetensors")
    assert stored["first.weight"].dtype == torch.float16
    assert stored["norm.num_batches_tracked"].dtype == torch.int64
    loaded = Net.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected = net.first.weight.half().float()
    assert torch.equal(loaded.first.weight, expected)


def test_weights_that_are_not_finite_are_not_saved(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    with torch.no_grad():
        net.first.bias[0] = 1e6
    with pytest.raises(ValueError, match=r"first\.bias is not finite as float16"):
        net.save_pretrained(tmp_path / "net", dtype=torch.float16)
    with torch.no_grad():
        net.first.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"first\.bias is not finite as float32"):
        net.save_pretrained(tmp_path / "net")
    assert Net.from_pretrained(tmp_path / "net").first.bias[0].isfinite()


def test_loading_uses_up_no_random_numbers(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Net.from_pretrained(tmp_path / "net")
    assert torch.equal(torch.rand(3), expected)


def test_wrong_class_says_which_it_is(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    with pytest.raises(
        ValueError, match="net holds a Net, not an Other; pass the folder of an Other"
    ):
        Other.from_pretrained(tmp_path / "net")
    with pytest.raises(FileNotFoundError, match="no such folder; pass one with a Net"):
        Net.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "manifest.json"])
def test_damage_is_named(net, tmp_path, name):
    net.save_pretrained(tmp_path / "net")
    path = tmp_path / "net" / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 64
    for content in (b"", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"net/(manifest|config|model)\."):
            Net.from_pretrained(tmp_path / "net")
    path.unlink()
    with pytest.raises(DamagedFileError, match=name):
        Net.from_pretrained(tmp_path / "net")


def rewrite(folder: Path, **files: bytes) -> None:
    """Replace files of a model folder and give it a manifest that fits: a hostile author can."""
    for stem, data in files.items():
        name = {"config": "config.json", "model": "model.safetensors"}[stem]
        (folder / name).write_bytes(data)
    entries = {}
    for name in ("config.json", "model.safetensors"):
        data = (folder / name).read_bytes()
        entries[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": entries}))


def config_bytes(**config) -> bytes:
    return json.dumps({"class": "Net", "format": 1, "config": config}).encode()


def test_sizes_that_do_not_fit_are_refused_before_memory_is_taken(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    rewrite(tmp_path / "net", config=config_bytes(dim=6, channels=[3, 2]))
    with pytest.raises(DamagedFileError, match=r"\[5, 5\], config.json asks for \[6, 6\]"):
        Net.from_pretrained(tmp_path / "net")
    # 4 TB of weights: the sizes are compared on torch's meta device.
    rewrite(tmp_path / "net", config=config_bytes(dim=10**6, channels=[3, 2]))
    with pytest.raises(DamagedFileError, match=r"config\.json asks for"):
        Net.from_pretrained(tmp_path / "net")
    rewrite(tmp_path / "net", config=config_bytes(dim="5", channels=[3, 2]))
    with pytest.raises(DamagedFileError, match=r"config\.json: dim: is '5'"):
        Net.from_pretrained(tmp_path / "net")
    rewrite(tmp_path / "net", config=config_bytes(depth=5))
    with pytest.raises(DamagedFileError, match="unknown: depth; missing: channels, dim"):
        Net.from_pretrained(tmp_path / "net")
    rewrite(tmp_path / "net", config=b"[1]")
    with pytest.raises(DamagedFileError, match=r"config\.json: is not the config"):
        Net.from_pretrained(tmp_path / "net")


def test_other_weights_are_refused(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    weights = safetensors.torch.load_file(tmp_path / "net/model.safetensors")
    weights["third.weight"] = weights.pop("second.weight")
    rewrite(tmp_path / "net", model=safetensors.torch.save(weights))
    with pytest.raises(DamagedFileError, match=r"missing weights \['second.weight'\]"):
        Net.from_pretrained(tmp_path / "net")
    for data in (b"", struct.pack("<Q", 2**40) + b"{}", b"\x80\x04pickle"):
        rewrite(tmp_path / "net", model=data)
        with pytest.raises(DamagedFileError, match=r"model\.safetensors"):
            Net.from_pretrained(tmp_path / "net")


def test_files_much_longer_than_the_model_are_not_read(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    path = tmp_path / "net/model.safetensors"
    with open(path, "r+b") as file:
        file.truncate(2**40)
    manifest = json.loads((tmp_path / "net/manifest.json").read_text())
    manifest["files"][path.name]["bytes"] = 2**40
    (tmp_path / "net/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=r"model\.safetensors: has 1099511627776 bytes"):
        Net.from_pretrained(tmp_path / "net")


def test_links_are_refused(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    (tmp_path / "net/model.safetensors").rename(tmp_path / "elsewhere")
    (tmp_path / "net/model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DamagedFileError, match="is a link"):
        Net.from_pretrained(tmp_path / "net")


def test_saving_again_replaces_and_strangers_are_safe(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    with torch.no_grad():
        net.first.bias.fill_(7)
    net.save_pretrained(tmp_path / "net")
    assert (Net.from_pretrained(tmp_path / "net").first.bias == 7).all()
    (tmp_path / "net/README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(README\.md\)"):
        net.save_pretrained(tmp_path / "net")
    assert Net.from_pretrained(tmp_path / "net").config == net.config


def test_the_folder_of_a_run_is_not_its_model(net, tmp_path):
    net.save_pretrained(tmp_path / "run" / "model")
    with pytest.raises(ValueError, match=r"is the folder of a run; pass its model, .*run.model"):
        Net.from_pretrained(tmp_path / "run")


def test_continues_from_the_same_sizes_only(net, tmp_path):
    net.save_pretrained(tmp_path / "net")
    later = Net(NetConfig(5, (3, 2)))
    later.continue_from(tmp_path / "net")
    for name, tensor in net.state_dict().items():
        assert torch.equal(later.state_dict()[name], tensor)
    other = Net(NetConfig(6, (3, 2)))
    with pytest.raises(ValueError, match=r"dim=5.*this run trains .*dim=6.*same sizes"):
        other.continue_from(tmp_path / "net")


def test_names_have_their_articles():
    """By how they are said, letter by letter where they begin with two capitals."""
    an = ["ImageVAE", "MDNRNN", "LSTM", "RBM", "FFJORD", "EpisodeError", "A2CConfig", "int", "MLP"]
    a = [
        "GAN",
        "VAE",
        "ConvVAE",
        "GPT",
        "T5",
        "UNet",
        "BERT",
        "WGAN",
        "MusicRNN",
        "RealNVP",
        "list",
    ]
    assert [with_article(name) for name in an + a] == [f"an {n}" for n in an] + [
        f"a {n}" for n in a
    ]
