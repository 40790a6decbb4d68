"""Search for files in a user's folder, without the files that operating systems add."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

__all__ = ["find_files", "is_companion"]

COMPANIONS = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""Names, in lower case, that systems add to a user's files; their other names begin with a dot."""


def find_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files below a folder with one of these endings, in alphabetical order.

    Hidden files and folders, and those that systems add, are left out. Other files are
    counted in one line on stderr.

    Args:
        suffixes: file name endings in lower case, with their dots.
    """
    visible = [
        path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not any(map(is_companion, path.relative_to(folder).parts))
    ]
    others = Counter(p.suffix.lower() for p in visible if p.suffix.lower() not in suffixes)
    found = [path for path in visible if path.suffix.lower() in suffixes]
    if others and found:
        kinds = ", ".join(
            f"{n} {suffix or 'without an ending'}" for suffix, n in others.most_common(5)
        )
        print(
            f"{folder}: {len(found)} files are read, {others.total()} of other formats are not "
            f"({kinds}{', ...' if len(others) > 5 else ''})",
            file=sys.stderr,
        )
    return found


def is_companion(name: str) -> bool:
    """True if a file or folder of this name is hidden, or was added by an operating system."""
    return name.startswith(".") or name.lower() in COMPANIONS
