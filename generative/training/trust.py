"""Trust in files: a file may name an environment to make, but never a module to import."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["refuse_import"]


def refuse_import(env_id: str, file: Path) -> None:
    """Raise if making the environment that a file names would import a module.

    Gymnasium imports MODULE for an environment MODULE:ID, and an import runs code. A module that is
    already imported is allowed.

    Raises:
        ValueError: names the file and the module.
    """
    module, colon, _ = env_id.rpartition(":")
    if colon and module not in sys.modules:
        raise ValueError(
            f"{file}: names the environment {env_id[:200]!r}, for which {module[:200]!r} would be "
            "imported, and that can run any code of those who made it. If you know where it is "
            "from, pass --trust, or name the environment yourself (--env; in Python, import it)"
        )
