"""Energies against the entropy of their data, Boltzmann machines against sums over states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from generative.known.points import load_density
from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def energy_on(preset: str, what: str) -> Callable[[Settings], list[Line]]:
    """Certificate of the density of points that a preset of train_energy.py learns."""

    def certify(settings: Settings) -> list[Line]:
        from generative.energy import PointEnergy
        from generative.known.quadrature import Grid, divergence
        from generative.training.run import read_result
        from scripts import train_energy

        def train(preset: str) -> Path:
            args = train_energy.PRESETS[preset]
            if settings.smoke:
                args = replace(train_energy.PRESETS["smoke"], data=args.data)
            return train_energy.main(replace(args, out=settings.work / preset, seed=settings.seed))

        model = PointEnergy.from_pretrained(train(preset))
        density = load_density(preset)
        floor, log_partition = density.entropy(), model.log_partition()
        gap = divergence(density, lambda x: model.log_prob(x.float(), log_partition))
        # A finer grid, half as large again, shows the error of the quadrature.
        wide = 150 if settings.smoke else 1350
        again = model.log_partition(Grid((-9.0, -9.0), (9.0, 9.0), (wide, wide)))
        error = abs(again - log_partition)
        lines = [
            Line(f"{what}, nats above the entropy", floor + gap, floor, "entropy", gap, 0.01),
            Line("log Z on a wider and finer grid, change", error, 0.0, "exact", error, 1e-3),
        ]
        if preset == "two-moons":
            book = read_result(train("book-two-moons").parent)["nll"]
            compared = "the same by the book's walks and loss, nats, and how far ours lies below"
            lines.append(Line(compared, book, floor + gap, "ours", floor + gap - book, 0.0))
        return lines

    return certify


def rbm_bars_and_stripes(settings: Settings) -> list[Line]:
    """The 30 patterns of 4x4, by persistent chains, by the exact gradient, and by CD-1."""
    import math

    from generative.rbm.config import RBMLossConfig
    from generative.training.run import read_result
    from scripts import train_rbm

    lines = []
    tempered = train_rbm.PRESETS["bars-and-stripes"]
    runs = {
        "tempered chains": tempered,
        "exact gradient": train_rbm.PRESETS["exact"],
        # The best optimiser for CD-1, of plain steps at four rates and Adam at two.
        "CD-1": replace(
            tempered,
            loss=RBMLossConfig("cd", optimizer="adam", lr=3e-3, final_lr=3e-3, ema=0.995),
        ),
    }
    for how, args in runs.items():
        args = replace(args, out=settings.work / how, seed=settings.seed)
        if settings.smoke:
            args = replace(args, steps=3, model=replace(args.model, hidden_dim=4, sample_steps=5))
        train_rbm.main(args)
        nll = read_result(args.out)["test_nll"]
        what = f"4x4 bars and stripes by {how}, nats per image"
        lines.append(Line(what, nll, math.log(30), "log 30", nll, 3.5))
    what = "the same by CD-1, nats, and how far tempered chains lie below"
    best, worst = lines[0].value, lines.pop().value
    lines.append(Line(what, worst, best, "tempered chains", best - worst, 0.0))
    return lines


def rbm_digits(settings: Settings) -> list[Line]:
    """Held-out binary digits with all states summed up, and AIS against that sum."""
    from generative.training.run import read_result
    from scripts import train_rbm

    args = replace(train_rbm.PRESETS["digits"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3, model=replace(args.model, hidden_dim=4, sample_steps=5))
    train_rbm.main(args)
    result = read_result(settings.work)
    nll, exact, ais = (result[n] for n in ("test_nll", "log_partition", "ais_log_partition"))
    return [
        Line("360 binary test digits, nats", nll, 25.25, "independent pixels", nll, 17.9),
        Line("log Z by AIS, absolute error", ais, exact, "all states", abs(ais - exact), 0.1),
    ]


CERTIFICATES = {
    "energy-two-moons": Certificate("Deep EBM on points", energy_on("two-moons", "two moons"), 7),
    "energy-eight-gaussians": Certificate(
        "Deep EBM on points", energy_on("eight-gaussians", "eight Gaussians"), 7
    ),
    "rbm-bars-and-stripes": Certificate("RBM", rbm_bars_and_stripes, 7),
    "rbm-digits": Certificate("RBM", rbm_digits, 7),
}
