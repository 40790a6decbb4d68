"""M, the memory: an LSTM that predicts the next z as a mixture of Gaussians.

Ha & Schmidhuber (2018), section 2.3 and appendix A.2; with heads for reward and episode end as
in the book's chapter 12 and the paper's Doom experiment. A step reads (z_t, a_t) and predicts
z_{t+1}, the reward and the end that action a_t brings.

    memory = MDNRNN(BOOK_MDNRNN)
    out, state = memory(z, action, prev_reward=reward)    # (B, T, 32), (B, T, 3), (B, T)
    loss = -out.mixture.log_prob(next_z).mean()
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.mdn import Mixture, MixtureDensityHead
from generative.pretrained import Pretrained
from worldmodels.configs import BOOK_MDNRNN, PAPER_MDNRNN, MDNRNNConfig, MemoryLossConfig

__all__ = [
    "BOOK_MDNRNN",
    "PAPER_MDNRNN",
    "MDNRNN",
    "MDNRNNConfig",
    "MemoryLearner",
    "MemoryLossConfig",
    "MemoryLosses",
    "MemoryOutput",
    "memory_loss",
]

State = tuple[Tensor, Tensor]


class MemoryOutput(NamedTuple):
    """What M says of a step; the leading dimensions are those of the inputs."""

    mixture: Mixture
    """Distribution of the next z, fields (..., latent_dim, K)."""
    reward: Tensor | None
    """Expected reward of the step in the environment's units, (...)."""
    end_logit: Tensor | None
    """Logit that the episode ends with this step, (...)."""
    h: Tensor
    """LSTM output after the step, (..., hidden_dim)."""


class MDNRNN(Pretrained, nn.Module):
    """LSTM + mixture density head + optional reward and end heads."""

    config_class = MDNRNNConfig

    def __init__(self, config: MDNRNNConfig = PAPER_MDNRNN):
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.input_dim, config.hidden_dim, batch_first=True)
        # torch keeps two bias vectors that only ever act as their sum. The second stays at zero
        # and is not trained, so that parameters count as in the paper.
        nn.init.zeros_(self.lstm.bias_hh_l0).requires_grad_(False)
        self.mixture_head = MixtureDensityHead(
            config.hidden_dim, config.latent_dim, config.num_mixtures
        )
        self.reward_head = nn.Linear(config.hidden_dim, 1) if config.predict_reward else None
        self.end_head = nn.Linear(config.hidden_dim, 1) if config.predict_end else None

    def initial_state(self, batch_size: int) -> State:
        """(h, c) of an episode that has not begun: zeros, each (B, hidden_dim)."""
        zeros = self.lstm.weight_ih_l0.new_zeros(batch_size, self.config.hidden_dim)
        return zeros, zeros

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
        if not config.reward_input:
            return torch.cat([z, action], dim=-1)
        if prev_reward is None:
            raise ValueError("this M reads the previous reward; pass prev_reward")
        return torch.cat([z, action, prev_reward.unsqueeze(-1) / config.reward_scale], dim=-1)

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
            state: (h, c), each (B, hidden_dim); None begins an episode.
            prev_reward: (B, T), the reward of the step before; only for `reward_input`.
        Returns:
            the output at every step, and (h, c) after the last.
        """
        h, state = self.read(z, action, state, prev_reward)
        return self.heads(h, z), state

    def read(
        self, z: Tensor, action: Tensor, state: State | None, prev_reward: Tensor | None
    ) -> tuple[Tensor, State]:
        """The LSTM alone, for filtering a real episode: h at every step, and the last (h, c)."""
        if state is not None:
            state = (state[0].unsqueeze(0), state[1].unsqueeze(0))
        h, (h_last, c_last) = self.lstm(self.inputs(z, action, prev_reward), state)
        return h, (h_last[0], c_last[0])

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

    def heads(self, h: Tensor, z: Tensor) -> MemoryOutput:
        """What the heads read off h (..., hidden_dim); z (..., latent_dim) is the current one."""
        features = F.dropout(h, self.config.dropout, self.training)
        mixture = self.mixture_head(features)
        if self.config.residual:
            mixture = mixture._replace(mu=mixture.mu + z.unsqueeze(-1).float())
        reward = end_logit = None
        if self.reward_head is not None:
            reward = self.reward_head(features).squeeze(-1).float() * self.config.reward_scale
        if self.end_head is not None:
            end_logit = self.end_head(features).squeeze(-1).float()
        return MemoryOutput(mixture, reward, end_logit, h)


class MemoryLosses(NamedTuple):
    """Means over the real steps of a batch."""

    loss: Tensor
    nll: Tensor
    """Nats per latent dimension."""
    reward: Tensor
    """Squared error in scaled rewards (0 without a reward head)."""
    end: Tensor
    """Cross-entropy of the end in nats (0 without an end head)."""


def memory_loss(
    out: MemoryOutput, batch: dict[str, Tensor], config: MDNRNNConfig, weights: MemoryLossConfig
) -> MemoryLosses:
    """Negative log-likelihood of the next z + weighted reward and end errors.

    Args:
        batch: next_z (B, T, D), reward (B, T), terminated (B, T) and mask (B, T), which is 1
            where the step is real and 0 on padding; padding never counts.
    """
    mask = batch["mask"]
    total = mask.sum().clamp_min(1.0)
    nll = ((-out.mixture.log_prob(batch["next_z"])).mean(-1) * mask).sum() / total
    reward = end = torch.zeros_like(nll)
    if out.reward is not None:
        error = (out.reward - batch["reward"]) / config.reward_scale
        reward = (error.square() * mask).sum() / total
    if out.end_logit is not None:
        cross_entropy = F.binary_cross_entropy_with_logits(
            out.end_logit, batch["terminated"], reduction="none"
        )
        end = (cross_entropy * mask).sum() / total
    loss = nll + weights.reward_weight * reward + weights.end_weight * end
    return MemoryLosses(loss, nll, reward, end)


class MemoryLearner:
    """Adam with clipped gradient values on `memory_loss`; one `update` per batch of windows."""

    def __init__(self, model: MDNRNN, config: MemoryLossConfig, steps: int):
        self.model = model
        self.config = config
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=config.lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, T_max=max(steps, 1), eta_min=config.final_lr
        )

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step on windows of z, action, prev_reward, next_z, reward, terminated, mask."""
        self.model.train()
        with torch.autocast(batch["z"].device.type, torch.bfloat16, enabled=self.config.bf16):
            out, _ = self.model(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
        losses = memory_loss(out, batch, self.model.config, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        losses.loss.backward()
        torch.nn.utils.clip_grad_value_(self.model.parameters(), self.config.clip_value)
        self.optimizer.step()
        self.schedule.step()
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
