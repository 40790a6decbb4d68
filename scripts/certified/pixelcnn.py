"""PixelCNNs against an entropy, against all possible images, and on held-out digits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from generative.pixelcnn import GatedConfig, PixelCNN, RecurrentConfig

__all__ = ["CERTIFICATES"]


def bars_and_stripes(settings: Settings) -> list[Line]:
    """Total probability of the patterns among all 4x4 images of two levels."""
    from generative.pixelcnn import GatedConfig

    return _patterns(settings, GatedConfig(hidden_dim=16, num_layers=4, first_kernel=5))


def bars_and_stripes_recurrent(settings: Settings) -> list[Line]:
    """The same of diagonal LSTMs."""
    from generative.pixelcnn import RecurrentConfig

    return _patterns(settings, RecurrentConfig(hidden_dim=32, num_recurrent=2, first_kernel=3))


def _patterns(settings: Settings, network: GatedConfig | RecurrentConfig) -> list[Line]:
    import torch

    from generative.known.bars_and_stripes import bars_and_stripes as patterns
    from generative.pixelcnn import (
        GatedConfig,
        PixelCNNConfig,
        PixelCNNLearner,
        PixelCNNLossConfig,
    )

    x = patterns(4).as_tensor()
    steps = 5 if settings.smoke else 600
    torch.manual_seed(settings.seed)
    if settings.smoke:
        layers = "num_layers" if isinstance(network, GatedConfig) else "num_recurrent"
        network = replace(network, hidden_dim=2, **{layers: 2})
    model = PixelCNNConfig((1, 4, 4), levels=2, network=network).build()
    learner = PixelCNNLearner(model, PixelCNNLossConfig(lr=1e-2, final_lr=1e-4, clip=1.0), steps)
    for _ in range(steps):
        learner.update(x)
    kept, floor = learner.kept, math.log(len(x))
    with torch.no_grad():
        nll = -float(kept.log_prob(x).double().mean())
        number = torch.arange(2**16)
        log_p = []
        for part in number.split(4096):
            bits = part[:, None] >> torch.arange(16) & 1
            log_p.append(kept.log_prob(bits.float().view(-1, 1, 4, 4)).double())
        error = abs(float(torch.cat(log_p).exp().sum()) - 1)
    return [
        Line("4x4 bars and stripes, nats", nll, floor, "entropy", nll - floor, 0.01),
        Line("probabilities of all 65,536 images, sum minus 1", error, 0.0, "exact", error, 1e-5),
    ]


def digits(settings: Settings) -> list[Line]:
    """Bits per pixel of held-out digits, with classes summed out by Bayes; no leak of later pixels.

    The probability of a digit is the mean over the ten classes of its probability in each, so its
    label is not used.
    """
    import torch

    from generative.data.digits import load_digits
    from generative.known.baselines import independent_pixels
    from generative.pixelcnn import PixelCNN
    from generative.training.run import read_result
    from scripts import train_pixelcnn

    args = replace(train_pixelcnn.PRESETS["digits"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3)
    model = PixelCNN.from_pretrained(train_pixelcnn.main(args))
    bits = read_result(settings.work)["test_bits_per_dim"]
    images = load_digits()
    test = images.part("test")
    alone = independent_pixels(images.part("train", "val").images, test.images, images.levels)
    with torch.no_grad():
        found = model.class_log_probs(test.as_tensor()).argmax(1).numpy()
    wrong = float((found != test.factors[:, 0]).mean())
    leak = largest_leak(model, test.as_tensor(slice(1)))
    return [
        Line("360 test digits, bits per pixel", bits, alone, "independent pixels", bits, 1.70),
        Line("the same, share told wrongly by Bayes' rule", wrong, 0.9, "guessing", wrong, 0.04),
        Line(
            "largest gradient of a pixel's output by a later pixel", leak, 0.0, "exact", leak, 1e-12
        ),
    ]


def largest_leak(model: PixelCNN, x: Tensor) -> float:
    """Largest derivative of any parameter of any pixel by the same or a later pixel of x.

    Args:
        x: one grey image, (1, 1, H, W).
    """
    import torch

    _, _, h, w = x.shape
    # With a copy for each pixel, one backward pass per parameter gives the gradients of all pixels.
    copies = x.repeat(h * w, 1, 1, 1).requires_grad_()
    labels = torch.zeros(h * w, dtype=torch.int64) if model.num_classes else None
    params = model.pixel_params(copies, labels).flatten(2)
    own = torch.arange(h * w)
    later = own[None] >= own[:, None]
    largest = 0.0
    for k in range(params.shape[1]):
        total = params[own, k, own].sum()
        (gradient,) = torch.autograd.grad(total, copies, retain_graph=True)
        largest = max(largest, float(gradient.flatten(1)[later].abs().max()))
    return largest


CERTIFICATES = {
    "pixelcnn-bars": Certificate("Gated PixelCNN", bars_and_stripes, 5),
    "pixelrnn-bars": Certificate("PixelRNN, diagonal LSTM", bars_and_stripes_recurrent, 5),
    "pixelcnn-digits": Certificate("Gated PixelCNN, logistic mixture", digits, 5),
}
