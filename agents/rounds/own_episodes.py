"""The stage that imports episodes of others: .npz files of your own, Minari's or LeRobot's."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.training.ranges import Checked, Count, CountOrZero, Finite, Folder
from generative.training.run import Run

if TYPE_CHECKING:
    import numpy as np

    from agents.rounds.foreign_episodes import Recording
    from envs.task import Task
    from worldmodels.configs import ActionHead
    from worldmodels.episodes import Episode, EpisodeRecord

__all__ = ["Importing", "import_episodes"]


@dataclass(frozen=True)
class Importing(Checked):
    """Import episodes for training V and M: a folder of your own .npz files, of a data set of
    Minari, or of one of LeRobot (version 2 or 3).

    A .npz file is one episode of T decisions, with the arrays `frames`, `actions`, `rewards` and
    `ends`. `frames` is uint8 (T+1, H, W, 3), (T+1, H, W, 1) or (T+1, H, W), resized to 64x64, or
    float (T+1, D) for observations that are vectors; frame t is the observation before action t.
    `actions` are whole numbers (T,) of a discrete space or floats (T, A); `rewards` are (T,);
    `ends` are (T,), True where the episode really ended (not where the recording stopped).
    """

    source: Path = Path("episodes")
    """Folder of .npz files, in the order of their names; or of a data set."""
    out: Folder = Path("runs/own")
    """Run folder; the episodes are in its `episodes` folder, which is what others call rollouts."""
    name: str = ""
    """Name of the environment; the name of the source folder if empty."""
    num_actions: CountOrZero = 0
    """Number of discrete actions, counted from 0; 0: one more than the highest recorded action."""
    low: tuple[Finite, ...] = ()
    """Lower bounds of float actions; by default the lowest recorded ones."""
    high: tuple[Finite, ...] = ()
    """Upper bounds of float actions; by default the highest recorded ones."""
    crop: tuple[CountOrZero, CountOrZero, CountOrZero, CountOrZero] = (0, 0, 0, 0)
    """Pixels cut off images above, below, left and right, before they are resized."""
    action_repeat: Count = 1
    """Environment steps per decision, for the record."""
    repeat_last: bool = False
    """Repeat the last frame if the one after the last action is missing (T frames), as in
    LeRobot's data sets."""
    observation: str = ""
    """LeRobot: the feature that becomes the frames; by default its only camera, or
    observation.state where there is none."""
    missing_reward: Finite | None = None
    """LeRobot: the reward of every decision of a data set that records none."""


ARRAYS = ("frames", "actions", "rewards", "ends")


def import_episodes(args: Importing) -> Path:
    """Returns the folder of the episodes."""
    from generative.training.progress import progress
    from generative.training.settings import to_json
    from worldmodels.rollouts import EpisodeRecord, RolloutStore

    with Run.open(args, kind="import_episodes") as run:
        store = RolloutStore(run.path / "episodes", mend=True)
        if store.is_whole(run):
            return store.folder
        files = find_recordings(args)
        with progress(len(files), "checking episodes") as bar:
            task = find_task(args, files, bar.advance)  # of all files, before anything is written
        task.save(run.path)

        sums = {file.name: _sha256(file) for file in files}

        def key_of(record: EpisodeRecord) -> tuple[Any, Any]:
            name = str(record.info.get("file"))
            return name, record.info.get("file_sha256", sums.get(name))  # older ones lack it

        def convert(places: list[int]) -> Iterator[tuple[EpisodeRecord, bytes]]:
            for place in places:
                episode = to_episode(args, files[place], task)
                data = episode.to_bytes()
                yield EpisodeRecord.of(episode, data), data

        with (
            contextlib.closing(store),
            progress(len(files), "importing episodes", done=len(store)) as bar,
        ):
            for _ in store.fill(list(sums.items()), key_of, convert):
                bar.advance()
        run.finish(
            {
                "episodes": len(store),
                "frames": store.num_frames,
                "return_mean": float(store.returns.mean()),
                "action": to_json(task.action),
                "env_ids": store.env_ids,
            }
        )
        return store.folder


