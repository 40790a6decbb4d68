"""Autoencoders against principal components."""

from __future__ import annotations

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def linear_autoencoder(settings: Settings) -> list[Line]:
    """A linear autoencoder can not do better than principal components, and does as well."""
    import torch

    from generative.autoencoder import (
        AutoencoderLearner,
        AutoencoderLossConfig,
        LinearAutoencoder,
        LinearAutoencoderConfig,
        principal_components,
    )
    from generative.data.digits import load_digits

    x = load_digits().part("train", "val").as_tensor()
    steps = 5 if settings.smoke else 2000
    lines = []
    for k in (2, 8):
        torch.manual_seed(settings.seed)
        model = LinearAutoencoder(LinearAutoencoderConfig(latent_dim=k))
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


CERTIFICATES = {
    "linear-autoencoder": Certificate("Linear autoencoder", linear_autoencoder),
}
