"""Ending of a run: its figures beside the best possible, its files, the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from generative.training.curves import CURVES_NAME
from generative.training.files import DamagedFileError
from generative.training.metrics import IMAGES_NAME, METRICS_NAME, TEXTS_NAME, read_metrics
from generative.training.run import read_config, read_result

__all__ = ["describe_run"]

FLOOR = ("floor", "floor")
ALONE = ("independent_pixels_nats", "independent pixels")
BEST: dict[str, tuple[tuple[str, str], ...]] = {
    "denoising_loss": (("loss_floor", "floor"),),
    "distance_samples": (("distance_noise", "noise"),),
    "exact_objective": (("optimum", "optimum"),),
    "matching_loss": (("matching_floor", "floor"),),
    "mean_flow_error": (("mean_flow_size", "mean square"),),
    "nll": (FLOOR,),
    "simple_loss": (("simple_floor", "floor"),),
    "test_accuracy": (("best_accuracy", "best possible"), ("largest_class", "largest class")),
    "test_bits_per_dim": (("independent_pixels_bits_per_dim", "independent pixels"),),
    "test_loss": (FLOOR,),
    "test_mse": (("mean_image_mse", "mean image"),),
    "test_nats": (ALONE,),
    "test_nll": (FLOOR, ALONE),
    "test_nll_at_most": (FLOOR, ALONE),
    "test_nll_estimate": (FLOOR, ALONE),
    "wasserstein_1_steps": (("wasserstein_of_data", "two samples of the data"),),
    "wasserstein_50_steps": (("wasserstein_of_data", "two samples of the data"),),
    "real_mean": (("random_mean", "random actions"),),
}
"""Figures to compare with, and their names in the text, by the name of a figure in the result; the
first that the result has is used. A figure of the data themselves has `data_` before its name."""
BESIDE = {"_distance": ("_of_halves", "two halves of the data")}
"""The same for groups of names, by their ending."""
DIFFERENCES = ("gap", "excess", "simple_excess", "loss_excess", "matching_excess")
"""Names that are left out, as they are the difference of the two figures."""
PLACES = {
    "model": "model",
    "controller": "model-0",
    "agent": "agent",
    "episodes": "episodes",
    "data": "data",
    "pictures": IMAGES_NAME,
    "texts": TEXTS_NAME,
    "music": "midi",
    "curves": CURVES_NAME,
}
"""Files and folders of a run, by their name in the text."""
SPEAK_THEMSELVES = frozenset(
    {
        "train_in_dream", "compare_controllers", "compare_families", "compare_memories",
        "compare_sizes", "temperature_sweep",
    }
)  # fmt: skip
"""Commands that print their figures and places themselves."""
EXPLORE = "worldmodels explore {out}"
NEXT = {
    "collect_rollouts": "worldmodels train_vae quick --rollouts {out}/episodes",
    "import_episodes": "worldmodels train_vae quick --rollouts {out}/episodes",
    "train_vae": "worldmodels encode_rollouts --vision {out}/model",
    "train_vision": "worldmodels encode_rollouts --vision {out}/model",
    "standardise_vectors": "worldmodels encode_rollouts --vision {out}/model",
    "encode_rollouts": "worldmodels train_mdnrnn quick --encoded {out}/data",
    "train_mdnrnn": "worldmodels train_controller quick --memory {out}/model",
    "train_transformer_memory": "worldmodels train_controller quick --memory {out}/model",
    "train_vqvae": "worldmodels train_code_prior --codes {out}",
    "train_vqgan": "worldmodels train_code_prior sprites --codes {out}",
    "train_clip": "worldmodels train_prior clip --clip {out}",
    "train_ppo": "worldmodels evaluate {out}/agent",
    "fine_tune_bert": "",
    "train_bert": "worldmodels fine_tune_bert --start-from {out}/model",
    "train_music_rnn": "worldmodels listen --music {out}/midi",
    "train_music_transformer": "worldmodels listen --music {out}/midi",
    "train_musegan": "worldmodels listen --music {out}/midi",
}
"""Command to try next, "" for none; for others that make a model it is `EXPLORE`."""


def describe_run(run: Path) -> str:
    """Lines about the results of a finished run; "" if its command prints them.

    Raises:
        DamagedFileError: the run's files have changed since it ended.
    """
    kind = read_config(run)[0]
    following = NEXT.get(kind, EXPLORE if (run / "model").is_dir() else "")
    following = following.format(out=shlex.quote(str(run)))
    if kind in SPEAK_THEMSELVES:
        return f"next: {following}" if following else ""
    lines = list(_figures(run))
    lines += [(n, str(run / place)) for n, place in PLACES.items() if (run / place).exists()]
    lines += [("next", following)] if following else []
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join([f"{run} is complete", *(f"  {n:<{width}}  {text}" for n, text in lines)])


def _figures(run: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each figure: scores first, then the last logged values."""
    result = {name: x for name, x in read_result(run).items() if isinstance(x, (int, float))}
    try:
        lines = read_metrics(run) if (run / METRICS_NAME).is_file() else []
    except DamagedFileError:  # the result is whole, so nothing is lost
        lines = []
    logged = lines[-1].keys() if lines else ()
    scores = {name: x for name, x in result.items() if name not in logged}
    training = {name: x for name, x in result.items() if name in logged}
    partners = {_partner(name, result)[0] for name in scores}
    for name, value in scores.items():
        if name not in partners and name not in DIFFERENCES:
            yield name, _beside(name, value, result)
    if training:
        some = list(training.items())[:4]
        yield "training", ", ".join(f"{name} {_short(value)}" for name, value in some)


def _partner(name: str, result: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the figure to compare with, and its name in the text; "" if there is none."""
    partners = [*BEST.get(name, ()), (f"data_{name}", "data")]
    for ending, (other, called) in BESIDE.items():
        if name.endswith(ending):
            partners.append((name.removesuffix(ending) + other, called))
    return next((pair for pair in partners if pair[0] in result), ("", ""))


def _beside(name: str, value: float, result: Mapping[str, Any]) -> str:
    partner, words = _partner(name, result)
    if not partner:
        return _short(value)
    other = result[partner]
    side = "above" if value >= other else "below"
    return f"{_short(value)}  ({words} {_short(other)}, {_short(abs(value - other))} {side})"


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
