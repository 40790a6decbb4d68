"""import_episodes.py: a user's own .npz files become a store; what does not fit is named."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from agents.rounds import own_episodes
from envs.task import Preprocess, Task
from generative.training.cli import parse
from scripts import import_episodes as script
from worldmodels.configs import ActionHead
from worldmodels.rollouts import RolloutStore


def arrays(seed: int = 0, steps: int = 6, **changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ends = np.zeros(steps, bool)
    ends[-1] = seed % 2
    return {
        "frames": rng.integers(256, size=(steps + 1, 32, 32, 3), dtype=np.uint8),
        "actions": rng.integers(3, size=steps),
        "rewards": rng.normal(size=steps),
        "ends": ends,
    } | changes


def write(folder: Path, *episodes: dict) -> Path:
    folder.mkdir()
    for i, episode in enumerate(episodes):
        np.savez(folder / f"{i}.npz", **episode)
    return folder


def run(source: Path, *words: str) -> list:
    out = source.parent / "out"
    argv = ["own", "--source", str(source), "--out", str(out), *words]
    folder = script.main(parse(script.PRESETS, argv=argv))
    assert folder == out / "episodes"
    return list(RolloutStore(folder))


def test_images_and_discrete_actions(tmp_path):
    given = [arrays(seed) for seed in range(3)]
    given[1]["actions"][0] = 2  # so that all three are seen
    episodes = run(write(tmp_path / "my maze", *given))
    for wanted, got in zip(given, episodes, strict=True):
        # 32x32 to 64x64: every pixel becomes four.
        np.testing.assert_array_equal(got.frames, wanted["frames"].repeat(2, 1).repeat(2, 2))
        np.testing.assert_array_equal(got.actions, np.eye(3)[wanted["actions"]])
        np.testing.assert_allclose(got.rewards, wanted["rewards"], rtol=1e-6)
        np.testing.assert_array_equal(got.terminated, wanted["ends"])
        assert got.info["env_id"] == "my maze"
    preprocess = Preprocess("image", (32, 32, 3))
    task = Task("my maze", {}, preprocess, ActionHead("discrete", num=3))
    assert Task.load(tmp_path / "out") == task


def test_vectors_and_a_box(tmp_path):
    rng = np.random.default_rng(0)
    given = [
        arrays(seed, frames=rng.normal(size=(7, 5)), actions=rng.uniform(-3, 3, (6, 2)))
        for seed in range(2)
    ]
    episodes = run(write(tmp_path / "a", *given), "--low", "-4", "0", "--high", "4", "2")
    np.testing.assert_allclose(episodes[1].frames, given[1]["frames"], rtol=1e-6)
    wanted = given[1]["actions"]
    wanted = np.stack([wanted[:, 0] / 4, wanted[:, 1].clip(0, 2) - 1], 1)
    np.testing.assert_allclose(episodes[1].actions, wanted, atol=1e-6)


def test_bounds_are_those_recorded_if_not_given(tmp_path):
    given = [arrays(seed, actions=np.linspace(seed, 5, 6)[:, None]) for seed in range(2)]
    episodes = run(write(tmp_path / "a", *given))
    np.testing.assert_allclose(episodes[0].actions[:, 0], np.linspace(-1, 1, 6), atol=1e-6)


def test_the_last_frame_is_repeated_on_request(tmp_path):
    episode = arrays()
    source = write(tmp_path / "a", episode | {"frames": episode["frames"][:-1]})
    with pytest.raises(ValueError, match=r"0\.npz: frames are uint8 \(6, 32, 32, 3\), needed are"):
        run(source)
    [got] = run(source, "--repeat-last", "--num-actions", "4")
    np.testing.assert_array_equal(got.frames[5], got.frames[6])
    assert got.actions.shape == (6, 4)


def test_an_import_goes_on_where_it_stopped(tmp_path, monkeypatch):
    source = write(tmp_path / "a", *(arrays(seed) for seed in range(3)))
    convert, count = own_episodes.to_episode, []

    def fails_at_the_second(*args):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return convert(*args)

    monkeypatch.setattr(own_episodes, "to_episode", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(source, "--num-actions", "3")
    assert len(run(source, "--num-actions", "3")) == 3
    assert len(count) == 2 + 2  # the first is not converted again


DAMAGES = {
    "one": ([2], []),
    "two": ([0, 4], []),
    "last": ([5], []),
    "a line": ([], [3]),
    "both": ([2], [2]),
    "all": (list(range(6)), []),
}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("files", "lost"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_episodes_are_imported_again(tmp_path, files, lost, finished):
    source = write(tmp_path / "a", *(arrays(seed) for seed in range(6)))
    run(source, "--num-actions", "3")
    folder = tmp_path / "out" / "episodes"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for i in files:
        path = folder / f"episode-00000{i}.npz"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    lines = whole["index.jsonl"].splitlines(keepends=True)
    kept = [line for i, line in enumerate(lines) if i not in lost]
    (folder / "index.jsonl").write_bytes(b"".join(kept))
    if not finished:
        (tmp_path / "out" / "result.json").unlink()
    with pytest.warns(UserWarning, match="left out as damaged|differs from the recorded one"):
        again = run(source, "--num-actions", "3")
    assert [episode.info["file"] for episode in again] == [f"{i}.npz" for i in range(6)]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_source_that_is_another_is_not_mixed_in(tmp_path):
    source = write(tmp_path / "a", *(arrays(seed) for seed in range(3)))
    run(source, "--num-actions", "3")
    (tmp_path / "out" / "result.json").unlink()
    np.savez(source / "1.npz", **arrays(9))
    with pytest.raises(ValueError, match=r"episode-000001\.npz .*not of this collection"):
        run(source, "--num-actions", "3")


BAD = {
    "no ends": (lambda a: a.pop("ends"), r"1\.npz: has no array ends, only frames, actions, rew"),
    "two axes": (
        lambda a: a.update(rewards=np.zeros((6, 1))),
        r"1\.npz: rewards are float64 \(6, 1\), needed are numbers \(T,\)",
    ),
    "float images": (
        lambda a: a.update(frames=a["frames"] / 255),
        r"1\.npz: frames are float64 \(7, 32, 32, 3\), needed are uint8 \(7, H, W, 3\)",
    ),
    "planes": (
        lambda a: a.update(frames=np.zeros((7, 3, 32, 32), np.uint8)),
        r"frames are uint8 \(7, 3, 32, 32\), needed",
    ),
    "too few actions": (
        lambda a: a.update(actions=a["actions"][:5]),
        r"1\.npz: actions are int64 \(5,\), needed are whole numbers \(6,\) or floats \(6, A\)",
    ),
    "ends early": (
        lambda a: a.update(ends=np.arange(6) == 2),
        r"1\.npz: ends is true at decision 2 of 6; .* a file of its own",
    ),
    "other size": (
        lambda a: a.update(frames=np.zeros((7, 16, 32, 3), np.uint8)),
        r"1\.npz: frames are uint8 \('\.\.\.', 16, 32, 3\), those of 0\.npz uint8 .* 32, 32, 3",
    ),
    "floats among ints": (
        lambda a: a.update(actions=np.zeros((6, 1))),
        r"1\.npz: actions are float64 .*, those of 0\.npz whole numbers",
    ),
    "nan": (
        lambda a: a["rewards"].__setitem__(3, math.nan),
        r"1\.npz: rewards are not finite at place 3",
    ),
    "negative": (
        lambda a: a["actions"].__setitem__(3, -1),
        r"1\.npz: actions lie in -1 \.\. 2; needed are 0 \.\. 2",
    ),
    "pickle": (
        lambda a: a.update(actions=np.array([None] * 6)),
        r"1\.npz: actions is not a whole array of numbers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named_before_anything_is_written(tmp_path, name):
    spoil, message = BAD[name]
    good, bad = arrays(0), arrays(1)
    spoil(bad)
    source = write(tmp_path / "a", good, bad, arrays(2))
    with pytest.raises(ValueError, match=message):
        run(source)
    assert not (tmp_path / "out").exists()


def test_a_cut_file_and_an_empty_folder_are_told(tmp_path):
    source = write(tmp_path / "a", arrays())
    data = (source / "0.npz").read_bytes()
    (source / "0.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"0\.npz: is not a whole zip"):
        run(source)
    (source / "0.npz").unlink()
    with pytest.raises(ValueError, match=r"a holds no \.npz file"):
        run(source)
    assert not (tmp_path / "out").exists()


def test_the_example_learns_what_moves(tmp_path):
    path = Path(__file__).parents[3] / "examples" / "own_episodes.py"
    spec = importlib.util.spec_from_file_location("own_episodes", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    ours, still = example.main(tmp_path, episodes=30, steps=150)
    assert 0 < ours < still / 3
