"""From logits to tokens: temperature, the k best, the smallest set of probability p.

token = sample_logits(logits, temperature=0.7, top_k=40, generator=generator)
"""

from __future__ import annotations

import torch
from torch import Tensor

from generative.training.checks import at_least_float32, checked
from generative.training.ranges import CountOrZero, NonNegative, Quantile

__all__ = ["sample_logits", "shape_logits"]


@checked
def shape_logits(
    logits: Tensor,
    temperature: NonNegative = 1.0,
    top_k: CountOrZero = 0,
    top_p: Quantile = 1.0,
) -> Tensor:
    """Log probabilities to draw from, of the shape of logits (..., V); excluded tokens have -inf.

    In this order: p^(1/temperature), the `top_k` most probable (Fan et al. 2018), and of these the
    fewest that together have probability `top_p` or more (Holtzman et al. 2020).

    Args:
        temperature: 1 leaves the model as it is, below is bolder; 0 takes the most probable.
        top_k: 0 for all.
        top_p: 1 for all.
    Raises:
        ValueError: a temperature below 0, a negative top_k, or top_p not in (0, 1].
    """
    if temperature == 0:
        temperature, top_k = 1.0, 1
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        best = logits.topk(top_k, -1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
    if top_p < 1:
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p  # enough without it
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logits.log_softmax(-1)


def sample_logits(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw one token of each row of logits (B, V), int64 (B,); see `shape_logits`."""
    logits = logits.to(at_least_float32(logits))
    probabilities = shape_logits(logits, temperature, top_k, top_p).exp()
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
