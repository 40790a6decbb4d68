"""M, the memory: an LSTM that predicts the next z as a mixture of Gaussians.

Ha & Schmidhuber (2018), section 2.3 and appendix A.2; with heads for reward and episode end as
in the book's chapter 12 and the paper's Doom experiment. A step reads (z_t, a_t) and predicts
z_{t+1}, the reward and the end that action a_t brings.

    memory = MDNRNN(BOOK_MDNRNN)
    out, state = memory(z, action, prev_reward=reward)    # (B, T, 32), (B, T, 3), (B, T)
    loss = -out.mixture.log_prob(next_z).mean()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from generative.mdn import (
    HALF_LOG_2PI,
    LOG_STD_MAX,
    LOG_STD_MIN,
    Mixture,
    MixtureDensityHead,
)
from generative.training.checks import check_dtype
from generative.training.optimisation import Optimisation
from generative.training.precision import uses_bf16
from generative.training.pretrained import Pretrained
from worldmodels.configs import (
    BOOK_MDNRNN,
    PAPER_MDNRNN,
    MDNRNNConfig,
    MemoryConfig,
    MemoryLossConfig,
)

__all__ = [
    "BOOK_MDNRNN",
    "PAPER_MDNRNN",
    "MDNRNN",
    "MDNRNNConfig",
    "Memory",
    "MemoryLearner",
    "MemoryLossConfig",
    "MemoryLosses",
    "MemoryOutput",
    "memory_loss",
    "mixture_nll",
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
    """What the heads saw, the recurrence's output after the step, (..., hidden_dim)."""


