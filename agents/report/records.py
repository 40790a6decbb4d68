"""Records of a train_in_dream run for its report: one per round, and one of the whole run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.evaluation import EVALUATION_SEEDS, SELECTION_SEEDS, Evaluation, TrainingFacts
from generative.training.files import MAX_LIST_BYTES, read_file, reading, write_file
from generative.training.settings import from_json, to_json
from worldmodels.configs import DreamConfig

__all__ = ["Candidate", "RoundRecord", "RunRecord", "append_round", "read_rounds"]

EPISODE_STEPS = 1000


@dataclass(frozen=True)
class Candidate:
    """A finished controller with real episodes, among which one is selected."""

    name: str
    """Method that trained it, e.g. "evolution" or "gradient"."""
    dream_return: float
    """Mean imagined return, over as many decisions as its round's `dream_return`."""
    real_scores: list[float]
    chosen: bool = False

    @property
    def real_mean(self) -> float:
        return float(np.mean(self.real_scores))


@dataclass(frozen=True)
class RoundRecord:
    """One round: collect, train V and M, train C in the dream, drive a few real episodes."""

    index: int
    real_frames_total: int
    """Real frames recorded so far, including this round's."""
    vae_recon: float | None
    """V's final reconstruction loss; None if V was not trained in this round."""
    vae_kl: float | None
    memory_nll: float
    """M's negative log-likelihood, nats per latent dimension."""
    memory_reward_error: float
    """Mean squared error of M's scaled rewards."""
    dream_return: float
    """Mean imagined return of this round's controller."""
    dream_decisions: int
    """Number of decisions in that return."""
    dream_steps_total: int
    """Decisions dreamed so far to train C, including this round's."""
    action_repeat: int
    real_scores: list[float]
    """Scores of this round's controller in whole episodes on the selection tracks."""
    candidates: list[Candidate] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by stage, e.g. {"collect": 12.0}, in the order of the stages."""

    @property
    def real_mean(self) -> float:
        return float(np.mean(self.real_scores))

    pace: bool = True
    """True if rewards grow with time, as on a road, so that a short dream can be scaled."""

    def dream_score(self, dream_return: float | None = None) -> float:
        """Dreamed return (this round's) scaled at the same pace to an episode of 1,000 steps.

        It is an estimate, to be compared with scores: a real episode ends when the lap does.
        Without `pace` it is the dreamed return, unscaled.
        """
        value = self.dream_return if dream_return is None else dream_return
        if not self.pace:
            return value
        return value * EPISODE_STEPS / (self.dream_decisions * self.action_repeat)


def append_round(run_folder: Path | str, record: RoundRecord) -> None:
    """Append a round to rounds.jsonl; it replaces the same and later rounds, if there are any.

    Raises:
        ValueError: earlier rounds are missing.
    """
    run_folder = Path(run_folder)
    # Round 0 replaces everything, so a damaged file is no obstacle.
    known = read_rounds(run_folder) if record.index else []
    earlier = [r for r in known if r.index < record.index]
    if len(earlier) != record.index:
        raise ValueError(
            f"{run_folder} has {len(earlier)} rounds before round {record.index}; rounds count "
            "from 0 and come in order"
        )
    lines = [json.dumps(to_json(r), allow_nan=False) + "\n" for r in [*earlier, record]]
    write_file(run_folder / "rounds.jsonl", "".join(lines).encode())


def read_rounds(run_folder: Path | str) -> list[RoundRecord]:
    """Read the rounds in rounds.jsonl; none if there is no such file.

    Raises:
        DamagedFileError: names the file and the line that is not a round.
    """
    path = Path(run_folder) / "rounds.jsonl"
    if not path.exists():
        return []
    rounds = []
    for number, line in enumerate(read_file(path, MAX_LIST_BYTES).splitlines(), 1):
        with reading(f"{path}, line {number}", "is not a round"):
            rounds.append(from_json(RoundRecord, json.loads(line)))
    return rounds


@dataclass(frozen=True)
class RunRecord:
    """All numbers of a report."""

    args: dict[str, Any]
    """Settings of the run, as in its config.json."""
    rounds: list[RoundRecord]
    evaluation: Evaluation
    facts: TrainingFacts
    versions: dict[str, Any]
    made: dict[str, str | None]
    """Command, commit and date of the report."""
    random_scores: list[float] | None = None
    """Scores of random actions in the episodes of the evaluation."""
    dream: DreamConfig | None = None
    """Settings of the agent's dreams, with the reward clip and the pace cap derived in a round."""

    @property
    def is_car(self) -> bool:
        """True for a report on the car race, with its laps, tiles and tracks."""
        return "CarRacing" in self.evaluation.env_id

    @property
    def dream_mean(self) -> float | None:
        """Dreamed score of the selected controller at the pace of 1,000 steps, if it is known."""
        if self.facts.dream_mean is not None or not self.rounds:
            return self.facts.dream_mean
        return max(self.rounds, key=lambda r: r.real_mean).dream_score()

    def to_json(self) -> dict[str, Any]:
        """The content of report.json."""
        facts = self.facts
        beside = {}
        if self.random_scores:
            beside = {
                "random_mean": float(np.mean(self.random_scores)),
                "random_std": float(np.std(self.random_scores)),
            }
        evaluation = self.evaluation.to_json()
        if not self.is_car:
            del evaluation["laps_finished"]
        return {
            **evaluation,
            **beside,
            "dream_mean": self.dream_mean,
            "real_frames": facts.real_frames,
            "selection_episodes": facts.selection_episodes,
            "dream_steps": facts.dream_steps,
            "wall_seconds": facts.wall_seconds,
            "seeds": {
                "run": facts.seed,
                "evaluation": [track.seed for track in self.evaluation.tracks],
                "selection": f"{SELECTION_SEEDS.start} to {SELECTION_SEEDS.stop - 1}",
                "evaluation_range": f"{EVALUATION_SEEDS.start} to {EVALUATION_SEEDS.stop - 1}",
            },
            "dream": None if self.dream is None else to_json(self.dream),
            "versions": self.versions,
            "made": self.made,
            "rounds": [_round_row(r) for r in self.rounds],
            "args": self.args,
        }


def _round_row(record: RoundRecord) -> dict[str, Any]:
    return {**to_json(record), "real_mean": record.real_mean, "dream_score": record.dream_score()}
