"""Files that the pages name are there."""

import itertools
import re
from pathlib import Path

import pytest

from tests.commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "generative|worldmodels|envs|agents|scripts|tests|benchmarks|examples|pretrained"


def expand(name: str) -> list[str]:
    """Names with each of the words in braces: a/{b,c}.py -> a/b.py, a/c.py."""
    parts = re.split(r"\{(.*?)\}", name)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def named(page: Path) -> set[str]:
    """Files and folders in quotes of code, without the places that a reader fills in (NAME)."""
    found = re.findall(rf"`((?:{FOLDERS})/[\w/.{{}},-]*)", page.read_text(encoding="utf-8"))
    return {
        name for name in itertools.chain(*map(expand, found)) if not re.search("[A-Z]{3}", name)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_are_there(page):
    missing = sorted(name for name in named(page) if not (ROOT / name).exists())
    assert not missing, missing
