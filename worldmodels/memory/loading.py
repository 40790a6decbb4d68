"""Classes of M, and loading of a saved M of any class.

memory = load_memory("pretrained/carracing-dream/memory")   # an MDNRNN, a TransformerMemory, ...
"""

from __future__ import annotations

from pathlib import Path

import torch

from generative.training.hub import find_folder
from generative.training.pretrained import saved_class
from worldmodels.memory.base import Memory
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.transformer import TransformerMemory

__all__ = ["MEMORIES", "load_memory"]

MEMORIES: dict[str, type[Memory]] = {kind.__name__: kind for kind in (MDNRNN, TransformerMemory)}
"""Classes of M by the name that a saved model carries."""


def load_memory(folder: Path | str, device: torch.device | str = "cpu") -> Memory:
    """The M that a folder holds, of whichever class, in evaluation mode.

    Its class is found by name among `MEMORIES`; nothing in the folder can run code.

    Raises:
        FileNotFoundError: there is no such folder.
        DamagedFileError: a file is missing, cut, changed, or does not fit the others.
        ValueError: the folder holds another class, or is the run that made an M.
    """
    folder = find_folder(folder)
    kind = saved_class(folder, MEMORIES, "M", "scripts/train_mdnrnn.py")
    return MEMORIES[kind].from_pretrained(folder, device=device)