def find_recordings(args: Importing) -> Sequence[Path | Recording]:
    """Find the episodes of the source: .npz files, or those of a data set.

    Raises:
        ValueError: there are none, or the data set has a form that is not supported.
    """
    from agents.rounds.foreign_episodes import foreign_recordings

    files = sorted(f for f in args.source.glob("*.npz") if not f.name.startswith("."))
    found = files or foreign_recordings(args.source, args.observation, args.missing_reward)
    if not found:
        raise ValueError(
            f"{args.source} holds no .npz file, and no data set of Minari or LeRobot; pass the "
            "folder of your episodes"
        )
    return found


def _sha256(file: Path | Recording) -> str:
    if not isinstance(file, Path):
        return file.sha256()
    from generative.training.files import open_file
    from worldmodels.episodes import MAX_EPISODE_BYTES

    with open_file(file, MAX_EPISODE_BYTES, links=True) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def find_task(
    args: Importing, files: Sequence[Path | Recording], advance: Callable[[], object]
) -> Task:
    """Find the common task of the episodes; checks every array of every file.

    Raises:
        ValueError: an array is missing or does not fit; names file and array, what was got and what
            is needed.
    """
    from dataclasses import replace

    import numpy as np

    from envs.task import Preprocess, Task

    first: dict[str, np.ndarray] = {}
    lows, highs = [], []
    for file in files:
        arrays = read(file, args.repeat_last)
        first = first or arrays
        for name in ("frames", "actions"):
            ours, theirs = _kind(arrays[name]), _kind(first[name])
            if ours != theirs:
                raise ValueError(
                    f"{file}: {name} are {ours}, those of {files[0].name} {theirs}; all episodes "
                    "need the same"
                )
        actions = arrays["actions"].reshape(len(arrays["actions"]), -1)
        lows.append(actions.min(0))
        highs.append(actions.max(0))
        advance()
    shape = first["frames"].shape[1:]
    preprocess = Preprocess("vector" if len(shape) == 1 else "image", shape)
    if preprocess.kind == "image":
        preprocess = replace(preprocess, crop=args.crop)
    head = find_head(args, files, first["actions"], np.array(lows), np.array(highs))
    return Task(args.name or args.source.resolve().name, {}, preprocess, head)


def find_head(
    args: Importing,
    files: Sequence[Path | Recording],
    some: np.ndarray,
    lows: np.ndarray,
    highs: np.ndarray,
) -> ActionHead:
    """Choose the action head by the settings, or without them by the recorded actions.

    Args:
        some: actions of the first episode.
        lows, highs: lowest and highest actions of every episode, (E, A).
    """
    from worldmodels.configs import ActionHead

    if some.ndim == 1:
        num = args.num_actions or int(highs.max()) + 1
        if lows.min() < 0 or highs.max() >= num:
            worst = files[int((lows.min(1) if lows.min() < 0 else highs.max(1) * -1).argmin())]
            raise ValueError(
                f"{worst}: actions lie in {int(lows.min())} .. {int(highs.max())}; needed are 0 .. "
                f"{num - 1} (num_actions is {num})"
            )
        return ActionHead("discrete", num=num)
    size = some.shape[1]
    if len(args.low) not in (0, size) or len(args.high) not in (0, size):
        raise ValueError(
            f"low is {args.low} and high {args.high}, the actions have {size} numbers; give one "
            "bound for each, or none"
        )
    low = args.low or tuple(map(float, lows.min(0)))
    high = args.high or tuple(map(float, highs.max(0)))
    still = [i for i, (a, b) in enumerate(zip(low, high, strict=True)) if a >= b]
    if still:
        raise ValueError(
            f"number {still[0]} of the actions is always {low[still[0]]}, which tells no bounds; "
            "give --low and --high"
        )
    return ActionHead("box", low=low, high=high)


