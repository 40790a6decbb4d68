"""Dreams: many controllers driving many imagined episodes, stepped as one batch.

P candidates times R rollouts make P x R lanes. A lane keeps its own z, h and c; lanes of one
candidate share its weights; rollout r of every candidate has the same start and the same random
numbers (common random numbers), so that a difference in return is a difference in driving.

`Dream.rollout` is for back-propagation through the dream: where `candidates` requires grad, returns
have a gradient in them by reparameterised noise, but none through imagined ends (see `rollout`).
`Dream.evaluate` is for evolution: the same returns, without gradients and faster
(`worldmodels.fast_dream`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from generative.mdn import LOG_STD_MAX, LOG_STD_MIN
from generative.training.checkpoint import read_tensors
from generative.training.checks import at_least_float32, check_dtype, placed
from generative.training.files import (
    MAX_STATE_BYTES,
    DamagedFileError,
    read_file,
    short,
    write_file,
)
from generative.training.precision import uses_bf16
from worldmodels.actions import squash as squash_by
from worldmodels.configs import ControllerConfig, DreamConfig, MemoryConfig
from worldmodels.controller import split_candidates
from worldmodels.memory import MDNRNN, Memory

if TYPE_CHECKING:
    from worldmodels.sequences import EncodedRollouts

__all__ = ["Dream", "DreamConfig", "DreamResult", "DreamStarts", "soon_in_trouble", "warm_up"]


@dataclass(frozen=True)
class DreamStarts:
    """Real moments from which dreams begin: what V and M had in mind there, row by row."""

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
                    "had it in mind: make the starts again (worldmodels.dream.warm_up)"
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
        metadata = {"sha256": _digest(tensors)}
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
        if _digest(tensors).encode() not in data:
            raise DamagedFileError(f"{path}: its content has changed since it was written")
        starts = cls(**tensors)
        try:
            starts.check_finite()
        except FloatingPointError as error:
            raise DamagedFileError(f"{path}: {error}") from error
        return starts


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and contents."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha256.update(name.encode())
        sha256.update(tensor.cpu().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()


@torch.no_grad()
def warm_up(
    memory: Memory,
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
    memory.eval()
    device = memory.device
    dtype = placed(memory)["dtype"]
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
            seen, done, paid = (x.unsqueeze(1).to(device) for x in (z[row], action[row], previous))
            _, (h, c) = memory.read(seen, done, (h, c), paid)
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
    """Where, at most `ahead` decisions later, `idle` decisions in a row bring no reward.

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


class DreamResult(NamedTuple):
    """Per candidate and rollout, (P, R)."""

    returns: Tensor
    """Sum of imagined rewards up to the imagined end."""
    lengths: Tensor
    """Decisions until the imagined end, or the horizon."""
    saturation: Tensor
    """Square by which C's raw outputs lie beyond [-1, 1], where the squashing flattens: the sum
    over outputs, the mean over the horizon (also after an imagined end)."""


class Lanes(NamedTuple):
    """Where P x R dreams stand; z, h and c are (P, R, ...), the rest (P, R)."""

    z: Tensor
    h: Tensor
    c: Tensor
    previous: Tensor
    """Reward of the decision before."""
    alive: Tensor
    """1; 0 after the imagined end; NaN from a decision on of which M did not say if it ended."""
    stretch: Tensor
    """Rewards since the last stretch of `pace_window` decisions ended."""
    lengths: Tensor
    saturation: Tensor
    """As in DreamResult, not yet divided by the horizon."""

    def detach(self) -> Lanes:
        """The same, but gradients stop here, except in what the past has already brought."""
        z, h, c, previous = (x.detach() for x in self[:4])
        return self._replace(z=z, h=h, c=c, previous=previous)


class Noise(NamedTuple):
    """Random numbers of one decision, in the order in which they are drawn."""

    uniform: Tensor
    """(K, R, latent_dim), for the choice of mixtures."""
    eps: Tensor
    """(R, latent_dim), standard normal."""
    end: Tensor | None
    """(R,), uniform; None if dreams do not end."""


