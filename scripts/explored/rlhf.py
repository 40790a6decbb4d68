"""The frontier of reward and KL, and policies that were trained at several prices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from generative.training.ranges import Checked, CountOrZero, Positive, Workers
from scripts.explored.common import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIND = "train_rlhf"
"""Runs of this command are explored here; what they hold is a GPT like any other."""


@dataclass(frozen=True)
class Settings(Checked):
    """Runs of train_rlhf.py."""

    methods: tuple[Literal["ppo", "grpo", "dpo", "grpo-published"], ...] = ("ppo", "grpo", "dpo")
    """Presets of train_rlhf.py that are trained."""
    betas: tuple[Positive, ...] = (0.3, 0.5, 1.0)
    """Prices of leaving the reference: the reward that one nat has to bring."""
    steps: CountOrZero = 0
    """Updates of each policy; 0 for those of the preset."""
    threads: Workers = 0
    """CPU threads; 0 leaves the choice to torch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("methods", "betas"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """frontier.png; returns its numbers.

    Trains a policy for each method and price, in the folder `runs` of the pictures, from what the
    run has learnt of demonstrations and rankings; those that are finished stay.
    """
    from generative.known.requests import Requests
    from generative.text.gpt import GPT

    assert subject.run is not None
    run_settings = settings_of(subject.run)
    reference = GPT.from_pretrained(subject.run / "sft" / "model")
    requests = Requests(run_settings.num_letters, run_settings.length)
    found = {
        "frontier": frontier(requests, requests.log_probs(reference)),
        "policies": {
            name: [train(subject, settings, run_settings, name, b) for b in settings.betas]
            for name in settings.methods
        },
    }
    subject.save_figure("frontier", draw(found), dpi=110)
    return found


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
            f"{run} has no trained `sft` in it, as it began with that of another run; explore that "
            "one"
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


def train(
    subject: Subject, settings: Settings, run_settings: Any, name: str, beta: float
) -> dict[str, float]:
    """Exact KL and reward of a policy of this method and price."""
    from dataclasses import replace

    from generative.training.run import read_result
    from scripts import train_rlhf

    preset = train_rlhf.PRESETS[name]
    out = subject.pictures / "runs" / f"{name}-{beta:g}"
    train_rlhf.main(
        replace(
            run_settings,
            out=out,
            start_from=subject.run,
            loss=replace(preset.loss, beta=beta),
            steps=settings.steps or preset.steps,
            threads=settings.threads,
            report=None,
            seed=subject.seed,
        )
    )
    result = read_result(out)
    names = {"kl": "exact_kl", "reward": "exact_reward", "optimum": "optimum", "gap": "gap"}
    return {"beta": beta, **{name: result[key] for name, key in names.items()}}


def draw(found: dict[str, Any]) -> Figure:
    """Curve and policies; no policy can lie above the curve."""
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
