"""A perceptron every layer of which gets a condition, such as the embedding of a noise level."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.config import ConditionedMLPConfig
from generative.nets.embeddings import Waves
from generative.nets.init import zero_

__all__ = ["ConditionedMLP"]


class ConditionedMLP(nn.Module):
    """x (B, D) and a condition (B, E) -> (B, D), at first all zeros.

    Args:
        dim: numbers of an example, D.
        config: sizes; see `ConditionedMLPConfig`.
        condition_dim: width of the condition, E, which a linear map adds to every hidden layer.
    """

    def __init__(self, dim: int, config: ConditionedMLPConfig, condition_dim: int):
        super().__init__()
        self.waves = Waves(math.pi / 4, config.num_waves)
        widths = [dim * (1 + 2 * config.num_waves), *[config.hidden_dim] * config.num_hidden]
        pairs = list(itertools.pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.levels = nn.ModuleList(
            nn.Linear(condition_dim, after, bias=False) for _, after in pairs
        )
        self.last = zero_(nn.Linear(config.hidden_dim, dim))

    def transform(self, x: Tensor, condition: Tensor, blur: Tensor | None = None) -> Tensor:
        """Output of the network.

        Args:
            blur: standard deviation of the noise in x, (B,), in which shorter waves are faded.
        """
        x = self.waves(x, blur)
        for layer, level in zip(self.layers, self.levels, strict=True):
            x = F.silu(layer(x) + level(condition))
        return self.last(x)
