"""Damaged files in a half-finished run: named, and made again after a word of advice, or mended.

Copies of a finished smoke run lose the stages behind the damage, so that the same command has to
read the damaged file. That the copies lie elsewhere than the run did must not matter either.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import scripts.train_in_dream as script
from generative.training.cli import parse
from generative.training.files import DamagedFileError
from generative.training.run import SettingsChangedError
from tests.commands import copy_run, run_script, snapshot
from tests.reliability.test_train_in_dream_killed import outcome
from worldmodels.rollouts import RolloutStore

BEHIND = {
    "round-01/collect": ("round-01",),
    "round-01/encode": tuple(f"round-01/{s}" for s in ("encode", "memory", "controller", "choose")),
    "round-01/memory": tuple(f"round-01/{s}" for s in ("memory", "controller", "choose")),
    "round-01/choose": ("round-01/choose",),
    "final": (),
    "report": (),
}
"""What goes when a run is set back to the beginning of a stage, beside the last parts."""


def set_back(smoke_run: Path, copy: Path, stage: str) -> Path:
    """A copy of the run as it was when this stage began."""
    copy_run(smoke_run, copy)
    for name in BEHIND[stage]:
        shutil.rmtree(copy / name)
        (copy / f"{name}.seconds").unlink(missing_ok=True)
    if stage != "report":
        for name in ("final", "agent"):
            shutil.rmtree(copy / name)
        for name in ("final.seconds", "evaluation.json"):
            (copy / name).unlink()
    for name in ("result.json", "report.json", "report.html"):
        (copy / name).unlink()
    return copy


def truncate(path: Path, rng: np.random.Generator) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: rng.integers(len(data))])


def flip(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.unlink()
    path.write_bytes(data)


def go_on(run: Path) -> None:
    """The same command, in this process: much quicker than a new one."""
    script.main(parse(script.PRESETS, argv=["smoke", "--out", str(run)]))


FILES = [
    ("round-01/encode", "round-00/vision/model/model.safetensors"),
    ("round-01/encode", "round-00/vision/model/config.json"),
    ("round-01/memory", "round-00/encode/data/encoded.safetensors"),
    ("round-01/memory", "round-00/memory/model/model.safetensors"),
    ("round-01/choose", "round-01/controller/starts.safetensors"),
    ("round-01/choose", "round-01/controller/model-1/model.safetensors"),
    ("round-01/collect", "round-00/choose/agent/memory/model.safetensors"),
    ("final", "round-00/choose/search-0/controller/model.safetensors"),
    ("final", "round-01/choose/result.json"),
    ("final", "round-00/controller/result.json"),
    ("report", "final/result.json"),
    ("report", "agent/vision/model.safetensors"),
]
"""A stage, and a file that it reads."""


@pytest.mark.parametrize(
    ("stage", "name", "damage"),
    [
        # In every run each file is damaged in one way, by turns; in both every night.
        pytest.param(*file, damage, marks=() if (i + j) % 2 == 0 else pytest.mark.nightly)
        for i, file in enumerate(FILES)
        for j, damage in enumerate((truncate, flip))
    ],
)
def test_damaged_file_is_named_and_not_read(smoke_run, tmp_path, stage, name, damage):
    run = set_back(smoke_run, tmp_path / "damaged", stage)
    damage(run / name, np.random.default_rng(len(name)))
    before = snapshot(run)
    with pytest.raises(DamagedFileError) as caught:
        go_on(run)
    assert name in str(caught.value)
    assert "Delete the folder of the stage" in caught.value.__notes__[0]
    # What was whole is as it was, and no further stage was finished. The numbers of earlier rounds
    # are gathered anew, and config.json tells the new place.
    after = snapshot(run)
    changed = {Path(file).name for file in before if before[file] != after.get(file)}
    assert changed <= {"config.json", "rounds.jsonl"}
    assert {file for file in after if file.endswith("result.json")} <= before.keys()


@pytest.mark.parametrize(
    ("stage", "name", "delete"),
    [
        pytest.param(
            "round-01/encode",
            "round-00/vision/model/model.safetensors",
            "round-00/vision",
            marks=pytest.mark.nightly,  # makes more stages again, of which the other makes the last
        ),
        ("report", "agent/controller/model.safetensors", "final"),
    ],
)
def test_stage_that_is_deleted_is_made_again_to_the_same_result(
    smoke_run, tmp_path, stage, name, delete
):
    run = set_back(smoke_run, tmp_path / "damaged", stage)
    (run / "evaluation.json").unlink(missing_ok=True)
    flip(run / name, np.random.default_rng(0))
    with pytest.raises(DamagedFileError, match=re.escape(name)):
        go_on(run)
    shutil.rmtree(run / delete)
    go_on(run)
    assert outcome(run) == outcome(smoke_run)


@pytest.mark.parametrize("damage", [truncate, pytest.param(flip, marks=pytest.mark.nightly)])
def test_rounds_are_gathered_anew(smoke_run, tmp_path, damage):
    """rounds.jsonl says what the stages' results say, so it can be mended."""
    run = set_back(smoke_run, tmp_path / "damaged", "report")
    damage(run / "rounds.jsonl", np.random.default_rng(1))
    go_on(run)
    assert (run / "rounds.jsonl").read_bytes() == (smoke_run / "rounds.jsonl").read_bytes()
    assert outcome(run) == outcome(smoke_run)


