"""What is logged of a search: the journal decides, whatever became of metrics.jsonl."""

import json
import shutil

import numpy as np
import pytest

from generative.training.metrics import read_metrics
from worldmodels.configs import EvolutionConfig
from worldmodels.evolution import evolve
from worldmodels.evolution_log import EvolutionLog

DAMAGES = {
    "as it was": lambda lines: lines,
    "the last line lost": lambda lines: lines[:-1],
    "a line lost": lambda lines: lines[:1] + lines[2:],
    "cut": lambda lines: [*lines[:-1], lines[-1][:9]],
    "a number changed": lambda lines: [lines[0].replace(b'"sigma": ', b'"sigma": 1'), *lines[1:]],
    "out of order": lambda lines: [lines[1], lines[0], *lines[2:]],
    "no JSON": lambda lines: [b"{\n", *lines[1:]],
    "a list": lambda lines: [b"[]\n", *lines[1:]],
    "binary": lambda lines: [bytes(range(256))],
    "empty": lambda lines: [],
    "missing": None,
}


def search(folder, generations):
    with EvolutionLog(folder, tensorboard=False) as log:
        evolve(
            lambda x, generation: -np.square(x - 0.5).sum(1),
            np.zeros(4),
            EvolutionConfig(6, 0.3, generations),
            3,
            log.journal(folder),
            log,
        )


def logged(folder):
    return [{**line, "time": 0} for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    search(folder, 5)
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_metrics_say_again_what_the_journal_says(whole, tmp_path, capsys, damage):
    folder = shutil.copytree(whole, tmp_path / "search")
    file = folder / "metrics.jsonl"
    before = file.read_bytes().splitlines(keepends=True)
    file.unlink()
    if damage is not None:
        file.write_bytes(b"".join(damage(before)))
    search(folder, 7)
    assert logged(folder)[:5] == logged(whole)
    assert [line["step"] for line in logged(folder)] == [1, 2, 3, 4, 5, 6, 7]
    kept = file.read_bytes().splitlines()
    assert [json.loads(line)["time"] for line in kept] == sorted(
        json.loads(line)["time"] for line in kept
    )
