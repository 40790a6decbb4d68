"""Devices by name, and that one which is not there is told before anything is recorded."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from generative.training.devices import find_device
from generative.training.run import Run


@dataclass(frozen=True)
class Args:
    """Train."""

    out: Path
    device: str = "auto"
    tensorboard: bool = False


@pytest.mark.parametrize(
    ("count", "name", "told"),
    [
        (0, "cuda", "torch sees no such devices; use --device cpu"),
        (1, "cuda:1", "torch sees 1 such device;"),
        (0, "mps", "device is mps"),
        (0, "gpux", "device is 'gpux'; use auto, cpu"),
        (0, "meta", "device is meta"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch, tmp_path, count, name, told):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=told):
        Run.open(Args(tmp_path / "run", name), kind="train")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "auto"), [(0, "cpu"), (2, "cuda")])
def test_devices_that_are_there(monkeypatch, count, auto):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    assert find_device("auto") == torch.device(auto)
    assert find_device("cpu") == torch.device("cpu")
    if count:
        assert find_device("cuda:1") == torch.device("cuda", 1)
