"""Draw the frontier of reward and KL, and policies that were trained at several prices.

python scripts/explore_rlhf.py frontier --model runs/rlhf/model
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, CountOrZero, Folder, Positive, Seed, Workers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Args(Checked):
    """Draw the frontier of reward and KL, and policies that were trained at several prices.

    Trains a policy for each method and price from what the run has learnt of demonstrations and
    rankings; those that are finished stay. Writes frontier.png, and frontier.json with its numbers.
    """

    model: Annotated[Path, Input("train_rlhf.py")] = Path("runs/rlhf/model")
    """Folder of a policy, as train_rlhf.py writes it, with `sft` and `reward` beside it."""
    pictures: Annotated[Folder, tyro.conf.arg(name="out")] = Path("runs/rlhf/explore")
    """Where the picture goes, and the runs of the policies, in `runs`."""
    methods: tuple[Literal["ppo", "grpo", "dpo", "grpo-published"], ...] = ("ppo", "grpo", "dpo")
    """Presets of train_rlhf.py that are trained."""
    betas: tuple[Positive, ...] = (0.3, 0.5, 1.0)
    """Prices of leaving the reference: the reward that one nat has to bring."""
    steps: CountOrZero = 0
    """Updates of each policy; 0 for those of the preset."""
    threads: Workers = 0
    """CPU threads; 0 leaves the choice to torch."""
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("methods", "betas"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")


DEFAULT_PRESET = "frontier"
PRESETS = {
    "frontier": Args(),
    "published": Args(methods=("grpo", "grpo-published")),
    "smoke": Args(betas=(0.5, 1.0), steps=2),
}


def main(args: Args) -> Path:
    """Returns the folder of the picture."""
    from generative.known.requests import Requests
    from generative.text.gpt import GPT
    from generative.training.files import write_json

    run = args.model.parent
    settings = settings_of(run)
    reference = GPT.from_pretrained(run / "sft" / "model")
    requests = Requests(settings.num_letters, settings.length)
    args.pictures.mkdir(parents=True, exist_ok=True)
    found = {
        "frontier": frontier(requests, requests.log_probs(reference)),
        "policies": {name: [train(args, settings, name, b) for b in args.betas]
                     for name in args.methods},
    }  # fmt: skip
    write_json(args.pictures / "frontier.json", found)
    draw(found).savefig(args.pictures / "frontier.png", dpi=110)
    print(f"wrote frontier.png into {args.pictures}")
    return args.pictures


def settings_of(run: Path) -> Any:
    """Settings of a run of train_rlhf.py.

    Raises:
        FileNotFoundError: there is no such run.
    """
    from generative.training.run import read_config
    from generative.training.settings import from_json
    from scripts import train_rlhf

    if not (run / "sft" / "model").is_dir():
        raise FileNotFoundError(
            f"{run} has no trained `sft` in it; train one with train_rlhf.py --out {run}, and pass "
            f"--model {run / 'model'}"
        )
    return from_json(train_rlhf.Args, read_config(run)[1])


def frontier(requests: Any, reference: Any) -> list[dict[str, float]]:
    """KL and reward of the exact optimum at many prices."""
    points = []
    for k in range(61):
        beta = 10 ** (1.2 - k / 30)  # from 16 to 0.16
        best = requests.optimum(reference, requests.rewards, beta).log_prob
        outcome = requests.outcome(best, reference, requests.rewards, beta)
        points.append({"beta": beta, "kl": outcome.kl, "reward": outcome.reward})
    return points


def train(args: Args, settings: Any, name: str, beta: float) -> dict[str, float]:
    """Exact KL and reward of a policy of this method and price."""
    from dataclasses import replace

    from generative.training.run import read_result
    from scripts import train_rlhf

    preset = train_rlhf.PRESETS[name]
    out = args.pictures / "runs" / f"{name}-{beta:g}"
    train_rlhf.main(
        replace(
            settings,
            out=out,
            start_from=args.model.parent,
            loss=replace(preset.loss, beta=beta),
            steps=args.steps or preset.steps,
            threads=args.threads,
            report=None,
            seed=args.seed,
        )
    )
    result = read_result(out)
    names = {"kl": "exact_kl", "reward": "exact_reward", "optimum": "optimum", "gap": "gap"}
    return {"beta": beta, **{name: result[key] for name, key in names.items()}}


def draw(found: dict[str, Any]) -> Figure:
    """Curve and policies; what is above the curve cannot be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [point["kl"] for point in found["frontier"]],
        [point["reward"] for point in found["frontier"]],
        color="0.25", label="exact optimum", zorder=1,
    )  # fmt: skip
    # The marks lie on each other where all methods are right, so each is one that others show in.
    looks = {
        "ppo": ("o", "tab:blue"), "grpo": ("x", "tab:green"), "dpo": ("s", "tab:orange"),
        "grpo-published": ("+", "tab:red"),
    }  # fmt: skip
    for name, points in found["policies"].items():
        marker, colour = looks[name]
        axes.plot(
            [p["kl"] for p in points], [p["reward"] for p in points], linestyle="none",
            marker=marker, color=colour, markerfacecolor="none", markeredgewidth=1.6,
            markersize=10 if marker == "s" else 6.5,
            label=name.upper().replace("-PUBLISHED", " as published"),
        )  # fmt: skip
    for point in next(iter(found["policies"].values())):
        axes.annotate(
            f"$\\beta$ = {point['beta']:g}", (point["kl"], point["reward"]),
            xytext=(8, -14), textcoords="offset points", color="0.35", fontsize=8,
        )  # fmt: skip
    axes.set(xlabel="KL(policy || reference), nats", ylabel="expected reward")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    return figure


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
