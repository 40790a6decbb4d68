"""The site holds each page once, and every link on it leads somewhere."""

import itertools
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.browser import browser_in
from tests.commands import ROOT

spec = spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
assert spec
assert spec.loader
build = module_from_spec(spec)
spec.loader.exec_module(build)


def pages(nav) -> list[str]:
    """Pages of a navigation, nested as it is."""
    return [
        page
        for entry in nav
        for below in entry.values()
        for page in ([below] if isinstance(below, str) else pages(below))
    ]


def test_the_navigation_has_each_page_once():
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    found = Counter(pages(config["nav"]))
    written = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    places = {str(build.place(path)) for path in written}
    reference = {f"reference/{package}.md" for package in build.PACKAGES}
    assert found == Counter(places | reference)


def test_links_follow_their_targets_to_the_site(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    done = set()
    build.copy(ROOT / "README.md", done)
    index = (tmp_path / "index.md").read_text()
    assert "](book.md)" in index
    assert "](docs/" not in index
    assert "](results/quick-seed1/report.html)" in index
    reuse = (tmp_path / "reuse.md").read_text()
    assert "](examples/own_episodes.md)" in reuse
    assert (tmp_path / "examples/own_episodes.md").read_text().startswith("# own_episodes.py\n")
    assert (tmp_path / "images/drive-and-dream.webp").exists()


@pytest.fixture(scope="module")
def site():
    """The folder of the site, built."""
    pytest.importorskip("zensical", reason="the extra `docs` is not installed")
    done = subprocess.run([sys.executable, "docs/build.py"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return build.SITE


@pytest.mark.nightly
def test_the_site_is_built(site):
    assert (site / "index.html").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["index", "book", "results", "families/stylegan"])
def test_axe_finds_nothing_serious_on_the_site(site, name, tmp_path):
    with browser_in(tmp_path / "chromium") as browser:
        for width, scheme in itertools.product((1280, 390), ("light", "dark")):
            browser.resize(width, 844, scheme)
            browser.call("Page.navigate", url=(site / f"{name}.html").as_uri())
            browser.wait("document.readyState === 'complete'")
            assert browser.value("document.documentElement.scrollWidth") <= width
            # The theme lets keys scroll wide code where there is a mouse: not in such a browser.
            found = [x for x in browser.serious() if x[0] != "scrollable-region-focusable"]
            assert found == [], (width, scheme)
