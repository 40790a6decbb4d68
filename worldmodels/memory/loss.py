"""Loss of M: `memory_loss` in readable form, and `mixture_nll`, its costly part, in fast form.

A test checks that the two agree; `MemoryLearner` uses the fast one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from generative.mdn import (
    HALF_LOG_2PI,
    LOG_STD_MAX,
    LOG_STD_MIN,
    MixtureDensityHead,
)
from worldmodels.configs import MemoryConfig, MemoryLossConfig
from worldmodels.memory.base import MemoryOutput

__all__ = ["MemoryLosses", "join_losses", "memory_loss", "mixture_nll", "share_of_steps"]


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
    share = share_of_steps(batch["mask"])
    nll = ((-out.mixture.log_prob(batch["next_z"])).mean(-1) * share).sum()
    return join_losses(nll, out.reward, out.end_logit, batch, config, weights)


def share_of_steps(mask: Tensor) -> Tensor:
    """Weights (B, T) under which a sum is the mean over the real steps."""
    if not len(mask):
        raise ValueError("got a batch of 0 windows; a loss of M is a mean: give at least one")
    return mask / mask.sum().clamp_min(1.0)


def join_losses(
    nll: Tensor,
    reward: Tensor | None,
    end_logit: Tensor | None,
    batch: dict[str, Tensor],
    config: MemoryConfig,
    weights: MemoryLossConfig,
) -> MemoryLosses:
    """Adds the errors of reward and end (B, T) to the mean negative log-likelihood."""
    share = share_of_steps(batch["mask"])
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
