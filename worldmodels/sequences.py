"""Encoded episodes, and the windows on which M is trained.

V encodes every recorded frame to mu and logvar once. Each batch of windows draws z anew from
N(mu, exp(logvar)), so that M cannot memorise one draw (Ha & Schmidhuber 2018, A.3).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from generative.training.checkpoint import read_header
from generative.training.files import (
    MAX_CONFIG_BYTES,
    MAX_STATE_BYTES,
    json_bytes,
    read_folder,
    read_json,
    reading,
    write_folder,
)
from generative.training.progress import progress
from worldmodels.rollouts import RolloutStore

FORMAT = 1
CONFIG_NAME = "config.json"
ARRAYS_NAME = "encoded.safetensors"


@dataclass(frozen=True, eq=False)
class EncodedRollouts:
    """E episodes as latents in sequence; N frames in all.

    Episode e with T decisions has rows starts[e] to starts[e+1], T + 1 of them. Its last row is
    the frame after the last decision, where action and reward are zero and terminated is False.

    Args:
        mu, logvar: float16 (N, D), V's posterior of every frame.
        actions: float32 (N, A), taken at that frame.
        rewards: float32 (N,), of that action.
        terminated: bool (N,), True if the environment ended the episode with that action.
        starts: int64 (E + 1,), first row of each episode, then N.
    """

    mu: np.ndarray
    logvar: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    starts: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.mu)
        wanted = {
            "mu": (np.float16, (rows, *self.mu.shape[1:]), 2),
            "logvar": (np.float16, self.mu.shape, 2),
            "actions": (np.float32, (rows, *self.actions.shape[1:]), 2),
            "rewards": (np.float32, (rows,), 1),
            "terminated": (np.bool_, (rows,), 1),
            "starts": (np.int64, self.starts.shape, 1),
        }
        for name, (dtype, shape, ndim) in wanted.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape or array.ndim != ndim:
                raise ValueError(
                    f"{name} is {array.dtype} {array.shape}; encoded rollouts of {rows} frames "
                    f"need {np.dtype(dtype)} {shape} with {ndim} axes"
                )
        starts = self.starts
        if len(starts) < 2 or starts[0] != 0 or starts[-1] != rows or np.diff(starts).min() < 2:
            raise ValueError(
                f"starts must lead from 0 to {rows} in steps of 2 frames or more, got {starts}"
            )
        last = starts[1:] - 1
        if self.actions[last].any() or self.rewards[last].any() or self.terminated[last].any():
            raise ValueError("action, reward and terminated must be zero at each last frame")

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def num_frames(self) -> int:
        """Number of frames in all episodes, N."""
        return len(self.mu)

    @property
    def z_dim(self) -> int:
        """Size of a latent, D."""
        return self.mu.shape[1]

    @property
    def action_dim(self) -> int:
        """Size of an action, A."""
        return self.actions.shape[1]

    @property
    def lengths(self) -> np.ndarray:
        """Number of decisions in each episode, int64 (E,)."""
        return np.diff(self.starts) - 1

    @classmethod
    def concat(cls, parts: Sequence["EncodedRollouts"]) -> "EncodedRollouts":
        """Concatenate the episodes of all parts, in order.

        Raises:
            ValueError: there is no part, or latent or action sizes differ.
        """
        sizes = [(part.z_dim, part.action_dim) for part in parts]
        if not parts or len(set(sizes)) > 1:
            raise ValueError(
                f"cannot join encoded rollouts whose (z, action) sizes are {sizes}; encode all "
                "of them with one V"
            )
        offsets = np.cumsum([0] + [part.num_frames for part in parts])
        starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
        names = ("mu", "logvar", "actions", "rewards", "terminated")
        return cls(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
            starts=np.concatenate([*starts, offsets[-1:]]),
        )

    def save(self, folder: str | Path) -> None:
        """Write config.json, a safetensors file and a manifest; all of it or nothing.

        Args:
            folder: new, or written by this method earlier.
        """
        config = {
            "class": type(self).__name__,
            "format": FORMAT,
            "z_dim": self.z_dim,
            "action_dim": self.action_dim,
            "episodes": len(self),
            "frames": self.num_frames,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in vars(self).items()}
        files = {CONFIG_NAME: json_bytes(config), ARRAYS_NAME: safetensors.numpy.save(arrays)}
        write_folder(Path(folder), files)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a folder that `save` wrote.

        Raises:
            FileNotFoundError: there is no such folder.
            DamagedFileError: a file is missing, cut or changed; names it.
            ValueError: the folder holds something else.
        """
        folder = Path(folder)
        if not folder.exists():
            raise FileNotFoundError(
                f"{folder}: no such folder; make it with `worldmodels encode_rollouts`"
            )
        config = read_json(folder / CONFIG_NAME)
        kind = config.get("class") if isinstance(config, dict) else None
        if kind != cls.__name__ or config.get("format") != FORMAT:
            raise ValueError(
                f"{folder} holds {kind or 'something else'}, not {cls.__name__} of format "
                f"{FORMAT}; pass a folder written by encode_rollouts.py"
            )
        files = read_folder(folder, {CONFIG_NAME: MAX_CONFIG_BYTES, ARRAYS_NAME: MAX_STATE_BYTES})
        path = folder / ARRAYS_NAME
        read_header(files[ARRAYS_NAME], path)
        with reading(path, "holds no encoded episodes"):
            return cls(**safetensors.numpy.load(files[ARRAYS_NAME]))


