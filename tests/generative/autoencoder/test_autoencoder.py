"""Autoencoders against the book's layer tables, principal components, and closed forms."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from generative.autoencoder import (
    AutoencoderLearner,
    AutoencoderLossConfig,
    ConvAutoencoderConfig,
    LinearAutoencoderConfig,
    add_noise,
    autoencoder_loss,
    principal_components,
    uniform_codes,
)

torch.set_num_threads(1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_are_the_books():
    model = ConvAutoencoderConfig().build()
    assert count(model.encoder) == 96_770
    assert count(model.decoder) == 246_273
    assert count(model) == 343_043
    layers = [
        m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    ]
    assert [count(layer) for layer in layers] == [
        320, 18_496, 73_856, 4_098, 6_144, 147_584, 73_792, 18_464, 289,
    ]  # fmt: skip


def test_shapes_are_the_books():
    model, x, seen = ConvAutoencoderConfig().build(), torch.zeros(2, 1, 32, 32), []
    for layer in [*model.encoder, *model.decoder]:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            seen.append(tuple(x.shape[1:]))
    assert seen == [(32, 16, 16), (64, 8, 8), (128, 4, 4), (128, 8, 8), (64, 16, 16), (32, 32, 32)]
    assert x.shape == (2, 1, 32, 32)


def test_same_padding_by_a_loop():
    """Output (r, c) reads rows 2r .. 2r + 2, and the row beyond the image is zero."""
    torch.manual_seed(0)
    model = ConvAutoencoderConfig((1, 4, 4), channels=(1, 2)).build()
    x = torch.rand(1, 1, 4, 4)
    convolution = model.encoder[1]
    kernel, bias = convolution.weight.detach().numpy()[0, 0], convolution.bias.item()
    padded = np.zeros((5, 5))
    padded[:4, :4] = x[0, 0]
    expected = [
        [(padded[2 * r : 2 * r + 3, 2 * c : 2 * c + 3] * kernel).sum() + bias for c in range(2)]
        for r in range(2)
    ]
    found = model.encoder[:2](x)[0, 0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_transposed_padding_is_the_adjoint_of_the_other():
    """<conv(x), y> = <x, conv_transposed(y)> with the same kernel, as in the book's framework."""
    down = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(2, 3, 3, stride=2, bias=False))
    up = nn.Sequential(
        nn.ConvTranspose2d(3, 2, 3, stride=2, bias=False), nn.ZeroPad2d((0, -1, 0, -1))
    )
    up[0].weight = down[1].weight
    x, y = torch.randn(1, 2, 8, 8), torch.randn(1, 3, 4, 4)
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


@pytest.mark.parametrize(
    ("target", "prediction", "loss"),
    [(0.7, 0.8, 0.6390), (0.7, 0.6, 0.6325), (0.3, 0.2, 0.6390), (0.3, 0.4, 0.6325)],
)
def test_cross_entropy_punishes_errors_towards_the_ends(target, prediction, loss):
    logits = torch.full((1, 1, 2, 2), prediction).logit()
    x = torch.full((1, 1, 2, 2), target)
    assert float(autoencoder_loss(logits, x).loss) == pytest.approx(loss, abs=1e-4)
    assert float(autoencoder_loss(logits, x).mse) == pytest.approx(0.01, rel=1e-4)
    assert float(autoencoder_loss(logits, x, "mse").loss) == pytest.approx(0.01, rel=1e-4)


def test_principal_components_by_the_covariance():
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)
    mean, directions, error = principal_components(x, 2)
    values, vectors = np.linalg.eigh(np.cov(x.T.double().numpy(), bias=True))
    assert error == pytest.approx(values[:-2].sum() / 6)
    overlap = np.abs(directions.numpy() @ vectors[:, ::-1][:, :2])
    np.testing.assert_allclose(overlap, np.eye(2), atol=1e-6)
    projected = (x.double() - mean) @ directions.T @ directions + mean
    assert float((projected - x).square().mean()) == pytest.approx(error)


