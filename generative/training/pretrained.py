"""Saved models that another program can load: sizes as JSON, weights as safetensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from generative.training.checkpoint import MAX_HEADER_BYTES, read_header, read_tensors
from generative.training.files import (
    MAX_MODEL_CONFIG_BYTES,
    DamagedFileError,
    cut,
    json_bytes,
    parse_json,
    read_json,
    read_listed,
    read_manifest,
    reading,
    short,
    write_folder,
)
from generative.training.hub import Shared, find_folder, where_else
from generative.training.settings import from_json, to_json
from generative.training.sizes import SizesAlone
from generative.training.words import with_article

__all__ = [
    "DamagedFileError",
    "Pretrained",
    "class_name",
    "read_weights",
    "saved_class",
    "without_memory",
]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Types of stored weights in safetensors."""
MAX_TENSORS = 2**12
MAX_TABLE_BYTES = 64 * 2**20
"""Largest buffers, in bytes, that a model computes and does not save, such as masks."""


class Pretrained(Shared):
    """Adds `save_pretrained`, `from_pretrained` and `push_to_hub` to an `nn.Module`.

    A model that is its own network sets `config_class`, takes the config as `__init__`'s only
    needed argument and keeps it as `self.config`.

        class ConvVAE(Pretrained, nn.Module):
            config_class = ConvVAEConfig

    A model around networks that are passed in sets `builds`, its recipes by the names that they
    have in saved folders. A recipe's `build()` chooses the networks and sets `model.config`.

        class Diffusion(Pretrained, nn.Module):
            builds = {"ImageDiffusion": ImageDiffusionConfig}

    Such a model can also be put together by hand. It then has no config, `save_pretrained` writes
    its weights, and `load_weights` of a model that is put together in the same way reads them.
    """

    config_class: ClassVar[type]
    builds: ClassVar[Mapping[str, type]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}
    """Beginnings of weights' names in older folders, and what they are called now."""
    config: Any = None

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write config.json, model.safetensors and manifest.json into folder.

        All or nothing: a crash or a full disk leaves the earlier content.

        Args:
            folder: new, or written by this method earlier.
            dtype: type of stored floating-point weights, e.g. torch.float16 for half the size.
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
        config = {"class": self.saved_name, "format": 1, "config": to_json(self.config)}
        files = {CONFIG_NAME: json_bytes(config), WEIGHTS_NAME: safetensors.torch.save(weights)}
        write_folder(Path(folder), files)

    @classmethod
    @torch.inference_mode(False)  # a model loaded inside inference mode stays trainable
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Load a model that `save_pretrained` wrote, in evaluation mode, weights in float32.

        Args:
            folder: the folder, or owner/name[@revision] of one on the hub (`find_folder`).
        Raises:
            FileNotFoundError: there is no such folder, nor such a name.
            ConnectionError: the hub was asked, and could not be reached.
            DamagedFileError: a file is missing, cut, changed, or does not fit the others.
            ValueError: the folder holds another class of model, one that was put together by hand,
                or is the run that made one.
        """
        folder = cls._check_folder(folder)
        entries = read_manifest(folder, {CONFIG_NAME, WEIGHTS_NAME})
        config_path, path = folder / CONFIG_NAME, folder / WEIGHTS_NAME
        config = cls._read_config(config_path, entries[CONFIG_NAME])
        # Sizes are compared before memory is allocated for them.
        empty = without_memory(lambda: cls._make(config), config_path)
        expected = empty.state_dict()
        tables = sum(x.nbytes for name, x in empty.named_buffers() if name not in expected)
        if tables > MAX_TABLE_BYTES + sum(x.nbytes for x in expected.values()):
            raise DamagedFileError(f"{config_path}: its sizes need {tables} bytes beside weights")
        weights = cls._read_weights(path, entries[WEIGHTS_NAME], expected)
        with torch.random.fork_rng(devices=[]):  # initial weights must not use up random numbers
            model = cls._make(config)
        model.float()  # whatever torch's default is
        model.load_state_dict(weights)
        return cast("Self", model.to(device).eval())

    def load_weights(self, folder: Path | str) -> None:
        """Take over the weights that `save_pretrained` wrote of a model of the same networks.

        This is how a model that was put together by hand is read back: put it together again, and
        load. Names, shapes and types are compared first; the model then has the folder's numbers,
        on its own device.

        Raises:
            FileNotFoundError: there is no such folder.
            DamagedFileError: a file is missing, cut, changed, or holds other weights.
            ValueError: the folder is the run that made a model.
        """
        assert isinstance(self, nn.Module)
        folder = self._check_folder(folder)
        entries = read_manifest(folder, {CONFIG_NAME, WEIGHTS_NAME})
        expected = self.state_dict()
        weights = self._read_weights(folder / WEIGHTS_NAME, entries[WEIGHTS_NAME], expected)
        self.load_state_dict(weights)

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
    def _make(cls, config: Any) -> nn.Module:
        return config.build() if cls.builds else cast("Any", cls)(config)

    @property
    def saved_name(self) -> str:
        """Name that a saved model carries: that of its recipe, or of its class."""
        names = [name for name, kind in self.builds.items() if type(self.config) is kind]
        return names[0] if names else type(self).__name__

    @classmethod
    def _check_folder(cls, folder: Path | str) -> Path:
        folder = find_folder(folder)
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder}: no such folder; pass one with {with_article(cls.__name__)}"
                f"{where_else(folder)}"
            )
        if (folder / "model").is_dir():
            raise ValueError(f"{folder} is the folder of a run; pass its model, {folder / 'model'}")
        return folder

    @classmethod
    def _read_weights(
        cls, path: Path, entry: dict[str, Any], expected: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        most = MAX_HEADER_BYTES + sum(8 * (1 + tensor.numel()) for tensor in expected.values())
        return read_weights(read_listed(path, entry, most), path, expected, cls.renamed)

    @classmethod
    def _read_config(cls, path: Path, entry: dict[str, Any]) -> Any:
        content = parse_json(read_listed(path, entry, MAX_MODEL_CONFIG_BYTES), path)
        if not isinstance(content, dict) or content.get("format") != 1:
            raise DamagedFileError(f"{path}: is not the config of a saved model of format 1")
        name = str(content.get("class"))
        recipes = cls.builds or {cls.__name__: cls.config_class}
        if cls.builds and name == cls.__name__ and content.get("config") is None:
            raise ValueError(
                f"{path.parent} holds the weights of {with_article(name)} that was put together by "
                "hand; put it together again and call its load_weights"
            )
        if name not in recipes:
            raise ValueError(
                f"{path.parent} holds {with_article(cut(name, 60))}, not "
                f"{with_article(cls.__name__)}; pass the folder of {with_article(cls.__name__)}"
            )
        with reading(path):
            return from_json(recipes[name], content.get("config"))


def class_name(folder: Path | str) -> str:
    """Name of the class of a saved model; "" if the folder holds none.

    Raises:
        DamagedFileError: config.json is not that of a saved model.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.exists():
        return ""
    content = read_json(path, MAX_MODEL_CONFIG_BYTES)
    name = content.get("class") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise DamagedFileError(f"{path}: is not the config of a saved model")
    return cut(name, 60)


