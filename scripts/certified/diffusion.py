"""Diffusion against the optimal denoiser, and against the data's entropy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generative.diffusion.config import PointEDMConfig
from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def two_moons(settings: Settings) -> list[Line]:
    """Simple loss, likelihood by the probability flow, and samples of 50 DDIM steps."""
    return diffusion_lines(settings, "two-moons", "moons")


def eight_gaussians(settings: Settings) -> list[Line]:
    """The same for eight Gaussians on a circle."""
    return diffusion_lines(settings, "eight-gaussians", "8 Gaussians")


def two_moons_edm(settings: Settings) -> list[Line]:
    """Two moons, with the preconditioning, the noise levels and the steps of EDM."""
    return diffusion_lines(settings, "two-moons-edm", "moons")


def ring(settings: Settings) -> list[Line]:
    """The same for eight narrow Gaussians, far apart."""
    return diffusion_lines(settings, "ring", "ring of 8")


def checkerboard(settings: Settings) -> list[Line]:
    """The same for eight squares, with the share of samples outside in place of the simple loss."""
    return diffusion_lines(settings, "checkerboard", "checkerboard")


def diffusion_lines(settings: Settings, preset: str, name: str) -> list[Line]:
    """Lines from one training by the script, by its result and its samples."""
    from generative.training.run import read_result
    from scripts import train_diffusion

    args = replace(train_diffusion.PRESETS[preset], out=settings.work, seed=settings.seed)
    edm = isinstance(args.point, PointEDMConfig)
    if settings.smoke:
        narrow: dict[str, Any] = {"hidden_dim": 8}
        if isinstance(args.point, PointEDMConfig):
            narrow = {"network": replace(args.point.network, hidden_dim=8)}
        args = replace(
            args, point=replace(args.point, ode_steps=4, **narrow),
            steps=5, batch_size=32, samples=100,
        )  # fmt: skip
    train_diffusion.main(args)
    result = read_result(settings.work)
    steps, closer = f"{args.point.steps} {'Heun' if edm else 'DDIM'} steps", 1 - result["energy_p"]
    if "outside" in result:
        outside = result["outside"]
        first = Line(
            f"{name}, share of {args.samples:,} samples of {steps} outside the squares",
            outside, 0.0, "none", outside, 0.05,
        )  # fmt: skip
    else:
        floor, excess = result["simple_floor"], result["simple_excess"]
        first = Line(
            f"{name}, simple loss (linear betas, 1,000 steps), relative excess",
            floor + excess, floor, "exact posterior mean", excess / floor, 0.01,
        )  # fmt: skip
    return [
        first,
        Line(
            f"{name}, likelihood by the probability flow, nats above the entropy",
            result["nll"], result["floor"], "entropy", result["gap"], 0.05,
        ),
        Line(
            f"{name}, {args.samples:,} samples of {steps} and as many fresh points: "
            "share of random relabellings with a smaller energy distance",
            closer, None, "any share is as likely, were they alike", closer, 0.95,
        ),
    ]  # fmt: skip


CERTIFICATES = {
    "diffusion-two-moons": Certificate("Diffusion, DDPM and DDIM", two_moons, 8),
    "diffusion-two-moons-edm": Certificate("Diffusion, EDM", two_moons_edm, 8),
    "diffusion-eight-gaussians": Certificate("Diffusion, DDPM and DDIM", eight_gaussians, 8),
    "diffusion-ring": Certificate("Diffusion, DDPM and DDIM", ring, 8),
    "diffusion-checkerboard": Certificate("Diffusion, DDPM and DDIM", checkerboard, 8),
}
