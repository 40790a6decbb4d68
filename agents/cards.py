"""Model cards: README.md beside a saved model or agent, written from its reports.

    text = write_card("pretrained/carracing-dream", report="docs/results/.../report.json")

The head is YAML, as the hub reads it; the rest says how to load the model, what it scored on which
seeds, what it was trained on, by which command, and what is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.configs import AGENT_NAME, POLICY_NAME
from generative.training.extras import PROJECT
from generative.training.files import MAX_LIST_BYTES, MAX_MODEL_CONFIG_BYTES, read_json, write_file
from generative.training.hub import CARD_NAME
from generative.training.pretrained import CONFIG_NAME, class_name
from generative.training.run import RESULT_NAME, VERSIONS_NAME, read_config, read_result
from generative.training.settings import flatten
from generative.training.words import with_article

__all__ = ["card", "find_agent_folder", "write_card"]

AGENT_LIMITS = (
    "The scores are of the stock environment at these seeds, with the versions named above; other "
    "versions draw or simulate a little differently.",
    "The agent knows one environment and the observations of its training. It is a result of "
    "research, and is meant for no vehicle and no other use outside of the simulation.",
)
MODEL_LIMITS = (
    "The figures are of the data and the seed named here, and were not measured on other data.",
    "Samples repeat what the training data hold, with their gaps.",
)
LONGEST_LIST = 32
"""Entries of a setting that a card writes out."""


def write_card(
    folder: Path | str,
    report: Path | str | None = None,
    limits: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Path:
    """Write README.md into the folder of a run, an agent or a model; returns its path.

    Args:
        folder, report, limits, commands: see `card`.
    """
    path = Path(folder) / CARD_NAME
    write_file(path, card(folder, report, limits, commands).encode())
    return path


def card(
    folder: Path | str,
    report: Path | str | None = None,
    limits: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> str:
    """Text of the card of a saved agent or model.

    Args:
        folder: of an agent, of a run with its `agent` or `model`, or of a model.
        report: an agent's scores, as `evaluate --json` or train_in_dream.py (report.json) writes
            them; of a run that has one it need not be named.
        limits: sentences on what is known to be wrong with it, before those that hold for all.
        commands: command lines that made it, before those that use it; of a model without, the one
            that goes on with its run.
    Raises:
        FileNotFoundError: the folder holds neither an agent nor a model.
        ValueError: the report is none of an agent.
        DamagedFileError: a file cannot be read.
    """
    folder = Path(folder)
    agent = find_agent_folder(folder)
    if agent is not None:
        own = folder / "report.json"
        found = report or (own if own.is_file() else None)
        return _agent_card(folder, agent, None if found is None else Path(found), limits, commands)
    model = folder / "model" if (folder / "model").is_dir() else folder
    if not (name := class_name(model)):
        raise FileNotFoundError(
            f"{folder} holds no agent and no model; pass the folder of a run, an agent or a model"
        )
    return _model_card(folder, model, name, limits, commands)


def find_agent_folder(folder: Path) -> Path | None:
    """The agent of a folder, which is a run's or its own; None if there is none."""
    places = (folder / "agent", folder)
    held = (AGENT_NAME, POLICY_NAME)
    return next((f for f in places if any((f / name).exists() for name in held)), None)