def encode_rollouts(
    stores: RolloutStore | Iterable[RolloutStore],
    encode_mu_logvar: Callable[[np.ndarray], tuple[Any, Any]],
    batch_size: int = 500,
) -> EncodedRollouts:
    """Encode every frame of every whole episode.

    Args:
        stores: one store or several.
        encode_mu_logvar: uint8 (n, H, W, C) -> mu and logvar, arrays or CPU tensors (n, D).
        batch_size: largest number of frames per call.
    Raises:
        ValueError: there is no episode, or a mu or logvar is not finite in float16.
    """
    stores = [stores] if isinstance(stores, RolloutStore) else list(stores)
    parts = []
    episodes = [(store, i) for store in stores for i in range(len(store))]
    for store, i in progress(episodes, "encoding episodes"):
        episode = store.episode(i)
        rows = len(episode.frames)
        encoded = [
            encode_mu_logvar(episode.frames[first : first + batch_size])
            for first in range(0, rows, batch_size)
        ]
        with np.errstate(over="ignore"):  # reported below, with the name of the file
            mu, logvar = (
                np.concatenate([np.asarray(x) for x in column]).astype(np.float16)
                for column in zip(*encoded, strict=True)
            )
        if not (np.isfinite(mu).all() and np.isfinite(logvar).all()):
            raise ValueError(
                "V gives a mu or logvar that is not finite in float16 for "
                f"{store.folder / store.records[i].file}; train V again or pass another one"
            )
        parts.append(
            EncodedRollouts(
                mu=mu,
                logvar=logvar,
                actions=np.pad(episode.actions, ((0, 1), (0, 0))),
                rewards=np.pad(episode.rewards, (0, 1)),
                terminated=np.pad(episode.terminated, (0, 1)),
                starts=np.array([0, rows]),
            )
        )
    if not parts:
        names = ", ".join(str(store.folder) for store in stores) or "no folder"
        raise ValueError(f"no episodes in {names}; collect some with scripts/collect_rollouts.py")
    return EncodedRollouts.concat(parts)


