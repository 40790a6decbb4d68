"""Settings of the PixelCNNs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlainConfig:
    """One stack of masked convolutions; the defaults are the book's (chapter 5)."""

    hidden_dim: int = 128
    """Feature maps; a multiple of the colours."""
    num_blocks: int = 5
    """Residual blocks."""
    first_kernel: int = 7
    """Side of the kernel that reads the image."""
    kernel: int = 3
    """Side of the kernels in the blocks."""
    num_last: int = 2
    """Layers of 1x1 between the blocks and the output."""

    def __post_init__(self) -> None:
        _at_least_one(self, "hidden_dim", "num_blocks")
        _odd(self, "first_kernel", "kernel")
        if self.num_last < 0:
            raise ValueError(f"num_last is {self.num_last}; it can not be negative")


@dataclass(frozen=True)
class GatedConfig:
    """Two gated stacks, one for the rows above and one for the row's own left part, which leave no
    earlier pixel unseen (van den Oord et al. 2016b)."""

    hidden_dim: int = 64
    """Feature maps of either stack; a multiple of the colours."""
    num_layers: int = 7
    """Gated layers."""
    first_kernel: int = 7
    """Width of the kernels that read the image."""
    kernel: int = 3
    """Width of the kernels after them."""
    dropout: float = 0.0
    """Share of feature maps left out in training."""
    positions: bool = True
    """Tell every gate the row and the column; small images of centred things gain by it."""
    num_classes: int = 0
    """Classes that are told to every gate; an image whose class is not given has the mean of its
    probabilities over all. 0 for none."""
    num_views: int = 1
    """Ways in which images were changed to have more of them, told to every gate in training; view
    0 are images as they are."""

    def __post_init__(self) -> None:
        _at_least_one(self, "hidden_dim", "num_layers", "num_views")
        if self.num_classes < 0:
            raise ValueError(f"num_classes is {self.num_classes}; it can not be negative")
        _odd(self, "first_kernel", "kernel")
        _share(self, "dropout")


@dataclass(frozen=True)
class PlusPlusConfig:
    """PixelCNN++ (Salimans et al. 2017) with the book's settings: two streams that shrink and grow
    again, with links across, every layer with normalised weights."""

    num_filters: int = 32
    """Feature maps of either stream."""
    num_resnet: int = 1
    """Gated blocks of a scale on the way down; one more on the way up."""
    num_scales: int = 2
    """Sizes of the image; each is half of the one before."""
    dropout: float = 0.3
    """Share of features left out in training."""

    def __post_init__(self) -> None:
        _at_least_one(self, "num_filters", "num_resnet", "num_scales")
        _share(self, "dropout")


@dataclass(frozen=True)
class PixelCNNConfig:
    """A distribution of images of few or many levels; the defaults are the book's."""

    image_shape: tuple[int, int, int] = (1, 16, 16)
    """(C, H, W); the colours of a pixel come one after the other, each knowing those before."""
    levels: int = 4
    """Values a pixel can have."""
    num_mixtures: int = 0
    """Logistic distributions whose mixture is cut into the levels; 0 gives every level a logit of
    its own."""
    network: PlainConfig | GatedConfig | PlusPlusConfig = field(default_factory=PlainConfig)
    """What reads the earlier pixels."""

    def __post_init__(self) -> None:
        if min(self.image_shape) < 1:
            raise ValueError(f"image_shape is {self.image_shape}; give (C, H, W), all positive")
        if self.levels < 2:
            raise ValueError(f"levels is {self.levels}; a pixel needs at least 2")
        if self.num_mixtures < 0:
            raise ValueError(f"num_mixtures is {self.num_mixtures}; it can not be negative")
        network, (c, h, w) = self.network, self.image_shape
        if isinstance(network, PlusPlusConfig):
            fold = 2 ** (network.num_scales - 1)
            if h % fold or w % fold:
                raise ValueError(
                    f"image_shape is {self.image_shape}; {network.num_scales} scales need a height "
                    f"and width that {fold} divides"
                )
            if c > 1 and not self.num_mixtures:
                raise ValueError(
                    f"image_shape is {self.image_shape} and num_mixtures 0; PixelCNN++ does not "
                    "order the colours of a pixel, which only a mixture then can: give 5 or more"
                )
        elif not self.num_mixtures and network.hidden_dim % (c if c > 1 else 1):
            raise ValueError(
                f"hidden_dim is {network.hidden_dim}; each of the {c} colours has an equal part "
                "of the feature maps"
            )


@dataclass(frozen=True)
class PixelCNNLossConfig:
    """How a PixelCNN is trained: Adam on the negative log-likelihood."""

    lr: float = 5e-4
    """Adam's learning rate."""
    final_lr: float = 5e-4
    """Learning rate at the last step; cosine from `lr` (equal: constant, as in the book)."""
    adam_eps: float = 1e-7
    """Adam's epsilon (the book's framework has 1e-7)."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW)."""
    clip: float = 0.0
    """Largest norm of the gradient of the loss per number; 0 for no limit."""
    ema: float = 0.0
    """Decay of the average of the weights that is kept in their place; 0 keeps the last weights."""

    def __post_init__(self) -> None:
        if not self.lr > 0 or self.final_lr < 0:
            raise ValueError(
                f"lr is {self.lr} and final_lr {self.final_lr}; lr must be positive, final_lr not "
                "negative"
            )
        if min(self.weight_decay, self.clip) < 0 or not 0 <= self.ema < 1:
            raise ValueError(
                f"weight_decay is {self.weight_decay}, clip {self.clip}, ema {self.ema}; none can "
                "be negative, and ema stays below 1"
            )


def _at_least_one(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")


def _odd(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1 or getattr(config, name) % 2 == 0:
            raise ValueError(f"{name} is {getattr(config, name)}; a kernel needs an odd side")


def _share(config: object, name: str) -> None:
    if not 0 <= getattr(config, name) < 1:
        raise ValueError(f"{name} is {getattr(config, name)}; give a share from 0 up to below 1")