def _agent_card(
    folder: Path, agent: Path, report: Path | None, limits: Sequence[str], commands: Sequence[str]
) -> str:
    from agents.evaluation import Evaluation, TrainingFacts

    name = folder.resolve().name
    head: dict[str, Any] = {"tags": ["reinforcement-learning", "world-models"]}
    facts = TrainingFacts.load(agent)
    data: dict[str, Any] = {}
    parts: list[str] = []
    if report is not None:
        data = read_json(report, MAX_LIST_BYTES)
        try:
            scores = Evaluation.from_json(data)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{report} is no report of an agent ({error}); pass the file of `worldmodels "
                "evaluate AGENT --json FILE`, or the report.json of train_in_dream"
            ) from None
        low, high = scores.interval
        head["model-index"] = [_index(name, scores.env_id, scores.mean, scores.std)]
        seeds = [track.seed for track in scores.tracks]
        best, worst = scores.scores.max(), scores.scores.min()
        rows = {
            "environment": f"`{scores.game}`",
            "episodes": f"{len(seeds)}, seeds {seeds[0]:,} to {seeds[-1]:,}",
            "score": f"{scores.mean:.0f} +/- {scores.std:.0f} (mean and deviation over episodes)",
            "95 % interval of the mean": f"{low:.0f} to {high:.0f}",
            "lowest, highest": f"{worst:.0f}, {best:.0f}",
        }
        if "random_mean" in data:
            rows["random actions"] = f"{data['random_mean']:.0f} +/- {data['random_std']:.0f}"
        parts += ["## Scores", _table(rows), _seeds_note()]
    training = _agent_training(facts, data.get("policy") or data.get("training", {}).get("policy"))
    if training:
        parts += ["## Training", _table(training)]
    elif report is not None:
        parts += ["## Training", "Amounts of data and time of this very agent were not recorded."]
    commands = [*commands, *([data["command"]] if isinstance(data.get("command"), str) else [])]
    place = "FOLDER" if report is None else folder.as_posix()
    commands += [f"worldmodels evaluate {place} --episodes 100"]
    commands += [f"worldmodels play {place}"] if "CarRacing" in data.get("env_id", "") else []
    kind = "agents.loading import load_agent"
    code = f'from {kind}\n\nagent = load_agent("owner/{name}")  # or its folder\n' + (
        "action, state = agent.predict(obs, state, episode_start=start)"
    )
    about = f"This is an agent of {PROJECT}: " + (
        "a policy of Stable-Baselines3" if (agent / POLICY_NAME).is_dir() else _parts(agent)
    )
    versions = data.get("versions", {})
    return _page(head, name, about, code, parts, commands, versions, (*limits, *AGENT_LIMITS))


def _parts(agent: Path) -> str:
    """Classes of V, M and C."""
    named = zip("VMC", ("vision", "memory", "controller"), strict=True)
    names = {letter: with_article(class_name(agent / part)) for letter, part in named}
    return ", ".join(f"{letter} is {name}" for letter, name in names.items())


def _agent_training(facts: Any, policy: Any) -> dict[str, str]:
    rows: dict[str, str] = {}
    if facts is not None:
        rows = {
            "data": f"{facts.real_frames:,} real frames, seen by V and M",
            "C was trained on": f"{facts.dream_steps:,} dreamed decisions, never on a real reward",
            "chosen by": f"{facts.selection_episodes:,} real episodes, of other seeds",
            "time": f"{facts.wall_seconds:,.0f} s",
        }
        if facts.seed is not None:
            rows["seed"] = str(facts.seed)
    if isinstance(policy, dict):
        rows["algorithm"] = f"{policy['algorithm'].upper()} of {policy['observation']}"
        where = "dreamed" if policy["trained_in"] == "dream" else "real"
        rows["policy was trained on"] = f"{policy['decisions']:,} {where} decisions"
    return rows


def _seeds_note() -> str:
    from agents.evaluation import EVALUATION_SEEDS, SELECTION_SEEDS

    chosen, told = (f"{s.start:,} to {s.stop - 1:,}" for s in (SELECTION_SEEDS, EVALUATION_SEEDS))
    return (
        f"Published scores use seeds {told}, on which nothing is chosen; controllers are chosen on "
        f"seeds {chosen}."
    )


