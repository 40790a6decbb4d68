"""What a file may ask for: that something is made, but never that a module is imported for it."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["refuse_import"]


def refuse_import(env_id: str, file: Path) -> None:
    """Stop where making the environment that a file names would import a module.

    Gymnasium imports MODULE for an environment MODULE:ID, and importing runs code. A module that
    is imported already was asked for by somebody else.

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