def test_linear_autoencoder_reaches_principal_components():
    """And finds their plane; its error can not be lower."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([0.2, 0.15, 0.1, 0.05, 0.05, 0.02, 0.02, 0.01, 0.01])
    rotation = torch.linalg.qr(torch.randn(9, 9, generator=generator)).Q
    x = 0.5 + (torch.randn(200, 9, generator=generator) * scales) @ rotation
    x = x.clamp(0, 1)
    _, directions, best = principal_components(x, 3)
    torch.manual_seed(0)
    model = LinearAutoencoderConfig((1, 3, 3), latent_dim=3).build()
    images = x.unflatten(1, (1, 3, 3)).double()
    model.double().initialise(images)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = model.loss(images).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    gap = float(model.loss(images).loss.detach()) / best - 1
    assert -1e-9 < gap < 1e-4
    plane = torch.linalg.qr(model.decoder[0].weight).Q
    cosines = torch.linalg.svdvals(directions @ plane)
    assert float(cosines.min().detach()) > 0.999


def test_noise_is_clipped_and_the_target_stays_clean():
    x = torch.full((4, 1, 8, 8), 0.5)
    noisy = add_noise(x, 0.3, torch.Generator().manual_seed(0))
    assert noisy.min() == 0
    assert noisy.max() == 1
    inside = noisy[(noisy > 0) & (noisy < 1)]
    assert float((inside - 0.5).mean().abs()) < 0.06
    torch.manual_seed(0)
    model = ConvAutoencoderConfig((1, 8, 8), channels=(2,)).build()
    expected = autoencoder_loss(model.decode_logits(model.encode(noisy)), x)
    torch.testing.assert_close(model.loss(x, noisy=noisy), expected)


def test_denoiser_removes_noise():
    """What comes out is closer to the clean image than what went in."""
    torch.manual_seed(0)
    ground = torch.linspace(0.1, 0.9, 8)
    x = torch.stack([ground.expand(8, 8), ground.flip(0).expand(8, 8)])[:, None].repeat(8, 1, 1, 1)
    model = ConvAutoencoderConfig((1, 8, 8), latent_dim=2, channels=(8,)).build()
    learner = AutoencoderLearner(model, AutoencoderLossConfig(noise=0.3, lr=1e-2), steps=150)
    for _ in range(150):
        learner.update(x)
    noisy = add_noise(x, 0.3)
    error = (model.reconstruct(noisy) - x).square().mean()
    assert float(error.detach()) < 0.2 * float((noisy - x).square().mean())


def test_uniform_codes_fill_their_box():
    codes = torch.tensor([[0.0, -1.0], [2.0, 5.0], [1.0, 0.0]])
    drawn = uniform_codes(codes, 20_000, torch.Generator().manual_seed(0))
    assert (drawn >= codes.amin(0)).all()
    assert (drawn <= codes.amax(0)).all()
    side = torch.tensor([2.0, 6.0])
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, 2.0]), rtol=0, atol=0.06)
    torch.testing.assert_close(drawn.std(0), side / math.sqrt(12), rtol=0.02, atol=0)


CONV, LINEAR = ConvAutoencoderConfig().build(), LinearAutoencoderConfig().build()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConvAutoencoderConfig(latent_dim=0), "latent_dim is 0"),
        (lambda: ConvAutoencoderConfig(channels=()), r"channels is \(\), and must be at least 1"),
        (lambda: ConvAutoencoderConfig((1, 28, 28)), "that 8 divides"),
        (lambda: LinearAutoencoderConfig((1, 2, 2), 5), "give 1 to 4"),
        (lambda: autoencoder_loss(torch.zeros(1), torch.zeros(1), "l1"), "'l1'; give 'bce' or"),
        (
            lambda: LINEAR.loss(torch.zeros(1, 1, 8, 8), "bce"),
            "minimises 'mse'",
        ),
        (
            lambda: CONV.decode(torch.zeros(2, 3)),
            r"codes of shape \(2, 3\).*\(B, 2\)",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
