"""Train GPTs of several sizes on several amounts of text, and fit how their losses fall.

python scripts/compare_sizes.py markov --results docs/results/sizes
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from generative.text.config import GPTConfig, TextLossConfig, gpt2_block
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Seed, Workers
from generative.training.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.text.scaling import ScalingLaw
    from scripts.common.text import Texts

RESULT_NAME = "sizes.json"
PICTURE_NAME = "sizes.png"


@dataclass(frozen=True)
class Args(Checked):
    """Train GPTs of several sizes on several amounts of text, and fit how their losses fall.

    The texts are made by a formula, so their entropy is known, and no text is read twice. What is
    fitted is the loss above the entropy, a N^-alpha + b D^-beta (Hoffmann et al. 2022).
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"results"})

    out: Folder = Path("runs/compare_sizes")
    """Run folder."""
    results: Folder | None = None
    """Folder that also gets sizes.json and sizes.png."""
    data: Literal["markov", "hidden-markov", "reviews", "rules", "dialogues"] = "markov"
    """Texts; see train_gpt.py."""
    length: Count = 64
    """Tokens of a text."""
    widths: tuple[Count, ...] = (8, 16, 32, 64)
    """Widths of the models; each has a head for every 16."""
    num_layers: Count = 2
    """Transformer blocks."""
    steps: tuple[Count, ...] = (100, 200, 400, 800)
    """Steps of the trainings; the learning rate of each falls over its own."""
    batch_size: Count = 32
    """Texts of a step."""
    loss: TextLossConfig = field(
        default_factory=lambda: TextLossConfig(
            lr=5e-3, final_lr=5e-5, warmup=20, beta2=0.99, clip=1.0
        )
    )
    threads: Workers = 1
    """CPU threads; 0 tries one and all for a few steps, and keeps the faster."""
    device: Device = "cpu"
    seed: Seed = 1


DEFAULT_PRESET = "markov"
PRESETS = {
    "markov": Args(),
    "smoke": Args(length=16, widths=(4, 8), num_layers=1, steps=(2, 4), batch_size=4),
}


def main(args: Args) -> Path:
    """Returns the file of the comparison."""
    import torch

    from generative.text.scaling import fit_scaling
    from generative.training.files import (
        MAX_LIST_BYTES,
        read_file,
        read_json,
        write_file,
        write_json,
    )
    from scripts.common.text import TextSource, load_texts

    with Run.open(args, kind="compare_sizes") as run:
        report = run.path / RESULT_NAME
        if not run.done:
            if args.threads:
                torch.set_num_threads(args.threads)
            texts = load_texts(TextSource(args.data, length=args.length), 1000)
            records = [
                train(args, run, texts, width, steps)
                for width in args.widths
                for steps in args.steps
            ]
            weights, tokens, excess = (
                torch.tensor([r[name] for r in records], dtype=torch.float64)
                for name in ("weights", "tokens", "excess")
            )
            law = fit_scaling(weights, tokens, excess)
            found = law.excess(weights, tokens)
            error = float((found / excess).log().abs().mean())
            versions = {name: run.versions[name] for name in ("python", "cpu", "packages")}
            write_json(report, {
                "data": args.data, "entropy": texts.floor(), "runs": records,
                "law": law._asdict(), "mean_log_error": error, "versions": versions,
            })  # fmt: skip
            figure(records, law).savefig(run.path / PICTURE_NAME, dpi=100)
            run.finish({**law._asdict(), "mean_log_error": error})
        found = read_json(report, MAX_LIST_BYTES)
        print(describe(found))
        if args.results is not None:
            args.results.mkdir(parents=True, exist_ok=True)
            write_json(args.results / RESULT_NAME, found)
            picture = read_file(run.path / PICTURE_NAME, MAX_LIST_BYTES)
            write_file(args.results / PICTURE_NAME, picture)
        return report


