"""Recorded episodes on disk: write, verify, read.

A store is a folder with one `episode-000000.npz` per episode and an `index.jsonl` with one line per
episode. An episode belongs to the store exactly when its line in the index is whole; the line is
written last, after the file has reached the disk, so a crash at any moment leaves a readable store.

The episode files are ordinary .npz archives without pickled objects. They hold frames as colour
planes (T+1, C, H, W), in which CarRacing's flat areas make long runs: deflate at level 1 then
compresses them to about an eighth. All other code uses frames as (T+1, H, W, C). Observations that
are vectors are kept as float32 (T+1, D) under the same name.
"""

import builtins
import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.archives import open_zip, read_array, read_member
from generative.training.files import (
    DamagedFileError,
    parse_json,
    read_file,
    reading,
    regular,
    remove_leftovers,
    short,
    sync_folder,
    write_file,
)
from generative.training.platforms import lock_file
from generative.training.progress import progress
from generative.training.run import CONFIG_NAME, INDEX_NAME, Run, check_made, read_config
from generative.training.settings import from_json

COMPRESS_LEVEL = 1
MAX_EPISODE_BYTES = 2**30
"""Largest episode, packed and unpacked (87,000 frames of 64x64), or index, in bytes."""


@dataclass(frozen=True, eq=False)
class Episode:
    """One recorded episode of T decisions.

    A decision is one action held for `info["action_repeat"]` environment steps. Frame t is the
    observation before action t; frame T is the one after the last action.

    Args:
        frames: uint8 (T+1, H, W, C), or float32 (T+1, D) for observations that are vectors.
        actions: float32 (T, A), as M reads them (`worldmodels.actions`): those of CarRacing as the
            game takes them, of a Box in [-1, 1], of a discrete space as one-hot vectors.
        rewards: float32 (T,), summed over the repeated steps.
        terminated: bool (T,), True only if the environment ended the episode. A time limit is no
            termination; it is kept as `info["truncated"]`.
        info: any JSON values: seed, driver, env_id, action_repeat, ...
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        wanted = {
            "frames": (
                np.float32 if self.frames.ndim == 2 else np.uint8,
                (steps + 1, *self.frames.shape[1:]),
                2 if self.frames.ndim == 2 else 4,
            ),
            "actions": (np.float32, (steps, *self.actions.shape[1:]), 2),
            "rewards": (np.float32, (steps,), 1),
            "terminated": (np.bool_, (steps,), 1),
        }
        for name, (dtype, shape, ndim) in wanted.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape or array.ndim != ndim:
                raise ValueError(
                    f"episode's {name} are {array.dtype} {array.shape}; an episode of {steps} "
                    f"decisions needs {np.dtype(dtype)} with {ndim} axes, the first of {shape[0]}"
                )
        if steps == 0:
            raise ValueError("an episode needs at least one decision, this one has none")
        for name in ("frames", "actions", "rewards")[self.frames.ndim == 4 :]:
            bad = ~np.isfinite(getattr(self, name))
            if bad.any():
                step = int(np.argwhere(bad)[0, 0])
                raise ValueError(f"episode's {name} are not finite at decision {step}")

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def total_reward(self) -> float:
        """Sum of all rewards."""
        return float(np.sum(self.rewards, dtype=np.float64))

    def to_bytes(self) -> bytes:
        """Encode the episode as the bytes of its .npz file; equal episodes give equal bytes."""
        members = {
            "frames": _planes(self.frames, (0, 3, 1, 2)),
            "actions": self.actions,
            "rewards": self.rewards,
            "terminated": self.terminated,
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in members.items():
                raw = io.BytesIO()
                np.lib.format.write_array(raw, array, allow_pickle=False)
                # This ZipInfo has the fixed date 1980, so that no clock enters the file.
                archive.writestr(
                    zipfile.ZipInfo(f"{name}.npy"),
                    raw.getbuffer(),
                    zipfile.ZIP_DEFLATED,
                    COMPRESS_LEVEL,
                )
            text = json.dumps(self.info, sort_keys=True, allow_nan=False)
            archive.writestr(
                zipfile.ZipInfo("info.json"), text, zipfile.ZIP_DEFLATED, COMPRESS_LEVEL
            )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, path: Path = Path("episode")) -> "Episode":
        """Inverse of `to_bytes`.

        Args:
            path: path of the file of the bytes, for errors.
        Raises:
            DamagedFileError: the bytes are no episode, or one of more than 1 GB.
        """
        with open_zip(io.BytesIO(data), path, MAX_EPISODE_BYTES) as archive:
            frames, actions, rewards, terminated = (
                read_array(read_member(archive, f"{name}.npy", path), path, name)
                for name in ("frames", "actions", "rewards", "terminated")
            )
            info = parse_json(read_member(archive, "info.json", path), path)
        with reading(path, "is no episode"):
            arrays = _planes(frames, (0, 2, 3, 1)), actions, rewards, terminated
            frames, actions, rewards, terminated = (
                x if x.flags.writeable else x.copy() for x in arrays
            )
            return cls(frames, actions, rewards, terminated, info)


def _planes(frames: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Frames with their axes in another order; vectors are not changed."""
    return np.ascontiguousarray(frames.transpose(order) if frames.ndim == 4 else frames)


