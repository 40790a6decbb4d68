"""Priors of DALL.E 2 on a Gaussian pair: errors at noise levels, nats of buckets, samples."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def diffusion_pair(settings: Settings) -> list[Line]:
    """Errors beside the least ones with the text and without, and samples beside the posterior."""
    found = _trained(settings, "pair")
    lines = []
    for level in ("-6", "-3", "0", "2"):
        for name, words in (("", "given the text"), ("alone_", "without it")):
            mse, floor = found[f"{name}mse_{level}"], found[f"{name}floor_{level}"]
            what = f"squared error at log SNR {level} {words}, gap as a share"
            lines.append(Line(what, mse, floor, "exact posterior", mse / floor - 1, 0.05))
    return [*lines, _samples(found)]


def bucket_pair(settings: Settings) -> list[Line]:
    """Nats of the buckets of new pairs beside their entropy, and samples."""
    found = _trained(settings, "pair-buckets")
    nll, floor = found["test_nll"], found["floor"]
    what = "nats of eight components in 32 buckets, gap as a share"
    return [Line(what, nll, floor, "exact masses", nll / floor - 1, 0.02), _samples(found)]


def _trained(settings: Settings, preset: str) -> dict[str, float]:
    """Result of a preset of train_prior."""
    from generative.training.run import read_result
    from scripts import train_prior

    args = replace(train_prior.PRESETS[preset], out=settings.work / preset, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, batch_size=8, fit_on=100, samples=20)
    train_prior.main(args)
    return read_result(args.out)


def _samples(found: dict[str, float]) -> Line:
    closer = 1 - found["energy_p"]
    return Line(
        "samples less their exact mean, and as many true ones: share of random relabellings with a "
        "smaller energy distance",
        closer, None, "any share is as likely, were they alike", closer, 0.95,
    )  # fmt: skip


CERTIFICATES = {
    "diffusion-prior-pair": Certificate("Diffusion prior", diffusion_pair, 13),
    "autoregressive-prior-pair": Certificate("Autoregressive prior", bucket_pair, 13),
}
