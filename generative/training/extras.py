"""Packages that only parts of the project need, and how to install the one that is missing.

pyproject.toml lists them by extra; they are imported where they are used.
"""

from __future__ import annotations

import importlib.metadata
import re

__all__ = ["how_to_install", "is_asked_for", "requirements"]

PROJECT = "worldmodels-toolkit"
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}
"""Names under which packages are installed, where no underscore makes the difference."""


def requirements() -> list[tuple[str, str, str]]:
    """List what the installed project may need: name, requirement, extra ("" for the core).

    Extras that only include others are left out. Empty where the project is not installed.
    """
    try:
        lines = importlib.metadata.requires(PROJECT) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        requirement, _, condition = map(str.strip, line.partition(";"))
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        name = re.match(r"[\w.-]+", requirement)
        if name and name[0] != PROJECT:
            found.append((name[0], requirement, extra[1] if extra else ""))
    return found


def is_asked_for(module: str) -> bool:
    """True if this project names the package of a module as something it may need."""
    return any(name == _distribution(module) for name, _, _ in requirements())


def how_to_install(module: str) -> str:
    """Say in one line what to install for a missing module.

    Args:
        module: as it is imported, e.g. "onnxruntime" or "sklearn.datasets".
    """
    name = _distribution(module)
    for known, requirement, extra in requirements():
        if known == name:
            which = f" (the extra {extra})" if extra else ""
            return f'{name} is not installed: pip install "{requirement}"{which}'
    return f"{name} is not installed: pip install {name}"


def _distribution(module: str) -> str:
    package = module.partition(".")[0]
    return _DISTRIBUTIONS.get(package, package.replace("_", "-"))
