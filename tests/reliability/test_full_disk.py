"""A disk that is full, really: a small file system in memory. And a folder nobody may write to."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ROOT, run_python, run_script

SEARCH = ROOT / "tests" / "reliability" / "search.py"


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 128 kB."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system in memory")
    yield folder
    subprocess.run(["umount", folder], check=True)


def search(folder: Path) -> subprocess.CompletedProcess:
    return run_python(SEARCH, folder, "serial", 0)


def test_a_search_stops_on_a_full_disk_and_goes_on_when_there_is_room(small_disk, tmp_path):
    whole = search(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    filler, run = small_disk / "filler", small_disk / "run"
    room = os.statvfs(small_disk)
    # Room for one page: the journal begins, the metrics do not.
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - room.f_frsize))
    full = search(run)
    assert full.returncode == 1
    told = r"No space left on device: \d+ bytes could not be added: '.*/run/metrics\.jsonl'"
    assert re.search(told, full.stderr)
    before = (run / "journal.jsonl").read_bytes()
    expected = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    assert expected.startswith(before)
    assert before.count(b"\n") == 1
    assert before.endswith(b"\n")
    filler.unlink()
    done = search(run)
    assert done.returncode == 0, done.stderr
    assert (run / "journal.jsonl").read_bytes() == expected
    found, wanted = (np.load(folder / "result.npy") for folder in (run, tmp_path / "whole"))
    assert np.array_equal(found, wanted)


def test_a_journal_that_cannot_grow_says_how_much_and_stays_as_it_was(small_disk):
    from worldmodels.journal import Generation, Journal

    journal = Journal(small_disk / "journal.jsonl")
    journal.append(Generation(0, 1, "ab", [1.0, 2.0], 0.5))
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize))
    before = journal.path.read_bytes()
    with pytest.raises(OSError, match=r"No space left .*: \d{5} bytes could not") as caught:
        journal.append(Generation(1, 1, "cd", [0.1] * 10_000, 0.5))
    assert caught.value.filename == str(journal.path)
    assert journal.path.read_bytes() == before
    (small_disk / "filler").unlink()
    journal.append(Generation(1, 1, "cd", [3.0, 4.0], 0.5))
    assert [g.index for g in Journal(journal.path).generations] == [0, 1]


def test_a_run_folder_that_nobody_may_write_to_is_named(small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    done = run_script("train_realnvp", "smoke", "--out", small_disk / "run")
    assert done.returncode == 1
    assert f"{small_disk}/run" in done.stderr
    assert "Read-only file system" in done.stderr