def saved_class(folder: Path | str, known: Collection[str], part: str, made_by: str = "") -> str:
    """Name of the class of a saved model, one of those known.

    Args:
        part: role of the model, for messages: "V".
        made_by: the command that makes such a model, for messages.
    Raises:
        FileNotFoundError: there is no such folder.
        DamagedFileError: a file is missing, cut, changed, or no config.
        ValueError: the folder holds another class, or is the run that made a model.
    """
    folder = Path(folder)
    *names, last = known
    needed = f"{', '.join(names)} or {last}" if names else last
    if not folder.is_dir():
        made = f", as {made_by} makes" if made_by else ""
        raise FileNotFoundError(
            f"{folder}: no such folder; pass one with {part} ({needed}){made}{where_else(folder)}"
        )
    if (folder / "model").is_dir():
        raise ValueError(f"{folder} is the folder of a run; pass its model, {folder / 'model'}")
    entry = read_manifest(folder, {CONFIG_NAME, WEIGHTS_NAME})[CONFIG_NAME]
    read_listed(folder / CONFIG_NAME, entry, MAX_MODEL_CONFIG_BYTES)
    name = class_name(folder)
    if name not in known:
        raise ValueError(
            f"{folder} holds {with_article(name)}, which cannot be {part}; pass the folder of "
            f"{with_article(needed)}"
        )
    return name


