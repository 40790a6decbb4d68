"""Autoencoders against principal components."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def linear_autoencoder(settings: Settings) -> list[Line]:
    """A linear autoencoder against principal components, its exact optimum."""
    import torch

    from generative.autoencoder import (
        AutoencoderLearner,
        AutoencoderLossConfig,
        LinearAutoencoderConfig,
        principal_components,
    )
    from generative.data.digits import load_digits

    x = load_digits().part("train", "val").as_tensor()
    steps = 5 if settings.smoke else 2000
    lines = []
    for k in (2, 8):
        torch.manual_seed(settings.seed)
        model = LinearAutoencoderConfig(latent_dim=k).build()
        model.initialise(x)
        config = AutoencoderLossConfig("mse", lr=1e-2, final_lr=1e-5)
        learner = AutoencoderLearner(model, config, steps)
        for _ in range(steps):
            learner.update(x)
        with torch.no_grad():
            error = float(model.double().loss(x.double()).loss)
        best = principal_components(x.flatten(1), k)[2]
        what = f"squared error of 1,437 digits from {k} numbers, relative excess"
        lines.append(Line(what, error, best, "PCA", error / best - 1, 1e-4))
    return lines


def autoencoder(settings: Settings) -> list[Line]:
    """Nonlinear codes against linear ones: squared error of test digits, against as many principal
    components of the same training digits."""
    import torch

    from generative.autoencoder import Autoencoder, principal_components
    from generative.data.digits import load_digits
    from scripts import train_autoencoder

    digits = load_digits()
    seen, test = digits.part("train", "val").as_tensor(), digits.part("test").as_tensor()
    lines = []
    for k, bar in ((2, 0.7), (8, 0.5)):
        args = train_autoencoder.PRESETS["digits"]
        args = replace(
            args,
            out=settings.work / str(k),
            seed=settings.seed,
            model=replace(args.model, latent_dim=k),
            steps=3 if settings.smoke else args.steps,
        )
        model = Autoencoder.from_pretrained(train_autoencoder.main(args))
        with torch.no_grad():
            error = float((model.reconstruct(test) - test).square().mean())
        mean, directions, _ = principal_components(seen.flatten(1), k)
        left = test.flatten(1).double() - mean
        flat = float((left - left @ directions.T @ directions).square().mean())
        what = f"squared error of 360 test digits from {k} numbers, share of PCA's"
        lines.append(Line(what, error, flat, "PCA", error / flat, bar))
    return lines


CERTIFICATES = {
    "autoencoder-digits": Certificate("Autoencoder", autoencoder, 3),
    "linear-autoencoder": Certificate("Linear autoencoder", linear_autoencoder, 3),
}
