"""Base class of M, the memory: it reads (z_t, a_t) and predicts z_{t+1}, reward and end.

Ha & Schmidhuber (2018), section 2.3 and appendix A.2: a recurrence with a mixture density head;
with heads for reward and episode end as in the book's chapter 12 and the paper's Doom experiment.
`worldmodels.memory.mdnrnn` and `.transformer` are two of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.mdn import Mixture, MixtureDensityHead
from generative.training.checks import check_dtype, placed
from generative.training.precision import BF16
from generative.training.pretrained import Pretrained
from worldmodels.configs import MemoryConfig
from worldmodels.dreaming.noise import Random, gumbel, normal
from worldmodels.dreaming.step import DreamState, Prediction
from worldmodels.memory.joined import JoinedMemory

if TYPE_CHECKING:
    from worldmodels.dreaming.rollout import Dream, DreamBackend

__all__ = ["Memory", "MemoryOutput", "MixtureNoise", "State"]

State = tuple[Tensor, Tensor]


class MemoryOutput(NamedTuple):
    """Predictions of M for a step; the leading dimensions are those of the inputs."""

    mixture: Mixture
    """Distribution of the next z, fields (..., latent_dim, K)."""
    reward: Tensor | None
    """Expected reward of the step in the environment's units, (...)."""
    end_logit: Tensor | None
    """Logit that the episode ends with this step, (...)."""
    h: Tensor
    """Input of the heads: the recurrence's output after the step, (..., hidden_dim)."""


class MixtureNoise(NamedTuple):
    """Random numbers of one decision in n lanes."""

    gumbel: Tensor
    """(n, latent_dim, K), standard Gumbel, for the choice of mixtures."""
    eps: Tensor
    """(n, latent_dim), standard normal."""


