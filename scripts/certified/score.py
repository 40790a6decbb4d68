"""Score networks against the exact score of data with noise."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def eight_gaussians(settings: Settings) -> list[Line]:
    """Denoising loss, and samples by annealed Langevin dynamics."""
    from generative.training.run import read_result
    from scripts import train_score

    args = train_score.PRESETS["smoke" if settings.smoke else "eight-gaussians"]
    train_score.main(replace(args, out=settings.work, seed=settings.seed))
    result = read_result(settings.work)
    floor, excess, closer = result["loss_floor"], result["loss_excess"], 1 - result["energy_p"]
    return [
        Line(
            f"8 Gaussians, denoising loss over {args.model.num_levels} noise levels, relative "
            "excess",
            floor + excess, floor, "exact score", excess / floor, 0.01,
        ),
        Line(
            f"8 Gaussians, {args.samples:,} samples by annealed Langevin dynamics and as many "
            "fresh points: share of random relabellings with a smaller energy distance",
            closer, None, "any share is as likely, were they alike", closer, 0.95,
        ),
    ]  # fmt: skip


CERTIFICATES = {
    "score-eight-gaussians": Certificate("Noise-conditional score network", eight_gaussians, 7)
}
