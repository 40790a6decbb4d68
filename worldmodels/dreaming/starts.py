"""Real moments that dreams begin at: z and M's state there, on disk and from recordings.

starts = warm_up(memory, encoded)               # M reads recorded episodes
starts.save(folder / STARTS_NAME)
begun = DreamStarts.load(folder / STARTS_NAME).draw(16, rng)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from generative.training.checkpoint import read_tensors
from generative.training.files import (
    MAX_STATE_BYTES,
    DamagedFileError,
    read_file,
    short,
    write_file,
)
from worldmodels.configs import MemoryConfig
from worldmodels.dreaming.step import WorldMemory

if TYPE_CHECKING:
    from worldmodels.sequences import EncodedRollouts

__all__ = ["STARTS_NAME", "DreamStarts", "digest", "soon_in_trouble", "warm_up"]

STARTS_NAME = "starts.safetensors"
"""The file of a model folder that holds its `DreamStarts`."""


@dataclass(frozen=True)
class DreamStarts:
    """Real moments from which dreams begin: z and M's state there, row by row."""

    z: Tensor
    """(N, latent_dim)."""
    h: Tensor
    """(N, hidden_dim)."""
    c: Tensor
    """(N, state_dim)."""
    prev_reward: Tensor
    """(N,), the reward of the decision before."""

    def __len__(self) -> int:
        return len(self.z)

    def take(self, index: Tensor | np.ndarray | Sequence[int]) -> DreamStarts:
        """The rows of `index`, as float32."""
        index = torch.as_tensor(index)
        fields = (self.z, self.h, self.c, self.prev_reward)
        return DreamStarts(*(field[index].float() for field in fields))

    def draw(self, n: int, rng: np.random.Generator) -> DreamStarts:
        """n rows drawn with replacement."""
        return self.take(rng.integers(len(self), size=n))

    def check_fits(self, memory: MemoryConfig) -> None:
        """Raise ValueError if an M of these sizes cannot have had them in mind, or if empty."""
        sizes = memory.latent_dim, memory.hidden_dim, memory.state_dim
        shapes = self.z.shape, self.h.shape, self.c.shape
        if not len(self) or shapes != tuple((len(self), size) for size in sizes):
            raise ValueError(
                f"the starts have z {tuple(self.z.shape)}, h {tuple(self.h.shape)} and c "
                f"{tuple(self.c.shape)}; this M needs z (N, {sizes[0]}), h (N, {sizes[1]}) and c "
                f"(N, {sizes[2]}): take the starts that were stored with it"
            )

    def check_finite(self) -> None:
        """Raise FloatingPointError if a number is not finite; says which row."""
        for name, field in vars(self).items():
            bad = (~field.isfinite()).nonzero()
            if len(bad):
                raise FloatingPointError(
                    f"{name} in row {int(bad[0, 0])} of the starts is not finite; M cannot have "
                    "had it in mind: make the starts again (worldmodels.dreaming.starts.warm_up)"
                )

    def save(self, path: Path | str, dtype: torch.dtype = torch.float16) -> None:
        """Write one safetensors file, by default in the half precision that `warm_up` keeps.

        Raises:
            ValueError: a value is not finite, or too large for dtype.
        """
        tensors = {name: field.to(dtype).contiguous() for name, field in vars(self).items()}
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name} of the starts is not finite as {dtype}; not saved")
        metadata = {"sha256": digest(tensors)}
        write_file(Path(path), safetensors.torch.save(tensors, metadata))

    @classmethod
    def load(cls, path: Path | str) -> DreamStarts:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: the file is missing, cut or changed, holds something else, or a
                number that is not finite.
        """
        path = Path(path)
        data = read_file(path, MAX_STATE_BYTES)
        tensors = read_tensors(data, path)
        if set(tensors) != {"z", "h", "c", "prev_reward"}:
            raise DamagedFileError(
                f"{path}: holds {short(sorted(tensors))}, not the starts of a dream"
            )
        for name, tensor in tensors.items():
            if not tensor.is_floating_point() or tensor.itemsize == 1:
                raise DamagedFileError(f"{path}: {name} is of {tensor.dtype}, needed are floats")
        # The digest stands in the header as plain text.
        if digest(tensors).encode() not in data:
            raise DamagedFileError(f"{path}: its content has changed since it was written")
        starts = cls(**tensors)
        try:
            starts.check_finite()
        except FloatingPointError as error:
            raise DamagedFileError(f"{path}: {error}") from error
        return starts


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and contents."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(name.encode())
        sha256.update(tensor.cpu().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


@torch.no_grad()
def warm_up(
    memory: WorldMemory,
    encoded: EncodedRollouts,
    max_idle: int | None = None,
    trouble_weight: int = 1,
    batch_size: int = 64,
) -> DreamStarts:
    """Let M read every recorded episode and keep (z, h, c) at each frame that an action followed.

    Rows stand in the order of the recording, in half precision: 1.1 KB each for an MDN-RNN of 256
    units, 16 KB for a Transformer of 2 layers that keeps 64 numbers of 32 decisions.

    Args:
        max_idle: keep only moments that at most this many decisions without a positive reward
            led to (counted from the last one, or from the episode's start): dreams that begin
            where a car has long lost the road say little about driving.
    """
    cast("nn.Module", memory).eval()
    device = memory.device
    dtype = memory.kind["dtype"]
    columns = (encoded.mu, encoded.actions, encoded.rewards)
    z, action, reward = (torch.from_numpy(column).to(dtype) for column in columns)
    h_all = torch.zeros(len(z), memory.config.hidden_dim, dtype=torch.float16)
    c_all = torch.zeros(len(z), memory.config.state_dim, dtype=torch.float16)
    previous_all = torch.zeros(len(z), dtype=torch.float16)
    bounds = list(zip(encoded.starts[:-1].tolist(), encoded.starts[1:].tolist(), strict=True))
    # Episodes of like length share a batch, so that little of it is padding.
    bounds.sort(key=lambda bound: bound[1] - bound[0])
    for first in range(0, len(bounds), batch_size):
        group = bounds[first : first + batch_size]
        start, stop = torch.tensor(group).unbind(1)
        h, c = memory.initial_state(len(group))
        previous = torch.zeros(len(group), dtype=dtype)
        for t in range(int((stop - start).max()) - 1):
            # A lane that has reached its last frame stays there; what it reads again is not kept.
            row = torch.minimum(start + t, stop - 1)
            live = start + t < stop - 1
            h_all[row[live]], c_all[row[live]] = h.cpu()[live].half(), c.cpu()[live].half()
            previous_all[row[live]] = previous[live].half()
            seen, done, paid = (x.to(device) for x in (z[row], action[row], previous))
            h, c = memory.observe(seen, done, (h, c), paid)
            previous = reward[row]
    keep = _moments(encoded, max_idle, trouble_weight)
    return DreamStarts(z[keep].half(), h_all[keep], c_all[keep], previous_all[keep])


def _moments(encoded: EncodedRollouts, max_idle: int | None, trouble_weight: int) -> Tensor:
    """Indices of frames that an action followed, as often as `warm_up` is to keep them."""
    kept = []
    for start, stop in zip(encoded.starts[:-1], encoded.starts[1:], strict=True):
        t = np.arange(stop - start - 1)
        rewards = encoded.rewards[start : stop - 1]
        times = np.where(soon_in_trouble(rewards), trouble_weight, 1)
        if max_idle is not None:
            paid = np.concatenate([[True], rewards[:-1] > 0])
            t = t[t - np.maximum.accumulate(np.where(paid, t, 0)) <= max_idle]
        kept.append(start + np.repeat(t, times[t]))
    return torch.from_numpy(np.concatenate(kept))


def soon_in_trouble(rewards: np.ndarray, idle: int = 10, ahead: int = 15) -> np.ndarray:
    """Mark decisions from which `idle` decisions in a row without reward begin soon.

    "Soon" is at most `ahead` decisions later.

    Args:
        rewards: of an episode's decisions, (T,).
    Returns:
        (T,) bool.
    """
    paid = np.concatenate([[0], np.cumsum(rewards > 0)])
    begins = np.zeros(len(rewards) + ahead + 1, np.int64)
    if len(rewards) >= idle:
        begins[: len(rewards) - idle + 1] = paid[idle:] == paid[:-idle]
    count = np.concatenate([[0], np.cumsum(begins)])
    t = np.arange(len(rewards))
    return count[t + ahead + 1] > count[t]