class Memory(Pretrained, nn.Module, ABC):
    """Parts that every M has beside its recurrence: the heads, and the input of a step.

    A subclass builds what `read` needs, then calls `_add_heads`. Its state is a pair (h, c): h
    (B, hidden_dim) is read by the heads and by C, and c (B, state_dim) is the rest of the state.

    `observe` follows what really happens, `predict` dreams on (`worldmodels.dreaming.step`), and
    `forward` reads whole sequences in training.
    """

    config: MemoryConfig

    def _add_heads(self) -> None:
        config = self.config
        self.mixture_head = MixtureDensityHead(
            config.hidden_dim, config.latent_dim, config.num_mixtures
        )
        self.reward_head = nn.Linear(config.hidden_dim, 1) if config.predict_reward else None
        self.end_head = nn.Linear(config.hidden_dim, 1) if config.predict_end else None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mixture_head.linear.weight.device

    @property
    def kind(self) -> dict[str, Any]:
        """{"device": ..., "dtype": ...} of the weights."""
        return placed(self)

    def initial_state(self, batch_size: int) -> State:
        """(h, c) of an episode that has not begun: zeros, (B, hidden_dim) and (B, state_dim)."""
        weight = self.mixture_head.linear.weight
        h = weight.new_zeros(batch_size, self.config.hidden_dim)
        return h, weight.new_zeros(batch_size, self.config.state_dim)

    def inputs(self, z: Tensor, action: Tensor, prev_reward: Tensor | None) -> Tensor:
        """Join what a step reads into (..., input_dim); says what does not fit."""
        config = self.config
        if z.shape[-1] != config.latent_dim:
            raise ValueError(
                f"z has {z.shape[-1]} dimensions, this M was trained with {config.latent_dim}; "
                "pass the V that M was trained on"
            )
        if action.shape[-1] != config.action_dim:
            raise ValueError(
                f"action has {action.shape[-1]} numbers, this M was trained with "
                f"{config.action_dim}"
            )
        parts = {"z": z, "actions": action}
        if config.reward_input:
            if prev_reward is None:
                raise ValueError("this M reads the previous reward; pass prev_reward")
            parts["prev_reward"] = prev_reward.unsqueeze(-1)
        for what, part in parts.items():
            # The check looks for the weights, which is slow beside a step of a small M.
            if part.dtype != self.mixture_head.linear.weight.dtype:
                check_dtype(part, what, self)
        if config.reward_input:
            parts["prev_reward"] = parts["prev_reward"] / config.reward_scale
        return torch.cat([*parts.values()], dim=-1)

    def forward(
        self,
        z: Tensor,
        action: Tensor,
        state: State | None = None,
        prev_reward: Tensor | None = None,
    ) -> tuple[MemoryOutput, State]:
        """Read whole sequences.

        Args:
            z: (B, T, latent_dim).
            action: (B, T, action_dim), as the environment takes it.
            state: (h, c), as `initial_state` shapes them; None begins an episode.
            prev_reward: (B, T), the reward of the step before; only for `reward_input`.
        Returns:
            the output at every step, and (h, c) after the last.
        """
        h, state = self.read(z, action, state, prev_reward)
        return self.heads(h, z), state

    @abstractmethod
    def read(
        self, z: Tensor, action: Tensor, state: State | None, prev_reward: Tensor | None
    ) -> tuple[Tensor, State]:
        """The recurrence alone, for filtering a real episode: h at every step, the last (h, c)."""

    def step(
        self,
        z: Tensor,
        action: Tensor,
        state: State,
        prev_reward: Tensor | None = None,
    ) -> tuple[MemoryOutput, State]:
        """Read one step: z (B, latent_dim), action (B, action_dim), prev_reward (B,)."""
        prev_reward = None if prev_reward is None else prev_reward.unsqueeze(1)
        h, state = self.read(z.unsqueeze(1), action.unsqueeze(1), state, prev_reward)
        return self.heads(h[:, 0], z), state

    def observe(
        self, z: Tensor, action: Tensor, state: State, prev_reward: Tensor | None = None
    ) -> State:
        """(h, c) after a decision that is over, in any lanes.

        Args:
            z, action: (*lanes, latent_dim) and (*lanes, action_dim).
            state: before it.
            prev_reward: of the decision before, (*lanes); read only for `reward_input`.
        """
        lanes = z.shape[:-1]
        if len(lanes) > 1:
            z, action, h, c = (x.flatten(0, -2) for x in (z, action, *state))
            state = h, c
            prev_reward = None if prev_reward is None else prev_reward.flatten()
        paid = None if prev_reward is None else prev_reward.unsqueeze(1)
        _, (h, c) = self.read(z.unsqueeze(1), action.unsqueeze(1), state, paid)
        return h.unflatten(0, lanes), c.unflatten(0, lanes)

    def noise(self, n: int, random: Random) -> MixtureNoise:
        """Random numbers of one decision in n lanes."""
        mem, kind = self.config, self.kind
        return MixtureNoise(
            gumbel(n, (mem.latent_dim, mem.num_mixtures), random, kind),
            normal(n, (mem.latent_dim,), random, kind),
        )

    def predict(
        self, state: DreamState, action: Tensor, noise: MixtureNoise, temperature: float = 1.0
    ) -> Prediction:
        """A draw of the next z, the expected reward, the probability of the end, and (h, c)."""
        h, c = self.observe(state.z, action, (state.h, state.c), state.prev_reward)
        out = self.heads(h if state.mask is None else h * state.mask, state.z)
        z = out.mixture.draw(noise.gumbel, noise.eps, temperature)
        p_end = None if out.end_logit is None else out.end_logit.sigmoid()
        return Prediction(z, out.reward, p_end, h, c)

    def joined(self, bf16: BF16 = False) -> JoinedMemory:
        """The same M for the dreams of a population: faster, with weights as they are now."""
        return JoinedMemory(self, bf16)

    def backend(self, dream: Dream) -> DreamBackend | None:
        """Backend that runs a dream of this M without gradients; None if none is faster."""
        if dream.device.type != "cuda" or dream.dtype != torch.float32:
            return None
        from worldmodels.dreaming.backends.graphed import GraphedDream

        return GraphedDream(dream)

    def heads(self, h: Tensor, z: Tensor) -> MemoryOutput:
        """Outputs of the heads from h (..., hidden_dim) and the current z (..., latent_dim)."""
        features = F.dropout(h, self.config.dropout, self.training)
        mixture = self.mixture_head(features)
        if self.config.residual:
            mixture = mixture._replace(mu=mixture.mu + z.unsqueeze(-1))
        return MemoryOutput(mixture, *self.reward_and_end(features), h)

    def reward_and_end(self, features: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """`MemoryOutput.reward` and `.end_logit` from features (..., hidden_dim)."""
        reward = end_logit = None
        dtype = self.mixture_head.linear.weight.dtype  # also under autocast
        if self.reward_head is not None:
            reward = self.reward_head(features).squeeze(-1).to(dtype) * self.config.reward_scale
        if self.end_head is not None:
            end_logit = self.end_head(features).squeeze(-1).to(dtype)
        return reward, end_logit
