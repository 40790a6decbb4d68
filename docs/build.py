"""Build the pages of this repository as a site with search and a reference of all modules.

    python docs/build.py        # or: make docs

The pages are written for a repository's browser. They are copied to build/docs with links changed
to where their targets lie on the site, with examples and notebooks as pages and a page for each
module; Zensical renders them to build/site. A link that leads nowhere ends the build.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[1]
SOURCE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
PACKAGES = ("generative", "worldmodels", "envs", "agents")
LINK = re.compile(r"""(\]\(|\b(?:src|href)=")([^)\s"]+)""")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)


def place(path: Path) -> Path:
    """Where a file of the repository lies on the site, below its root; pages end in .md."""
    name = path.relative_to(ROOT)
    if name == Path("README.md"):
        return Path("index.md")
    if path.is_dir():
        name /= "index.md"
    if name.suffix in (".py", ".ipynb"):
        name = name.with_suffix(".md")
    if name.name == "README.md":
        name = name.with_name("index.md")
    return name.relative_to("docs") if name.parts[0] == "docs" else name


def copy(path: Path, done: set[Path]) -> None:
    """Copy a file to its place, and all that it links to."""
    if path in done:
        return
    done.add(path)
    target = SOURCE / place(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix != ".md":
        shutil.copy(path, target)
        return
    for linked in write_page(path, target):
        copy(linked, done)


def write_page(path: Path, target: Path) -> Iterator[Path]:
    """Write a page with its links changed; yields the files that it links to."""
    if path.is_dir():
        files = sorted(path.iterdir())
        rows = "".join(f"- [{file.name}]({file.name})\n" for file in files)
        target.write_text(f"# {path.relative_to(ROOT)}\n\n{rows}", encoding="utf-8")
        yield from files
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        target.write_text(f"# {path.name}\n\n```python\n{text}```\n", encoding="utf-8")
        return
    if path.suffix == ".ipynb":
        text = notebook(json.loads(text))
    linked: list[Path] = []

    def moved(match: re.Match[str]) -> str:
        name, hash_, anchor = match[2].partition("#")
        if not name or ":" in name:
            return match[0]
        found = (path.parent / name).resolve()
        if not found.exists():
            raise SystemExit(f"{path.relative_to(ROOT)}: {name} is not there")
        linked.append(found)
        return match[1] + os.path.relpath(place(found), place(path).parent) + hash_ + anchor

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    target.write_text("".join(parts), encoding="utf-8")
    yield from linked


def notebook(content: dict) -> str:
    """A notebook as Markdown, with its pictures in it."""
    text = []
    for cell in content["cells"]:
        source = "".join(cell["source"])
        text.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if png := data.get("image/png"):
                source = f"data:image/png;base64,{png.strip()}"
                text.append(f'<img alt="What the cell above draws" src="{source}">')
            elif shown := "".join(output.get("text", data.get("text/plain", ()))):
                text.append(f"```text\n{shown.rstrip()}\n```")
    return "\n\n".join(text) + "\n"


def reference() -> None:
    """Write a page for each module, and one for each package that lists them."""
    folder = SOURCE / "reference"
    folder.mkdir()
    for package in PACKAGES:
        rows = []
        for path in sorted((ROOT / package).rglob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            module = module.removesuffix(".__init__")
            if not docstring or any(part.startswith("_") for part in module.split(".")):
                continue
            page = f"{module}.md" if module != package else f"{module}-itself.md"
            (folder / page).write_text(f"# {module}\n\n::: {module}\n", encoding="utf-8")
            rows.append(f"| [{module}]({page}) | {docstring.splitlines()[0].replace('|', '/')} |")
        head = f"# {package}\n\n| module | |\n|---|---|\n"
        (folder / f"{package}.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


def broken_links() -> list[str]:
    """Links between the pages of the site that lead to no file."""
    missing = []
    for page in SITE.rglob("*.html"):
        if page.name == "404.html" or "results" in page.relative_to(SITE).parts:
            continue  # a server shows the one below any folder; the others are files of their own
        for link in re.findall(r'(?:href|src)="?([^">\s]+)', page.read_text(encoding="utf-8")):
            name = unquote(link.partition("#")[0].partition("?")[0])
            if name and ":" not in name and not (page.parent / name).exists():
                missing.append(f"{page.relative_to(SITE)}: {link}")
    return missing


def main() -> None:
    """Copy, write the reference, render, check."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "results", SOURCE / "results")
    shutil.copytree(ROOT / "docs" / "site", SOURCE / "site")
    done: set[Path] = set()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        copy(path, done)
    reference()
    subprocess.run([sys.executable, "-m", "zensical", "build"], cwd=ROOT, check=True)
    if missing := broken_links():
        raise SystemExit("\n".join(["these links lead nowhere:", *missing]))
    print(f"To read and search it: {sys.executable} -m http.server --directory {SITE}")


if __name__ == "__main__":
    main()
