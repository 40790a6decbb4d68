"""Muon in float32 against torch's, which rounds to bfloat16, and against singular values."""

import pytest
import torch

from generative.training.muon import Muon, orthogonalise

USUAL = (3.4445, -4.775, 2.0315)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5)])
def test_singular_values_end_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=generator)
    found = orthogonalise(matrices, USUAL, 5, 1e-7)
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


@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_of_torch_but_for_its_rounding(adjust, nesterov):
    generator = torch.Generator().manual_seed(1)
    first = [torch.randn(shape, generator=generator) for shape in ((6, 4), (4, 6), (6, 4))]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in first] for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.2, "adjust_lr_fn": adjust, "nesterov": nesterov}
    pair = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(3):
        for parameters in zip(ours, theirs, strict=True):
            grad = torch.randn(parameters[0].shape, generator=generator)
            for p in parameters:
                p.grad = grad.clone()
        for optimizer in pair:
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0.02, atol=0.02)
    other = torch.optim.Muon(ours, **settings)
    other.load_state_dict(pair[0].state_dict())
    assert torch.equal(
        other.state[ours[0]]["momentum_buffer"], pair[0].state[ours[0]]["momentum_buffer"]
    )


def test_a_matrix_without_a_gradient_stays_and_a_closure_is_asked():
    moved, still = torch.nn.Parameter(torch.eye(3)), torch.nn.Parameter(torch.eye(3))
    optimizer = Muon([moved, still], lr=0.1)

    def closure():
        moved.grad = torch.ones(3, 3)
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert torch.equal(still, torch.eye(3))
    assert not torch.equal(moved, torch.eye(3))