class SequenceBatches:
    """Random windows of `length` decisions, `batches(step)` -> dict of float32 tensors.

    The batch depends on (seed, step) alone. An episode of T decisions is drawn in proportion to T
    times its weight. The window then starts at u clipped to [0, T - length], u uniform over
    [1 - length, T - 1]. Every window is then as full as the episode allows, and the first and the
    last decision of an episode are drawn as often as those in its middle (the clipped neighbours at
    most twice as often). Without clipping, the ends, the only place where `terminated` is True,
    would be nearly absent.

    | key | shape | |
    |---|---|---|
    | z, next_z | (B, T, D) | mu + exp(logvar / 2) * eps, one draw per frame and batch |
    | action | (B, T, A) | |
    | reward, prev_reward | (B, T) | prev_reward is 0 at an episode's first decision |
    | terminated | (B, T) | 0 or 1 |
    | mask | (B, T) | 1 where the decision is real |

    Where mask is 0 everything else is 0, except the first such z, which is the episode's last.

    Args:
        encoded: episodes to draw from.
        batch_size: windows per batch, B.
        length: decisions per window, T.
        seed: non-negative integer.
        start_fraction: share of each batch, rounded up, whose windows start at the beginning of
            their episode, where M starts from a zero state. Other windows may start there too.
        weights: relative weight of each episode, (E,); recent rounds can count more.
    """

    def __init__(
        self,
        encoded: EncodedRollouts,
        batch_size: int,
        length: int,
        seed: int,
        *,
        start_fraction: float = 0.1,
        weights: np.ndarray | None = None,
    ) -> None:
        if batch_size < 1 or length < 1 or not 0 <= start_fraction <= 1:
            raise ValueError(
                f"batch_size {batch_size} and length {length} count from 1, start_fraction "
                f"{start_fraction} lies in [0, 1]"
            )
        self.encoded, self.batch_size, self.length, self.seed = encoded, batch_size, length, seed
        self.num_starts = int(np.ceil(batch_size * start_fraction))
        self._std = np.exp(encoded.logvar.astype(np.float32) / 2).astype(np.float16)
        share = encoded.lengths.astype(np.float64)
        if weights is not None:
            weights = np.asarray(weights, np.float64)
            if weights.shape != share.shape or not (weights >= 0).all() or not weights.any():
                raise ValueError(
                    f"weights of shape {weights.shape} for {len(share)} episodes; one finite "
                    "weight of 0 or more is needed for each, and not all 0"
                )
            share *= weights
        self._cumulative_share = np.cumsum(share) / share.sum()

    def __call__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        data, length = self.encoded, self.length
        episodes, first = self._windows(rng)
        count = np.minimum(data.lengths[episodes] - first, length)
        first = first + data.starts[episodes]  # from decision to row
        offsets = np.arange(length + 1)
        rows = first[:, None] + np.minimum(offsets, count[:, None])  # (B, T+1), in the episode
        here = rows[:, :-1]
        # PyTorch draws normals and widens float16 several times faster than NumPy.
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        z = torch.randn((*rows.shape, data.z_dim), generator=generator, dtype=torch.float32)
        z *= torch.from_numpy(self._std[rows])
        z += torch.from_numpy(data.mu[rows])
        mask = torch.from_numpy((offsets[:-1] < count[:, None]).astype(np.float32))
        if (count < length).any():
            z[:, 1:] *= mask[..., None]
        return {
            "z": z[:, :-1],
            "next_z": z[:, 1:],
            "action": torch.from_numpy(data.actions[here]),
            "reward": torch.from_numpy(data.rewards[here]),
            # The row before an episode is the last one of another, where the reward is zero; the
            # row before a masked place may be real.
            "prev_reward": torch.from_numpy(data.rewards[here - 1]) * mask,
            "terminated": torch.from_numpy(data.terminated[here].astype(np.float32)),
            "mask": mask,
        }

    def _windows(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw episode and first decision of each window, both int64 (B,)."""
        share = self._cumulative_share
        episodes = np.searchsorted(share, rng.random(self.batch_size), side="right")
        lengths = self.encoded.lengths[episodes]
        first = rng.integers(1 - self.length, lengths)
        first = np.clip(first, 0, np.maximum(lengths - self.length, 0))
        first[: self.num_starts] = 0
        return episodes, first
