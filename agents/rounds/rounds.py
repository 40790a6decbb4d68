"""The rounds: collect, train V and M, dream, choose; then choose between the rounds."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.report.records import Candidate, RoundRecord, append_round
from agents.rounds.controller import ControllerTraining, dream_returns, train_controller
from agents.rounds.encoding import Encoding, encode
from agents.rounds.memory import (
    MDNRNNSettings,
    MDNRNNTraining,
    TransformerTraining,
    train_memory,
)
from agents.rounds.recording import CAR_ENV, Recording, check_anywhere, record_episodes, task_of
from agents.rounds.settings import RoundsSettings
from agents.rounds.timing import read_seconds, timed
from agents.rounds.vision import (
    AutoencoderTraining,
    VAESettings,
    VAETraining,
    VectorScaling,
    VectorSettings,
    scale_vectors,
    train_autoencoder,
    train_vae,
)
from generative.training.precision import bf16_of_run
from generative.training.run import RESULT_NAME, Run, read_config, read_result
from generative.training.settings import from_json, recast, to_json
from worldmodels.configs import (
    CAR_RACING,
    ActionHead,
    ControllerConfig,
    DreamConfig,
    MemoryConfig,
)

if TYPE_CHECKING:
    from envs.task import Task

LAP_REWARD, LAP_STEPS = 1000.0, 1000
"""A whole lap pays 1,000, and the game ends after 1,000 environment steps."""

NUM_STARTS = 1000
"""Moments that are kept beside the finished agent."""


@dataclass(frozen=True)
class Choice:
    """Settings of a choice between agents; the rest follows from the run it belongs to."""

    out: Path
    round: int
    """The choice at the end counts as the round after the last."""


class Rounds:
    """The state that passes from round to round, all of it in files."""

    def __init__(self, args: RoundsSettings, run: Run):
        """Check what could fail late: device, environment, tracks, settings of every stage.

        Raises:
            ValueError: something does not fit; says what.
        """
        self.task = task_of(args.env, args.env_kwargs)
        if self.task is not None:
            check_task(args, self.task)
        check_tracks(args)
        self.args, self.run, self.device = _with_precision(args, run), run, run.device
        self.recordings: list[Path] = []
        self.encodings: list[Path] = []
        self.vision: Path | None = None
        self.memory: Path | None = None
        self.controller: Path | None = None
        self.agent: Path | None = None
        self.records: list[RoundRecord] = []
        for index in (0, 1):  # later rounds have the settings of the second
            self.collecting(index)
            self.seeing(index)
            self.dreaming(index)

    def play(self, index: int) -> None:
        """One round; stages that are done already are skipped."""
        if not (self._out(index, "choose") / RESULT_NAME).exists():
            print(f"\nround {index + 1} of {self.args.rounds}", flush=True)
        folder = self.run.path / f"round-{index:02d}"
        seconds: dict[str, float] = {}

        def stage(name: str, work: Callable[[Any], Any], args: Any) -> Any:
            result, seconds[name] = timed(folder / f"{name}.seconds", lambda: work(args))
            return result

        self.recordings.append(stage("collect", record_episodes, self.collecting(index)))
        if index < self.args.vision_rounds:
            self.vision = stage("vision", _train_vision, self.seeing(index))
            to_encode = self.recordings  # V has changed: everything is encoded anew
            self.encodings = []
        else:
            to_encode = self.recordings[-1:]
        self.encodings.append(stage("encode", encode, self.encoding(index, tuple(to_encode))))
        self.memory = stage("memory", train_memory, self.remembering(index))
        controllers = stage("controller", train_controller, self.dreaming(index))
        agent: Path = stage("choose", lambda found: self._choose(index, found), controllers)
        self.agent, self.controller = agent, agent / "controller"
        self._record(index, seconds)
        print(rounds_summary(self.args, self.records), flush=True)

    def collecting(self, index: int) -> Recording:
        """The stage that records, in a round."""
        settings = self.args.first if index == 0 else self.args.collect
        return recast(
            Recording,
            settings,
            out=self._out(index, "collect"),
            env=self.args.env,
            env_kwargs=self.args.env_kwargs,
            agent=self.agent,
            action_repeat=self.args.action_repeat,
            workers=self.args.workers,
            seed=self._seed("collect", index),
        )

    def seeing(self, index: int) -> VAETraining | AutoencoderTraining | VectorScaling:
        """The stage that trains V, in a round."""
        settings = self.args.vision
        where = {
            "out": self._out(index, "vision"),
            "rollouts": tuple(self.recordings),
            "seed": self._seed("vision", index),
        }
        if isinstance(settings, VectorSettings):
            return recast(VectorScaling, settings, **where)
        return recast(
            VAETraining if isinstance(settings, VAESettings) else AutoencoderTraining,
            settings,
            **where,
            start_from=self.vision,
            steps=settings.steps if index == 0 else self.args.vision_steps,
            threads=self.args.threads,
            device=self.args.device,
        )

    def encoding(self, index: int, recordings: tuple[Path, ...]) -> Encoding:
        """The stage that encodes recordings by the V of a round."""
        assert self.vision is not None
        return Encoding(
            out=self._out(index, "encode"),
            rollouts=recordings,
            vision=self.vision,
            device=self.args.device,
        )

    def remembering(self, index: int) -> MDNRNNTraining | TransformerTraining:
        """The stage that trains M, in a round."""
        settings = self.args.memory
        return recast(
            MDNRNNTraining if isinstance(settings, MDNRNNSettings) else TransformerTraining,
            settings,
            out=self._out(index, "memory"),
            encoded=tuple(self.encodings),
            start_from=self.memory,
            model=self._memory_model,
            steps=settings.steps if index == 0 else self.args.memory_steps,
            threads=self.args.threads,
            device=self.args.device,
            seed=self._seed("memory", index),
        )

    @cached_property
    def _memory_model(self) -> MemoryConfig:
        """M's sizes, which follow from V, from the environment's actions and its rewards."""
        vision, model = self.args.vision, self.args.memory.model
        if isinstance(vision, VectorSettings):
            assert self.task is not None  # or `check_task` had refused
            [latent_dim] = self.task.preprocess.seen_shape
        else:
            latent_dim = vision.model.latent_dim
        model = replace(model, latent_dim=latent_dim, action_dim=self._action.size)
        if self.args.memory_from_recording:
            from worldmodels.sequences import EncodedRollouts

            recorded = EncodedRollouts.load(self._out(0, "encode") / "data")
            mean_square = float(np.square(recorded.rewards, dtype=np.float64).mean())
            model = replace(
                model,
                reward_scale=float(f"{mean_square**0.5:.2g}") or 1.0,
                predict_end=model.predict_end and bool(recorded.terminated.any()),
            )
        return model

    @property
    def _action(self) -> ActionHead:
        return self.task.action if self.task else CAR_RACING

    def dreaming(self, index: int) -> ControllerTraining:
        """The stage that trains C, in a round."""
        places: dict[str, Path] = {}
        if self.vision is not None and self.memory is not None:
            places = {"vision": self.vision, "memory": self.memory}
        return recast(
            ControllerTraining,
            self.args.controller,
            **places,
            action=self._action,
            out=self._out(index, "controller"),
            encoded=tuple(self.encodings),
            dream=self._dream,
            # Processes would share the one GPU, and dreams fill it.
            workers=self.args.workers if self.device.type == "cpu" else 0,
            device=self.args.device,
            seed=self._seed("controller", index),
        )

    @property
    def _dream(self) -> DreamConfig:
        if self.args.pace is None:
            return self.args.controller.dream
        cap = self.args.pace * LAP_REWARD / LAP_STEPS * self.args.action_repeat
        return replace(self.args.controller.dream, pace_cap=cap)

    def _choose(self, index: int, controllers: list[Path]) -> Path:
        """The best of the round's controllers by a few real episodes, as an agent's folder.

        Beside the searches' results stands the controller of the round before, under the new V
        and M: a round need not make anything worse.
        """
        import torch

        from agents.world_model_agent import WorldModelAgent
        from worldmodels.controller import LinearController

        with Run.open(Choice(self._out(index, "choose"), index), kind="choose") as run:
            chosen = run.path / "agent"
            if run.done:
                return chosen
            found = [LinearController.from_pretrained(folder) for folder in controllers]
            vectors = {f"search {i}": c.to_vector() for i, c in enumerate(found)}
            if self.controller is not None:
                earlier = LinearController.from_pretrained(self.controller)
                vectors["round before"] = earlier.to_vector()
            folders = []
            for name, vector in vectors.items():
                folders.append(run.path / _folder_name(name))
                self._save_agent(index, folders[-1], found[0].load_vector(vector))
            dreamed = self._dream_returns(index, torch.stack(list(vectors.values())))
            driven = self._drive(folders, self.args.choose_episodes, index)
            best = max(range(len(folders)), key=lambda i: driven[i].mean)
            WorldModelAgent.from_pretrained(folders[best]).save_pretrained(chosen)
            candidates = [
                Candidate(name, dream_return, result.scores.tolist(), chosen=i == best)
                for i, (name, dream_return, result) in enumerate(
                    zip(vectors, dreamed, driven, strict=True)
                )
            ]
            run.finish({"candidates": to_json(candidates)})
            return chosen

    def _dreamed(self, index: int) -> DreamConfig:
        """The dream of this round's controllers."""
        clip = read_result(self._out(index, "controller"))["reward_clip"]
        return replace(self._dream, reward_clip=clip and tuple(clip))

    def _dream_returns(self, index: int, vectors) -> list[float]:
        from worldmodels.dreaming.rollout import Dream
        from worldmodels.dreaming.starts import DreamStarts
        from worldmodels.memory import load_memory

        settings = self.args.controller
        assert self.memory is not None
        memory = load_memory(self.memory)
        sizes = ControllerConfig(
            memory.config.latent_dim,
            memory.config.hidden_dim,
            self._action.size,
            settings.features,
            self._action,
        )
        return dream_returns(
            Dream(memory, sizes, self._dreamed(index)),
            DreamStarts.load(self._out(index, "controller") / "starts.safetensors"),
            vectors,
            settings.test_dreams,
            self._seed("dream returns", index),
        )

    @property
    def seconds(self) -> float:
        """Wall clock of everything up to the finished agent."""
        stages = [sum(record.seconds.values()) for record in self.records]
        return sum(stages) + read_seconds(self.run.path / "final.seconds")

    @property
    def selection_episodes(self) -> int:
        """Real episodes driven to choose between finished controllers."""
        per_round = [
            sum(len(candidate.real_scores) for candidate in record.candidates)
            for record in self.records
        ]
        return sum(per_round) + read_result(self.run.path / "final")["episodes"]

    @property
    def _final_choice(self) -> Choice:
        return Choice(self.run.path / "final", self.args.rounds)

    def forget_other_end(self) -> None:
        """Make room for a new end where the run had ended after fewer or more rounds."""
        final = self._final_choice
        if not (final.out / "config.json").exists():
            return
        _, settings = read_config(final.out)
        if settings["round"] == final.round:
            return
        path = self.run.path
        for name in ("evaluation.json", "report.json", "report.html", "final.seconds"):
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / "videos", ignore_errors=True)
        leaving = path / ".final.tmp"  # at once, as its settings say what to do
        final.out.rename(leaving)
        shutil.rmtree(leaving)

    def finish(self) -> None:
        """Choose between the best of all rounds; the winner becomes the run's agent."""
        timed(self.run.path / "final.seconds", self._final)

    def _final(self) -> None:
        """Drive the best candidates again, on tracks of their own, and keep the winner."""
        from agents.world_model_agent import WorldModelAgent

        with Run.open(self._final_choice, kind="choose") as run:
            if run.done:
                return
            folder = self.run.path / "agent"
            candidates = [
                (record.index, candidate)
                for record in self.records
                for candidate in record.candidates
            ]
            candidates.sort(key=lambda entry: entry[1].real_mean, reverse=True)
            finalists = candidates[: self.args.final_agents]
            folders = [
                self._out(index, "choose") / _folder_name(candidate.name)
                for index, candidate in finalists
            ]
            results = self._drive(folders, self.args.final_episodes, self.args.rounds)
            best = max(range(len(folders)), key=lambda i: results[i].mean)
            winner_round, winner = finalists[best]
            WorldModelAgent.from_pretrained(folders[best]).save_pretrained(folder)
            self._save_starts(winner_round, folder)
            run.finish(
                {
                    "round": winner_round,
                    "name": winner.name,
                    "dream_mean": self.records[winner_round].dream_score(winner.dream_return),
                    "rounds": [index for index, _ in finalists],
                    "names": [candidate.name for _, candidate in finalists],
                    "scores": [result.scores.tolist() for result in results],
                    "episodes": len(folders) * self.args.final_episodes,
                }
            )

    def _save_starts(self, index: int, folder: Path) -> None:
        """Real moments beside the agent, from which envs.dream can begin."""
        from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts

        starts = DreamStarts.load(self._out(index, "controller") / "starts.safetensors")
        starts.draw(NUM_STARTS, self.run.rng("starts")).save(folder / STARTS_NAME)

    def _drive(self, folders: list[Path], episodes: int, block: int):
        """Real episodes, of CarRacing in our drawing of it; every block has seeds of its own."""
        from agents.evaluation import SELECTION_SEEDS, evaluate_many

        first = block * max(self.args.choose_episodes, self.args.final_episodes)
        return evaluate_many(
            folders,
            SELECTION_SEEDS[first : first + episodes],
            workers=self.args.workers,
            env_id=self.task.env_id if self.task else CAR_ENV,
            env_kwargs=self.env_kwargs,
        )

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of the environment of real episodes."""
        steps = self.args.episode_steps
        limit = {} if steps is None else {"max_episode_steps": steps}
        return {**(self.task.env_kwargs if self.task else {}), **limit}

    def _save_agent(self, index: int, folder: Path, controller) -> None:
        from agents.world_model_agent import AgentConfig, WorldModelAgent
        from worldmodels.memory import load_memory
        from worldmodels.vision import load_vision
        from worldmodels.world_model import WorldModel

        assert self.vision is not None
        assert self.memory is not None
        world = WorldModel(load_vision(self.vision), load_memory(self.memory))
        config = AgentConfig(self.args.action_repeat)
        agent = WorldModelAgent(
            world, controller, config, task=self.task, dream=self._dreamed(index)
        )
        agent.save_pretrained(folder)

    def _record(self, index: int, seconds: dict[str, float]) -> None:
        """Record a round for the report; warn if its dreams are too good to be true."""
        results = {
            name: read_result(self._out(index, name))
            for name in ("collect", "memory", "controller", "choose")
        }
        vision = {}
        if index < self.args.vision_rounds:
            vision = read_result(self._out(index, "vision"))
        candidates = from_json(list[Candidate], results["choose"]["candidates"])
        chosen = next(candidate for candidate in candidates if candidate.chosen)
        before = self.records[-1] if self.records else None
        record = RoundRecord(
            index=index,
            real_frames_total=results["collect"]["frames"]
            + (before.real_frames_total if before else 0),
            vae_recon=vision.get("recon"),
            vae_kl=vision.get("kl"),
            memory_nll=results["memory"]["nll"],
            memory_reward_error=results["memory"]["reward"],
            dream_return=chosen.dream_return,
            dream_decisions=self.args.controller.dream.horizon,
            dream_steps_total=results["controller"]["dream_steps"]
            + (before.dream_steps_total if before else 0),
            action_repeat=self.args.action_repeat,
            real_scores=chosen.real_scores,
            candidates=candidates,
            seconds=seconds,
            pace=self.args.pace is not None,
        )
        self.records.append(record)
        append_round(self.run.path, record)
        highest = max(candidate.dream_return for candidate in candidates)
        if self.args.pace is not None and highest > LAP_REWARD:
            print(
                f"ALARM: round {index + 1} dreams of {highest:.0f}; no episode of the real game "
                f"pays more than {LAP_REWARD:.0f}, so C exploits an error of M",
                file=sys.stderr,
            )

    def _out(self, index: int, name: str) -> Path:
        return self.run.path / f"round-{index:02d}" / name

    def _seed(self, name: str, index: int) -> int:
        return self.run.seed_for(name, index) % 2**31


def _with_precision(args: RoundsSettings, run: Run) -> RoundsSettings:
    """The settings with one precision for all stages, which the run keeps."""

    def chosen(settings: Any) -> Any:
        return replace(settings, bf16=bf16_of_run(settings.bf16, run))

    vision, controller = args.vision, args.controller
    if isinstance(vision, VAESettings):
        vision = replace(vision, loss=chosen(vision.loss))
    return replace(
        args,
        vision=vision,
        memory=replace(args.memory, loss=chosen(args.memory.loss)),
        controller=replace(controller, dream=chosen(controller.dream)),
    )


def _train_vision(args: VAETraining | AutoencoderTraining | VectorScaling) -> Path:
    if isinstance(args, VectorScaling):
        return scale_vectors(args)
    return train_vae(args) if isinstance(args, VAETraining) else train_autoencoder(args)


def check_tracks(args: RoundsSettings) -> None:
    """Raise ValueError where there are fewer tracks for choosing than choices need."""
    from agents.evaluation import SELECTION_SEEDS

    tracks = (args.rounds + 1) * max(args.choose_episodes, args.final_episodes)
    if tracks > len(SELECTION_SEEDS):
        raise ValueError(
            f"{args.rounds} rounds and the choice at the end need {tracks} tracks, there are "
            f"{len(SELECTION_SEEDS)}; lower rounds, choose_episodes or final_episodes"
        )


def check_task(args: RoundsSettings, task: Task) -> None:
    """Raise ValueError where the settings are for another kind of environment."""
    vectors = task.preprocess.kind == "vector"
    if vectors != isinstance(args.vision, VectorSettings):
        shows = "vectors" if vectors else "images"
        raise ValueError(
            f"{task.env_id} shows {shows} of {task.preprocess.shape}, and this V is "
            f"{'of frames' if vectors else 'of vectors'}; begin with the preset "
            f"{'vector' if vectors else 'image'}"
        )
    for name in ("first", "collect"):
        check_anywhere(getattr(args, name).anywhere, task, f"{name}.anywhere")
    if args.pace is not None and task.preprocess.kind != "car_racing":
        raise ValueError(
            f"pace is {args.pace}, a share of CarRacing's lap, and env {task.env_id}; begin with "
            "the preset vector or image, or set --pace None"
        )


def _folder_name(candidate: str) -> str:
    return candidate.replace(" ", "-")


def rounds_summary(args: RoundsSettings, records: list[RoundRecord]) -> str:
    """A line about the last of these rounds, and the time that the rest will take."""
    last = records[-1]
    left = seconds_left(args, records) / 60
    return (
        f"round {last.index + 1} of {args.rounds}: real score {last.real_mean:.0f} "
        f"({len(last.real_scores)} episodes), dreamed {last.dream_score():.0f}, "
        f"{sum(last.seconds.values()) / 60:.1f} minutes; about {left:.1f} minutes left"
    )


def seconds_left(args: RoundsSettings, records: list[RoundRecord]) -> float:
    """Estimate the seconds of the remaining rounds, the final choice and the score.

    It assumes that a step, a recording or an episode takes as long as in the last round.
    """
    last = records[-1]
    now, seconds = _amounts(args, last.index), 0.0
    for index in range(last.index + 1, args.rounds):
        then = _amounts(args, index)
        seconds += sum(
            spent * then[name] / now[name] for name, spent in last.seconds.items() if now[name]
        )
    driven = sum(len(candidate.real_scores) for candidate in last.candidates)
    finalists = min(args.final_agents, now["choose"] * args.rounds)
    episodes = finalists * args.final_episodes + args.test_episodes
    return seconds + episodes * last.seconds["choose"] / driven


def _amounts(args: RoundsSettings, index: int) -> dict[str, int]:
    """Amount of work of each stage of a round, comparable between rounds."""
    first, sees = index == 0, index < args.vision_rounds
    recording = args.first if first else args.collect
    return {
        "collect": recording.episodes * recording.decisions,
        "vision": sees * (getattr(args.vision, "steps", 1) if first else args.vision_steps),
        "encode": index + 1 if sees else 1,
        "memory": args.memory.steps if first else args.memory_steps,
        "controller": 1,
        "choose": args.controller.searches + (not first),
    }
