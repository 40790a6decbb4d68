"""Settings of the PixelCNNs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from generative.training.config import AdamWConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    DepthOrZero,
    NonNegative,
    Positive,
    Share,
    Size,
    SizeOrZero,
)

if TYPE_CHECKING:
    from generative.pixelcnn.model import PixelCNN


@dataclass(frozen=True)
class PlainConfig(Checked):
    """One stack of masked convolutions; the defaults are the book's (chapter 5)."""

    hidden_dim: Size = 128
    """Feature maps; a multiple of the colours."""
    num_blocks: Depth = 5
    """Residual blocks."""
    first_kernel: Size = 7
    """Side of the kernel that reads the image."""
    kernel: Size = 3
    """Side of the kernels in the blocks."""
    num_last: DepthOrZero = 2
    """Layers of 1x1 between the blocks and the output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _odd(self, "first_kernel", "kernel")


@dataclass(frozen=True)
class GatedConfig(Checked):
    """Two gated stacks, one for the rows above and one for the row's own left part, which leave no
    earlier pixel unseen (van den Oord et al. 2016b)."""

    hidden_dim: Size = 64
    """Feature maps of either stack; a multiple of the colours."""
    num_layers: Depth = 7
    """Gated layers."""
    first_kernel: Size = 7
    """Width of the kernels that read the image."""
    kernel: Size = 3
    """Width of the kernels after them."""
    dropout: Share = 0.0
    """Share of feature maps left out in training."""
    positions: bool = True
    """Tell every gate the row and the column; small images of centred things gain by it."""
    num_classes: SizeOrZero = 0
    """Classes that are told to every gate; an image whose class is not given has the mean of its
    probabilities over all. 0 for none."""
    num_views: Size = 1
    """Ways in which images were changed to have more of them, told to every gate in training; view
    0 are images as they are."""
    embed_dim: SizeOrZero = 0
    """Numbers that are learned for each level and read in its place, where levels have no order, as
    codes have none; 0 reads the grey."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _odd(self, "first_kernel", "kernel")

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older networks read greys only."""
        return {"embed_dim": 0, **settings}


@dataclass(frozen=True)
class PlusPlusConfig(Checked):
    """PixelCNN++ (Salimans et al. 2017) with the book's settings: two streams that shrink and grow
    again, with links across, every layer with normalised weights."""

    num_filters: Size = 32
    """Feature maps of either stream."""
    num_resnet: Depth = 1
    """Gated blocks of a scale on the way down; one more on the way up."""
    num_scales: Depth = 2
    """Sizes of the image; each is half of the one before."""
    dropout: Share = 0.3
    """Share of features left out in training."""


@dataclass(frozen=True)
class RecurrentConfig(Checked):
    """PixelRNN: diagonal LSTMs in both directions (van den Oord et al. 2016a), small; the
    publication has 12 layers of 128 units for CIFAR-10."""

    hidden_dim: Size = 32
    """Units of an LSTM, and feature maps between them; a multiple of the colours."""
    num_recurrent: Depth = 2
    """Layers, each with an LSTM for either direction."""
    first_kernel: Size = 7
    """Side of the kernel that reads the image."""
    dropout: Share = 0.0
    """Share of feature maps left out in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _odd(self, "first_kernel")


@dataclass(frozen=True)
class PixelCNNConfig(Checked):
    """A distribution of images of few or many levels; the defaults are the book's."""

    image_shape: tuple[Size, Size, Size] = (1, 16, 16)
    """(C, H, W); the colours of a pixel come one after the other, each knowing those before."""
    levels: Choices = 4
    """Values a pixel can have."""
    num_mixtures: SizeOrZero = 0
    """Logistic distributions whose mixture is cut into the levels; 0 gives every level a logit of
    its own."""
    network: PlainConfig | GatedConfig | PlusPlusConfig | RecurrentConfig = field(
        default_factory=PlainConfig
    )
    """Network that reads the earlier pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
        elif (
            isinstance(network, GatedConfig) and network.embed_dim and (c > 1 or self.num_mixtures)
        ):
            raise ValueError(
                f"embed_dim is {network.embed_dim} with image_shape {self.image_shape} and "
                f"num_mixtures {self.num_mixtures}; levels without an order need one channel and a "
                "logit each: give num_mixtures 0, or embed_dim 0"
            )
        elif not self.num_mixtures and network.hidden_dim % (c if c > 1 else 1):
            raise ValueError(
                f"hidden_dim is {network.hidden_dim}; each of the {c} colours has an equal part "
                "of the feature maps"
            )

    def build(self) -> PixelCNN:
        """The distribution around one of the four networks."""
        from generative.pixelcnn.mixture import LogisticMixture, PlusPlusNet
        from generative.pixelcnn.model import PixelCNN, Softmax
        from generative.pixelcnn.networks import GatedNet, PlainNet
        from generative.pixelcnn.recurrent import RecurrentNet

        shape, network = self.image_shape, self.network
        if self.num_mixtures:
            output = LogisticMixture(shape[0], self.levels, self.num_mixtures)
        else:
            output = Softmax(shape[0], self.levels)
        colours = shape[0] if output.ordered_network else 1
        told = 0, 1
        if isinstance(network, PlainConfig):
            net = PlainNet(network, shape, self.levels, output.num_params, colours)
        elif isinstance(network, GatedConfig):
            net = GatedNet(network, shape, self.levels, output.num_params, colours)
            told = network.num_classes, network.num_views
        elif isinstance(network, RecurrentConfig):
            net = RecurrentNet(network, shape, output.num_params, colours)
        else:
            net = PlusPlusNet(network, shape, output.num_params)
        return PixelCNN(net, output, shape, self.levels, *told, config=self)


@dataclass(frozen=True)
class PixelCNNLossConfig(AdamWConfig):
    """Training settings of a PixelCNN: Adam on the negative log-likelihood."""

    lr: Positive = 5e-4
    final_lr: NonNegative = 5e-4
    clip: NonNegative = 0.0
    """Largest norm of the gradient of the loss per number; 0 for no limit."""


def _odd(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) % 2 == 0:
            raise ValueError(f"{name} is {getattr(config, name)}; a kernel needs an odd side")
