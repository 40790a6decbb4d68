"""Training of M: Adam with clipped gradient values, one `update` per batch of windows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from generative.training.learner import ModelLearner
from generative.training.optimisation import Optimisation
from generative.training.precision import uses_bf16
from worldmodels.configs import MemoryLossConfig
from worldmodels.memory.base import Memory
from worldmodels.memory.loss import join_losses, mixture_nll, share_of_steps

__all__ = ["MemoryLearner", "fast_dropout", "paper_lr"]


def fast_dropout(x: Tensor, p: float) -> Tensor:
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


class MemoryLearner(ModelLearner[Memory]):
    """Adam with clipped gradient values on `memory_loss`; one `update` per batch of windows."""

    def __init__(self, model: Memory, config: MemoryLossConfig, steps: int):
        self.config = config
        trained = [p for p in model.parameters() if p.requires_grad]
        self.bf16 = uses_bf16(config.bf16, model.device)
        optimizer = torch.optim.Adam(trained, lr=config.lr, fused=True)
        paper = config.final_lr == "paper"
        optimisation = Optimisation(
            model,
            optimizer,
            steps,
            0.0 if config.final_lr == "paper" else config.final_lr,
            clip_value=config.clip_value,
            rate=partial(paper_lr, config.lr) if paper else None,
        )
        super().__init__(model, optimisation)

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step on windows of z, action, prev_reward, next_z, reward, terminated, mask."""
        self.model.train()
        share = share_of_steps(batch["mask"])
        model, bf16 = self.model, self.bf16
        with torch.autocast(batch["z"].device.type, torch.bfloat16, enabled=bf16):
            h, _ = model.read(batch["z"], batch["action"], None, batch["prev_reward"])
            features = fast_dropout(h, model.config.dropout)
            reward, end_logit = model.reward_and_end(features)
        target = batch["next_z"] - batch["z"] if model.config.residual else batch["next_z"]
        nll = mixture_nll(
            features,
            model.mixture_head,
            target,
            share,
            torch.bfloat16 if bf16 else target.dtype,
        )
        losses = join_losses(nll, reward, end_logit, batch, model.config, self.config)
        return self.descend(losses)