class Dream:
    """Rolls candidates out in M.

    Args:
        memory: M with a reward head (and an end head, if dreams may end).
        controller: what the candidates are.
        config: horizon, temperature and so on.
        squash: raw outputs (..., action_dim) -> actions as M reads them; by the controller's
            action head if not given.
    """

    def __init__(
        self,
        memory: Memory,
        controller: ControllerConfig,
        config: DreamConfig,
        squash: Callable[[Tensor], Tensor] | None = None,
    ):
        mem = memory.config
        if not mem.predict_reward:
            raise ValueError("this M has no reward head; train it with predict_reward=True")
        sizes = [(c.latent_dim, c.hidden_dim, c.action_dim) for c in (mem, controller)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "M has z {}, h {} and actions {}, the controller expects z {}, h {} and actions "
                "{}; pass the M it is meant for".format(*sizes[0], *sizes[1])
            )
        if config.dropout and not mem.dropout:
            config = replace(config, dropout=False)
        self.memory, self.controller, self.config = memory, controller, config
        self.squash = squash or (lambda raw: squash_by(raw, controller.action))
        kind = placed(memory)
        self.device, self.dtype = kind["device"], kind["dtype"]
        self._join_weights()

    @torch.no_grad()
    def _join_weights(self) -> None:
        """One matrix for an LSTM's gates and one for all heads, laid out for the dream.

        The mixture's outputs are reordered from (3, D, K) to (3, K, D), so that the running
        maximum over mixtures touches contiguous rows of D.
        """
        memory, mem = self.memory, self.memory.config
        if isinstance(memory, MDNRNN):
            weight_ih, weight_hh, bias_ih, bias_hh = memory.lstm.all_weights[0]
            self.gate_weight = torch.cat([weight_ih, weight_hh], dim=1).t().contiguous()
            self.gate_bias = (bias_ih + bias_hh).clone()
        head = memory.mixture_head.linear
        shape = (3, mem.latent_dim, mem.num_mixtures)
        weights = [head.weight.unflatten(0, shape).transpose(1, 2).flatten(0, 2)]
        biases = [head.bias.unflatten(0, shape).transpose(1, 2).flatten()]
        for extra in (memory.reward_head, memory.end_head):
            if extra is not None:
                weights.append(extra.weight)
                biases.append(extra.bias)
        self.head_weight = torch.cat(weights).t().contiguous()
        self.head_bias = torch.cat(biases).clone()
        if uses_bf16(self.config.bf16, self.device):
            self.head_weight = self.head_weight.bfloat16()
            if isinstance(memory, MDNRNN):
                self.gate_weight = self.gate_weight.bfloat16()

    def rollout(
        self, candidates: Tensor, starts: DreamStarts, generator: torch.Generator
    ) -> DreamResult:
        """Drive every candidate from every start.

        Args:
            candidates: (P, num_parameters); gradients flow to them if they require grad, through
                z, h, c and the rewards. Whether a dream goes on is drawn, and has none: a
                controller learns by them what pays, not how to survive.
            starts: R moments, shared by all candidates.
            generator: source of the noise that rollout r of every candidate shares.
        """
        config = self.config
        lanes = self._begin(len(candidates), starts)
        controllers = self._controllers(candidates)
        mask = self._dropout_mask(len(starts), generator)
        returns = torch.zeros_like(lanes.alive)
        for t in range(config.horizon):
            if config.truncation and t and t % config.truncation == 0:
                lanes = lanes.detach()
            lanes = self._step(lanes, controllers, self._noise(len(starts), generator), mask)
            if decisions := self._stretch_ends(t):
                returns = returns + self._cap(lanes.stretch, decisions)
                lanes = lanes._replace(stretch=torch.zeros_like(lanes.alive))
        return self._result(candidates, returns, lanes.alive, lanes.lengths, lanes.saturation)

    @torch.no_grad()
    def evaluate(
        self, candidates: Tensor, starts: DreamStarts, seed: int, max_lanes: int = 2048
    ) -> DreamResult:
        """What `rollout` returns, without gradients and several times as fast.

        Candidates go in groups of at most `max_lanes` lanes. Every group sees the same noise; how
        candidates are grouped does not change the noise. See `worldmodels.fast_dream` for what
        runs on which device.
        """
        check_dtype(candidates, "candidates", self.memory)
        group = max(1, max_lanes // len(starts))
        generator = torch.Generator(self.device)
        parts = []
        for first in range(0, len(candidates), group):
            generator.manual_seed(seed)
            parts.append(self._fast(candidates[first : first + group], starts, generator))
        return DreamResult(*(torch.cat(field) for field in zip(*parts, strict=True)))

    @cached_property
    def _fast(self) -> Callable[[Tensor, DreamStarts, torch.Generator], DreamResult]:
        """`rollout`, or what takes its place for an LSTM where no gradient is needed."""
        from worldmodels.fast_dream import FusedDream, GraphedDream

        fast = {"cpu": FusedDream, "cuda": GraphedDream}.get(self.device.type)
        if fast is None or self.head_bias.dtype != torch.float32:
            return self.rollout
        if fast is FusedDream and not isinstance(self.memory, MDNRNN):
            return self.rollout
        return fast(self).rollout

    # The pieces of a rollout. `worldmodels.fast_dream` puts the same ones together otherwise.

    def _begin(self, num_candidates: int, starts: DreamStarts) -> Lanes:
        """All lanes at their starts."""
        starts.check_fits(self.memory.config)
        starts.check_finite()
        z, h, c = (
            field.to(self.device, self.dtype).expand(num_candidates, -1, -1)
            for field in (starts.z, starts.h, starts.c)
        )
        previous = starts.prev_reward.to(self.device, self.dtype).expand(num_candidates, -1)
        # What is counted has more digits than bfloat16.
        kind = {"device": self.device, "dtype": at_least_float32(z)}
        alive = torch.ones(num_candidates, len(starts), **kind)
        zeros = torch.zeros_like(alive)
        return Lanes(z, h, c, previous, alive, zeros, zeros, zeros)

    def _controllers(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (P, feature_dim, action_dim) and biases (P, 1, action_dim)."""
        check_dtype(candidates, "candidates", self.memory)
        weight, bias = split_candidates(candidates, self.controller)
        return weight.transpose(1, 2), bias.unsqueeze(1)

    def _noise(self, num_rollouts: int, generator: torch.Generator) -> Noise:
        """The random numbers of one decision, the same for every candidate."""
        mem = self.memory.config
        kind: dict[str, Any] = {"generator": generator, "device": self.device, "dtype": self.dtype}
        return Noise(
            torch.rand(mem.num_mixtures, num_rollouts, mem.latent_dim, **kind),
            torch.randn(num_rollouts, mem.latent_dim, **kind),
            torch.rand(num_rollouts, **kind) if mem.predict_end else None,
        )

    def _step(
        self, lanes: Lanes, controllers: tuple[Tensor, Tensor], noise: Noise, mask: Tensor | None
    ) -> Lanes:
        """One decision in every lane. Overwrites `noise.uniform`."""
        z, h, c = lanes.z, lanes.h, lanes.c
        raw = self._drive(torch.cat([z, h, c][: len(self.controller.features)], -1), controllers)
        action = self.squash(raw)
        h, c = self._remember(z, action, h, c, lanes.previous)
        features = h if mask is None else h * mask
        out = self._linear(features, self.head_weight) + self.head_bias
        z = self._sample_z(out, z, noise)
        return self._settle(lanes._replace(z=z, h=h, c=c), raw, out, noise)

    def _drive(self, seen: Tensor, controllers: tuple[Tensor, Tensor]) -> Tensor:
        """Raw outputs (P, R, action_dim) of the controllers for what they see."""
        weight, bias = controllers
        return torch.baddbmm(bias, seen, weight)

    def _settle(self, lanes: Lanes, raw: Tensor, out: Tensor, noise: Noise) -> Lanes:
        """Count what the decision brought.

        Args:
            raw: the controllers' outputs, (P, R, action_dim).
            out: (P, R, ...), ends with M's reward and, if it has one, the logit of the end.
        """
        reward, alive = self._reward(out), lanes.alive
        if noise.end is not None:
            p_end = torch.sigmoid(out[..., -1])
            goes_on = torch.where(p_end.isnan(), math.nan, (noise.end >= p_end).to(alive))
            alive = torch.where(alive > 0, goes_on, alive)
        return lanes._replace(
            previous=reward,
            alive=alive,
            stretch=lanes.stretch + lanes.alive * reward,
            lengths=lanes.lengths + lanes.alive.nan_to_num(0.0),
            saturation=lanes.saturation + (raw.abs() - 1).clamp_min(0).square().sum(-1),
        )

    def _result(
        self,
        candidates: Tensor,
        returns: Tensor,
        alive: Tensor,
        lengths: Tensor,
        saturation: Tensor,
    ) -> DreamResult:
        """What a rollout came to, by its returns and the `Lanes` at its end.

        A candidate that is not finite itself has returns that are not finite either.

        Raises:
            FloatingPointError: M gave the end of a decision as NaN, by which a dream neither ends
                nor goes on.
        """
        lost = (alive.isnan() & candidates.isfinite().all(1, keepdim=True)).nonzero()
        if len(lost):
            candidate, rollout = lost[0].tolist()
            raise FloatingPointError(
                f"M's logit of the end is NaN at decision {int(lengths[candidate, rollout])} "
                f"of dream {rollout} of candidate {candidate}; train M again, or lower the "
                "temperature"
            )
        return DreamResult(returns, lengths, saturation / self.config.horizon)

    def _stretch_ends(self, t: int) -> int:
        """Decisions in the stretch that decision t ends, 0 if it goes on."""
        config = self.config
        window = config.pace_window if config.pace_cap is not None else 1
        ends = (t + 1) % window == 0 or t + 1 == config.horizon
        return t % window + 1 if ends else 0

    def _dropout_mask(self, num_rollouts: int, generator: torch.Generator) -> Tensor | None:
        if not self.config.dropout:
            return None
        keep = 1.0 - self.memory.config.dropout
        shape = (num_rollouts, self.memory.config.hidden_dim)
        kind: dict[str, Any] = {"generator": generator, "device": self.device, "dtype": self.dtype}
        kept = torch.rand(shape, **kind) < keep
        return kept.to(self.dtype) / keep

    def _linear(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """inputs @ weight in the weight's precision, the result in that of the inputs."""
        return torch.matmul(inputs.to(weight.dtype), weight).to(inputs.dtype)

    def _remember(
        self, z: Tensor, action: Tensor, h: Tensor, c: Tensor, previous: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(h, c) after M has read a decision, all (P, R, ...)."""
        mem = self.memory.config
        if not isinstance(self.memory, MDNRNN):
            lanes = [x.flatten(0, 1) for x in (z, action, h, c, previous)]
            paid = lanes[4].unsqueeze(1) if mem.reward_input else None
            state = self.memory.read(
                lanes[0].unsqueeze(1), lanes[1].unsqueeze(1), (lanes[2], lanes[3]), paid
            )[1]
            h, c = (x.unflatten(0, z.shape[:2]) for x in state)
            return h, c
        parts = [z, action, h]
        if mem.reward_input:
            parts.insert(2, (previous / mem.reward_scale).unsqueeze(-1))
        gates = self._linear(torch.cat(parts, dim=-1), self.gate_weight) + self.gate_bias
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def _gumbel(self, uniform: Tensor) -> Tensor:
        """Standard Gumbel noise times temperature, written over `uniform`."""
        least = max(1e-30, torch.finfo(uniform.dtype).tiny)
        return uniform.clamp_min_(least).log_().neg_().log_().neg_().mul_(self.config.temperature)

    def _sample_z(self, out: Tensor, z: Tensor, noise: Noise) -> Tensor:
        """Gumbel-max over the mixtures by a running maximum, then the chosen Gaussian."""
        mem, tau = self.memory.config, self.config.temperature
        dim, mixtures = mem.latent_dim, mem.num_mixtures
        mixture = out[..., : 3 * mixtures * dim].unflatten(-1, (3, mixtures, dim))
        log_pi, mu, log_std = mixture.unbind(-3)
        with torch.no_grad():
            # log_pi + tau * gumbel has its maximum where log_pi / tau + gumbel has, at 0 too.
            gumbel = self._gumbel(noise.uniform)
            best = log_pi[..., 0, :] + gumbel[0]
            chosen = torch.zeros(best.shape, dtype=torch.int64, device=self.device)
            for k in range(1, mixtures):
                score = log_pi[..., k, :] + gumbel[k]
                chosen = torch.where(score > best, k, chosen)
                best = torch.maximum(best, score)
            chosen = chosen.unsqueeze(-2)
        mu = mu.gather(-2, chosen).squeeze(-2)
        log_std = log_std.gather(-2, chosen).squeeze(-2).clamp(LOG_STD_MIN, LOG_STD_MAX)
        z_next = mu + math.sqrt(tau) * log_std.exp() * noise.eps
        return z_next + z if mem.residual else z_next

    def _cap(self, stretch: Tensor, decisions: int) -> Tensor:
        """What a stretch of driving pays; see `DreamConfig.pace_cap`."""
        cap = self.config.pace_cap
        return stretch if cap is None else stretch.clamp_max(cap * decisions)

    def _reward(self, out: Tensor) -> Tensor:
        mem = self.memory.config
        reward = out[..., -2 if mem.predict_end else -1] * mem.reward_scale
        if self.config.reward_clip is not None:
            reward = reward.clamp(*self.config.reward_clip)
        return reward
