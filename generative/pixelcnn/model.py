"""PixelCNN: images pixel by pixel, with an exact probability. Loss, sampler, learner.

The probability of an image is a product over its pixels, in the order of reading, of the
probability of each given those before it. A convolution whose kernel is masked gives all factors
in one run (van den Oord et al. 2016a):

    model = PixelCNN.from_pretrained("runs/pixelcnn/model")
    model.log_prob(x)                       # (B, 1, 16, 16) in [0, 1] -> (B,), nats, exact
    model.sample(16, temperature=0.9)
    model.complete(x, rows=8)               # the upper half as it is, the lower one drawn

Its network is one of four: the book's stack of masked convolutions (Foster 2023, chapter 5) and
the two gated stacks of van den Oord et al. (2016b) are in `generative.pixelcnn.networks`; that of
PixelCNN++ is in `generative.pixelcnn.mixture`, with the mixture of logistics that can take the
place of a logit for every level; the LSTMs of PixelRNN are in `generative.pixelcnn.recurrent`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.pixelcnn.config import (
    GatedConfig,
    PixelCNNConfig,
    PixelCNNLossConfig,
    PlainConfig,
    PlusPlusConfig,
)
from generative.pixelcnn.mixture import LogisticMixture
from generative.training.checks import (
    check_dtype,
    check_images,
    check_labels,
    check_some,
    checked,
    placed,
    to_levels,
)
from generative.training.learner import ModelLearner, adamw
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero, NonNegative

__all__ = [
    "GatedConfig",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelCNNLearner",
    "PixelCNNLossConfig",
    "PixelCNNLosses",
    "PlainConfig",
    "PlusPlusConfig",
    "Softmax",
]


# ---------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------


class Softmax:
    """A logit of its own for every level of every colour; the network orders the colours.

    Args:
        colours: C.
        levels: values a colour can have.
    """

    ordered_network = True

    def __init__(self, colours: int, levels: int):
        self.colours, self.levels, self.num_params = colours, levels, colours * levels

    def log_probs(self, params: Tensor, level: Tensor) -> Tensor:
        """log probability of each colour, (B, P, H, W) and levels (B, C, H, W) -> (B, C, H, W)."""
        # Colour is the faster index, as in the feature maps of `MaskedConv2d`.
        logits = params.unflatten(1, (self.levels, self.colours))
        return -F.cross_entropy(logits, level.long(), reduction="none")

    def table(self, params: Tensor, pixel: Tensor, c: int) -> Tensor:
        """log probability of every level of colour c of one pixel, (B, P) -> (B, levels)."""
        return params.unflatten(1, (self.levels, self.colours))[:, :, c].log_softmax(1)


class PixelCNNLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Negative log-likelihood of an image, nats; the book's is this divided by C * H * W."""
    bits_per_dim: Tensor
    """The same in bits per number, the unit of the papers."""