@dataclass(frozen=True)
class EpisodeRecord:
    """One line of the index: properties of an episode that need no look into its file."""

    file: str
    sha256: str
    bytes: int  # hides the type of that name, which is `builtins.bytes` below
    steps: int
    total_reward: float
    terminated: bool
    frame_shape: tuple[int, ...]
    action_dim: int
    info: dict[str, Any]

    @classmethod
    def of(cls, episode: Episode, data: builtins.bytes) -> "EpisodeRecord":
        """Make the record of an episode and its bytes; the store sets the file name."""
        return cls(
            file="",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            steps=len(episode),
            total_reward=episode.total_reward,
            terminated=bool(episode.terminated[-1]),
            frame_shape=episode.frames.shape[1:],
            action_dim=episode.actions.shape[1],
            info=episode.info,
        )

    def to_line(self) -> builtins.bytes:
        values = {**vars(self), "frame_shape": list(self.frame_shape)}
        return json.dumps({**values, "crc32": _crc32(values)}, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_line(cls, line: builtins.bytes) -> "EpisodeRecord":
        """Inverse of `to_line`; raises ValueError on a damaged line."""
        values = parse_json(line, Path("line"))
        if not isinstance(values, dict) or values.pop("crc32", None) != _crc32(values):
            raise ValueError("checksum differs")
        record = from_json(cls, values)
        if _episode_number(record.file) < 0:
            raise ValueError(f"{short(record.file)} is no name of an episode")
        return record


def _crc32(values: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


class RolloutStore:
    """Episodes in a folder: append, count, read.

    Opening reads the index and checks every file against its checksum. A damaged or missing file is
    an error, since training on the rest gives another result. Only a half-written last line, of an
    episode that a crash kept from the store, gives a warning; the next append cuts it off. Several
    processes may read while one appends; a second one that appends is refused.

    Args:
        folder: a store, or a new or empty folder (made by the first `append`).
        frame_shape, action_dim: needed shapes; a store with others is an error.
        create: start a store in a folder that already holds other files, such as a run folder.
        mend: open a damaged store too. Its damaged episodes are named in `damaged` and left out of
            everything else, until `fill` makes them again.
    Raises:
        DamagedFileError: names the first file or line that is damaged, and what to do.
        ValueError: the folder is no store, or holds other shapes than asked for.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        frame_shape: tuple[int, ...] | None = None,
        action_dim: int | None = None,
        create: bool = False,
        mend: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.records: list[EpisodeRecord] = []
        self.damaged: list[str] = []
        self._mend = mend
        self._broken: list[EpisodeRecord] = []  # episodes with damaged files
        self._needed_frame_shape = None if frame_shape is None else tuple(frame_shape)
        self._needed_action_dim = action_dim
        self._index_path = self.folder / INDEX_NAME
        self._index_size = 0  # bytes of whole lines
        self._index_file: io.FileIO | None = None  # open, and locked, from the first append on
        self._next_number = 0
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder} is a file; a rollout store is a folder")
        if self.folder.is_dir() and not self._index_path.exists() and not (create or mend):
            found = sorted(path.name for path in self.folder.iterdir())
            if found:
                raise ValueError(
                    f"{self.folder} is not a rollout store: it has no {INDEX_NAME} and holds "
                    f"{', '.join(found[:5])}; pass the `episodes` folder of a run of "
                    "collect_rollouts.py, or a new one"
                )
        self._load()
        if not mend:  # a finished store may have lost lines at its end
            check_made(self.folder.absolute().parent, self.folder.name)
        told = [*self.damaged, *[f"{INDEX_NAME} (half-written last line)"] * self._tail]
        if told:
            warnings.warn(f"{self.folder}: left out as damaged: {'; '.join(told)}", stacklevel=2)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"RolloutStore({str(self.folder)!r}: {len(self)} episodes, {self.num_frames} frames)"

    @property
    def steps(self) -> int:
        """Number of decisions in all whole episodes."""
        return sum(record.steps for record in self.records)

    @property
    def num_frames(self) -> int:
        """Number of frames in all whole episodes: one more than decisions in each."""
        return self.steps + len(self)

    @property
    def returns(self) -> np.ndarray:
        """Sum of rewards of each whole episode, float64 (E,)."""
        return np.array([record.total_reward for record in self.records], dtype=np.float64)

    @property
    def env_ids(self) -> list[str]:
        """Ids of the environments of the episodes, sorted."""
        found = {record.info.get("env_id") for record in self.records}
        return sorted(name for name in found if isinstance(name, str))

    @property
    def frame_shape(self) -> tuple[int, ...] | None:
        """Shape (H, W, C), or (D,) of vectors; None if the store is empty and none was given."""
        return self.records[0].frame_shape if self.records else self._needed_frame_shape

    @property
    def action_dim(self) -> int | None:
        """Size of an action; None if the store is empty and no size was asked for."""
        return self.records[0].action_dim if self.records else self._needed_action_dim

    def episode(self, i: int) -> Episode:
        """Read whole episode i, and check it against its checksum again.

        Raises:
            DamagedFileError: the file changed since the store was opened.
        """
        record = self.records[i]
        data, problem = self._read(record)
        if problem:
            raise self._damage(f"{record.file} ({problem})")
        return Episode.from_bytes(data, self.folder / record.file)

    def append(self, episode: Episode) -> EpisodeRecord:
        """Write an episode and, once its file has reached the disk, its line of the index.

        Raises:
            ValueError: the episode's shapes are not those of the store.
            BlockingIOError: another process or RolloutStore is appending to this folder.
            OSError: the disk is full, for example. All earlier episodes stay whole.
        """
        data = episode.to_bytes()
        return self.append_encoded(EpisodeRecord.of(episode, data), data)

    def append_encoded(self, record: EpisodeRecord, data: bytes) -> EpisodeRecord:
        """Append an episode that was encoded by `to_bytes` elsewhere, e.g. in a worker process."""
        index_file = self.lock()
        record = dataclasses.replace(record, file=_episode_name(self._next_number))
        self._write_episode(record, data)
        line = record.to_line()
        try:
            if index_file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(index_file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                index_file.truncate(self._index_size)
            raise self._write_error(error, self._index_path, len(line)) from error
        self._index_size += len(line)
        self._next_number += 1
        self.records.append(record)
        return record

    def is_whole(self, run: Run) -> bool:
        """True if a run that records this store is finished, and nothing has changed since."""
        if self.damaged:
            return False
        try:
            return run.done
        except DamagedFileError:
            warnings.warn(f"{self.folder}: differs from the recorded one; made again", stacklevel=2)
            return False

    def fill(
        self,
        keys: Sequence[Hashable],
        key_of: Callable[[EpisodeRecord], Hashable],
        make: Callable[[list[int]], Iterator[tuple[EpisodeRecord, bytes]]],
        stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[EpisodeRecord]:
        """Make the episodes that the store lacks, and yield their records.

        Damaged episodes are made first and put in their places, the rest is appended in order. The
        files then equal those of a store without damage and interruptions.

        Args:
            keys: keys of all episodes that the store should hold, in order.
            key_of: record -> key of the episode.
            make: indices of keys -> record and bytes of each, in turn.
            stop: called before each episode; True ends the filling.
        Raises:
            ValueError: the store holds an episode without a key, or one twice.
            DamagedFileError: an episode that was made again differs, or a damaged one has no key.
        """
        self.lock()
        places = {key: place for place, key in enumerate(keys)}
        known: dict[int, EpisodeRecord] = {}
        for record in [*self.records, *self._broken]:
            place = places.get(key_of(record))
            if place is None or place in known:
                raise ValueError(
                    f"{self.folder / record.file} (driver {record.info.get('driver')}, seed "
                    f"{record.info.get('seed')}) is not of this collection; continue with the "
                    "settings it was begun with, or pass a new folder"
                )
            known[place] = record
        again = [places[key_of(record)] for record in self._broken]
        if self.damaged:  # lines may be lost of episodes with a file, or of earlier ones
            files = [i for i in range(len(keys)) if (self.folder / _episode_name(i)).exists()]
            last = max([*known, *files], default=-1)
            again += [place for place in range(last + 1) if place not in known]
        again.sort()
        rest = [place for place in range(len(keys)) if place not in known and place not in again]
        made = make([*again, *rest])
        for place in again:
            if stop():
                return
            known[place] = self._put_back(place, known, *next(made))
            yield known[place]
        if self.damaged:
            self._rewrite_index([known[place] for place in sorted(known)])
        for _ in rest:
            if stop():
                return
            yield self.append_encoded(*next(made))

    def _put_back(
        self, place: int, known: dict[int, EpisodeRecord], record: EpisodeRecord, data: bytes
    ) -> EpisodeRecord:
        """Write an episode that was made again to its place, if it is the same."""
        before = known.get(place)
        name = _episode_name(place) if before is None else before.file
        record = dataclasses.replace(record, file=name)
        taken = name in {other.file for other in known.values()}
        if taken if before is None else before.sha256 != record.sha256:
            raise DamagedFileError(
                f"{self.folder / record.file}: is damaged, and made again it is another episode "
                "than it was (by other versions, or another agent); delete the folder of this run, "
                "to make everything anew"
            )
        self._write_episode(record, data)
        return record

    def _rewrite_index(self, records: list[EpisodeRecord]) -> None:
        """Write an index with one line for each of these records."""
        write_file(self._index_path, b"".join(record.to_line() for record in records))
        self.close()  # the lock is on the replaced file
        self._mend = False
        self._load()
        self.lock()

    def _write_episode(self, record: EpisodeRecord, data: bytes) -> None:
        self._check_shapes(record, self.frame_shape, self.action_dim, "the store holds")
        path = self.folder / record.file
        try:
            write_file(path, data)
        except OSError as error:
            raise self._write_error(error, path, len(data)) from error

    def lock(self) -> io.FileIO:
        """Lock the store for appending and read what others have appended; returns the index file.

        The first `append` calls it; `close` or the end of the process releases the lock.

        Raises:
            BlockingIOError: another process or RolloutStore is appending to this folder.
        """
        if self._index_file is not None:
            return self._index_file
        self.folder.mkdir(parents=True, exist_ok=True)
        index_file = io.FileIO(self._index_path, "a", opener=regular)
        try:
            lock_file(index_file)
        except BlockingIOError as error:
            index_file.close()
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                f"{self.folder} is being appended to by another process or RolloutStore; wait for "
                "it, close() it or pass another folder",
            ) from error
        if os.fstat(index_file.fileno()).st_size != self._index_size:
            self._load()  # another process has appended since, or there is a half-written line
            index_file.truncate(self._index_size)
        remove_leftovers(self.folder)
        sync_folder(self.folder)
        self._index_file = index_file
        return index_file

    def close(self) -> None:
        """Let another process append; reading and further appends still work."""
        if self._index_file is not None:
            self._index_file.close()
            self._index_file = None

    def _load(self) -> None:
        """Read the index and check the files that it names."""
        self.records, self.damaged, self._broken = [], [], []
        # The files are listed before the index, to which others may append meanwhile.
        names = {path.name for path in self.folder.glob("episode-*.npz")}
        listed: list[str] = []
        found = os.path.lexists(self._index_path)
        index = read_file(self._index_path, MAX_EPISODE_BYTES) if found else b""
        *lines, tail = index.split(b"\n")
        self._index_size = len(index) - len(tail)
        for number, line in enumerate(lines, start=1):
            try:
                record = EpisodeRecord.from_line(line)
                if listed and _episode_number(record.file) <= _episode_number(listed[-1]):
                    raise ValueError(f"{record.file} follows {listed[-1]}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                self.damaged.append(f"{INDEX_NAME} line {number} ({error})")
                continue
            listed.append(record.file)
            _, problem = self._read(record)
            if problem:
                self.damaged.append(f"{record.file} ({problem})")
                self._broken.append(record)
                continue
            self._check_shapes(
                record, self._needed_frame_shape, self._needed_action_dim, "what is needed is"
            )
            self.records.append(record)
        self._next_number = _episode_number(listed[-1]) + 1 if listed else 0
        if len(lines) == len(listed):  # otherwise such a file may belong to a damaged line
            # A crash leaves one file, which would have been listed next.
            strange = names - {*listed, _episode_name(self._next_number)}
            self.damaged += [f"{name} (not in {INDEX_NAME})" for name in sorted(strange)]
        if self.damaged and not self._mend:
            raise self._damage(*self.damaged)
        self._tail = bool(tail)

    def _damage(self, first: str, *others: str) -> DamagedFileError:
        """Error that names the damage and the remedy, which depends on the maker of the store."""
        run = self.folder.absolute().parent
        more = f", and {len(others)} more" if others else ""
        advice = "get a whole copy, or delete the file and its line of the index, to do without it"
        if (run / CONFIG_NAME).exists():
            advice = f"scripts/{read_config(run)[0]}.py --resume {run} makes it again, the same"
        return DamagedFileError(f"{self.folder}/{first} is damaged{more}; {advice}")

    def _read(self, record: EpisodeRecord) -> tuple[bytes, str]:
        """Read (bytes of an episode's file, description of damage or "")."""
        path = self.folder / record.file
        if not os.path.lexists(path):
            return b"", "missing"
        try:
            data = read_file(path, MAX_EPISODE_BYTES)
        except DamagedFileError as error:
            return b"", str(error).removeprefix(f"{path}: ")
        if len(data) != record.bytes:
            return data, f"{len(data)} bytes, {record.bytes} were written"
        if hashlib.sha256(data).hexdigest() != record.sha256:
            return data, "checksum differs"
        return data, ""

    def _check_shapes(
        self,
        record: EpisodeRecord,
        frame_shape: tuple[int, ...] | None,
        action_dim: int | None,
        whose: str,
    ) -> None:
        if frame_shape not in (None, record.frame_shape) or action_dim not in (
            None,
            record.action_dim,
        ):
            raise ValueError(
                f"{self.folder / record.file}: frames of {record.frame_shape} and actions of "
                f"{record.action_dim}; {whose} {frame_shape or record.frame_shape} and "
                f"{action_dim or record.action_dim}; pass another folder"
            )

    def _write_error(self, error: OSError, path: Path, size: int) -> OSError:
        return OSError(
            error.errno,
            f"cannot write {path} ({size} bytes): {error.strerror}; the {len(self)} earlier "
            "episodes are whole; make room and run the same command again",
        )


def load_frames(
    stores: RolloutStore | Iterable[RolloutStore],
    *,
    shape: tuple[int, ...] | None = None,
    max_frames: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Load the frames of all episodes as one array, uint8 (N, H, W, C), in the order of stores.

    Vectors are float32 (N, D).

    Args:
        stores: one store or several of the same frame shape.
        shape: needed shape of a frame, such as (64, 64, 3).
        max_frames: keep at most this many, drawn without replacement from `seed`, in order.
    Raises:
        ValueError: there is no episode, or the frames differ in shape or do not have `shape`.
    """
    stores = [stores] if isinstance(stores, RolloutStore) else list(stores)
    found = common_frame_shape(stores, shape)
    total = sum(store.num_frames for store in stores)
    count = total if max_frames is None else min(total, max_frames)
    chosen = np.arange(total)
    if count < total:
        chosen = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    return read_rows(stores, found, chosen, "reading frames")


def common_frame_shape(
    stores: Sequence[RolloutStore], shape: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Shape of all frames of these stores; raises as `load_frames` does."""
    shapes = {store.records[0].frame_shape: str(store.folder) for store in stores if len(store)}
    if not shapes:
        names = ", ".join(str(store.folder) for store in stores) or "no folder"
        raise ValueError(f"no episodes in {names}; collect some with scripts/collect_rollouts.py")
    if len(shapes) > 1:
        held = ", ".join(f"{folder} {shape}" for shape, folder in shapes.items())
        raise ValueError(f"stores of different frame shapes: {held}; train on one of them")
    if shape not in (None, *shapes):
        found, folder = next(iter(shapes.items()))
        kind = "vectors" if len(found) == 1 else "frames"
        raise ValueError(
            f"{folder} holds {kind} of {found}, this V is trained on frames of {shape}; vectors "
            "need none but scripts/standardise_vectors.py, other frames are to be resized first"
        )
    return next(iter(shapes))


def read_rows(
    stores: Sequence[RolloutStore], shape: tuple[int, ...], rows: np.ndarray, what: str = ""
) -> np.ndarray:
    """Read some frames of these stores, (len(rows), *shape).

    Args:
        rows: indices of the frames, strictly increasing.
        what: text beside a progress bar; no bar if empty.
    """
    frames = np.empty((len(rows), *shape), np.float32 if len(shape) == 1 else np.uint8)
    episodes = [(store, i) for store in stores for i in range(len(store))]
    first = 0  # index of this episode's first frame among all
    for store, i in progress(episodes, what) if what else episodes:
        end = first + store.records[i].steps + 1
        low, high = np.searchsorted(rows, (first, end))
        if low < high:
            seen = store.episode(i).frames
            whole = high - low == len(seen)
            frames[low:high] = seen if whole else seen[rows[low:high] - first]
        first = end
    return frames


def _episode_name(number: int) -> str:
    return f"episode-{number:06d}.npz"


def _episode_number(name: str) -> int:
    match = re.fullmatch(r"episode-(\d+)\.npz", name)
    return int(match[1]) if match else -1
