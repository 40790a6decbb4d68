"""Links and pictures of the pages lead to files and headings that are there."""

import re
from pathlib import Path

import pytest

from tests.commands import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r'\[[^]]*\]\(([^)\s]+)\)|<(?:img|a)\s[^>]*(?:src|href)="([^"]+)"')
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Anchors that a repository's browser gives the headings, without repeated ones."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def links(page: Path) -> list[str]:
    """Targets of links and pictures that are no addresses."""
    found = LINK.findall(CODE.sub("", page.read_text(encoding="utf-8")))
    return [a or b for a, b in found if not re.match(r"[a-z]+:", a or b)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    missing = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing, missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_say_what_they_show(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    assert not re.findall(r"!\[\]\(", text)
    assert all('alt="' in tag for tag in re.findall(r"<img\s[^>]*>", text))
