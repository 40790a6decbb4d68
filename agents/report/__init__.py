"""The report of a train_in_dream run: report.json for programs, report.html for people.

    append_round(run_folder, record)                        # a `RoundRecord`, after every round
    write_report(run_folder, agent_folder, evaluation)      # at the end

Importing this package loads neither torch nor a drawing library.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.evaluation import Evaluation, TrainingFacts
from agents.report.records import Candidate, RoundRecord, RunRecord, append_round, read_rounds
from generative.training.files import MAX_LIST_BYTES, read_json, write_file, write_json
from generative.training.run import collect_versions, read_config
from worldmodels.dreaming.settings import load_settings

__all__ = [
    "RANDOM_NAME",
    "Candidate",
    "RoundRecord",
    "RunRecord",
    "append_round",
    "read_rounds",
    "write_report",
]


RANDOM_NAME = "random.json"
"""File of the scores of random actions in the episodes of the evaluation, if a run has any."""


def write_report(
    run_folder: Path | str,
    agent_folder: Path | str | None = None,
    evaluation: Evaluation | None = None,
    *,
    films: Sequence[Path | str] | None = None,
    check_drives: int = 4,
    check_steps: int = 1000,
) -> dict[str, Any]:
    """Write `run_folder`/report.json and report.html from the files of the run.

    It reads config.json (settings), rounds.jsonl (`append_round`), and the agent's training.json
    (`TrainingFacts.save`) and dream.json, if it has one. It tests V and M on a few fresh tracks,
    which takes some seconds.

    Args:
        run_folder: folder of a train_in_dream run.
        agent_folder: the finished agent; by default `run_folder`/agent.
        evaluation: its final evaluation; by default read from `run_folder`/evaluation.json.
        films: mp4 files; by default those in `run_folder`/videos. Small ones become part of the
            page, larger ones are linked by relative path.
        check_drives, check_steps: number of tracks that V and M are tested on, and environment
            steps on each; 0 drives leaves this part out.
    Returns:
        the content of report.json.
    Raises:
        ValueError: a file is missing or damaged; names it.
    """
    from agents.report.page import render_page

    run_folder = Path(run_folder)
    agent_folder = Path(agent_folder or run_folder / "agent")
    if evaluation is None:
        content = read_json(run_folder / "evaluation.json", MAX_LIST_BYTES)
        evaluation = Evaluation.from_json(content)
    facts = TrainingFacts.load(agent_folder)
    if facts is None:
        raise ValueError(
            f"{agent_folder} has no training.json; write it with TrainingFacts(...).save(folder)"
        )
    if films is None:
        films = sorted((run_folder / "videos").glob("*.mp4"))
    check = None
    if check_drives:
        from agents.report.checks import check_world_model
        from agents.world_model_agent import WorldModelAgent

        agent = WorldModelAgent.from_pretrained(agent_folder)
        check = check_world_model(agent, num_drives=check_drives, max_steps=check_steps)
    _, args = read_config(run_folder)
    yardstick = run_folder / RANDOM_NAME
    record = RunRecord(
        args,
        read_rounds(run_folder),
        evaluation,
        facts,
        collect_versions(),
        {
            "command": _command(),
            "commit": _commit(),
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        },
        read_json(yardstick, MAX_LIST_BYTES) if yardstick.exists() else None,
        load_settings(agent_folder),
    )
    content = record.to_json()
    if check is not None:
        content["prediction_error"] = check.to_json()
    write_json(run_folder / "report.json", content)
    page = render_page(record, check, [Path(film) for film in films], run_folder)
    write_file(run_folder / "report.html", page.encode())
    return content


def _command() -> str:
    """Command line of this process; of a program that was given as text, its first words."""
    given = list(sys.orig_argv)
    given[0] = Path(given[0]).name
    return shlex.join(word if len(word) < 200 else f"{word[:200]} ..." for word in given)


def _commit() -> str | None:
    """Commit of the project's working tree, "-dirty" behind it if files have changed; or None."""
    words = ["git", "describe", "--always", "--dirty", "--exclude", "*", "--abbrev=12"]
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # installed, maybe inside a tree of somebody else's
        return None
    try:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