def train(args: Args, run: Run, texts: Texts, width: int, steps: int) -> dict[str, Any]:
    """One training, in a run of its own; its size, its tokens and its loss."""
    import torch

    from generative.text.gpt import GPT
    from generative.text.measures import next_token_loss
    from generative.text.tokens import TextLearner
    from generative.training.loop import fit
    from generative.training.run import read_result

    folder = run.path / f"width-{width}" / f"steps-{steps}"
    alone = replace(args, widths=(width,), steps=(steps,))
    with Run.open(alone, folder, kind="compare_sizes one") as one:
        if not one.done:
            torch.manual_seed(one.seed_for("weights"))
            config = model_config(args, len(texts.tokeniser), width)
            learner = TextLearner(GPT(config).to(one.device), args.loss, steps)

            def batch(step: int) -> Tensor:
                return texts.batch(one.seed_for("batch", step), args.batch_size).to(one.device)

            fit(
                learner, batch, one, steps,
                log_every=max(1, steps // 10), what=f"width {width}, {steps} steps",
            )  # fmt: skip
            loss = next_token_loss(learner.kept, texts.test).loss
            floor = texts.floor()
            assert floor is not None
            one.finish({
                "width": width, "steps": steps,
                "weights": sum(p.numel() for p in learner.kept.parameters()),
                "tokens": steps * args.batch_size * args.length,
                "loss": loss, "excess": loss - floor,
            })  # fmt: skip
    return read_result(folder)


def model_config(args: Args, vocab_size: int, width: int) -> GPTConfig:
    """The GPT of a width."""
    block = gpt2_block(width, max(1, width // 16), dropout=0.0)
    return GPTConfig(vocab_size, args.length, args.num_layers, block, tied=True, init="normal")


def describe(found: dict[str, Any]) -> str:
    """Table of the losses above the entropy, and the law that fits them."""
    runs = found["runs"]
    tokens = sorted({r["tokens"] for r in runs})
    by_size = {r["weights"]: {s["tokens"]: s for s in runs if s["weights"] == r["weights"]}
        for r in runs}  # fmt: skip
    lines = [f"loss above the entropy of {found['data']}, {found['entropy']:.4f} nats a token"]
    lines.append(f"{'weights':>10}" + "".join(f"{d:>12,}" for d in tokens) + "  tokens")
    for weights, row in by_size.items():
        lines.append(
            f"{weights:>10,}" + "".join(f"{row[d]['excess']:>12.4f}" for d in tokens if d in row)
        )
    law = found["law"]
    lines.append(
        f"fit: {law['a']:.3g} N^-{law['alpha']:.3f} + {law['b']:.3g} D^-{law['beta']:.3f}, "
        f"off by {100 * found['mean_log_error']:.0f} % on average"
    )
    return "\n".join(lines)


def figure(records: list[dict[str, Any]], law: ScalingLaw) -> Figure:
    """Losses by tokens, a line for each size, and by size, a line for each number of tokens."""
    import torch
    from matplotlib.figure import Figure

    result = Figure(figsize=(10, 3.8), layout="constrained")
    axes = result.subplots(1, 2, sharey=True)
    for axis, x, other in zip(axes, ("tokens", "weights"), ("weights", "tokens"), strict=True):
        for k, value in enumerate(sorted({r[other] for r in records})):
            some = sorted((r for r in records if r[other] == value), key=lambda r: r[x])
            axis.plot(
                [r[x] for r in some], [r["excess"] for r in some], "o", color=f"C{k}",
                label=f"{value:,} {other}",
            )  # fmt: skip
            line = torch.logspace(*(torch.tensor([r[x] for r in records]).double().log10()
                .aminmax()), 50, dtype=torch.float64)  # fmt: skip
            fixed = torch.full_like(line, value)
            sizes = (fixed, line) if x == "tokens" else (line, fixed)
            axis.plot(line.tolist(), law.excess(*sizes).tolist(), color=f"C{k}", lw=1)
        axis.set(xscale="log", yscale="log", xlabel=x)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("loss above the entropy, nats a token")
    return result


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