def test_damaged_evaluation_is_named(smoke_run, tmp_path):
    run = set_back(smoke_run, tmp_path / "damaged", "report")
    truncate(run / "evaluation.json", np.random.default_rng(2))
    with pytest.raises(DamagedFileError, match=r"evaluation\.json"):
        go_on(run)


@pytest.mark.parametrize(
    "stage", ["round-01/encode", pytest.param("round-01/memory", marks=pytest.mark.nightly)]
)
def test_damaged_episodes_are_recorded_again(smoke_run, tmp_path, stage):
    """Of a recording that is finished, and encoded perhaps; some by an agent."""
    run = set_back(smoke_run, tmp_path / "damaged", stage)
    flip(run / "round-00/collect/episodes/episode-000003.npz", np.random.default_rng(3))
    (run / "round-01/collect/episodes/episode-000001.npz").unlink()
    index = run / "round-00/collect/episodes/index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    index.unlink()
    index.write_bytes(b"".join(lines[:4] + lines[5:]))
    with pytest.warns(UserWarning, match=r"left out as damaged: episode-000003\.npz"):
        go_on(run)
    assert outcome(run) == outcome(smoke_run)
    whole = snapshot(smoke_run)
    episodes = {name: of for name, of in snapshot(run).items() if "/episodes/" in name}
    assert episodes == {name: whole[name] for name in episodes}


def test_a_lost_end_of_a_finished_recording_is_noticed(smoke_run, tmp_path):
    run = set_back(smoke_run, tmp_path / "damaged", "round-01/encode")
    index = run / "round-01/collect/episodes/index.jsonl"
    line = index.read_bytes().splitlines(keepends=True)[0]
    index.unlink()
    index.write_bytes(line)
    with pytest.raises(DamagedFileError, match=r"episodes/index\.jsonl: has changed since"):
        RolloutStore(index.parent)
    with pytest.warns(UserWarning, match="differs from the recorded one"):
        go_on(run)
    assert outcome(run) == outcome(smoke_run)


def test_recordings_that_changed_places_are_refused(smoke_run, tmp_path):
    run = set_back(smoke_run, tmp_path / "damaged", "round-01/encode")
    first, second = (run / f"round-0{i}/collect/episodes" for i in (0, 1))
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    with (
        pytest.warns(UserWarning, match="differs from the recorded one"),
        pytest.raises(ValueError, match=r"round-00/.*episode-000000\.npz .*not of this collection"),
    ):
        go_on(run)


@pytest.mark.nightly
def test_damaged_episode_of_a_recording_in_progress_is_recorded_again(smoke_run, tmp_path):
    """In every run those of a finished one are, in `test_damaged_episodes_are_recorded_again`, and
    those of one in progress in `tests/agents/test_collect.py`."""
    run = set_back(smoke_run, tmp_path / "damaged", "round-01/encode")
    recording = run / "round-01" / "collect"
    flip(recording / "episodes" / "episode-000001.npz", np.random.default_rng(4))
    (recording / "result.json").unlink()
    with pytest.warns(UserWarning, match=r"left out as damaged: episode-000001\.npz"):
        go_on(run)
    assert outcome(run) == outcome(smoke_run)


@pytest.mark.parametrize("damage", [truncate, flip])
@pytest.mark.parametrize("name", ["config.json", "round-00/vision/config.json"])
def test_damaged_settings_are_named(smoke_run, tmp_path, name, damage):
    """Flipped, they may still be settings: then they are others than asked for."""
    run = set_back(smoke_run, tmp_path / "damaged", "final")
    damage(run / name, np.random.default_rng(5))
    with pytest.raises((ValueError, SettingsChangedError)) as caught:
        go_on(run)
    assert str((run / name).parent) in str(caught.value)


def test_other_settings_on_the_same_folder_are_refused(smoke_run):
    before = snapshot(smoke_run, times=True)
    words = ("--seed", 2, "--controller.dream.horizon", 6, "--memory-steps", 4, "--workers", 3)
    done = run_script("train_in_dream", "smoke", "--out", smoke_run, *words)
    assert done.returncode == 1
    for line in (
        "seed: it has 1, you ask for 2",
        "controller.dream.horizon: it has 5, you ask for 6",
        "memory_steps: it has 3, you ask for 4",
        "Choose another folder",
    ):
        assert line in done.stderr
    assert "workers:" not in done.stderr
    assert snapshot(smoke_run, times=True) == before