class Memory(Pretrained, nn.Module, ABC):
    """What every M has beside its recurrence: heads, and how a step's inputs are joined.

    A subclass builds what `read` needs, then calls `_add_heads`. Its state is a pair (h, c): h
    (B, hidden_dim) is what the heads and C see, and c (B, state_dim) whatever else it keeps.
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
        """Where the weights are."""
        return self.mixture_head.linear.weight.device

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

    def heads(self, h: Tensor, z: Tensor) -> MemoryOutput:
        """What the heads read off h (..., hidden_dim); z (..., latent_dim) is the current one."""
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


class MDNRNN(Memory):
    """LSTM + mixture density head + optional reward and end heads."""

    config_class = MDNRNNConfig
    config: MDNRNNConfig

    def __init__(self, config: MDNRNNConfig = PAPER_MDNRNN):
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.input_dim, config.hidden_dim, batch_first=True)
        # torch keeps two bias vectors that only ever act as their sum. The second stays at zero
        # and is not trained, so that parameters count as in the paper.
        _, _, _, bias_hh = self.lstm.all_weights[0]
        nn.init.zeros_(bias_hh).requires_grad_(False)
        self._add_heads()

    def read(
        self, z: Tensor, action: Tensor, state: State | None, prev_reward: Tensor | None
    ) -> tuple[Tensor, State]:
        """The LSTM alone: h at every step, (B, T, hidden_dim), and the last (h, c)."""
        if state is not None:
            state = (state[0].unsqueeze(0), state[1].unsqueeze(0))
        h, (h_last, c_last) = self.lstm(self.inputs(z, action, prev_reward), state)
        return h, (h_last[0], c_last[0])


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
    out: MemoryOutput,
    batch: dict[str, Tensor],
    config: MemoryConfig,
    weights: MemoryLossConfig,
) -> MemoryLosses:
    """Negative log-likelihood of the next z + weighted reward and end errors.

    Args:
        batch: next_z (B, T, D), reward (B, T), terminated (B, T) and mask (B, T), which is 1
            where the step is real and 0 on padding; padding never counts.
    """
    share = _share_of_steps(batch["mask"])
    nll = ((-out.mixture.log_prob(batch["next_z"])).mean(-1) * share).sum()
    return _joined_losses(nll, out.reward, out.end_logit, batch, config, weights)


def _share_of_steps(mask: Tensor) -> Tensor:
    """Weights (B, T) under which a sum is the mean over the real steps."""
    if not len(mask):
        raise ValueError("got a batch of 0 windows; a loss of M is a mean: give at least one")
    return mask / mask.sum().clamp_min(1.0)


def _joined_losses(
    nll: Tensor,
    reward: Tensor | None,
    end_logit: Tensor | None,
    batch: dict[str, Tensor],
    config: MemoryConfig,
    weights: MemoryLossConfig,
) -> MemoryLosses:
    """Adds the errors of reward and end (B, T) to the mean negative log-likelihood."""
    share = _share_of_steps(batch["mask"])
    reward_loss = end_loss = torch.zeros_like(nll)
    if reward is not None:
        error = (reward - batch["reward"]) / config.reward_scale
        reward_loss = (error.square() * share).sum()
    if end_logit is not None:
        cross_entropy = F.binary_cross_entropy_with_logits(
            end_logit, batch["terminated"], reduction="none"
        )
        end_loss = (cross_entropy * share).sum()
    loss = nll + weights.reward_weight * reward_loss + weights.end_weight * end_loss
    return MemoryLosses(loss, nll, reward_loss, end_loss)


def mixture_nll(
    features: Tensor, head: MixtureDensityHead, x: Tensor, share: Tensor, dtype: torch.dtype
) -> Tensor:
    """`-(share * head(features).log_prob(x).mean(-1)).sum()` in about a third of the time.

    The head's product, the likelihood and all gradients are worked out together, some rows at a
    time, while these are in the processor's cache. The mixtures of a whole batch, 2 GB with what
    autograd keeps of them at the paper's sizes, never exist.

    Args:
        features: (..., in_dim).
        x: targets, (..., D).
        share: weight of each row, (...).
        dtype: precision of the matrix products; the likelihood is always in float32.
    Returns:
        a scalar in nats, differentiable once in features and in the head's parameters.
    """
    return _MixtureNLL.apply(
        features.flatten(0, -2),
        head.linear.weight,
        head.linear.bias,
        x.flatten(0, -2),
        share.flatten(),
        head.num_mixtures,
        dtype,
    )


class _MixtureNLL(torch.autograd.Function):
    """See `mixture_nll`; N rows, D dimensions, K mixtures."""

    rows_at_once = 2048

    @staticmethod
    def forward(ctx, features, weight, bias, x, share, num_mixtures, dtype):
        dim = x.shape[1]
        # (3, D, K) -> (3, K, D): sums over K are quick over rows, slow over neighbours.
        weight, bias = (_swap_sizes(t, dim, num_mixtures).to(dtype) for t in (weight, bias))
        nll = x.new_zeros(())
        grad_features = torch.empty_like(features)
        grad_weight = torch.zeros_like(weight, dtype=x.dtype)
        grad_bias = torch.zeros_like(bias, dtype=x.dtype)
        for first in range(0, len(x), _MixtureNLL.rows_at_once):
            rows = slice(first, first + _MixtureNLL.rows_at_once)
            f = features[rows].to(dtype)
            out = torch.addmm(bias, f, weight.t()).to(x.dtype)
            mixture = out.unflatten(1, (3, num_mixtures, dim))
            nll += _nll_leaving_gradient(mixture, x[rows], share[rows])
            grad_out = out.to(dtype)
            grad_features[rows] = grad_out @ weight
            grad_weight += grad_out.t() @ f
            grad_bias += out.sum(0)
        grad_head = (_swap_sizes(t, num_mixtures, dim) for t in (grad_weight, grad_bias))
        ctx.save_for_backward(grad_features, *grad_head)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None, None


def _swap_sizes(rows: Tensor, a: int, b: int) -> Tensor:
    """(3 * a * b, ...) -> (3 * b * a, ...)."""
    return rows.unflatten(0, (3, a, b)).transpose(1, 2).flatten(0, 2)


def _nll_leaving_gradient(out: Tensor, x: Tensor, share: Tensor) -> Tensor:
    """The weighted negative log-likelihood of x (N, D); `out` is overwritten by its gradient.

    With pi the weights of the mixture and r those after x is known (r_k ~ pi_k N(x | mu_k, std_k)),
    the derivatives of -log sum_k pi_k N(x | mu_k, std_k) are (Bishop 1994, section 4)

        pi - r by the logits,  -r e / std by mu,  r (1 - e^2) by log std,  e = (x - mu) / std.

    Args:
        out: what the head gives, (N, 3, K, D): logits of pi, mu, log std before it is clamped.
        share: weight of each row, (N,).
    """
    logit, mu, raw_log_std = out.unbind(1)
    log_std = raw_log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    inside = raw_log_std == log_std
    precision = (-log_std).exp_()  # 1 / std
    e = (x.unsqueeze(1) - mu).mul_(precision)
    joint = torch.addcmul(logit, e, e, value=-0.5).sub_(log_std)
    # Both softmaxes by hand, since their sums are the likelihood too.
    top, joint_top = logit.amax(1, keepdim=True), joint.amax(1, keepdim=True)
    pi, r = (logit - top).exp_(), joint.sub_(joint_top).exp_()
    pi_sum, r_sum = pi.sum(1, keepdim=True), r.sum(1, keepdim=True)
    nll = top - joint_top + (pi_sum / r_sum).log_() + HALF_LOG_2PI
    share = (share / x.shape[1]).view(-1, 1, 1)
    pi.mul_(share / pi_sum)
    r.mul_(share / r_sum)
    re = r * e
    torch.sub(pi, r, out=logit)
    torch.mul(re, precision, out=mu).neg_()
    torch.addcmul(r, re, e, value=-1, out=raw_log_std).mul_(inside)
    return (nll * share).sum()


def _dropout(x: Tensor, p: float) -> Tensor:
    """`F.dropout(x, p)` from 16 random bits a number: several times faster on a CPU."""
    if p == 0:
        return x
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    bits = words.random_(-(2**63), None).view(torch.int16)[: x.numel()]  # uniform, signed
    kept = bits.view(x.shape) >= round(p * 2**16) - 2**15
    return x * kept.to(x.dtype).div_(1 - p)


def paper_lr(lr: float, step: int) -> float:
    """Learning rate of the paper's program at a step, from 0: it falls from lr towards 1e-5."""
    return 1e-5 + (lr - 1e-5) * 0.99999**step


