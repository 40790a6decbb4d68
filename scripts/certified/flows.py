"""Flows against the entropy of their data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from generative.known.points import PointData, load_density
from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def realnvp_on(data: PointData, what: str, bar: float) -> Callable[[Settings], list[Line]]:
    """Certificate of a density of points: the excess over its entropy; the inverse; the
    log-determinant."""

    def certify(settings: Settings) -> list[Line]:
        from generative.flow import Chain
        from scripts import train_realnvp

        args = train_realnvp.PRESETS["smoke" if settings.smoke else "corrected"]
        args = replace(args, out=settings.work, data=data, seed=settings.seed)
        flow = Chain.from_pretrained(train_realnvp.main(args))
        return [
            entropy_line(settings, what, bar),
            round_trip_line(flow, data, settings),
            log_det_line(flow, data, settings, 1e-9),
        ]

    return certify


def ffjord_two_moons(settings: Settings) -> list[Line]:
    """The same of a continuous flow, solved with many more steps than in training.

    An inexact solver could make the density integrate to more than 1, so the integral is certified
    too.
    """
    from generative.flow import FFJORD
    from generative.known.densities import Standardised, TwoMoons
    from generative.known.quadrature import log_normaliser
    from scripts import train_ffjord

    preset = "smoke" if settings.smoke else "two-moons"
    args = replace(train_ffjord.PRESETS[preset], out=settings.work, seed=settings.seed)
    flow = FFJORD.from_pretrained(train_ffjord.main(args))
    grid = Standardised(TwoMoons()).grid(1.0)
    mass = abs(log_normaliser(lambda x: flow.log_prob(x.float()).double(), grid))
    return [
        entropy_line(settings, "two moons", 0.01),
        Line("logarithm of the density's integral", mass, 0.0, "exact", mass, 1e-3),
        round_trip_line(flow, "two-moons", settings),
        log_det_line(flow, "two-moons", settings, 1e-4),
    ]


def entropy_line(settings: Settings, what: str, bar: float) -> Line:
    """Excess of the run's flow over the entropy of its points, by quadrature."""
    from generative.training.run import read_result

    found = read_result(settings.work)
    what = f"{what}, nats above the entropy"
    return Line(what, found["nll"], found["floor"], "entropy", found["gap"], bar)


def round_trip_line(flow, data: PointData, settings: Settings) -> Line:
    """Error of decode(encode(x)) in float32 over 10,000 points, beside what rounding z costs.

    Between the modes of a density a flow stretches space; there a z rounded
    to float32 is not the same x any more, however exact the maps are. So the reference is the
    error of the maps in float64 with z rounded once.
    """
    import torch

    x, exact = sample(data, 10_000, settings), copy.deepcopy(flow).double()
    with torch.no_grad():
        error = float((flow.decode(flow.encode(x)) - x).abs().max())
        z = exact.encode(x.double()).float()
        rounding = float((exact.decode(z.double()) - x).abs().max())
    what = "largest error of decode(encode(x)) in float32"
    return Line(what, error, rounding, "z rounded, exact maps", error - rounding, 1e-5)


def log_det_line(flow, data: PointData, settings: Settings, bar: float) -> Line:
    """Log-determinant against that of autograd's Jacobian, in float64, at 100 points."""
    import torch

    exact, errors = flow.double(), []
    for row in sample(data, 100, settings).double():
        jacobian = torch.autograd.functional.jacobian(lambda r: exact.encode(r[None])[0], row)
        with torch.no_grad():
            log_det = exact.encode_log_det(row[None])[1]
        errors.append(float((torch.linalg.slogdet(jacobian).logabsdet - log_det).abs()))
    error = max(errors)
    return Line("log-determinant against autograd's", error, 0.0, "exact", error, bar)


def sample(data: PointData, n: int, settings: Settings):
    """Points drawn by the seed, (n, 2)."""
    import torch

    return load_density(data).sample(n, torch.Generator().manual_seed(settings.seed))


def realnvp_digits(settings: Settings) -> list[Line]:
    """Bits per dimension of held-out digits, beside those of a Gaussian."""
    from scripts import train_realnvp

    return digits_lines(train_realnvp, "digits", settings)


def glow_digits(settings: Settings) -> list[Line]:
    """The same of Glow."""
    from scripts import train_glow

    return digits_lines(train_glow, "digits", settings)


def digits_lines(script, preset: str, settings: Settings) -> list[Line]:
    """Train a preset of a script and read its result."""
    import torch

    from generative.data.digits import load_digits
    from generative.known.baselines import gaussian_bits
    from generative.training.run import read_result

    args = replace(script.PRESETS[preset], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3)
    script.main(args)
    bits = read_result(settings.work)["test_bits_per_dim"]

    digits, generator = load_digits(), torch.Generator().manual_seed(settings.seed)
    gaussian = gaussian_bits(
        digits.part("train", "val").images, digits.part("test").images, generator
    )
    return [Line("360 test digits, bits per dimension", bits, gaussian, "one Gaussian", bits, 2.45)]


CERTIFICATES = {
    "realnvp-two-moons": Certificate(
        "RealNVP, spline couplings", realnvp_on("two-moons", "two moons", 1e-3), 6
    ),
    "realnvp-ring": Certificate(
        "RealNVP, spline couplings", realnvp_on("ring", "ring of 8", 0.05), 6
    ),
    "realnvp-checkerboard": Certificate(
        "RealNVP, spline couplings", realnvp_on("checkerboard", "checkerboard", 0.05), 6
    ),
    "realnvp-digits": Certificate("RealNVP, dequantised images", realnvp_digits, 6),
    "glow-digits": Certificate("Glow, dequantised images", glow_digits, 6),
    "ffjord-two-moons": Certificate("FFJORD, continuous flow", ffjord_two_moons, 6),
}
