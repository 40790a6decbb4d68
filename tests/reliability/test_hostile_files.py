"""Files that would run something if they were read carelessly: none does, and all are named."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from generative.training.checkpoint import Checkpoints
from generative.training.files import DamagedFileError, write_folder
from generative.vae import ConvVAE
from worldmodels.memory import MDNRNN
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
    model = MDNRNN() if load == MDNRNN.from_pretrained else ConvVAE()
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