def read(file: Path | Recording, repeat_last: bool) -> dict[str, np.ndarray]:
    """Read the four arrays of a file, checked one by one and against each other.

    Raises:
        ValueError: names file and array, what was got and what is needed.
        DamagedFileError: the file is no whole archive of arrays, or unpacks to more than 1 GB.
    """
    import numpy as np

    from generative.training.archives import read_npz
    from generative.training.files import open_file
    from worldmodels.episodes import MAX_EPISODE_BYTES

    if isinstance(file, Path):
        with open_file(file, MAX_EPISODE_BYTES, links=True) as data:
            arrays = read_npz(data, file, ARRAYS, MAX_EPISODE_BYTES)
    else:
        arrays = file.load()
    steps = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    frames = arrays["frames"]
    if repeat_last and frames.ndim and len(frames) == steps > 0:
        arrays["frames"] = frames = np.concatenate([frames, frames[-1:]])
    for name, fits, needed in _needs(arrays, steps):
        if not fits:
            array = arrays[name]
            raise ValueError(
                f"{file}: {name} are {array.dtype} {array.shape}, needed are {needed}, where there "
                f"are {steps} rewards"
            )
    for name in ("frames", "actions", "rewards"):
        bad = ~np.isfinite(arrays[name])
        if bad.any():
            at = int(np.argwhere(bad)[0, 0])
            raise ValueError(f"{file}: {name} are not finite at place {at}; needed are numbers")
    if arrays["ends"][:-1].any():
        at = int(arrays["ends"].argmax())
        raise ValueError(
            f"{file}: ends is true at decision {at} of {steps}; an episode ends with its last "
            "decision: put what follows into a file of its own"
        )
    return arrays


def _needs(arrays: dict[str, np.ndarray], steps: int) -> Iterator[tuple[str, bool, str]]:
    """Yield for each array its name, True if it fits, and the requirement."""
    import numpy as np

    frames, actions, rewards, ends = (arrays[name] for name in ARRAYS)
    numbers = "numbers (T,), T of 1 or more"
    yield "rewards", rewards.ndim == 1 and steps > 0 and rewards.dtype.kind in "fiub", numbers
    vectors = frames.ndim == 2 and frames.dtype.kind == "f"
    images = frames.dtype == np.uint8 and (
        frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] in (1, 3))
    )
    yield (
        "frames",
        (vectors or images) and len(frames) == steps + 1,
        f"uint8 ({steps + 1}, H, W, 3), ({steps + 1}, H, W, 1) or ({steps + 1}, H, W), or floats "
        f"({steps + 1}, D): one more than there are decisions (repeat_last makes do without)",
    )
    discrete = actions.ndim == 1 and actions.dtype.kind in "iu"
    box = actions.ndim == 2 and actions.dtype.kind == "f" and actions.shape[1] > 0
    yield (
        "actions",
        (discrete or box) and len(actions) == steps,
        f"whole numbers ({steps},) or floats ({steps}, A)",
    )
    yield (
        "ends",
        ends.shape == (steps,) and bool(np.isin(ends, (0, 1)).all()),
        f"bool ({steps},)",
    )


def _kind(array: np.ndarray) -> str:
    whole = array.dtype.kind in "iu" and array.dtype != "uint8"
    return f"{'whole numbers' if whole else array.dtype} {('...', *array.shape[1:])}"


def to_episode(args: Importing, file: Path | Recording, task: Task) -> Episode:
    """Convert one file to an episode of a store."""
    import numpy as np

    from worldmodels.actions import from_env
    from worldmodels.episodes import Episode

    arrays = read(file, args.repeat_last)
    ends = arrays["ends"].astype(bool)
    return Episode(
        task.preprocess(arrays["frames"]),
        from_env(arrays["actions"], task.action),
        arrays["rewards"].astype(np.float32),
        ends,
        {
            "env_id": task.env_id,
            "file": file.name,
            "file_sha256": _sha256(file),
            "action_repeat": args.action_repeat,
            "truncated": not bool(ends[-1]),
        },
    )
