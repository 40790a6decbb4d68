"""Flow matching and MeanFlow against the exact velocity, and against the data's entropy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def flow_on(preset: str, name: str) -> Callable[[Settings], list[Line]]:
    """Certificate of a density: loss, likelihood, and samples in 50 steps."""

    def certify(settings: Settings) -> list[Line]:
        result = train(settings, preset)
        return [
            matching_line(name, result),
            Line(
                f"{name}, likelihood by the equation, nats above the entropy",
                result["nll"], result["floor"], "entropy", result["gap"], 0.05,
            ),
            distance_line(name, result, 50),
        ]  # fmt: skip

    return certify


def mean_flow_on(preset: str, name: str) -> Callable[[Settings], list[Line]]:
    """Certificate of a density: mean velocity and velocity, and samples in one step."""

    def certify(settings: Settings) -> list[Line]:
        result = train(settings, preset)
        share = result["mean_flow_error"] / result["matching_floor"]
        return [
            Line(
                f"{name}, squared error of the mean velocity, as a share of the least error of the "
                "velocity",
                share, 0.0, "exact mean velocity", share, 0.01,
            ),
            matching_line(name, result),
            distance_line(name, result, 1),
        ]  # fmt: skip

    return certify


def train(settings: Settings, preset: str) -> dict[str, Any]:
    """Result of one training by the script."""
    from generative.training.run import read_result
    from scripts import train_flow_matching

    args = replace(train_flow_matching.PRESETS[preset], out=settings.work, seed=settings.seed)
    if settings.smoke:
        network = replace(args.model.network, hidden_dim=8, num_hidden=1)
        model = replace(args.model, network=network)
        if args.is_flow:
            model = replace(model, ode_steps=4)
        args = replace(args, model=model, steps=5, batch_size=32, samples=50)
    train_flow_matching.main(args)
    return read_result(settings.work)


def matching_line(name: str, result: dict[str, Any]) -> Line:
    """Error of the velocity, times uniform, as a share of the least there is."""
    loss, floor = result["matching_loss"], result["matching_floor"]
    return Line(
        f"{name}, error of the velocity, relative excess",
        loss, floor, "exact mean of data - noise", result["matching_excess"] / floor, 0.01,
    )  # fmt: skip


def distance_line(name: str, result: dict[str, Any], steps: int) -> Line:
    """Distance of samples from fresh points, beside that of other fresh points."""
    found, data = result[f"wasserstein_{steps}_steps"], result["wasserstein_of_data"]
    word = "step" if steps == 1 else "steps"
    return Line(
        f"{name}, Wasserstein distance of samples in {steps} {word} from as many fresh points",
        found, data, "two samples of the data", found / data, 1.5,
    )  # fmt: skip


CERTIFICATES = {
    "flow-matching-two-moons": Certificate("Flow matching", flow_on("two-moons", "moons"), 8),
    "flow-matching-eight-gaussians": Certificate(
        "Flow matching", flow_on("eight-gaussians", "8 Gaussians"), 8
    ),
    "flow-matching-ring": Certificate("Flow matching", flow_on("ring", "ring of 8"), 8),
    "mean-flow-two-moons": Certificate("MeanFlow, one step", mean_flow_on("mean-flow", "moons"), 8),
    "mean-flow-eight-gaussians": Certificate(
        "MeanFlow, one step", mean_flow_on("mean-flow-eight-gaussians", "8 Gaussians"), 8
    ),
}
