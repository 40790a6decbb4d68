"""Folders that earlier versions saved: every one of them loads.

`references/saved_models.json` holds what these versions wrote of the tiny model of every family:
its class, its settings, and the names, types and shapes of its weights. It grows by what is new and
is not written anew, since it stands for the files that people have:

    python -m tests.generative.test_saved_models
"""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from generative.loading import load_model
from generative.training.files import json_bytes, write_folder
from generative.training.settings import to_json
from tests.generative.families import FAMILIES

RECORD = Path(__file__).parent / "references/saved_models.json"
SAVED = json.loads(RECORD.read_text()) if RECORD.exists() else {}
TYPES = {"float32": torch.float32, "int64": torch.int64, "bool": torch.bool, "uint8": torch.uint8}


@pytest.mark.parametrize("name", SAVED)
def test_a_folder_of_an_earlier_version_loads(name, tmp_path):
    saved, random = SAVED[name], torch.Generator().manual_seed(0)
    weights = {
        key: torch.rand(shape, generator=random).to(TYPES[kind])
        for key, (kind, *shape) in saved["weights"].items()
    }
    config = {"class": saved["class"], "format": 1, "config": saved["config"]}
    tensors = safetensors.torch.save(weights)
    write_folder(
        tmp_path / "model", {"config.json": json_bytes(config), "model.safetensors": tensors}
    )
    model = load_model(tmp_path / "model")
    # Every number arrives, whatever the weights are called today.
    assert sorted(float(x.double().sum()) for x in model.state_dict().values()) == sorted(
        float(x.double().sum()) for x in weights.values()
    )


def test_every_family_is_on_record():
    assert set(SAVED) >= set(FAMILIES), f"run: python -m {__spec__.name}"


def record() -> None:
    """Add the families that are new."""
    for name in sorted(set(FAMILIES) - set(SAVED)):
        model = FAMILIES[name].make()
        weights = {
            key: [str(x.dtype).removeprefix("torch."), *x.shape]
            for key, x in model.state_dict().items()
        }
        config = json.loads(json_bytes(to_json(model.config)))
        SAVED[name] = {"class": model.saved_name, "config": config, "weights": weights}
    RECORD.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(SAVED[name])}" for name in sorted(SAVED)]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    record()
