"""Episodes of data sets of others, Minari's and LeRobot's, read from folders of this machine.

    for recording in lerobot_recordings(Path("pusht"), "observation.image"):
        arrays = recording.load()     # frames, actions, rewards, ends, as in an .npz of one's own

Nothing is downloaded. `write_minari` writes rollouts as a data set of Minari.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generative.training.extras import how_to_install
from generative.training.files import DamagedFileError, open_file, read_json, reading

if TYPE_CHECKING:
    from worldmodels.rollouts import RolloutStore

__all__ = ["Recording", "foreign_recordings", "write_minari"]

MAX_FILE_BYTES = 16 * 2**30
"""Largest file of a data set, in bytes."""


@dataclass(frozen=True)
class Recording:
    """One episode of a data set."""

    name: str
    load: Callable[[], dict[str, np.ndarray]]
    """Reads `frames`, `actions`, `rewards` and `ends`."""

    def __str__(self) -> str:
        return self.name

    def sha256(self) -> str:
        """SHA-256 of the arrays."""
        total = hashlib.sha256()
        for name, array in sorted(self.load().items()):
            total.update(f"{name} {array.dtype} {array.shape} ".encode())
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()


def foreign_recordings(
    folder: Path, observation: str = "", missing_reward: float | None = None
) -> list[Recording] | None:
    """Find the episodes of a data set of Minari or LeRobot; None if the folder is neither.

    Args:
        observation: feature of LeRobot that becomes the frames; by default its only camera, or
            observation.state where there is none.
        missing_reward: reward of every decision of a data set that records none.
    Raises:
        ImportError: a package that reads it is not installed; says which.
        ValueError: the data set has a form that is not supported; says which ones are.
        DamagedFileError: a file is missing or damaged.
    """
    if (folder / "meta" / "info.json").is_file():
        return _lerobot(folder, observation, missing_reward)
    for place in (folder / "data", folder):
        if (place / "metadata.json").is_file():
            return _minari(place)
    return None


def _need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ImportError(how_to_install(module))


def _minari(place: Path) -> list[Recording]:
    _need("minari")
    import minari

    with reading(place, "is no data set of Minari"):
        data = minari.MinariDataset(place)

    def load(index: int) -> dict[str, np.ndarray]:
        with reading(f"{place}, episode {index}", "cannot be read"):
            episode = data[index]
        if not isinstance(episode.observations, np.ndarray):
            raise ValueError(
                f"{place} has observations of {data.observation_space}; supported are images and "
                "vectors (flatten others, by gymnasium.wrappers.FlattenObservation)"
            )
        return {
            "frames": episode.observations,
            "actions": episode.actions,
            "rewards": episode.rewards,
            "ends": episode.terminations,
        }

    return [
        Recording(f"episode {i}", functools.partial(load, i)) for i in range(data.total_episodes)
    ]


def _lerobot(folder: Path, observation: str, missing_reward: float | None) -> list[Recording]:
    """Episodes of a data set of LeRobot, version 2 (a file per episode) or 3 (shared files).

    `ends` are its next.done; a frame after the last action is not recorded there.
    """
    _need("pyarrow")
    path = folder / "meta" / "info.json"
    info = read_json(path, links=True)
    with reading(path, "is not the description of a data set of LeRobot"):
        version = int(str(info["codebase_version"]).lstrip("v").split(".")[0])
        features = {str(name): dict(value) for name, value in info["features"].items()}
        episodes, fps = int(info["total_episodes"]), float(info["fps"])
    if version not in (2, 3):
        raise ValueError(f"{path}: is of version {version}; versions 2 and 3 are supported")
    if "next.reward" not in features and missing_reward is None:
        raise ValueError(
            f"{folder} records no rewards (next.reward); pass --missing-reward 0 to train without"
        )
    cameras = [n for n, feature in features.items() if feature.get("dtype") in ("image", "video")]
    seen = observation or (cameras[0] if len(cameras) == 1 else "" if cameras else STATE)
    if seen not in features or "action" not in features:
        raise ValueError(
            f"{folder} has {', '.join(features)}; name the one that is seen by --observation, "
            "beside which there has to be an action"
        )
    columns = [n for n in ("action", "next.reward", "next.done") if n in features]
    columns += [seen] if features[seen].get("dtype") != "video" else []
    places = _v3_places(folder, seen) if version == 3 else _v2_places(info, folder, seen, episodes)

    def load(place: _Place) -> dict[str, np.ndarray]:
        table = _table(place.data, (*columns, "episode_index"))
        rows = table["episode_index"].to_numpy() == place.index
        values = {name: table[name].filter(rows).to_pylist() for name in columns}
        steps = len(values["action"])
        kind = features[seen].get("dtype")
        if kind == "video":
            frames = _video(place.video, steps, place.start, fps)
        elif kind == "image":
            frames = np.stack([_picture(cell, place.data) for cell in values[seen]])
        else:
            frames = np.array(values[seen], np.float64)
        with reading(place.data):
            rewards = values.get("next.reward", [missing_reward] * steps)
            return {
                "frames": frames,
                "actions": np.array(values["action"]),
                "rewards": np.array(rewards, np.float64).reshape(steps),
                "ends": np.array(values.get("next.done", [False] * steps), bool).reshape(steps),
            }

    return [Recording(f"episode {p.index}", functools.partial(load, p)) for p in places]


STATE = "observation.state"


@dataclass(frozen=True)
class _Place:
    """Files of one episode of LeRobot, and the second at which it begins in the film."""

    index: int
    data: Path
    video: Path
    start: float = 0.0


def _v2_places(info: dict[str, Any], folder: Path, seen: str, episodes: int) -> list[_Place]:
    size = max(int(info.get("chunks_size", 1000)), 1)
    found = []
    for i in range(episodes):
        chunk, name = f"chunk-{i // size:03d}", f"episode_{i:06d}"
        data = folder / "data" / chunk / f"{name}.parquet"
        if not data.is_file():
            raise DamagedFileError(f"{data}: is missing; {episodes} episodes are described")
        found.append(_Place(i, data, folder / "videos" / chunk / seen / f"{name}.mp4"))
    return found


def _v3_places(folder: Path, seen: str) -> list[_Place]:
    found = []
    for listed in sorted((folder / "meta" / "episodes").glob("chunk-*/file-*.parquet")):
        for row in _table(listed).to_pylist():
            with reading(listed, "does not say where an episode is"):
                at = [row[f"data/{x}_index"] for x in ("chunk", "file")]
                place = "chunk-{:03d}/file-{:03d}".format(*map(int, at))
                film = [int(row.get(f"videos/{seen}/{x}_index", 0)) for x in ("chunk", "file")]
                found.append(
                    _Place(
                        int(row["episode_index"]),
                        folder / "data" / f"{place}.parquet",
                        folder / "videos" / seen / "chunk-{:03d}/file-{:03d}.mp4".format(*film),
                        float(row.get(f"videos/{seen}/from_timestamp", 0)),
                    )
                )
    return sorted(found, key=lambda place: place.index)


@functools.lru_cache(maxsize=1)  # a file of version 3 holds many episodes
def _table(path: Path, columns: tuple[str, ...] | None = None) -> Any:
    import pyarrow.parquet

    with open_file(path, MAX_FILE_BYTES, links=True) as file, reading(path, "is no whole Parquet"):
        return pyarrow.parquet.read_table(file, columns=None if columns is None else list(columns))


def _picture(cell: Any, path: Path) -> np.ndarray:
    import io

    from PIL import Image

    with reading(path, "holds a damaged picture"), Image.open(io.BytesIO(cell["bytes"])) as image:
        return np.asarray(image.convert("RGB"))


def _video(path: Path, steps: int, start: float, fps: float) -> np.ndarray:
    """Read frames of a film, uint8 (steps, H, W, 3), from the one at `start` seconds on."""
    _need("imageio", "imageio_ffmpeg")
    import imageio

    seek = ["-ss", f"{start - 0.5 / fps:.6f}"] if start > 0 else []  # before the frame itself
    frames: list[np.ndarray] = []
    with open_file(path, MAX_FILE_BYTES, links=True), reading(path, "is no whole film"):
        reader: Any = imageio.get_reader(path, "ffmpeg", input_params=seek)
        try:
            for frame in reader:
                if len(frames) == steps:
                    break
                frames.append(np.asarray(frame))
        finally:
            reader.close()
    if len(frames) < steps:
        raise DamagedFileError(f"{path}: has {len(frames)} frames of an episode of {steps}")
    return np.stack(frames)


def write_minari(store: RolloutStore, folder: Path, dataset_id: str) -> Path:
    """Write rollouts as a data set of Minari; returns its folder, all of it or nothing.

    Observations are those of V, actions those of the environment, for which the task.json beside
    the store tells the form. `minari.MinariDataset(folder / "data")` reads it; in the folder
    `dataset_id` of Minari's own root, `minari.load_dataset(dataset_id)` does.

    Args:
        folder: new.
        dataset_id: Minari's name for it: "carracing/random-v0".
    Raises:
        ImportError: Minari or h5py is not installed.
        ValueError: the folder is there, the store is empty, or the name has another form.
    """
    _need("minari", "h5py")
    import minari
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage

    from envs.task import Task, action_space
    from worldmodels.actions import to_env

    if folder.exists():
        raise ValueError(f"{folder} is there already; give a new folder")
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError):  # the latter without a version
        raise ValueError(
            f"{dataset_id!r} is no name of Minari's; give one such as carracing/random-v0"
        ) from None
    if not len(store):
        raise ValueError(f"{store.folder} holds no episode; collect some first")
    task = Task.load(store.folder.parent, trust=True)  # its environment is not made
    shape = store.frame_shape
    assert shape is not None
    vectors = len(shape) == 1
    seen = spaces.Box(-np.inf, np.inf, shape) if vectors else spaces.Box(0, 255, shape, np.uint8)

    def buffers() -> Iterator[Any]:
        for episode in store:
            cut = np.zeros(len(episode), bool)
            cut[-1] = not episode.terminated[-1]
            columns: dict[str, Any] = {  # arrays, though Minari's own buffers have lists
                "observations": episode.frames,
                "actions": to_env(episode.actions, task.action),
                "rewards": episode.rewards,
                "terminations": episode.terminated,
                "truncations": cut,
                "infos": {},
            }
            yield EpisodeBuffer(**columns)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        made = Path(beside) / folder.name
        made.mkdir()
        storage = MinariStorage.new(
            made / "data", seen, action_space(task.action), jpeg_encoding=False
        )
        storage.update_episodes(buffers())
        storage.update_metadata({"dataset_id": dataset_id, "minari_version": minari.__version__})
        os.rename(made, folder)
    return folder
