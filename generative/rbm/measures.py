"""Likelihood of images under Boltzmann machines, exact where it can be, and over-fitting."""

from __future__ import annotations

import torch
from torch import Tensor

from generative.rbm.deep import DeepBeliefNetwork
from generative.rbm.machines import RBM

__all__ = ["free_energy_gap", "nats_per_image"]

ENUMERABLE = 20
"""Units of the smaller side up to which all its states are summed."""


@torch.no_grad()
def free_energy_gap(model: RBM, train: Tensor, test: Tensor, most: int = 1000) -> float:
    """Mean free energy of test images less that of as many seen ones; it rises with over-fitting.

    Args:
        model: on any device.
        train, test: bits (N, *shape) and (M, *shape).
        most: at most this many of each are compared.
    """
    device, n = next(model.parameters()).device, min(most, len(test))
    seen, unseen = (model.free_energy(x[:n].to(device)).mean() for x in (train, test))
    return float(unseen - seen)


@torch.no_grad()
def nats_per_image(
    model: RBM | DeepBeliefNetwork, test: Tensor, train: Tensor, most: int = 1000
) -> dict[str, float]:
    """-log p of test images, nats an image: exact, estimated or a bound, and named so.

    Args:
        model: on any device.
        test: bits (M, *shape); the first `most` of them count.
        train: bits (N, *shape); annealed importance sampling starts from their means.
    Returns:
        `test_reconstruction`, the squared error of a pixel. For an RBM `test_nll_estimate` and
        `ais_log_partition`; with 20 units or fewer on a side also `test_nll` and `log_partition`,
        exact. For a deep belief network whose top is as small `test_nll_at_most`.
    """
    device = next(model.parameters()).device
    generator, x = torch.Generator(device).manual_seed(0), test[:most].to(device)
    found = {"test_reconstruction": float((model.reconstruct(x) - x).square().mean())}
    top = model.stack[-1] if isinstance(model, DeepBeliefNetwork) else model
    enumerable = min(top.weight.shape) <= ENUMERABLE
    if isinstance(model, DeepBeliefNetwork):
        if enumerable:
            found["test_nll_at_most"] = -float(model.bound(x, generator=generator).mean())
        return found
    ais = model.estimate_log_partition(examples=train[:5000].to(device), generator=generator)
    free_energy = float(model.free_energy(x).mean())
    found["ais_log_partition"] = ais.log_partition
    found["test_nll_estimate"] = free_energy + ais.log_partition
    if enumerable:
        found["log_partition"] = float(model.log_partition())
        found["test_nll"] = free_energy + found["log_partition"]
    return found