class PixelCNN(Pretrained, nn.Module):
    """Distribution of images (B, C, H, W) in [0, 1] whose pixels have few or many levels.

    `PixelCNNConfig().build()` has 307,460 parameters with the book's four grey levels, 624,990 with
    its mixture. A model that is put together by hand is saved by its weights: put it together again
    and call `load_weights(folder)`.

    Args:
        network: images (B, C, H, W) in [0, 1] -> numbers of each pixel (B, P, H, W), of which none
            depends on its own pixel or a later one; `row(x, i)` gives a row's pixel by pixel. One
            of classes takes labels and views as well.
        output: the distribution of a pixel of these numbers: `Softmax` or `LogisticMixture`.
        image_shape: (C, H, W).
        levels: values a pixel can have.
        num_classes: classes that the network is told; 0 for none.
        num_views: kinds of changed images that it is told.
        config: the recipe of the model, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"PixelCNN": PixelCNNConfig}

    def __init__(
        self,
        network: nn.Module,
        output: Softmax | LogisticMixture,
        image_shape: tuple[int, ...],
        levels: int,
        num_classes: int = 0,
        num_views: int = 1,
        config: PixelCNNConfig | None = None,
    ):
        super().__init__()
        self.config, self.image_shape, self.levels = config, image_shape, levels
        self.num_classes, self.num_views = num_classes, num_views
        self.network, self.output = network, output

    def loss(
        self, x: Tensor, labels: Tensor | None = None, views: Tensor | None = None
    ) -> PixelCNNLosses:
        """Mean negative log-likelihood of images (B, C, H, W).

        Args:
            x: the images.
            labels: their classes, int64 (B,); see `log_prob`.
            views: how each was changed, int64 (B,); 0 for all if not given.
        """
        log_p = self._pixels(check_some(x, self), labels, views).sum(1)
        loss = -log_p.mean()
        return PixelCNNLosses(loss, loss / (math.log(2) * math.prod(self.image_shape)))

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log probability of each image, (B, C, H, W) -> (B,), nats.

        Args:
            x: the images.
            labels: their classes, int64 (B,). A model of classes that is not told them gives
                log sum_c p(x | c) / num_classes, which is as exact.
        Raises:
            ValueError: another shape, integers, or pixels that are no levels; wrong labels.
        """
        return self._pixels(x, labels).sum(1)

    def class_log_probs(self, x: Tensor) -> Tensor:
        """log p(x | c) of each image for each class, (B, C, H, W) -> (B, num_classes), nats.

        Its softmax is the probability of each class given the image (Bayes).
        """
        return self._class_pixels(x).sum(2)

    def pixel_log_probs(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log probability of each number given those before it, (B, C, H, W), nats.

        With the sign turned it shows which pixels are a surprise.
        """
        c, h, w = self.image_shape
        return self._pixels(x, labels).unflatten(1, (h, w, c)).movedim(-1, 1)

    def pixel_params(
        self, x: Tensor, labels: Tensor | None = None, views: Tensor | None = None
    ) -> Tensor:
        """Parameters of each pixel's distribution, (B, P, H, W), of any float images."""
        check_dtype(x, "images", self)
        told = self.num_classes or self.num_views > 1
        return self.network(x, labels, views) if told else self.network(x)

    def next_pixel(
        self, x: Tensor, row: int, column: int, channel: int = 0, labels: Tensor | None = None
    ) -> Tensor:
        """Probability of every level of one number given those before it, (B, levels).

        Later pixels of x (B, C, H, W) can be anything.
        """
        level = self._levels(x)[:, :, row, column]
        if labels is not None or not self.num_classes:
            return self.output.table(self._row(x, row, labels)(column), level, channel).exp()
        c, _, w = self.image_shape
        before = self._class_pixels(x)[:, :, : (row * w + column) * c + channel].sum(2)
        tables = [
            self.output.table(self._row(x, row, label)(column), level, channel).exp()
            for label in self._each_class(x)
        ]
        return (before.softmax(1)[..., None] * torch.stack(tables, 1)).sum(1)

    @checked
    @torch.no_grad()
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        labels: Tensor | None = None,
    ) -> Tensor:
        """n images (n, C, H, W), one pixel after the other; see `complete`."""
        blank = torch.zeros(n, *self.image_shape, **placed(self))
        return self.complete(blank, 0, generator, temperature, labels)

    @checked
    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        rows: CountOrZero,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Images that begin as x and are drawn from there on.

        Args:
            x: (B, C, H, W); its first rows are kept.
            rows: how many, 0 to H.
            generator: of the draws.
            temperature: log probabilities are divided by it before each draw; 1 draws from the
                model, less makes likely levels likelier, 0 takes the likeliest.
            labels: classes, int64 (B,). A model of classes that is not told them first draws each
                from its probability given the rows that are kept.
        Raises:
            ValueError: rows or temperature out of range, or x is refused as by `log_prob`.
        """
        c, h, w = self.image_shape
        if rows > h:
            raise ValueError(f"rows is {rows}; the images have {h}: give 0 to {h}")
        level = self._levels(x)
        canvas = x.clone()
        canvas[:, :, rows:] = 0
        if labels is None and self.num_classes:
            log_p = self._class_pixels(canvas)[:, :, : rows * w * c].sum(2).log_softmax(1)
            labels = _draw(log_p, 1.0, generator)
        for i in range(rows, h):
            params_at = self._row(canvas, i, labels)
            for j in range(w):
                params = params_at(j)
                for k in range(c):
                    if k and self.output.ordered_network:
                        params = params_at(j)
                    log_p = self.output.table(params, level[:, :, i, j], k)
                    level[:, k, i, j] = _draw(log_p, temperature, generator).to(level.dtype)
                    canvas[:, k, i, j] = level[:, k, i, j] / (self.levels - 1)
        return canvas

    def initialise(self, x: Tensor) -> None:
        """Set parameters from a first batch, such as the normalised weights of PixelCNN++."""
        check_some(check_images(x, self.image_shape, self), self)
        initialise = getattr(self.network, "initialise", None)
        if initialise is not None:
            initialise(x)

    def _pixels(
        self, x: Tensor, labels: Tensor | None = None, views: Tensor | None = None
    ) -> Tensor:
        """log probability of each number, in their order: pixels row by row, then colours."""
        if labels is None and self.num_classes:
            so_far = self._class_pixels(x, views).cumsum(2).logsumexp(1) - math.log(
                self.num_classes
            )
            return so_far.diff(dim=1, prepend=torch.zeros_like(so_far[:, :1]))
        level = self._levels(x)
        self._check_labels(labels, len(x))
        if views is not None:
            check_labels(views, len(x), self.num_views, "this PixelCNN", "views")
        log_p = self.output.log_probs(self.pixel_params(x, labels, views), level)
        return log_p.movedim(1, -1).flatten(1)

    def _class_pixels(self, x: Tensor, views: Tensor | None = None) -> Tensor:
        """`_pixels` for each class, (B, num_classes, C H W)."""
        if not self.num_classes:
            raise ValueError("this PixelCNN was not trained with classes; it has num_classes 0")
        return torch.stack([self._pixels(x, label, views) for label in self._each_class(x)], 1)

    def _each_class(self, x: Tensor) -> Tensor:
        """(num_classes, B)."""
        classes = torch.arange(self.num_classes, device=x.device)
        return classes[:, None].expand(-1, len(x))

    def _row(self, x: Tensor, i: int, labels: Tensor | None) -> Callable[[int], Tensor]:
        self._check_labels(labels, len(x))
        row = cast("Callable[..., Callable[[int], Tensor]]", self.network.row)
        return row(x, i, labels) if self.num_classes else row(x, i)

    def _levels(self, x: Tensor) -> Tensor:
        """Images -> levels 0 .. levels - 1, as floats of the same shape."""
        return to_levels(check_images(x, self.image_shape, self), self.levels)

    def _check_labels(self, labels: Tensor | None, n: int) -> None:
        if labels is not None:
            check_labels(labels, n, self.num_classes, "this PixelCNN")


def _draw(log_p: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One level for each row of log probabilities (B, levels); (B,)."""
    if temperature == 0:
        return log_p.argmax(1)
    return torch.multinomial((log_p / temperature).softmax(1), 1, generator=generator)[:, 0]


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


class PixelCNNLearner(ModelLearner[PixelCNN]):
    """Adam on the loss per number; `kept` holds the weights to keep: their average, if any."""

    def __init__(self, model: PixelCNN, config: PixelCNNLossConfig, steps: int):
        super().__init__(model, adamw(model, config, steps))

    def update(
        self, batch: Tensor | tuple[Tensor, Tensor | None, Tensor | None]
    ) -> dict[str, Tensor | float]:
        """One step on images (B, C, H, W) in [0, 1], or on (images, labels, views) as in `loss`."""
        x, labels, views = (batch, None, None) if isinstance(batch, Tensor) else batch
        losses = self.model.loss(x, labels, views)
        return self.descend(losses, losses.loss / math.prod(self.model.image_shape))
