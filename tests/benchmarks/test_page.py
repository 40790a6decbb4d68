"""The page of the benchmarks, from the reports that are committed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def make(page: Path, results: Path) -> subprocess.CompletedProcess:
    words = [ROOT / "benchmarks" / "page.py", "--results", results, "--page", page]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_tables_are_those_of_the_committed_page(tmp_path):
    committed = (ROOT / "docs" / "performance.md").read_text()
    page = tmp_path / "page.md"
    page.write_text(committed.partition(BEGIN)[0] + BEGIN + "\nold\n" + END + "\n")
    done = make(page, ROOT / "docs" / "results" / "benchmarks")
    assert done.returncode == 0, done.stderr
    assert page.read_text() in committed.partition(END)[0] + END + "\n"


def test_only_what_was_measured_is_shown(tmp_path):
    report = json.loads((ROOT / "docs" / "results" / "benchmarks" / "drawings.json").read_text())
    report["scores"]["ours"]["mean"] = 123.4
    (tmp_path / "drawings.json").write_text(json.dumps(report))
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    done = make(page, tmp_path)
    assert "123 +/- " in done.stdout
    assert "dream" not in done.stdout
    assert page.read_text() == f"{BEGIN}\n{done.stdout}{END}\n"


@pytest.mark.parametrize("text", ["no marks", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_a_page_without_its_marks_is_left_alone(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    done = make(page, ROOT / "docs" / "results" / "benchmarks")
    assert done.returncode == 1
    assert "needs the lines" in done.stderr
    assert page.read_text() == text
