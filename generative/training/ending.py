"""What a finished run says: its figures beside the best possible, its files, what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from generative.training.curves import CURVES_NAME
from generative.training.metrics import IMAGES_NAME, METRICS_NAME, TEXTS_NAME, read_metrics
from generative.training.run import read_config, read_result

__all__ = ["describe_run"]

BEST = {
    "denoising_loss": ("loss_floor", "floor"),
    "exact_objective": ("optimum", "optimum"),
    "nll": ("floor", "floor"),
    "simple_loss": ("simple_floor", "floor"),
    "test_accuracy": ("best_accuracy", "best possible"),
    "test_loss": ("floor", "floor"),
    "test_nll": ("floor", "floor"),
    "real_mean": ("random_mean", "random actions"),
}
"""The figure that another is read beside, by its name in the result, and what to call it."""
BESIDE = {"_distance": ("_of_halves", "two halves of the data")}
"""The same for whole groups of names, by how they end."""
DIFFERENCES = ("gap", "excess", "simple_excess", "loss_excess")
"""Not said again: they are the distance between the two."""
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
"""What a run may hold, by what it is called here."""
SPEAK_THEMSELVES = frozenset(
    {
        "train_in_dream", "compare_controllers", "compare_families", "compare_memories",
        "temperature_sweep",
    }
)  # fmt: skip
"""Commands that say their figures and places in their own words."""
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
    "train_in_dream": "worldmodels play {out}/agent",
    "train_ppo": "worldmodels evaluate {out}/agent",
    "fine_tune_bert": "",
    "train_bert": "worldmodels fine_tune_bert --start-from {out}/model",
    "train_music_rnn": "worldmodels listen --music {out}/midi",
    "train_music_transformer": "worldmodels listen --music {out}/midi",
    "train_musegan": "worldmodels listen --music {out}/midi",
}
"""The command to try next, "" for none; of others that make a model it is `EXPLORE`."""


def describe_run(run: Path) -> str:
    """The lines in which a finished run tells what it came to; "" where its command does.

    Raises:
        DamagedFileError: its files have changed since it ended.
    """
    kind = read_config(run)[0]
    following = NEXT.get(kind, EXPLORE if (run / "model").is_dir() else "").format(out=run)
    if kind in SPEAK_THEMSELVES:
        return f"next: {following}" if following else ""
    lines = list(_figures(run))
    lines += [(n, str(run / place)) for n, place in PLACES.items() if (run / place).exists()]
    lines += [("next", following)] if following else []
    width = max((len(name) for name, _ in lines), default=0)
    return "\n".join([f"{run} is complete", *(f"  {n:<{width}}  {text}" for n, text in lines)])


def _figures(run: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each figure: scores first, or what training logged where there are none."""
    result = {name: x for name, x in read_result(run).items() if isinstance(x, (int, float))}
    lines = read_metrics(run) if (run / METRICS_NAME).is_file() else []
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
    """The name of the figure to read one beside, and what to call it; "" where there is none."""
    partner, words = BEST.get(name, ("", ""))
    for ending, (other, called) in BESIDE.items():
        if name.endswith(ending):
            partner, words = name.removesuffix(ending) + other, called
    return (partner, words) if partner in result else ("", "")


def _beside(name: str, value: float, result: Mapping[str, Any]) -> str:
    partner, words = _partner(name, result)
    if not partner:
        return _short(value)
    other = result[partner]
    side = "above" if value >= other else "below"
    return f"{_short(value)}  ({words} {_short(other)}, {_short(abs(value - other))} {side})"


def _short(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
