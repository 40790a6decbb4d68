"""Averages of weights over training, which sample and score better than the last weights do.

average = AveragedModel(model, multi_avg_fn=warm_average(0.999))
average.update_parameters(model)     # after every step of the optimiser
average.module                       # the model to keep
"""

from __future__ import annotations

import torch

__all__ = ["warm_average"]


def warm_average(decay: float):
    """Exponential average of weights for `AveragedModel`, with a short memory at first.

    After n steps the decay is at most (1 + n) / (10 + n), so that the random first weights do not
    stay in the average of a short training.
    """

    def blend(averages, weights, num_averaged) -> None:
        n = float(num_averaged)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return blend
