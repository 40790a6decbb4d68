"""One recorded episode: what it holds, its bytes, and its line in the index of a store.

The bytes are an ordinary .npz archive without pickled objects. It holds frames as colour planes
(T+1, C, H, W), in which CarRacing's flat areas make long runs: deflate at level 1 then compresses
them to about an eighth. All other code uses frames as (T+1, H, W, C). Observations that are vectors
are kept as float32 (T+1, D) under the same name.
"""

import builtins
import hashlib
import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from generative.training.archives import open_zip, read_array, read_member
from generative.training.files import (
    parse_json,
    reading,
    short,
)
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
        if episode_number(record.file) < 0:
            raise ValueError(f"{short(record.file)} is no name of an episode")
        return record


def _crc32(values: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def episode_name(number: int) -> str:
    return f"episode-{number:06d}.npz"


def episode_number(name: str) -> int:
    match = re.fullmatch(r"episode-(\d+)\.npz", name)
    return int(match[1]) if match else -1