def without_memory(build: Callable[[], nn.Module], path: Path) -> nn.Module:
    """Build a model on torch's meta device, which knows its sizes and holds no numbers.

    Args:
        build: builds the model.
        path: path of its config, named in errors.
    Raises:
        DamagedFileError: the model cannot be built, or has more than 4,096 tensors, whose objects
            alone would take time and memory.
    """
    count = itertools.count(1)

    def check(*_args: Any) -> None:
        if next(count) > MAX_TENSORS:
            raise ValueError(f"more than {MAX_TENSORS} tensors")

    handle = nn.modules.module.register_module_parameter_registration_hook(check)
    try:
        with (
            reading(path, "asks for a model that cannot be built"),
            torch.device("meta"),
            SizesAlone(),
        ):
            return build()
    finally:
        handle.remove()


def read_weights(
    data: bytes,
    path: Path,
    expected: Mapping[str, Tensor],
    renamed: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, if they are those of a model.

    Args:
        data: content of the file.
        path: named in errors.
        expected: tensors of the model (on the meta device); only their types and shapes matter.
        renamed: beginnings of older names, and what they are called now.
    Raises:
        DamagedFileError: names, shapes or types differ or a weight is there by two names, which is
            found before anything is allocated, or a weight is not finite.
    """

    def now(name: str) -> str:
        if name in expected:
            return name
        for before, after in (renamed or {}).items():
            if name.startswith(before):
                return after + name.removeprefix(before)
        return name

    header: dict[str, Any] = {}
    for name, entry in read_header(data, path).items():
        if now(name) in header:
            raise DamagedFileError(f"{path}: holds {now(name)} twice, once by an older name")
        header[now(name)] = entry
    missing, strange = sorted(set(expected) - set(header)), sorted(set(header) - set(expected))
    if missing or strange:
        raise DamagedFileError(
            f"{path}: does not fit config.json; missing weights {short(missing)}, weights that "
            f"have no place {short(strange)}"
        )
    for name, tensor in expected.items():
        shape, kind = header[name]["shape"], header[name]["dtype"]
        if list(tensor.shape) != shape:
            raise DamagedFileError(
                f"{path}: {name} has shape {short(shape)}, config.json asks for "
                f"{list(tensor.shape)}"
            )
        needed = FLOATS if tensor.is_floating_point() else {_type_name(tensor.dtype)}
        if kind not in needed:
            raise DamagedFileError(
                f"{path}: {name} is of type {kind}, needed is {' or '.join(sorted(needed))}"
            )
    tensors = {now(name): tensor for name, tensor in read_tensors(data, path).items()}
    for name, tensor in tensors.items():
        # aminmax, which is NaN if any entry is, is several times as fast as isfinite.
        ends = tensor.aminmax() if tensor.is_floating_point() and tensor.numel() else ()
        if not all(end.isfinite() for end in ends):
            raise DamagedFileError(f"{path}: {name} is not finite; save a model that is whole")
    return tensors


def _type_name(dtype: torch.dtype) -> str:
    """Name of an integer type in a safetensors file: "I64", "U8", "BOOL"."""
    name = str(dtype).removeprefix("torch.")
    return name.upper().replace("UINT", "U").replace("INT", "I")
