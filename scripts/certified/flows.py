"""Flows against the entropy of what they learn."""

from __future__ import annotations

import math
from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def realnvp_two_moons(settings: Settings) -> list[Line]:
    """The density of two moons, against their entropy; the inverse; the log-determinant."""
    import torch

    from generative.realnvp import RealNVP
    from generative.toy import Standardised, TwoMoons, divergence
    from scripts import train_realnvp

    preset = "smoke" if settings.smoke else "corrected"
    args = replace(train_realnvp.PRESETS[preset], out=settings.work, seed=settings.seed)
    flow = RealNVP.from_pretrained(train_realnvp.main(args))
    moons = Standardised(TwoMoons())
    floor = moons.entropy()
    gap = divergence(moons, lambda x: flow.log_prob(x.float()))

    x = moons.sample(10_000, torch.Generator().manual_seed(settings.seed))
    with torch.no_grad():
        round_trip = float((flow.decode(flow.encode(x)) - x).abs().max())
    exact = flow.double()
    errors = []
    for row in x[:100].double():
        jacobian = torch.autograd.functional.jacobian(lambda r: exact.encode(r[None])[0], row)
        with torch.no_grad():
            log_det = exact.encode_log_det(row[None])[1]
        errors.append(float((torch.linalg.slogdet(jacobian).logabsdet - log_det).abs()))
    return [
        Line("two moons, nats above the entropy", floor + gap, floor, "entropy", gap, 1e-3),
        Line("largest error of decode(encode(x))", round_trip, None, "0", round_trip, 1e-5),
        Line("log-determinant against autograd's", max(errors), None, "0", max(errors), 1e-9),
    ]


def realnvp_digits(settings: Settings) -> list[Line]:
    """Bits per dimension of digits that were not trained on, beside those of a Gaussian."""
    import torch

    from generative.data.digits import load_digits
    from generative.toy import Gaussian
    from generative.training.run import read_result
    from scripts import train_realnvp

    args = replace(train_realnvp.PRESETS["digits"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3)
    train_realnvp.main(args)
    bits = read_result(settings.work)["test_bits_per_dim"]

    digits, generator = load_digits(), torch.Generator().manual_seed(settings.seed)
    noisy = []
    for parts in (("train", "val"), ("test",)):
        x = torch.from_numpy(digits.part(*parts).images).flatten(1).double()
        noisy.append(x + torch.rand(x.shape, generator=generator, dtype=torch.float64))
    gaussian = -float(Gaussian.fit(noisy[0]).log_prob(noisy[1]).mean()) / 64 / math.log(2)
    return [Line("360 test digits, bits per dimension", bits, gaussian, "one Gaussian", bits, 2.45)]


CERTIFICATES = {
    "realnvp-two-moons": Certificate("RealNVP, spline couplings", realnvp_two_moons),
    "realnvp-digits": Certificate("RealNVP, dequantised images", realnvp_digits),
}
