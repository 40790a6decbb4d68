"""Train again what can be compared with a known optimum, and write down how close it comes."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from generative.training.cli import start


@dataclass(frozen=True)
class Args:
    """Train again what can be compared with a known optimum, and write down how close it comes.

    Everything is trained anew; docs/certificates.md and docs/results/certificates.json are written.
    """

    only: str = ""
    """Name of one certificate; the others stay as they were written last."""
    docs: Path = Path("docs")
    """Where certificates.md and results/certificates.json go."""
    work: Path = Path("runs/certificates")
    """Runs are made here, each anew."""
    size: Literal["full", "smoke"] = "full"
    """smoke: a few steps, to see that everything runs; nothing will hold."""
    threads: int = 0
    """CPU threads; 0 leaves the choice to torch."""
    seed: int = 1


DEFAULT_PRESET = "all"
PRESETS = {
    "all": Args(),
    "smoke": Args(
        only="realnvp-two-moons",
        size="smoke",
        docs=Path("runs/certificates/docs"),
    ),
}


@dataclass(frozen=True)
class Line:
    """One number that is certified."""

    what: str
    value: float
    reference: float | None
    """The exact optimum, or what a known method reaches; None where 0 is meant."""
    reference_name: str
    gap: float
    """What is held against the bar."""
    bar: float
    """The gap has to stay below it."""

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.gap < self.bar


def linear_autoencoder(args: Args, work: Path) -> list[Line]:
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
    steps = 2000 if args.size == "full" else 5
    lines = []
    for k in (2, 8):
        torch.manual_seed(args.seed)
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


def realnvp_two_moons(args: Args, work: Path) -> list[Line]:
    """The density of two moons, against their entropy; the inverse; the log-determinant."""
    import torch

    from generative.realnvp import RealNVP
    from generative.toy import Standardised, TwoMoons, divergence
    from scripts import train_realnvp

    preset = "corrected" if args.size == "full" else "smoke"
    settings = replace(train_realnvp.PRESETS[preset], out=work, seed=args.seed)
    flow = RealNVP.from_pretrained(train_realnvp.main(settings))
    moons = Standardised(TwoMoons())
    floor = moons.entropy()
    gap = divergence(moons, lambda x: flow.log_prob(x.float()))

    x = moons.sample(10_000, torch.Generator().manual_seed(args.seed))
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


def realnvp_digits(args: Args, work: Path) -> list[Line]:
    """Bits per dimension of digits that were not trained on, beside those of a Gaussian."""
    import torch

    from generative.data.digits import load_digits
    from generative.toy import Gaussian
    from generative.training.run import read_result
    from scripts import train_realnvp

    settings = replace(train_realnvp.PRESETS["digits"], out=work, seed=args.seed)
    if args.size == "smoke":
        settings = replace(settings, steps=3)
    train_realnvp.main(settings)
    bits = read_result(work)["test_bits_per_dim"]

    digits, generator = load_digits(), torch.Generator().manual_seed(args.seed)
    noisy = []
    for parts in (("train", "val"), ("test",)):
        x = torch.from_numpy(digits.part(*parts).images).flatten(1).double()
        noisy.append(x + torch.rand(x.shape, generator=generator, dtype=torch.float64))
    gaussian = -float(Gaussian.fit(noisy[0]).log_prob(noisy[1]).mean()) / 64 / math.log(2)
    return [Line("360 test digits, bits per dimension", bits, gaussian, "one Gaussian", bits, 2.45)]


Certify = Callable[[Args, Path], list[Line]]
CERTIFICATES: dict[str, tuple[str, Certify]] = {
    "linear-autoencoder": ("Linear autoencoder", linear_autoencoder),
    "realnvp-two-moons": ("RealNVP, spline couplings", realnvp_two_moons),
    "realnvp-digits": ("RealNVP, dequantised images", realnvp_digits),
}
"""Family and function by name; a function trains in a folder and returns what it measured."""


def main(args: Args) -> None:
    """Raises SystemExit(1) if a bar of the full size is missed."""
    if args.only and args.only not in CERTIFICATES:
        raise ValueError(f"there is no certificate {args.only!r}; {', '.join(CERTIFICATES)}")
    import torch

    from generative.training.files import write_file, write_json
    from generative.training.run import collect_versions

    if args.threads:
        torch.set_num_threads(args.threads)
    file = args.docs / "results" / "certificates.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    records = json.loads(file.read_text()) if file.exists() else {}
    for name in [args.only] if args.only else CERTIFICATES:
        family, certify = CERTIFICATES[name]
        shutil.rmtree(args.work / name, ignore_errors=True)
        began, cpu = time.perf_counter(), time.process_time()
        lines = certify(args, args.work / name)
        versions = collect_versions()
        records[name] = {
            "family": family,
            "lines": [{**asdict(line), "holds": line.holds} for line in lines],
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "seed": args.seed,
            "size": args.size,
            "threads": versions["torch_threads"],
            "torch": versions["packages"]["torch"],
            "cpu": versions["cpu"],
        }
        for line in lines:
            verdict = "holds" if line.holds else "MISSED"
            print(f"{name}: {line.what}: {line.gap:.3g} (bar {line.bar:.3g}) {verdict}", flush=True)
        records = {key: records[key] for key in CERTIFICATES if key in records}
        write_json(file, records)
        write_file(args.docs / "certificates.md", page(records).encode())
    missed = [n for n, r in records.items() if not all(line["holds"] for line in r["lines"])]
    if missed and args.size == "full":
        raise SystemExit(f"missed: {', '.join(missed)}")


def page(records: dict) -> str:
    """docs/certificates.md."""
    lines = [
        "# Certificates",
        "",
        "Models trained on tasks of which the best possible result is known, or what a simpler",
        "method reaches. `scripts/certificates.py` trains them again and writes this page;",
        "`--only NAME` does one. The numbers with all digits, versions and processor are in",
        "[results/certificates.json](results/certificates.json).",
        "",
        "| name | family | what is measured | value | reference | gap | bar | CPU seconds | seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, record in records.items():
        for line in record["lines"]:
            reference = line["reference_name"]
            if line["reference"] is not None:
                reference = f"{line['reference']:.5g} ({reference})"
            gap = f"{line['gap']:.2e}" if line["gap"] < 0.01 else f"{line['gap']:.4g}"
            sign = "<" if line["holds"] else "missed: not <"
            cells = [
                name, record["family"], line["what"], f"{line['value']:.5g}", reference, gap,
                f"{sign} {line['bar']:g}", f"{record['cpu_seconds']:.0f}", str(record["seed"]),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
