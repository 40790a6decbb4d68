"""Train models again whose optimum is known, and write down how close they come."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from generative.training.cli import start
from generative.training.ranges import Checked, Folder, Seed, Workers
from scripts.certified import CERTIFICATES, Settings


@dataclass(frozen=True)
class Args(Checked):
    """Train models again whose optimum is known, and write down how close they come.

    All models are trained anew. It writes docs/certificates.md and docs/results/certificates.json.
    """

    only: str = ""
    """Name of one certificate to make; the others keep their last results."""
    page: bool = False
    """Train nothing: write certificates.md again from the existing results."""
    docs: Folder = Path("docs")
    """Folder of certificates.md and results/certificates.json."""
    work: Folder = Path("runs/certificates")
    """Folder of the runs, each made anew."""
    data: Path = Path("data")
    """Folder of files that you provide; certificates whose file is missing are left out."""
    size: Literal["full", "smoke"] = "full"
    """smoke: a few steps, to see that everything runs; the bars will be missed."""
    threads: Workers = 0
    """CPU threads; 0 leaves the choice to torch."""
    workers: Workers = 0
    """Processes of one thread each that make certificates in parallel; 0: only this one."""
    seed: Seed = 1


DEFAULT_PRESET = "all"
PRESETS = {
    "all": Args(),
    "smoke": Args(
        only="realnvp-two-moons",
        size="smoke",
        docs=Path("runs/certificates/docs"),
    ),
}


def main(args: Args) -> None:
    """Raises SystemExit(1) if a bar of the full size is missed."""
    if args.only and args.only not in CERTIFICATES:
        raise ValueError(f"there is no certificate {args.only!r}; {', '.join(CERTIFICATES)}")
    from generative.training.files import write_file, write_json
    from generative.training.parallel import Workers

    file = args.docs / "results" / "certificates.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    records = json.loads(file.read_text()) if file.exists() else {}

    def keep(made: tuple[str, dict]) -> None:
        name, record = made
        if "missing" in record:
            print(f"{name}: left out. {record['missing']}")
            return
        records[name] = record
        for line in record["lines"]:
            verdict = "holds" if line["holds"] else "MISSED"
            print(
                f"{name}: {line['what']}: {line['measure']:.3g} (bar {line['bar']:.3g}) {verdict}"
            )
        write_json(file, {key: records[key] for key in CERTIFICATES if key in records})
        write_page()

    def write_page() -> None:
        ordered = {key: records[key] for key in CERTIFICATES if key in records}
        write_file(args.docs / "certificates.md", page(ordered).encode())

    if args.page:
        return write_page()
    # The longest come first, so that no worker is left with one at the end.
    names = [args.only] if args.only else list(CERTIFICATES)
    names.sort(key=lambda name: -records.get(name, {}).get("cpu_seconds", 0))
    jobs = [(name, args) for name in names]
    if args.workers:
        with Workers(certify, min(args.workers, len(jobs))) as pool:
            pool.run(jobs, finished=keep)
    else:
        for job in jobs:
            keep(certify(job))
    missed = [n for n, r in records.items() if not all(line["holds"] for line in r["lines"])]
    if missed and args.size == "full":
        raise SystemExit(f"missed: {', '.join(missed)}")


def certify(job: tuple[str, Args], _report: object = None) -> tuple[str, dict]:
    """Make a certificate; returns (name, record), or (name, {"missing": file})."""
    import torch

    from generative.training.run import collect_versions

    name, args = job
    if args.threads:
        torch.set_num_threads(args.threads)
    shutil.rmtree(args.work / name, ignore_errors=True)
    began, cpu = time.perf_counter(), time.process_time()
    certificate = CERTIFICATES[name]
    settings = Settings(args.work / name, args.seed, args.data, smoke=args.size == "smoke")
    try:
        lines = certificate.certify(settings)
    except FileNotFoundError as error:
        if not certificate.given:
            raise
        return name, {"missing": str(error)}
    versions = collect_versions()
    return name, {
        "family": certificate.family,
        "lines": [{**asdict(line), "gap": line.gap, "holds": line.holds} for line in lines],
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "seed": args.seed,
        "size": args.size,
        "threads": versions["torch_threads"],
        "torch": versions["packages"]["torch"],
        "cpu": versions["cpu"],
    }


def _short(number: float) -> str:
    return f"{number:.4g}" if abs(number) >= 0.01 or number == 0 else f"{number:.2e}"


def page(records: dict) -> str:
    """Text of docs/certificates.md: what holds at a glance, then the lines of each."""
    held = {name: [line["holds"] for line in r["lines"]] for name, r in records.items()}
    whole = sum(map(all, held.values()))
    lines = [
        "# Certificates",
        "",
        "Models trained on tasks whose best possible result is known, or a simpler method's.",
        "`scripts/certificates.py` trains them again and writes this page; `--only NAME` does one.",
        "The numbers with all digits, versions and processor are in",
        "[results/certificates.json](results/certificates.json).",
        "",
        f"All bars hold in {whole} of {len(records)}. A bar is a bound for the value, for the gap",
        "(value less reference), or for either as a share, as the line says.",
        "",
        "| chapter | certificate | family | bars held | CPU seconds | seed |",
        "|---|---|---|---|---|---|",
    ]
    for name, record in records.items():
        count = f"{sum(held[name])} of {len(held[name])}"
        count = "all" if all(held[name]) else f"**{count}**"
        lines.append(
            f"| {CERTIFICATES[name].chapter} | [{name}](#{name}) | {record['family']} | {count} | "
            f"{record['cpu_seconds']:.0f} | {record['seed']} |"
        )
    for name, record in records.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{record['family']}.",
            "",
            "| | value | reference | gap | bar |",
            "|---|---|---|---|---|",
        ]
        for line in record["lines"]:
            reference, gap = line["reference_name"], ""
            if line["reference"] is not None:
                reference, gap = f"{line['reference']:.5g} ({reference})", _short(line["gap"])
            sign = "≤" if line["holds"] else "missed: >"
            cells = [
                line["what"].replace("|", "\\|"), f"{line['value']:.5g}", reference, gap,
                f"{_short(line['measure'])} {sign} {line['bar']:g}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
