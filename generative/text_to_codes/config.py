"""Settings of models that write the codes of a picture for a caption: DALL.E, Parti, MUSE."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from generative.nets.config import (
    BlockConfig,
    TextEncoderConfig,
    clip_block,
    gpt2_block,
)
from generative.training.config import MuonConfig
from generative.training.ranges import (
    Checked,
    Choices,
    CountOrZero,
    Depth,
    NonNegative,
    Positive,
    Probability,
    Share,
    Size,
)

if TYPE_CHECKING:
    from generative.text_to_codes.autoregressive import DALLE, Parti
    from generative.text_to_codes.masked import MUSE

__all__ = [
    "DALLEConfig",
    "MUSEConfig",
    "PartiConfig",
    "TextEncoderConfig",
    "TextToCodesLossConfig",
]


@dataclass(frozen=True)
class DALLEConfig(Checked):
    """A causal Transformer over a caption and then the codes of a picture (Ramesh et al. 2021)."""

    vocab_size: Size = 64
    """Words of captions, with padding, unknown word, begin and end."""
    max_len: Size = 24
    """Longest caption, with its begin and end."""
    grid: tuple[Size, Size] = (3, 3)
    """Rows and columns of codes."""
    num_codes: Choices = 25
    """Codes there are."""
    num_layers: Depth = 2
    """Transformer blocks."""
    block: BlockConfig = field(
        default_factory=lambda: replace(gpt2_block(64, 2, dropout=0.0), rotary=True, shift=3)
    )
    """Its words and codes have vectors of places besides."""
    text_weight: Probability = 1 / 8
    """Share of the loss that is the caption's; the rest is the picture's."""

    def build(self) -> DALLE:
        """The model of these sizes."""
        from generative.text_to_codes.autoregressive import DALLE

        return DALLE(self)


def _reader(shift: int) -> TextEncoderConfig:
    """Encoder of captions whose blocks turn by places, and shift."""
    block = replace(clip_block(64, 2), rotary=True, shift=shift)
    return TextEncoderConfig(64, 24, 2, block, causal=False)


@dataclass(frozen=True)
class PartiConfig(Checked):
    """An encoder of captions and a decoder that writes codes one by one (Yu et al. 2022)."""

    text: TextEncoderConfig = field(default_factory=lambda: _reader(shift=0))
    """Encoder of captions, as wide as the decoder. Which colour is which shape's, and which place
    is whose, is told by what stands side by side; rotary places make that easy to find."""
    grid: tuple[Size, Size] = (3, 3)
    """Rows and columns of codes."""
    num_codes: Choices = 25
    """Codes there are."""
    num_layers: Depth = 2
    """Transformer blocks of the decoder."""
    block: BlockConfig = field(default_factory=lambda: gpt2_block(64, 2, dropout=0.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text.block.dim != self.block.dim:
            raise ValueError(
                f"the text encoder is {self.text.block.dim} wide and the decoder "
                f"{self.block.dim}; give both one width"
            )

    def build(self) -> Parti | MUSE:
        """The model of these sizes."""
        from generative.text_to_codes.autoregressive import Parti

        return Parti(self)


@dataclass(frozen=True)
class MUSEConfig(PartiConfig):
    """An encoder of captions and a Transformer that fills in hidden codes (Chang et al. 2023)."""

    text: TextEncoderConfig = field(default_factory=lambda: _reader(shift=3))
    """As of Parti, with a shift. It is asked for any place beside any others, and without a shift
    may never learn which object is whose neighbour."""
    steps: Size = 9
    """Steps of decoding, unless another number is asked for."""
    noise: NonNegative = 4.5
    """Factor of the noise on confidences at the first step, which falls to 0 at the last. Without
    it the surest codes come first, and pictures are flat."""

    def build(self) -> MUSE:
        """The model of these sizes."""
        from generative.text_to_codes.masked import MUSE

        return MUSE(self)


@dataclass(frozen=True)
class TextToCodesLossConfig(MuonConfig):
    """Training settings: AdamW or Muon, and captions that are left out."""

    lr: Positive = 2e-3
    """Learning rate."""
    final_lr: NonNegative = 2e-5
    """Learning rate at the last step; cosine from `lr` (equal: constant)."""
    warmup: CountOrZero = 100
    """Steps over which the learning rate rises from 0."""
    clip: NonNegative = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    drop_text: Share = 0.0
    """Share of the captions that are left out in training, for guidance (MUSE: 0.1)."""
