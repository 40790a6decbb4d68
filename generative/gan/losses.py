"""Losses of generator and critic, from the critic's heights and their slopes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.gan.config import GANLossConfig

__all__ = [
    "critic_loss",
    "critic_objective",
    "generator_loss",
    "generator_objective",
    "gradient_penalty",
    "orthogonal_penalty",
    "squared_slope",
]


def critic_objective(real: Tensor, fake: Tensor, objective: str) -> Tensor:
    """Loss of the critic by the name of the objective, from heights (B, ...) of real and generated
    examples: "hinge" (Lim & Ye 2017), "relativistic" (Jolicoeur-Martineau 2019), "squares" (Mao et
    al. 2017), "logistic" (Goodfellow et al. 2014, as a sum) or "wasserstein" (Arjovsky et al.
    2017)."""
    if objective == "hinge":
        return (F.relu(1 - real) + F.relu(1 + fake)).mean()
    if objective == "relativistic":
        return F.softplus(fake - real).mean()
    if objective == "squares":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if objective == "logistic":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    return fake.mean() - real.mean()


def generator_objective(fake: Tensor, real: Tensor, objective: str) -> Tensor:
    """Loss of the generator, from the same heights; only relativistic uses `real`."""
    if objective == "relativistic":
        return F.softplus(real - fake).mean()
    if objective == "squares":
        return (fake - 1).square().mean()
    if objective == "logistic":
        return F.softplus(-fake).mean()
    return -fake.mean()


def critic_loss(real: Tensor, fake: Tensor, config: GANLossConfig) -> Tensor:
    """Loss of the critic, from its heights (B, ...) of real and of generated examples."""
    if config.objective != "bce":
        return critic_objective(real, fake, config.objective)
    real_labels = _noisy_labels(torch.ones_like(real), config)
    fake_labels = _noisy_labels(torch.zeros_like(fake), config)
    of_real = _cross_entropy(real, real_labels, config)
    return (of_real + _cross_entropy(fake, fake_labels, config)) / 2


def generator_loss(fake: Tensor, real: Tensor, config: GANLossConfig) -> Tensor:
    """Loss of the generator, from the same heights; only relativistic uses `real`."""
    if config.objective != "bce":
        return generator_objective(fake, real, config.objective)
    return _cross_entropy(fake, torch.ones_like(fake), config)


def _noisy_labels(labels: Tensor, config: GANLossConfig) -> Tensor:
    """Labels of 0 and 1, some of them turned round, all of them moved."""
    if config.flip:
        labels = torch.where(torch.rand_like(labels) < config.flip, 1 - labels, labels)
    if config.label_noise:
        outward = 2 * labels - 1 if config.noise_direction == "outward" else 1 - 2 * labels
        labels = labels + config.label_noise * torch.rand_like(labels) * outward
    return labels


def _cross_entropy(logits: Tensor, labels: Tensor, config: GANLossConfig) -> Tensor:
    if not config.clip:
        return F.binary_cross_entropy_with_logits(logits, labels)
    p = logits.sigmoid().clamp(config.clip, 1 - config.clip)
    return -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()


def squared_slope(heights: Tensor, x: Tensor) -> Tensor:
    """Mean over the batch of |d height / d x|^2, which can be differentiated again.

    Args:
        heights: (B,), each computed of one row of x.
        x: (B, ...) with requires_grad.
    """
    (slope,) = torch.autograd.grad(heights.sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1).mean()


def gradient_penalty(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    *given: Tensor,
    alpha: str = "uniform",
    norm_eps: float = 1e-12,
) -> Tensor:
    """Mean of (|d critic(x) / dx| - 1)^2 at x between real and generated examples.

    x = real + alpha (fake - real), one alpha for each pair (Gulrajani et al. 2017, section 4).

    Args:
        critic: (B, ...) and its conditions -> (B,).
        real, fake: examples, (B, ...).
        given: e.g. labels, which stay as they are.
        alpha: "uniform" in [0, 1], or "normal" as in the book's program.
        norm_eps: added to the squared norm under the root. Where the gradient is exactly 0, the
            root has none without it, and training ends in NaN.
    """
    draw = torch.rand if alpha == "uniform" else torch.randn
    share = draw(len(real), *[1] * (real.dim() - 1), device=real.device, dtype=real.dtype)
    x = (real + share * (fake - real)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(x, *given).sum(), x, create_graph=True)
    norm = (slope.flatten(1).square().sum(1) + norm_eps).sqrt()
    return (norm - 1).square().mean()


def orthogonal_penalty(network: nn.Module) -> Tensor:
    """Sum over all layers of the squared products of different filters, |F F^T * (1 - I)|^2.

    A filter is a row F_i of a weight (out, ...), of any length: the penalty is 0 where they are
    orthogonal (Brock et al. 2019, section 3.1). Embeddings, whose rows are classes, have none.
    """
    spared = {
        id(p) for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    weights = [p.flatten(1) for p in network.parameters() if p.dim() > 1 and id(p) not in spared]
    products = [w @ w.T for w in weights]
    return torch.stack([(p - p.diag().diag()).square().sum() for p in products]).sum()
