"""Priors: which grids of codes are images. Without one, codes are chosen evenly, and show nothing.

    prior = GPTPrior.from_pretrained("runs/code_prior/model")
    codes = prior.sample(16, temperature=0.9)          # int64 (16, 8, 8)
    model.decode(codes)                                # by the model whose codes they are
    prior.log_prob(codes)                              # nats, (16,)
    prior.complete(codes, rows=4)                      # the lower half is drawn anew

The book's argument for a prior: the code at the top left of a digit is nearly always that of
background, and an even choice ignores it (Foster 2023, chapter 10). VQ-VAE takes a PixelCNN,
VQ-GAN a Transformer, which can also fill a larger grid by a window that slides over it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.codes.config import PriorConfig, PriorLossConfig
from generative.codes.model import check_codes
from generative.codes.networks import CodeTransformer
from generative.pixelcnn.model import PixelCNN
from generative.sampling import sample_logits
from generative.training.checks import check_labels, check_some, checked, placed
from generative.training.learner import ModelLearner, muon_or_adamw
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero, NonNegative

__all__ = ["GPTPrior", "PixelCNNPrior", "PriorLearner", "PriorLosses", "uniform_codes"]


class PriorLosses(NamedTuple):
    """Means over the batch."""

    loss: Tensor
    """Negative log-likelihood of a grid of codes, nats."""


class PixelCNNPrior(Pretrained, nn.Module):
    """A PixelCNN whose levels are the codes.

    A prior of classes that is not told them sums them out, as `PixelCNN` does.

    Args:
        pixelcnn: a `PixelCNN` of images (1, h, w) with a level for each code.
        config: the recipe, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"PixelCNNPrior": PriorConfig}

    def __init__(self, pixelcnn: PixelCNN, config: PriorConfig | None = None):
        super().__init__()
        self.config, self.pixelcnn = config, pixelcnn
        self.num_codes, self.num_classes = pixelcnn.levels, pixelcnn.num_classes
        self.grid = cast("tuple[int, int]", pixelcnn.image_shape[1:])

    def loss(self, codes: Tensor, labels: Tensor | None = None) -> PriorLosses:
        """Mean negative log-likelihood of codes, int64 (B, h, w), given their classes if any."""
        return PriorLosses(-self.log_prob(check_some(codes, self), labels).mean())

    def log_prob(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """log probability of each grid of codes, int64 (B, h, w) -> (B,), nats.

        Raises:
            ValueError: codes or labels of another shape or type, or that there are not.
        """
        return self.pixelcnn.log_prob(self._as_image(codes), labels)

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        labels: Tensor | None = None,
    ) -> Tensor:
        """n grids of codes, int64 (n, h, w); see `PixelCNN.complete`."""
        return self._as_codes(self.pixelcnn.sample(n, generator, temperature, labels))

    def complete(
        self,
        codes: Tensor,
        rows: int,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Grids whose first rows are those of codes (B, h, w), and whose others are drawn."""
        image = self._as_image(codes)
        return self._as_codes(self.pixelcnn.complete(image, rows, generator, temperature, labels))

    def _as_image(self, codes: Tensor) -> Tensor:
        check_codes(codes, self.grid, self.num_codes, self)
        return codes[:, None].to(**placed(self)) / (self.num_codes - 1)

    def _as_codes(self, image: Tensor) -> Tensor:
        return (image[:, 0] * (self.num_codes - 1)).round().long()


class GPTPrior(Pretrained, nn.Module):
    """A causal Transformer over the codes in reading order (Esser et al. 2021, section 3.2).

    In a grid larger than its own it sees the codes in a window of its own size around the one that
    it predicts, moved inwards at borders.

    Args:
        network: codes (B, T) and labels -> logits of each from those before it, as
            `CodeTransformer` gives them.
        grid: (h, w), rows and columns that it was trained on.
        num_codes: codes there are.
        num_classes: classes that it is told; 0 for none.
        config: the recipe, if it has one.
    """

    builds: ClassVar[Mapping[str, type]] = {"GPTPrior": PriorConfig}

    def __init__(
        self,
        network: CodeTransformer,
        grid: tuple[int, int],
        num_codes: int,
        num_classes: int = 0,
        config: PriorConfig | None = None,
    ):
        super().__init__()
        self.config, self.network = config, network
        self.grid, self.num_codes, self.num_classes = grid, num_codes, num_classes

    def logits(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits of each code from those before it, (B, h, w, num_codes).

        Args:
            codes: int64 (B, h, w) of the prior's grid.
            labels: classes, int64 (B,), where there are any.
        Raises:
            ValueError: codes or labels of another shape or type, or that there are not.
        """
        check_codes(codes, self.grid, self.num_codes, self)
        labels = self._labels(labels, len(codes))
        return self.network(codes.flatten(1), labels).unflatten(1, self.grid)

    def loss(self, codes: Tensor, labels: Tensor | None = None) -> PriorLosses:
        """Mean negative log-likelihood of codes, int64 (B, h, w); see `log_prob`."""
        return PriorLosses(-self.log_prob(check_some(codes, self), labels).mean())

    def log_prob(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """log probability of each grid of codes, int64 (B, h, w) -> (B,), nats.

        Args:
            labels: classes, int64 (B,). A prior of classes that is not told them gives
                log sum_c p(codes | c) / num_classes.
        """
        if labels is None and self.num_classes:
            each = self._class_log_probs(codes).sum(2)
            return each.logsumexp(1) - math.log(self.num_classes)
        logits = self.logits(codes, labels).movedim(-1, 1)
        return -F.cross_entropy(logits, codes, reduction="none").flatten(1).sum(1)

    def _class_log_probs(self, codes: Tensor) -> Tensor:
        """log probability of each code in each class, (B, num_classes, h w)."""
        label = codes.new_zeros(len(codes))
        logits = [self.logits(codes, label + c).movedim(-1, 1) for c in range(self.num_classes)]
        each = [-F.cross_entropy(part, codes, reduction="none") for part in logits]
        return torch.stack(each, 1).flatten(2)

    @checked
    def sample(
        self,
        n: CountOrZero,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        labels: Tensor | None = None,
        top_k: CountOrZero = 0,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """n grids of codes, int64 (n, h, w).

        Args:
            generator: of the draws.
            temperature, top_k: see `generative.sampling.shape_logits`.
            labels: classes, int64 (n,); drawn evenly if not given, where there are any.
            grid: (h, w) of a larger one than the prior's, which a sliding window fills.
        Raises:
            ValueError: a grid smaller than the prior's, or labels that there are not.
        """
        rows, columns = grid or self.grid
        device = next(self.parameters()).device
        blank = torch.zeros(n, rows, columns, dtype=torch.int64, device=device)
        return self.complete(blank, 0, generator, temperature, labels, top_k)

    @checked
    @torch.no_grad()
    def complete(
        self,
        codes: Tensor,
        rows: CountOrZero,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        labels: Tensor | None = None,
        top_k: CountOrZero = 0,
    ) -> Tensor:
        """Grids whose first rows are those of codes (B, h, w), and whose others are drawn.

        The arguments are those of `sample`; h and w may be larger than those of the prior's grid. A
        prior of classes that is not told them draws each from its probability given the rows that
        are kept, or evenly in a larger grid.

        Raises:
            ValueError: a grid smaller than the prior's, more rows than there are, or labels that
                there are not.
        """
        check_codes(codes, None, self.num_codes, self)
        h, w = codes.shape[1:]
        if h < self.grid[0] or w < self.grid[1] or rows > h:
            raise ValueError(
                f"got a grid of {h}x{w} and {rows} rows to keep; this prior fills grids from "
                f"{self.grid[0]}x{self.grid[1]} on, of which all rows at most are kept"
            )
        codes = codes.clone()
        codes[:, rows:] = 0
        if labels is None and self.num_classes:
            known = codes.new_zeros(len(codes), self.num_classes).to(placed(self)["dtype"])
            if (h, w) == self.grid:
                known = self._class_log_probs(codes)[:, :, : rows * w].sum(2)
            labels = sample_logits(known, generator=generator)
        labels = self._labels(labels, len(codes))
        draw = {"temperature": temperature, "top_k": top_k, "generator": generator}
        if (h, w) != self.grid:
            for row in range(rows, h):
                for column in range(w):
                    logits = self.window_logits(codes, row, column, labels)
                    codes[:, row, column] = sample_logits(logits, **draw)
            return codes
        line, caches = codes.flatten(1), self.network.make_caches()
        new = torch.cat([self.network.start(len(codes), labels), line[:, : rows * w]], 1)
        for place in range(rows * w, h * w):
            drawn = sample_logits(self.network.read(new, caches)[:, -1], **draw)
            line[:, place], new = drawn, drawn[:, None]
        return line.unflatten(1, (h, w))

    def window_logits(
        self, codes: Tensor, row: int, column: int, labels: Tensor | None = None
    ) -> Tensor:
        """Logits of a code of grids (B, h, w) from those of its window before it, (B, num_codes).

        Later codes can be anything. In a grid of the prior's own size the window is all of it.
        """
        top, left = (
            min(max(at - side // 2, 0), most - side)
            for at, side, most in zip((row, column), self.grid, codes.shape[1:], strict=True)
        )
        window = codes[:, top : top + self.grid[0], left : left + self.grid[1]]
        return self.logits(window, labels)[:, row - top, column - left]

    def _labels(self, labels: Tensor | None, n: int) -> Tensor | None:
        if (labels is None) != (self.num_classes == 0):
            needs = "needs labels (B,)" if labels is None else "has no labels"
            raise ValueError(f"this prior {needs}; it has num_classes {self.num_classes}")
        return labels if labels is None else check_labels(labels, n, self.num_classes, "this prior")


@checked
def uniform_codes(
    n: CountOrZero,
    grid: tuple[int, int],
    num_codes: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """n grids of codes that are chosen evenly and each by itself, int64 (n, h, w), on the CPU.

    What a decoder makes of them shows why a prior is needed (Foster 2023, chapter 10).
    """
    return torch.randint(num_codes, (n, *grid), generator=generator)


class PriorLearner(ModelLearner["PixelCNNPrior | GPTPrior"]):
    """AdamW or Muon on the loss per code; `kept` holds the average of the weights, if any."""

    def __init__(self, model: PixelCNNPrior | GPTPrior, config: PriorLossConfig, steps: int):
        super().__init__(model, muon_or_adamw(model, config, steps))

    def update(self, batch: Tensor | tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step on codes, int64 (B, h, w), or on (codes, labels (B,)).

        Returns:
            loss, in nats for a whole grid.
        """
        codes, labels = (batch, None) if isinstance(batch, Tensor) else batch
        losses = self.model.loss(codes, labels)
        rows, columns = self.model.grid
        return self.descend(losses, losses.loss / (rows * columns))
