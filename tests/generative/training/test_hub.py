"""Models by name: fetched from and given to a hub of this machine, and read strictly."""

import json
import socket
from pathlib import Path

import pytest
import torch

from generative.gan import GAN
from generative.loading import load_model
from generative.training import hub as ours
from generative.training.files import DamagedFileError
from generative.training.hub import find_folder, hub_name, push_folder
from generative.vae import ConvVAE, ConvVAEConfig
from tests.hub_server import Hub


def small(seed: int = 1) -> ConvVAE:
    torch.manual_seed(seed)
    return ConvVAEConfig(latent_dim=2, channels=(2, 2, 2, 2)).build().eval()


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def put(hub: Hub, model: ConvVAE, folder: Path, name: str = "ann/tiny", **more: bytes) -> str:
    model.save_pretrained(folder)
    return hub.commit(name, {**files_of(folder), **more})


def test_a_name_is_told_from_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "vae").mkdir(parents=True)
    assert hub_name("ann/tiny") == hub_name(Path("ann/tiny")) == ("ann/tiny", None)
    assert hub_name("ann/tiny-2.x@refs/pr/1") == ("ann/tiny-2.x", "refs/pr/1")
    for other in (
        "mine/vae", "mine/other", "runs/vae", "pretrained/carracing-dream", "data/digits", "vae",
        "a/b/c", "/ann/tiny", "../ann", "ann/", "ann/ti ny", "ann/tiny@", "-ann/tiny", "", ".",
    ):  # fmt: skip
        assert hub_name(other) is None, other


def test_a_model_is_had_by_its_name_and_revision(hub, tmp_path):
    first, second = small(1), small(2)
    before = put(hub, first, tmp_path / "a" / "1")
    hub.commit("ann/tiny", files_of(tmp_path / "a" / "1"), tag="v1")
    put(hub, second, tmp_path / "a" / "2")
    x = torch.rand(2, 3, 64, 64)
    for name, model in (
        ("ann/tiny", second), ("ann/tiny@v1", first), (f"ann/tiny@{before}", first),
    ):  # fmt: skip
        for load in (ConvVAE.from_pretrained, load_model):
            assert torch.equal(load(name).encode(x), model.encode(x)), name
    assert torch.equal(load_model(Path("ann/tiny")).encode(x), second.encode(x))


def test_what_is_cached_is_fetched_once_and_serves_without_the_hub(hub, tmp_path, monkeypatch):
    sha = put(hub, small(), tmp_path / "a" / "1")
    folder = find_folder(f"ann/tiny@{sha}")
    asked = list(hub.asked)
    assert find_folder(f"ann/tiny@{sha}") == folder
    assert hub.asked == asked
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    find_folder("ann/tiny")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        assert find_folder("ann/tiny") == folder
        with pytest.raises(ConnectionError, match=r"ann/other: no such folder; the hub was asked"):
            ConvVAE.from_pretrained("ann/other")


def test_only_data_is_fetched(hub, tmp_path):
    put(hub, small(), tmp_path / "a", **{"model.py": b"raise SystemExit", "old.bin": b"pickle"})
    folder = find_folder("ann/tiny")
    assert {p.name for p in folder.iterdir()} == {
        "config.json", "manifest.json", "model.safetensors",
    }  # fmt: skip
    assert not any("model.py" in line or "old.bin" in line for line in hub.asked)


def test_what_comes_is_read_as_strictly_as_a_folder(hub, tmp_path):
    put(hub, small(), tmp_path / "a")
    files = hub.files("ann/tiny")
    weights = bytearray(files["model.safetensors"])
    weights[-1] ^= 1
    hub.commit("ann/changed", {**files, "model.safetensors": bytes(weights)})
    with pytest.raises(DamagedFileError, match="its content has changed"):
        ConvVAE.from_pretrained("ann/changed")
    with pytest.raises(ValueError, match="holds a ConvVAE, not a GAN"):
        GAN.from_pretrained("ann/tiny")


def test_what_is_no_model_of_ours_is_not_fetched(hub, tmp_path, monkeypatch):
    hub.commit("ann/other", {"config.json": b"{}", "model.safetensors": b"0" * 99})
    with pytest.raises(ValueError, match=r"was not saved by this project \(it has no manifest"):
        load_model("ann/other")
    put(hub, small(), tmp_path / "a")
    monkeypatch.setattr(ours, "MAX_STATE_BYTES", 100)
    with pytest.raises(ValueError, match="at most 1,000 files, 100 bytes"):
        load_model("ann/tiny")
    assert not any(line.startswith("GET") and "/resolve/" in line for line in hub.asked)


def test_a_name_that_nobody_has_says_so(hub, tmp_path):
    put(hub, small(), tmp_path / "a")
    for name in ("ann/absent", "ann/tiny@v9"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such folder, and the hub shows"):
            ConvVAE.from_pretrained(name)
    asked = list(hub.asked)
    with pytest.raises(FileNotFoundError, match=r"^runs/vae: no such folder; pass one with a Conv"):
        ConvVAE.from_pretrained("runs/vae")
    with pytest.raises(FileNotFoundError, match="in a checkout, whose folder pretrained/ holds"):
        ConvVAE.from_pretrained("pretrained/carracing-dream/vision")
    assert hub.asked == asked


def test_without_the_package_a_name_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="huggingface-hub is not installed: pip install"):
        ConvVAE.from_pretrained("ann/tiny")


def test_a_model_goes_to_the_hub_and_comes_back(hub):
    model = small()
    address = model.push_to_hub("ann/given", private=True)
    assert address == f"{hub.url}/ann/given/commit/{hub.names['ann/given']['main']}"
    assert hub.visibility == {"ann/given": "private"}
    assert b'ConvVAE.from_pretrained("ann/given")' in hub.files("ann/given")["README.md"]
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(ConvVAE.from_pretrained("ann/given").encode(x), model.encode(x))


def test_only_what_belongs_to_a_model_is_given(hub, tmp_path):
    folder = tmp_path / "agent"
    small().save_pretrained(folder / "vision")
    (folder / "metrics.jsonl").write_text("mine")
    (folder / "README.md").write_text("a card")
    push_folder(folder, "ann/given")
    assert set(hub.files("ann/given")) == {
        "README.md",
        *(f"vision/{name}" for name in ("config.json", "manifest.json", "model.safetensors")),
    }
    for name in ("given", "ann/given@v1", "ann/gi ven"):
        with pytest.raises(ValueError, match="is no name on the hub"):
            push_folder(folder, name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no saved model"):
        push_folder(tmp_path / "empty", "ann/given")


def test_a_refused_push_says_why(hub, monkeypatch):
    def refuse(self):
        self._send(403, json.dumps({"error": "read-only token"}).encode())

    monkeypatch.setattr("tests.hub_server._Handler.do_POST", refuse)
    with pytest.raises(ConnectionError, match=r"ann/given was not pushed: .*403"):
        small().push_to_hub("ann/given")
