"""Data sets of Minari and LeRobot become rollouts; rollouts become a data set of Minari."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.rounds.foreign_episodes import foreign_recordings, write_minari
from generative.training.cli import parse
from scripts import export_minari
from scripts import import_episodes as script
from worldmodels.rollouts import RolloutStore


def run(source: Path, *words: str) -> list:
    argv = ["own", "--source", str(source), "--out", str(source.parent / "out"), *words]
    return list(RolloutStore(script.main(parse(script.PRESETS, argv=argv))))


def arrays(seed: int, steps: int = 5, vectors: bool = False) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(256, size=(steps + 1, 64, 64, 3), dtype=np.uint8)
    return {
        "frames": rng.normal(size=(steps + 1, 3)).astype(np.float32) if vectors else frames,
        "actions": rng.uniform(-2, 2, (steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps),
        "ends": np.arange(1, steps + 1) == steps * (seed % 2),
    }


def minari_set(folder: Path, episodes: list[dict], space) -> Path:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    folder.mkdir()
    storage = MinariStorage.new(
        folder / "data", space, spaces.Box(-2, 2, (2,)), jpeg_encoding=False
    )
    storage.update_episodes(
        EpisodeBuffer(
            observations=e["frames"],
            actions=e["actions"],
            rewards=e["rewards"],
            terminations=e["ends"],
            truncations=np.zeros(len(e["rewards"]), bool),
            infos={},
        )
        for e in episodes
    )
    storage.update_metadata({"dataset_id": "a/b-v0", "minari_version": minari.__version__})
    return folder


@pytest.mark.parametrize("vectors", [False, True])
def test_minari_in_and_out(vectors, tmp_path):
    spaces = pytest.importorskip("gymnasium.spaces")
    given = [arrays(seed, vectors=vectors) for seed in range(3)]
    space = spaces.Box(-9, 9, (3,)) if vectors else spaces.Box(0, 255, (64, 64, 3), np.uint8)
    source = minari_set(tmp_path / "set", given, space)
    got = run(source, "--low", "-2", "-2", "--high", "2", "2")
    for wanted, episode in zip(given, got, strict=True):
        np.testing.assert_array_equal(episode.frames, wanted["frames"])
        np.testing.assert_allclose(episode.actions, wanted["actions"] / 2, atol=1e-6)
        np.testing.assert_allclose(episode.rewards, wanted["rewards"], rtol=1e-6)
        np.testing.assert_array_equal(episode.terminated, wanted["ends"])
    store, out = tmp_path / "out" / "episodes", tmp_path / "minari"
    export_minari.main(export_minari.Args(store, out))
    minari = pytest.importorskip("minari")
    back = minari.MinariDataset(out / "data")
    assert back.action_space.shape == (2,)
    for wanted, episode in zip(given, back, strict=True):
        np.testing.assert_array_equal(episode.observations, wanted["frames"])
        np.testing.assert_allclose(episode.actions, wanted["actions"], atol=1e-5)
        np.testing.assert_array_equal(episode.terminations, wanted["ends"])
        assert episode.truncations[-1] == (not wanted["ends"][-1])
    with pytest.raises(ValueError, match="is there already"):
        write_minari(RolloutStore(store), out, "a/b-v0")


def png(frame: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="png")
    return {"bytes": buffer.getvalue(), "path": None}


def lerobot_set(folder: Path, version: int, kind: str, rewards: bool = True) -> list[dict]:
    """Write a data set in the published layout of LeRobot; returns its episodes."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    given = [arrays(seed, steps=4 + seed, vectors=kind == "state") for seed in range(3)]
    if kind == "video":  # flat colours survive the codec
        for i, episode in enumerate(given):
            levels = 40 * i + 8 * np.arange(len(episode["frames"]))
            shape = episode["frames"].shape
            episode["frames"] = np.broadcast_to(levels[:, None, None, None], shape).astype(np.uint8)
    seen = "observation.state" if kind == "state" else "observation.image"
    features = {seen: {"dtype": "float32" if kind == "state" else kind}, "action": {}}
    features |= {"next.done": {}, **({"next.reward": {}} if rewards else {})}
    info = {"codebase_version": f"v{version}.0", "features": features, "fps": 10}
    tables, listed, start = [], [], 0.0
    for i, episode in enumerate(given):
        steps = len(episode["rewards"])
        columns = {
            "action": episode["actions"].tolist(),
            "next.done": episode["ends"].tolist(),
            "episode_index": [i] * steps,
        }
        if rewards:
            columns["next.reward"] = episode["rewards"].tolist()
        if kind != "video":
            shown = episode["frames"][:-1]
            columns[seen] = [png(x) for x in shown] if kind == "image" else shown.tolist()
        tables.append(pyarrow.table(columns))
        film = {f"videos/{seen}/{x}_index": 0 for x in ("chunk", "file")}
        row = {"episode_index": i, "data/chunk_index": 0, "data/file_index": 0}
        listed.append({**row, **film, f"videos/{seen}/from_timestamp": start})
        start += steps / 10
    places = {}
    if version == 2:
        for i, table in enumerate(tables):
            places[f"data/chunk-000/episode_{i:06d}.parquet"] = table
    else:
        places["data/chunk-000/file-000.parquet"] = pyarrow.concat_tables(tables)
        places["meta/episodes/chunk-000/file-000.parquet"] = pyarrow.Table.from_pylist(listed)
    for place, table in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, folder / place)
    if kind == "video":
        imageio = pytest.importorskip("imageio")
        films = [episode["frames"][:-1] for episode in given]
        names = [f"videos/chunk-000/{seen}/episode_{i:06d}.mp4" for i in range(3)]
        if version == 3:
            films, names = [np.concatenate(films)], [f"videos/{seen}/chunk-000/file-000.mp4"]
        for name, frames in zip(names, films, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            imageio.mimwrite(folder / name, frames, fps=10, macro_block_size=1)
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta" / "info.json").write_text(json.dumps({**info, "total_episodes": 3}))
    return given


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", ["state", "image", "video"])
def test_lerobot_in(version, kind, tmp_path):
    given = lerobot_set(tmp_path / "set", version, kind)
    got = run(tmp_path / "set", "--repeat-last", "--low", "-2", "-2", "--high", "2", "2")
    for wanted, episode in zip(given, got, strict=True):
        shown = wanted["frames"].astype(float)
        np.testing.assert_allclose(episode.frames[:-1], shown[:-1], atol=3 * (kind == "video"))
        np.testing.assert_array_equal(episode.frames[-1], episode.frames[-2])
        np.testing.assert_allclose(episode.actions, wanted["actions"] / 2, atol=1e-6)
        np.testing.assert_allclose(episode.rewards, wanted["rewards"], rtol=1e-6)
        np.testing.assert_array_equal(episode.terminated, wanted["ends"])


def test_what_a_data_set_lacks_is_named(tmp_path):
    lerobot_set(tmp_path / "a", 2, "state", rewards=False)
    with pytest.raises(ValueError, match=r"records no rewards .*--missing-reward 0"):
        foreign_recordings(tmp_path / "a")
    [first, *_] = foreign_recordings(tmp_path / "a", missing_reward=0.0)
    assert not first.load()["rewards"].any()
    with pytest.raises(ValueError, match="one more than there are decisions"):
        run(tmp_path / "a", "--missing-reward", "0")
    with pytest.raises(ValueError, match=r"name the one that is seen by --observation"):
        foreign_recordings(tmp_path / "a", "observation.image", 0.0)
    path = tmp_path / "a" / "data" / "chunk-000" / "episode_000001.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"episode_000001.parquet: is no whole Parquet"):
        foreign_recordings(tmp_path / "a", missing_reward=0.0)[1].load()
    path.unlink()
    with pytest.raises(ValueError, match=r"episode_000001.parquet: is missing"):
        foreign_recordings(tmp_path / "a", missing_reward=0.0)
    assert foreign_recordings(tmp_path) is None
