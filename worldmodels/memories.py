"""Which classes can be M, and how one is loaded without knowing which it is.

memory = load_memory("pretrained/carracing-dream/memory")   # an MDNRNN, a TransformerMemory, ...
"""

from __future__ import annotations

from pathlib import Path

import torch

from generative.pretrained import CONFIG_NAME, WEIGHTS_NAME
from generative.training.files import (
    MAX_JSON_BYTES,
    DamagedFileError,
    parse_json,
    read_listed,
    read_manifest,
)
from worldmodels.memory import MDNRNN, Memory
from worldmodels.transformer_memory import TransformerMemory

__all__ = ["MEMORIES", "load_memory"]

MEMORIES: dict[str, type[Memory]] = {kind.__name__: kind for kind in (MDNRNN, TransformerMemory)}
"""What can be M, by the name that a saved model carries."""


def load_memory(folder: Path | str, device: torch.device | str = "cpu") -> Memory:
    """The M that a folder holds, of whichever class, in evaluation mode.

    Its class is found by name among `MEMORIES`; nothing in the folder can run code.

    Raises:
        FileNotFoundError: there is no such folder.
        DamagedFileError: a file is missing, cut, changed, or does not fit the others.
        ValueError: the folder holds another class, or is the run that made an M.
    """
    folder = Path(folder)
    known = " or ".join(MEMORIES)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; pass one with an M ({known})")
    if (folder / "model").is_dir():
        raise ValueError(f"{folder} is the folder of a run; pass its model, {folder / 'model'}")
    path = folder / CONFIG_NAME
    entry = read_manifest(folder, {CONFIG_NAME, WEIGHTS_NAME})[CONFIG_NAME]
    content = parse_json(read_listed(path, entry, MAX_JSON_BYTES), path)
    name = content.get("class") if isinstance(content, dict) else None
    if not isinstance(name, str):
        raise DamagedFileError(f"{path}: is not the config of a saved model")
    if name not in MEMORIES:
        raise ValueError(
            f"{folder} holds a {name}, which cannot be M; pass the folder of a {known}"
        )
    return MEMORIES[name].from_pretrained(folder, device=device)
