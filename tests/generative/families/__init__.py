"""The model families with tiny settings, for the tests that hold for all of them.

A module for each kind; a new one is found by its name in this folder, and its `FAMILIES` are tested
by `test_families.py`.
"""

from importlib import import_module
from pkgutil import iter_modules

from tests.generative.families.common import VOCABULARY, Family

__all__ = ["FAMILIES", "VOCABULARY", "Family"]

FAMILIES: dict[str, Family] = {
    name: family
    for module in iter_modules(__path__)
    if module.name != "common"
    for name, family in import_module(f"{__name__}.{module.name}").FAMILIES.items()
}