def _model_card(
    folder: Path, model: Path, name: str, limits: Sequence[str], commands: Sequence[str]
) -> str:
    run = next((f for f in (model.parent, folder) if (f / RESULT_NAME).is_file()), None)
    parts: list[str] = []
    versions: dict[str, Any] = {}
    if run is not None:
        kind, settings = read_config(run)
        figures = {n: x for n, x in read_result(run).items() if isinstance(x, (int, float))}
        parts += ["## Figures", _table({n: f"{x:.6g}" for n, x in figures.items()})]
        flat = {n: _told(x) for n, x in flatten(settings).items()}
        told = {"data": flat.get("data", "see the settings"), "seed": flat.get("seed", "0")}
        parts += ["## Training", _table(told), "### Settings", _table(flat)]
        commands = commands or [f"worldmodels {kind} --resume {run.as_posix()}"]
        listed = read_json(run / VERSIONS_NAME) if (run / VERSIONS_NAME).is_file() else []
        versions = listed[-1] if isinstance(listed, list) and listed else {}
    content = read_json(model / CONFIG_NAME, MAX_MODEL_CONFIG_BYTES).get("config")
    sizes = {n: _told(x) for n, x in flatten(content).items()} if content else {}
    parts = [*(["## Sizes", _table(sizes)] if sizes else []), *parts]
    title = (run or model).resolve().name
    code = "from worldmodels.loading import load_model\n\n" + (
        f'model = load_model("owner/{title}")  # or its folder'
    )
    about = f"This is {with_article(name)} of {PROJECT}."
    head: dict[str, Any] = {"tags": ["generative", name]}
    return _page(head, title, about, code, parts, commands, versions, (*limits, *MODEL_LIMITS))


def _told(value: Any) -> str:
    """A setting as JSON; of a long list, such as a vocabulary, the number of its entries."""
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return f"{len(value):,} entries"
    return f"`{json.dumps(value)}`"


def _page(
    head: dict[str, Any],
    title: str,
    about: str,
    code: str,
    parts: list[str],
    commands: Sequence[str],
    versions: Mapping[str, Any],
    limits: Sequence[str],
) -> str:
    lines = {"library_name": PROJECT, "license": "mit", **head}
    blocks = ["---\n" + "\n".join(_yaml(lines)) + "\n---", f"# {title}", about.rstrip(".") + "."]
    blocks += ["## Use", f"```python\n{code}\n```", *parts]
    if commands:
        blocks += ["## Commands", "```\n" + "\n".join(commands) + "\n```"]
    if versions:
        packages = {"python": versions.get("python"), **versions.get("packages", {})}
        blocks += ["## Versions", ", ".join(f"{n} {v}" for n, v in packages.items()) + "."]
    blocks += ["## Limits", "\n".join(f"- {limit}" for limit in limits)]
    return "\n\n".join(blocks) + "\n"


def _index(name: str, env_id: str, mean: float, std: float) -> dict[str, Any]:
    """Result of the head, in the form in which the hub lists scores of agents."""
    task = {"type": "reinforcement-learning", "name": "reinforcement-learning"}
    value = f"{mean:.2f} +/- {std:.2f}"
    metric = {"type": "mean_reward", "value": value, "name": "mean_reward", "verified": False}
    data = {"name": env_id, "type": env_id}
    return {"name": name, "results": [{"task": task, "dataset": data, "metrics": [metric]}]}


def _table(rows: Mapping[str, str]) -> str:
    cells = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *cells])


def _yaml(value: Any) -> Iterator[str]:
    """Lines of block YAML; texts are written as JSON, which is YAML too."""
    items = value.items() if isinstance(value, Mapping) else ((None, item) for item in value)
    for key, item in items:
        before = "- " if key is None else f"{key}:"
        if isinstance(item, (Mapping, list)):
            inner = list(_yaml(item))
            if key is None:
                yield f"- {inner[0]}"
                yield from (f"  {line}" for line in inner[1:])
            else:
                yield before
                yield from (f"  {line}" for line in inner)
        else:
            yield f"{before}{'' if key is None else ' '}{json.dumps(item)}"
