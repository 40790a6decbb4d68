"""The command that certifies: it runs, it says what holds, and it keeps what it did not redo."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from generative.training.cli import parse
from scripts import certificates
from scripts.certificates import Args
from scripts.certified import CERTIFICATES, Certificate, Line, Settings
from tests.commands import ROOT, run_script


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """(where the smoke preset wrote, what it printed); do not change it."""
    folder = tmp_path_factory.mktemp("certificates")
    words = ("--docs", folder / "docs", "--work", folder / "work")
    done = run_script("certificates", "smoke", *words)
    assert done.returncode == 0, done.stderr
    return folder / "docs", done.stdout


def read_record(docs: Path) -> dict:
    return json.loads((docs / "results" / "certificates.json").read_text())


def test_smoke_by_command_line(smoke):
    docs, shown = smoke
    assert "two moons, nats above the entropy" in shown
    assert "MISSED" in shown
    moons = read_record(docs)["realnvp-two-moons"]["lines"][0]
    assert moons["value"] == pytest.approx(moons["reference"] + moons["gap"])
    assert moons["holds"] is False
    page = (docs / "certificates.md").read_text()
    assert "| [realnvp-two-moons](#realnvp-two-moons) | RealNVP" in page
    assert "All bars hold in 0 of 1." in page
    assert "missed: > 0.001" in page


def test_the_page_is_written_again(smoke, tmp_path):
    docs = shutil.copytree(smoke[0], tmp_path / "docs")
    (docs / "certificates.md").unlink()
    words = ["smoke", "--page", "--docs", str(docs), "--work", str(tmp_path / "work")]
    certificates.main(parse(certificates.PRESETS, argv=words))
    assert (docs / "certificates.md").read_text() == (smoke[0] / "certificates.md").read_text()


def test_what_is_committed_agrees_with_itself():
    """A gap is a difference in every row, and the page says what the records say."""
    for name in ("certificates", "certificates-seed-2"):
        records = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
        for line in (line for record in records.values() for line in record["lines"]):
            gap = None if line["reference"] is None else line["value"] - line["reference"]
            assert line["gap"] == pytest.approx(gap, abs=1e-15)
            assert line["holds"] == (line["measure"] <= line["bar"])
        if name == "certificates":
            page = (ROOT / "docs" / "certificates.md").read_text()
            assert page == certificates.page(records)


def first_of_each_kind() -> set[str]:
    """The first certificate of every module of `scripts.certified`."""
    kinds = {c.certify.__module__: name for name, c in reversed(CERTIFICATES.items())}
    return set(kinds.values())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in first_of_each_kind() else pytest.mark.nightly)
        for name in CERTIFICATES
    ],
)
def test_every_certificate_can_be_made(name, tmp_path):
    lines = CERTIFICATES[name].certify(Settings(tmp_path / "work", smoke=True))
    assert lines
    assert all(math.isfinite(line.measure) and math.isfinite(line.bar) for line in lines)


@pytest.mark.nightly
@pytest.mark.usefixtures("warm_workers")
def test_a_worker_makes_the_same(smoke, tmp_path):
    where = ["--docs", str(tmp_path / "docs"), "--work", str(tmp_path / "work")]
    certificates.main(parse(certificates.PRESETS, argv=["smoke", "--workers", "1", *where]))
    ours, theirs = (
        read_record(docs)["realnvp-two-moons"] for docs in (smoke[0], tmp_path / "docs")
    )
    assert ours["lines"] == theirs["lines"]


def test_they_stand_in_the_order_of_chapters_that_the_book_page_has():
    chapters = [certificate.chapter for certificate in CERTIFICATES.values()]
    assert chapters == sorted(chapters)
    book = (ROOT / "docs" / "book.md").read_text()
    headings = {int(number) for number in re.findall(r"^## (\d+)\.", book, re.MULTILINE)}
    assert set(chapters) <= headings
    table = (ROOT / "docs" / "certificates.md").read_text()
    for name in json.loads((ROOT / "docs" / "results" / "certificates.json").read_text()):
        assert f"| {CERTIFICATES[name].chapter} | [{name}](#{name}) |" in table


def test_one_is_done_again_and_the_others_are_kept(tmp_path, monkeypatch):
    values = iter([0.5, 0.1, 0.2])

    def certify(settings):
        return [Line("a number", value := next(values), 0.0, "zero", value, 0.3)]

    monkeypatch.setattr(
        certificates, "CERTIFICATES", {n: Certificate(n, certify, 1) for n in ("a", "b")}
    )
    both = Args(docs=tmp_path / "docs", work=tmp_path / "work")
    with pytest.raises(SystemExit, match="missed: a"):
        certificates.main(both)
    words = ["--only", "a", "--docs", str(both.docs), "--work", str(both.work)]
    certificates.main(parse(certificates.PRESETS, "all", argv=words))
    record = json.loads((both.docs / "results" / "certificates.json").read_text())
    assert [record[n]["lines"][0]["value"] for n in ("a", "b")] == [0.2, 0.1]
    page = (both.docs / "certificates.md").read_text()
    assert "missed" not in page
    with pytest.raises(ValueError, match="no certificate 'c'; a, b"):
        certificates.main(Args(only="c", docs=both.docs))


def test_one_whose_file_is_missing_is_left_out(tmp_path, monkeypatch, capsys):
    def certify(settings):
        number = float((settings.data / "number.txt").read_text())
        return [Line("a number", number, 0.0, "zero", number, 0.3)]

    def made(given: bool) -> dict:
        certificate = Certificate("a", certify, 1, given=given)
        monkeypatch.setattr(certificates, "CERTIFICATES", {"a": certificate})
        folder = tmp_path / "docs"
        certificates.main(Args(docs=folder, work=tmp_path / "work", data=tmp_path))
        return json.loads((folder / "results" / "certificates.json").read_text())

    (tmp_path / "number.txt").write_text("0.1")
    record = made(given=True)
    assert record["a"]["lines"][0]["value"] == 0.1
    (tmp_path / "number.txt").unlink()
    assert made(given=True) == record  # what was certified before stays
    assert "a: left out. " in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"number\.txt"):
        made(given=False)
