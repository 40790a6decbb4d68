"""Recorded episodes on disk: write, verify, read.

A store is a folder with one `episode-000000.npz` per episode and an `index.jsonl` with one line per
episode. An episode belongs to the store exactly when its line in the index is whole; the line is
written last, after the file has reached the disk, so a crash at any moment leaves a readable store.

`worldmodels.episodes` says what the files hold.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from generative.training.files import (
    DamagedFileError,
    read_file,
    regular,
    remove_leftovers,
    sync_folder,
    write_file,
)
from generative.training.platforms import lock_file
from generative.training.progress import progress
from generative.training.run import CONFIG_NAME, INDEX_NAME, Run, check_made, read_config
from worldmodels.episodes import (
    MAX_EPISODE_BYTES,
    Episode,
    EpisodeRecord,
    episode_name,
    episode_number,
)

__all__ = [
    "Episode",
    "EpisodeRecord",
    "RolloutStore",
    "common_frame_shape",
    "load_frames",
    "read_rows",
]


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
        record = dataclasses.replace(record, file=episode_name(self._next_number))
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
            files = [i for i in range(len(keys)) if (self.folder / episode_name(i)).exists()]
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
        name = episode_name(place) if before is None else before.file
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
                if listed and episode_number(record.file) <= episode_number(listed[-1]):
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
        self._next_number = episode_number(listed[-1]) + 1 if listed else 0
        if len(lines) == len(listed):  # otherwise such a file may belong to a damaged line
            # A crash leaves one file, which would have been listed next.
            strange = names - {*listed, episode_name(self._next_number)}
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
