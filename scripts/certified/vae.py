"""VAEs against probabilistic principal components, and on held-out digits."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def linear_vae(settings: Settings) -> list[Line]:
    """A linear VAE, trained by its ELBO alone, against the maximum of the likelihood."""
    import torch

    from generative.data.digits import load_digits
    from generative.vae import (
        ImageVAELearner,
        ImageVAELossConfig,
        LinearVAE,
        LinearVAEConfig,
        probabilistic_pca,
    )

    x = load_digits().part("train", "val").as_tensor()
    steps = 5 if settings.smoke else 3000
    lines = []
    for k in (8, 16):
        torch.manual_seed(settings.seed)
        model = LinearVAE(LinearVAEConfig(latent_dim=k))
        model.initialise(x)
        learner = ImageVAELearner(model, ImageVAELossConfig(lr=3e-2, final_lr=1e-4), steps)
        for _ in range(steps):
            learner.update(x)
        best = probabilistic_pca(x.flatten(1), k).log_likelihood
        with torch.no_grad():
            found = float(model.double().log_prob(x.double()).mean())
            elbo = -float(model.loss(x.double()).loss)
        what = f"of 1,437 digits, {k} latents, nats an image"
        lines += [
            Line(f"log-likelihood {what}", found, best, "probabilistic PCA", best - found, 0.05),
            Line(f"ELBO {what}", elbo, best, "probabilistic PCA", best - elbo, 0.05),
        ]
    return lines


def vae_digits(settings: Settings) -> list[Line]:
    """Held-out black and white digits, beside a mixture of Bernoullis."""
    from generative.data.digits import load_digits
    from generative.known.baselines import bernoulli_mixture
    from generative.training.run import read_result
    from scripts import train_image_vae

    args = replace(train_image_vae.PRESETS["digits"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, score_draws=10)
    train_image_vae.main(args)
    nats = read_result(settings.work)["test_nats"]

    digits = train_image_vae.black_and_white(load_digits(), args.threshold)
    train, test = (digits.part(*parts).as_tensor() for parts in (args.parts, ("test",)))
    components = 2 if settings.smoke else 100
    mixture = -bernoulli_mixture(train.flatten(1), test.flatten(1), components, settings.seed)
    what = "360 test digits in black and white, 1,000 draws, nats an image"
    return [Line(what, nats, mixture, f"{components} Bernoullis", nats, 16.0)]


CERTIFICATES = {
    "linear-vae": Certificate("Linear VAE", linear_vae, 3),
    "vae-digits": Certificate("VAE, importance-weighted, mixture prior", vae_digits, 3),
}
