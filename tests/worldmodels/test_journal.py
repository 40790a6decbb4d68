"""The journal of an evolution: every kind of damage is found, and what is before it kept."""

import numpy as np
import pytest

from generative.training.files import DamagedFileError
from worldmodels.configs import EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.journal import Generation, Journal

CONFIG = EvolutionConfig(6, 0.3, 5)


def sphere(candidates, generation):
    return -np.square(candidates - 0.5).sum(1)


def run(path, config=CONFIG, seed=3, asked=None):
    def evaluate(candidates, generation):
        if asked is not None:
            asked.append(generation)
        return sphere(candidates, generation)

    return evolve(evaluate, np.zeros(4), config, seed, path)


@pytest.fixture
def whole(tmp_path):
    run(tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


def test_generations_read_back_as_written(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    entries = [
        Generation(0, 7, "ab", [0.1, -1e300, 1 / 3], 0.5),
        Generation(1, 7, "cd", [2.0, 3.0, 4.0], 0.25, 1.5),
    ]
    for entry in entries:
        journal.append(entry)
    assert Journal(tmp_path / "j.jsonl").generations == entries
    assert (entries[1].best, entries[1].average) == (4.0, 3.0)
    assert entries[1].deviation == pytest.approx((2 / 3) ** 0.5)


def test_every_cut_keeps_the_whole_lines(tmp_path, whole):
    path = tmp_path / "j.jsonl"
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        assert len(Journal(path).generations) == kept
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:kept])
    assert not path.with_name("j.jsonl.damaged").exists()


def test_every_flipped_bit_is_found(tmp_path, whole, capsys):
    path, rng = tmp_path / "j.jsonl", np.random.default_rng(0)
    starts = np.cumsum([0] + [len(line) for line in whole.splitlines(keepends=True)])
    for at in rng.choice(len(whole), 60, replace=False):
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        line = int(np.searchsorted(starts, at, side="right")) - 1
        journal = Journal(path)
        # A line whose end is flipped becomes one with the next, and both are lost.
        assert len(journal.generations) == line
        told = capsys.readouterr().err
        if line < 4 or at < len(whole) - 1:
            assert f"{path}: line {line + 1}" in told
            assert path.with_name("j.jsonl.damaged").read_bytes() == data


@pytest.mark.parametrize("change", ["swapped", "lost", "twice", "text", "score"])
def test_lines_out_of_place_are_found_and_made_again(tmp_path, whole, change, capsys):
    path, lines = tmp_path / "j.jsonl", whole.splitlines(keepends=True)
    if change == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    elif change == "lost":
        del lines[1]
    elif change == "twice":
        lines.insert(1, lines[0])
    elif change == "text":
        lines[1] = b"{\n"
    else:
        lines[1] = lines[1].replace(b'"scores": [-', b'"scores": [-1')
    path.write_bytes(b"".join(lines))
    asked = []
    run(path, asked=asked)
    assert asked == [1, 2, 3, 4]
    assert path.read_bytes() == whole
    told = capsys.readouterr().err
    assert f"{path}: line 2" in told
    assert "goes on from the 1 generations" in told


@pytest.mark.parametrize("other", [{"seed": 4}, {"config": EvolutionConfig(6, 0.4, 5)}])
def test_the_journal_of_another_search_is_refused_and_left_alone(tmp_path, whole, other):
    path = tmp_path / "whole.jsonl"
    with pytest.raises(DamagedFileError, match=r"whole\.jsonl.*belongs to another"):
        run(path, **other)
    assert path.read_bytes() == whole


def test_links_and_devices_are_refused(tmp_path, whole):
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "whole.jsonl")
    with pytest.raises(DamagedFileError, match=r"link\.jsonl: .*is a link"):
        run(tmp_path / "link.jsonl")


def test_a_journal_of_something_else_is_not_gone_on_with(tmp_path, capsys):
    """With the same seed, start and settings, but another M to dream in, say."""
    path = tmp_path / "j.jsonl"

    def search(of, factor):
        asked = []

        def evaluate(candidates, generation):
            asked.append(generation)
            return factor * sphere(candidates, generation)

        found = evolve(evaluate, np.zeros(4), CONFIG, 3, path, of=of)
        return found.mean.tolist(), len(asked)

    first, _ = search("one M", 1.0)
    assert search("one M", 1.0) == (first, 0)
    other, asked = search("another M", -1.0)
    assert asked == CONFIG.generations
    assert "line 1 has changed since it was written, or follows another one" in (
        capsys.readouterr().err
    )
    path.unlink()
    assert search("another M", -1.0)[0] == other != first
    path.unlink()
    assert search("", 1.0)[0] == first  # of an earlier version
    assert search("one M", 1.0) == (first, 0)
