"""Settings of the priors of DALL.E 2: from the embedding of a caption to one of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from generative.diffusion.config import ScheduleConfig
from generative.nets.config import BlockConfig, gpt2_block
from generative.training.config import MuonConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    NonNegative,
    Positive,
    Share,
    Size,
    SizeOrZero,
)

if TYPE_CHECKING:
    from generative.priors.autoregressive import AutoregressivePrior
    from generative.priors.diffusion import DiffusionPrior

__all__ = [
    "AutoregressivePriorConfig",
    "DiffusionPriorConfig",
    "PriorLossConfig",
    "ScheduleConfig",
]


@dataclass(frozen=True)
class DiffusionPriorConfig(Checked):
    """A causal Transformer that takes noise from an image's embedding; a small one."""

    embed_dim: Size = 16
    """Numbers of an image's embedding."""
    text_dim: Size = 16
    """Numbers of a caption's embedding."""
    context_dim: SizeOrZero = 0
    """Width of the encoded tokens of a caption, which stand in front of it; 0 for none."""
    max_len: Size = 24
    """Longest row of such tokens."""
    num_layers: Depth = 2
    """Transformer blocks."""
    block: BlockConfig = field(default_factory=lambda: gpt2_block(64, 2, dropout=0.0))
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig("cosine-betas", num_betas=1000)
    )
    """Schedule of the noise; a table of betas, whose steps "previous" needs."""
    prediction: Literal["clean", "previous"] = "clean"
    """Output of the network: the embedding without noise (Ramesh et al. 2022), or the less noisy
    one of the step before, as the book has it."""
    unit: bool = True
    """Embeddings have length 1; they are multiplied by the root of embed_dim before noise is
    added, which would drown them otherwise."""
    steps: Size = 64
    """Steps of sampling, unless another number is asked for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule.kind in ("offset-cosine", "cosine"):
            raise ValueError(
                f"schedule.kind is {self.schedule.kind}, which has no table of betas; give "
                "cosine-betas, linear or scaled-linear"
            )
        if self.steps > self.schedule.num_betas:
            raise ValueError(
                f"steps is {self.steps}, and the schedule has {self.schedule.num_betas} betas; "
                "give at most as many steps"
            )

    @property
    def scale(self) -> float:
        """Factor of embeddings."""
        return math.sqrt(self.embed_dim) if self.unit else 1.0

    def build(self) -> DiffusionPrior:
        """Diffusion of embeddings around the Transformer."""
        from generative.priors.diffusion import DiffusionPrior
        from generative.priors.networks import PriorTransformer

        return DiffusionPrior(
            PriorTransformer(self), self.embed_dim, self.text_dim, self.schedule, self.prediction,
            self.unit, self.steps, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class AutoregressivePriorConfig(Checked):
    """An encoder-decoder Transformer that writes an image's embedding as buckets; a small one."""

    embed_dim: Size = 16
    """Numbers of an image's embedding."""
    text_dim: Size = 16
    """Numbers of a caption's embedding."""
    context_dim: SizeOrZero = 0
    """Width of the encoded tokens of a caption, which stand behind it; 0 for none."""
    max_len: Size = 24
    """Longest row of such tokens."""
    components: Size = 8
    """Principal components that are written, in the order of falling variance (the publication:
    319 of 1,024)."""
    buckets: Choices = 32
    """Buckets of a component, equally probable (the publication: 1,024)."""
    text_tokens: Size = 4
    """Tokens that a caption's embedding becomes."""
    encoder_layers: Depth = 1
    """Transformer blocks that read the caption."""
    decoder_layers: Depth = 2
    """Transformer blocks that write the embedding."""
    block: BlockConfig = field(default_factory=lambda: gpt2_block(64, 2, dropout=0.0))
    unit: bool = True
    """Embeddings have length 1, and so do samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components > self.embed_dim:
            raise ValueError(
                f"components is {self.components}, and an embedding has {self.embed_dim} numbers; "
                "give at most as many"
            )

    def build(self) -> AutoregressivePrior:
        """Components, buckets and the Transformer."""
        from generative.priors.autoregressive import AutoregressivePrior
        from generative.priors.networks import BucketTransformer

        sizes = self.embed_dim, self.text_dim, self.components, self.buckets
        return AutoregressivePrior(BucketTransformer(self), *sizes, self.unit, config=self)


@dataclass(frozen=True)
class PriorLossConfig(MuonConfig):
    """Training settings of a prior: AdamW or Muon, and captions that are left out."""

    lr: Positive = 1e-3
    """Learning rate."""
    final_lr: NonNegative = 1e-5
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    drop_text: Share = 0.1
    """Share of the captions that are left out in training, for guidance."""
    weighting: Literal["clean", "velocity"] = "clean"
    """Weight of the error of a clean embedding at a noise level: 1, or that of the velocity, 1 +
    SNR, up to 20, by which a network learns sooner which embedding little noise hides."""

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older settings weigh all noise levels alike."""
        return {"weighting": "clean", **super().upgrade(settings)}
