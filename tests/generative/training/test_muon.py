"""Muon in float32 against torch's, which rounds to bfloat16, and against singular values."""

from typing import Any

import pytest
import torch

from generative.training.muon import Muon, orthogonalise

USUAL = (3.4445, -4.775, 2.0315)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5)])
def test_singular_values_end_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator)
    found = orthogonalise(matrices)
    assert found.shape == shape
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3
    # Each singular value s of the normalised matrix goes the way of the polynomial, five times.
    u, s, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.square().sum(1, keepdim=True).sqrt()
    for _ in range(5):
        s = USUAL[0] * s + USUAL[1] * s**3 + USUAL[2] * s**5
    torch.testing.assert_close(found, (u * s[:, None] @ vh).float(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_of_torch_but_for_its_rounding(adjust, nesterov):
    generator = torch.Generator().manual_seed(1)
    first = [torch.randn(shape, generator=generator) for shape in ((6, 4), (4, 6), (6, 4))]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in first] for _ in range(2))
    settings: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.2, "nesterov": nesterov}
    pair = (
        Muon(ours, **settings, adjust=adjust),
        torch.optim.Muon(theirs, **settings, adjust_lr_fn=adjust),
    )
    for _ in range(3):
        for parameters in zip(ours, theirs, strict=True):
            grad = torch.randn(parameters[0].shape, generator=generator)
            for p in parameters:
                p.grad = grad.clone()
        for optimizer in pair:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0.05, atol=0.05)
    # A run that was begun with torch's goes on.
    other = Muon([torch.nn.Parameter(p.detach().clone()) for p in theirs], lr=0.1)
    other.load_state_dict(pair[1].state_dict())
    for p, q in zip(other.param_groups[0]["params"], theirs, strict=True):
        p.grad = q.grad
    pair[1].step()
    other.step()
    for p, q in zip(other.param_groups[0]["params"], theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0.05, atol=0.05)


def test_a_convolution_moves_as_the_matrix_of_its_output_channels():
    generator = torch.Generator().manual_seed(1)
    kernel = torch.nn.Parameter(torch.randn(4, 3, 2, 2, generator=generator))
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    kernel.grad = torch.randn(kernel.shape, generator=generator)
    matrix.grad = kernel.grad.flatten(1).clone()
    for p in (kernel, matrix):
        Muon([p], lr=0.1).step()
    assert torch.equal(kernel.flatten(1), matrix)
    with pytest.raises(ValueError, match=r"got a parameter \(3,\); Muon moves matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_a_matrix_without_a_gradient_stays_and_a_closure_is_asked():
    moved, still = torch.nn.Parameter(torch.eye(3)), torch.nn.Parameter(torch.eye(3))
    optimizer = Muon([moved, still], lr=0.1)

    def closure():
        moved.grad = torch.ones(3, 3)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert torch.equal(still, torch.eye(3))
    assert not torch.equal(moved, torch.eye(3))