class MemoryLearner:
    """Adam with clipped gradient values on `memory_loss`; one `update` per batch of windows."""

    def __init__(self, model: Memory, config: MemoryLossConfig, steps: int):
        self.model = model
        self.config = config
        trained = [p for p in model.parameters() if p.requires_grad]
        self.bf16 = uses_bf16(config.bf16, model.device)
        self.optimizer = torch.optim.Adam(trained, lr=config.lr, fused=True)
        paper = config.final_lr == "paper"
        self.optimisation = Optimisation(
            model,
            self.optimizer,
            steps,
            0.0 if paper else config.final_lr,
            clip_value=config.clip_value,
            rate=partial(paper_lr, config.lr) if paper else None,
        )

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step on windows of z, action, prev_reward, next_z, reward, terminated, mask."""
        self.model.train()
        share = _share_of_steps(batch["mask"])
        model, bf16 = self.model, self.bf16
        with torch.autocast(batch["z"].device.type, torch.bfloat16, enabled=bf16):
            h, _ = model.read(batch["z"], batch["action"], None, batch["prev_reward"])
            features = _dropout(h, model.config.dropout)
            reward, end_logit = model.reward_and_end(features)
        target = batch["next_z"] - batch["z"] if model.config.residual else batch["next_z"]
        nll = mixture_nll(
            features,
            model.mixture_head,
            target,
            share,
            torch.bfloat16 if bf16 else target.dtype,
        )
        losses = _joined_losses(nll, reward, end_logit, batch, model.config, self.config)
        self.optimisation.step(losses.loss)
        return {name: value.detach() for name, value in losses._asdict().items()}

    def state_dict(self) -> dict:
        return self.optimisation.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.optimisation.load_state_dict(state)
