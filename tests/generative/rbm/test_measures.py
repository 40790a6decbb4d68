"""Likelihoods of test images, against sums over all states."""

import pytest
import torch

from generative.rbm import (
    RBM,
    DBNConfig,
    DeepBeliefNetwork,
    RBMConfig,
    free_energy_gap,
    nats_per_image,
)

torch.set_num_threads(1)


def bits(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 1, 2, 3, generator=generator) < 0.4).float()


def small(hidden_dim: int = 4) -> RBM:
    torch.manual_seed(0)
    rbm = RBM(RBMConfig((1, 2, 3), hidden_dim))
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.normal_(std=0.5)
    return rbm


def test_exact_nats_are_over_all_64_images():
    rbm, test = small(), bits(20)
    states = (torch.arange(64)[:, None] >> torch.arange(6) & 1).float().view(64, 1, 2, 3)
    with torch.no_grad():
        log_z = (-rbm.free_energy(states).double()).logsumexp(0)
        expected = float((rbm.free_energy(test).double() + log_z).mean())
    found = nats_per_image(rbm, test, bits(50, 1))
    assert found["test_nll"] == pytest.approx(expected, rel=1e-5)
    assert found["log_partition"] == pytest.approx(float(log_z), rel=1e-5)
    assert found["test_nll_estimate"] == pytest.approx(expected, abs=0.05)
    with torch.no_grad():
        error = (rbm.reconstruct(test) - test).square().mean()
    assert found["test_reconstruction"] == pytest.approx(float(error))


def test_only_small_machines_have_exact_nats():
    torch.manual_seed(0)
    wide = RBM(RBMConfig((1, 3, 7), 21))
    x = (torch.rand(5, 1, 3, 7) < 0.5).float()
    assert set(nats_per_image(wide, x, x)) == {
        "test_reconstruction", "ais_log_partition", "test_nll_estimate",
    }  # fmt: skip
    deep = DeepBeliefNetwork(DBNConfig((1, 2, 3), (4, 3)))
    found = nats_per_image(deep, bits(5), bits(5))
    assert set(found) == {"test_reconstruction", "test_nll_at_most"}


def test_gap_is_between_as_many_seen_and_unseen_images():
    rbm, train, test = small(), bits(30, 1), bits(10)
    with torch.no_grad():
        expected = rbm.free_energy(test).mean() - rbm.free_energy(train[:10]).mean()
    assert free_energy_gap(rbm, train, test) == pytest.approx(float(expected), rel=1e-5)
    assert free_energy_gap(rbm, test, test) == 0
