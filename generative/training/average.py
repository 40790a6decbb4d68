"""Averages of weights over training, which sample and score better than the last weights.

average = AveragedModel(model, multi_avg_fn=warm_average(0.999))
average.update_parameters(model)     # after every step of the optimiser
average.module                       # the model to keep
"""

from __future__ import annotations

from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["warm_average"]


def warm_average(decay: float):
    """Return the exponential average of weights for `AveragedModel`, with a short memory at first.

    After n steps the decay is at most (1 + n) / (10 + n), so that the random first weights do not
    stay in the average of a short training. Integers, such as counters of batches, are not
    averaged; the last values are kept.
    """

    def blend(averages, weights, num_averaged) -> None:
        if not averages[0].is_floating_point():
            for average, last in zip(averages, weights, strict=True):
                average.copy_(last)
            return
        n = float(num_averaged)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, num_averaged)

    return blend
