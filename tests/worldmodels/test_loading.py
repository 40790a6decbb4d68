"""One function loads every model of the project, and says what a folder holds instead of one."""

import importlib
import inspect
import json
import pkgutil

import pytest
import torch

import generative
import generative.loading
import worldmodels
from generative.flow import ImageFlow, ImageRealNVPConfig, RealNVPConfig
from generative.training.pretrained import DamagedFileError, Pretrained
from generative.vae import LinearVAE, LinearVAEConfig
from worldmodels.loading import MODELS, load_model


def classes_of(package) -> dict[str, type]:
    """Every class of a package that can be saved and built, found by importing all of it."""
    found = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".commands" in info.name or info.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(info.name)).items():
            if not inspect.isclass(kind) or not issubclass(kind, Pretrained):
                continue
            if kind.__module__ == info.name and (kind.builds or hasattr(kind, "config_class")):
                found |= dict.fromkeys((name, *kind.builds), kind)
    return found


@pytest.mark.parametrize(
    ("package", "table"),
    [(generative, generative.loading.MODELS), ({generative, worldmodels}, MODELS)],
)
def test_every_class_is_in_the_table(package, table):
    packages = package if isinstance(package, set) else {package}
    classes = {name: kind for p in packages for name, kind in classes_of(p).items()}
    assert set(table) == set(classes)
    for name, place in table.items():
        module, _, kind = place.partition(":")
        assert getattr(importlib.import_module(module), kind or name) is classes[name]


def test_a_run_and_its_model_give_the_same(tmp_path):
    torch.manual_seed(0)
    small = RealNVPConfig((1, 4, 4), ("rows",), num_couplings=2, hidden_dim=4, num_hidden=1)
    flow = ImageRealNVPConfig(small, 17).build()
    flow.save_pretrained(tmp_path / "run" / "model")
    for folder in (tmp_path / "run", tmp_path / "run" / "model", str(tmp_path / "run")):
        loaded = load_model(folder)
        assert isinstance(loaded, ImageFlow)
        assert not loaded.training
        for name, weight in flow.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], weight)


def test_committed_parts_of_agents():
    for part, name in (("vision", "ConvVAE"), ("memory", "MDNRNN")):
        model = load_model(f"pretrained/carracing-dream/{part}")
        assert type(model).__name__ == name
    with pytest.raises(FileNotFoundError, match=r"holds an agent; pass one of its .*/vision, "):
        load_model("pretrained/carracing-dream")


def test_what_is_no_model_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: no such folder; pass the folder of a"):
        load_model(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no model"):
        load_model(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"kind": "train_gpt", "settings": {}}))
    with pytest.raises(FileNotFoundError, match=f"worldmodels train_gpt --resume {tmp_path}"):
        load_model(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="a run of train_gpt, which makes no model"):
        load_model(tmp_path)
    (tmp_path / "agent" / "vision").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f"models: {tmp_path}/agent/vision, "):
        load_model(tmp_path)
    (tmp_path / "agent" / "vision").rmdir()
    LinearVAE(LinearVAEConfig((1, 2, 2), 1)).save_pretrained(tmp_path / "vae")
    content = (tmp_path / "vae" / "config.json").read_text().replace("LinearVAE", "os.system")
    (tmp_path / "vae" / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"holds an? os\.system, a class that this version"):
        load_model(tmp_path / "vae")
    config.write_text("{")
    with pytest.raises(DamagedFileError):
        load_model(tmp_path)
