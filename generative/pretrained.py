"""Saving a model so that another program can load it: sizes as JSON, weights as safetensors."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from generative.training.checkpoint import MAX_HEADER_BYTES, read_header, read_tensors
from generative.training.files import (
    MAX_JSON_BYTES,
    DamagedFileError,
    json_bytes,
    parse_json,
    read_listed,
    read_manifest,
    write_folder,
)
from generative.training.settings import from_json, to_json
from generative.training.words import with_article

__all__ = ["DamagedFileError", "Pretrained", "saved_class"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


class Pretrained:
    """Gives an `nn.Module` that is built from one config `save_pretrained` and `from_pretrained`.

    A subclass sets `config_class`, takes the config as `__init__`'s only needed argument and keeps
    it as `self.config`.

        class ConvVAE(Pretrained, nn.Module):
            config_class = ConvVAEConfig
    """

    config_class: ClassVar[type]
    config: Any

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write config.json, model.safetensors and manifest.json into folder.

        All or nothing: a crash or a full disk leaves what was there before.

        Args:
            folder: new, or one that this wrote earlier.
            dtype: store floating-point weights as this, e.g. torch.float16 for half the size.
        Raises:
            ValueError: a weight is not finite (or does not fit into dtype), or folder holds
                other files.
        """
        assert isinstance(self, nn.Module)
        weights = {}
        for name, tensor in self.state_dict().items():
            stored = tensor.detach().to("cpu", copy=True)
            if dtype is not None and stored.is_floating_point():
                stored = stored.to(dtype)
            if stored.is_floating_point() and not stored.isfinite().all():
                kind = str(stored.dtype).removeprefix("torch.")
                raise ValueError(f"weight {name} is not finite as {kind}; it was not saved")
            weights[name] = stored.contiguous()
        config = {"class": type(self).__name__, "format": 1, "config": to_json(self.config)}
        files = {CONFIG_NAME: json_bytes(config), WEIGHTS_NAME: safetensors.torch.save(weights)}
        write_folder(Path(folder), files)

    @classmethod
    @torch.inference_mode(False)  # whoever loads a model inside it can still train it
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """The model that `save_pretrained` wrote, in evaluation mode, weights in float32.

        Raises:
            FileNotFoundError: there is no such folder.
            DamagedFileError: a file is missing, cut, changed, or does not fit the others.
            ValueError: the folder holds another class of model, or is the run that made one.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; pass one with {with_article(cls.__name__)}"
            )
        if (folder / "model").is_dir():
            raise ValueError(f"{folder} is the folder of a run; pass its model, {folder / 'model'}")
        entries = read_manifest(folder, {CONFIG_NAME, WEIGHTS_NAME})
        config = cls._read_config(folder / CONFIG_NAME, entries[CONFIG_NAME])
        # Sizes are compared before memory is taken for them.
        with torch.device("meta"):
            expected = cls(config).state_dict()  # type: ignore[call-arg]
        most = MAX_HEADER_BYTES + sum(8 * (1 + tensor.numel()) for tensor in expected.values())
        path = folder / WEIGHTS_NAME
        data = read_listed(path, entries[WEIGHTS_NAME], max_bytes=most)
        _check_shapes(expected, read_header(data, path), path)
        with torch.random.fork_rng(devices=[]):  # initial weights must not use up random numbers
            model = cls(config)  # type: ignore[call-arg]
        assert isinstance(model, nn.Module)
        model.float()  # whatever torch's default is
        model.load_state_dict(read_tensors(data, path))
        return model.to(device).eval()

    def continue_from(self, folder: Path | str) -> None:
        """Take over the weights of a saved model of the same class and sizes.

        Raises:
            ValueError: the folder holds another class, or other sizes; says which.
        """
        assert isinstance(self, nn.Module)
        earlier = self.from_pretrained(folder)
        if earlier.config != self.config:
            raise ValueError(
                f"{folder} holds a model of {earlier.config}, this run trains {self.config}; pass "
                "the same sizes or leave start_from out"
            )
        self.load_state_dict(earlier.state_dict())

    @classmethod
    def complete_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        """A saved config with the fields that it lacks because it is older than they are."""
        return config

    @classmethod
    def _read_config(cls, path: Path, entry: dict[str, Any]) -> Any:
        content = parse_json(read_listed(path, entry, MAX_JSON_BYTES), path)
        if not isinstance(content, dict) or content.get("format") != 1:
            raise DamagedFileError(f"{path}: is not the config of a saved model of format 1")
        name = content.get("class")
        if name != cls.__name__:
            raise ValueError(
                f"{path.parent} holds {with_article(str(name))}, not "
                f"{with_article(cls.__name__)}; pass the folder of {with_article(cls.__name__)}"
            )
        config = content.get("config")
        try:
            config = cls.complete_config(config) if isinstance(config, dict) else config
            return from_json(cls.config_class, config)
        except ValueError as error:
            raise DamagedFileError(f"{path}: {error}") from error


def saved_class(folder: Path | str, known: Collection[str], part: str) -> str:
    """The name of the class of a saved model, one of those known.

    Args:
        part: what it is wanted for, in messages: "V".
    Raises:
        FileNotFoundError: there is no such folder.
        DamagedFileError: a file is missing, cut, changed, or no config.
        ValueError: the folder holds another class, or is the run that made a model.
    """
    folder = Path(folder)
    *names, last = known
    needed = f"{', '.join(names)} or {last}" if names else last
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; pass one with {part} ({needed})")
    if (folder / "model").is_dir():
        raise ValueError(f"{folder} is the folder of a run; pass its model, {folder / 'model'}")
    path = folder / CONFIG_NAME
    entry = read_manifest(folder, {CONFIG_NAME, WEIGHTS_NAME})[CONFIG_NAME]
    content = parse_json(read_listed(path, entry, MAX_JSON_BYTES), path)
    name = content.get("class") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise DamagedFileError(f"{path}: is not the config of a saved model")
    if name not in known:
        raise ValueError(
            f"{folder} holds {with_article(name)}, which cannot be {part}; pass the folder of "
            f"{with_article(needed)}"
        )
    return name


def _check_shapes(expected: dict[str, Tensor], header: dict[str, Any], path: Path) -> None:
    missing = sorted(set(expected) - set(header))
    strange = sorted(set(header) - set(expected))
    if missing or strange:
        raise DamagedFileError(
            f"{path}: does not fit config.json; missing weights {missing[:3]}, "
            f"weights that have no place {strange[:3]}"
        )
    for name, tensor in expected.items():
        if list(tensor.shape) != header[name]["shape"]:
            raise DamagedFileError(
                f"{path}: {name} has shape {header[name]['shape']}, config.json asks for "
                f"{list(tensor.shape)}"
            )
