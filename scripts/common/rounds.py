"""The rounds of scripts/train_in_dream.py: collect, train V and M, dream, choose."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.report.records import Candidate, RoundRecord, append_round
from generative.training.files import read_json, write_json
from generative.training.precision import bf16_of_run
from generative.training.run import RESULT_NAME, Run, read_config, read_result
from generative.training.settings import from_json, to_json
from scripts import (
    collect_rollouts,
    encode_rollouts,
    standardise_vectors,
    train_controller,
    train_mdnrnn,
    train_transformer_memory,
    train_vae,
    train_vision,
)
from scripts.common.dream_settings import Args, MemorySettings, VisionArgs
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

SECONDS_KEPT = 5.0
"""Seconds after which a stage notes how long it has worked: no more is lost when it is killed."""

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

    def __init__(self, args: Args, run: Run):
        self.task = collect_rollouts.task_of(args.env, args.env_kwargs)
        if self.task is not None:
            check_task(args, self.task)
        self.args, self.run = _with_precision(args, run), run
        self.recordings: list[Path] = []
        self.encodings: list[Path] = []
        self.vision: Path | None = None
        self.memory: Path | None = None
        self.controller: Path | None = None
        self.agent: Path | None = None
        self.records: list[RoundRecord] = []

    def play(self, index: int) -> None:
        """One round; stages that are done already are skipped."""
        folder = self.run.path / f"round-{index:02d}"
        seconds: dict[str, float] = {}

        def stage(name: str, main: Callable[[Any], Any], args: Any) -> Any:
            return _timed(folder / f"{name}.seconds", seconds, name, lambda: main(args))

        self.recordings.append(stage("collect", collect_rollouts.main, self._collect(index)))
        if index < self.args.vision_rounds:
            self.vision = stage("vision", _train_vision, self._vision(index))
            encode = self.recordings  # V has changed: everything is encoded anew
            self.encodings = []
        else:
            encode = self.recordings[-1:]
        self.encodings.append(
            stage("encode", encode_rollouts.main, self._encode(index, tuple(encode)))
        )
        self.memory = stage("memory", _train_memory, self._memory(index))
        controllers = stage("controller", train_controller.main, self._controller(index))
        agent: Path = stage("choose", lambda found: self._choose(index, found), controllers)
        self.agent, self.controller = agent, agent / "controller"
        self._record(index, seconds)

    def _collect(self, index: int) -> collect_rollouts.Args:
        settings = self.args.first if index == 0 else self.args.collect
        return replace(
            settings,
            out=self._out(index, "collect"),
            env=self.args.env,
            env_kwargs=self.args.env_kwargs,
            agent=self.agent,
            action_repeat=self.args.action_repeat,
            workers=self.args.workers,
            seed=self._seed("collect", index),
        )

    def _vision(self, index: int) -> VisionArgs:
        settings = self.args.vision
        if isinstance(settings, standardise_vectors.Args):
            return replace(
                settings,
                out=self._out(index, "vision"),
                rollouts=tuple(self.recordings),
                seed=self._seed("vision", index),
            )
        return replace(
            settings,
            out=self._out(index, "vision"),
            rollouts=tuple(self.recordings),
            start_from=self.vision,
            steps=settings.steps if index == 0 else self.args.vision_steps,
            threads=self.args.threads,
            device=self.args.device,
            seed=self._seed("vision", index),
        )

    def _encode(self, index: int, recordings: tuple[Path, ...]) -> encode_rollouts.Args:
        assert self.vision is not None
        return encode_rollouts.Args(
            out=self._out(index, "encode"),
            rollouts=recordings,
            vision=self.vision,
            device=self.args.device,
        )

    def _memory(self, index: int) -> MemorySettings:
        settings = self.args.memory
        return replace(
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
        if isinstance(vision, standardise_vectors.Args):
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

    def _controller(self, index: int) -> train_controller.Args:
        return replace(
            self.args.controller,
            action=self._action,
            out=self._out(index, "controller"),
            vision=self.vision,
            memory=self.memory,
            encoded=tuple(self.encodings),
            dream=self._dream,
            workers=self.args.workers,
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
        return train_controller.dream_returns(
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
        return sum(stages) + _read_seconds(self.run.path / "final.seconds")

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
        leaving = path / ".final.tmp"  # at once, since its settings tell what is to be done
        final.out.rename(leaving)
        shutil.rmtree(leaving)

    def finish(self) -> None:
        """Choose between the best of all rounds; the winner becomes the run's agent."""
        _timed(self.run.path / "final.seconds", {}, "final", self._final)

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
            env_id=self.task.env_id if self.task else collect_rollouts.CAR_ENV,
            env_kwargs=self.env_kwargs,
        )

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """How the environment is made for real episodes."""
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
        """Keep what the report needs to know of a round; sound the alarm over dreams too good."""
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
                f"ALARM: round {index} dreams of {highest:.0f}; no episode of the real game pays "
                f"more than {LAP_REWARD:.0f}, so C exploits an error of M",
                file=sys.stderr,
            )

    def _out(self, index: int, name: str) -> Path:
        return self.run.path / f"round-{index:02d}" / name

    def _seed(self, name: str, index: int) -> int:
        return self.run.seed_for(name, index) % 2**31


def _with_precision(args: Args, run: Run) -> Args:
    """The settings with one precision for all stages, which the run keeps."""

    def chosen(settings: Any) -> Any:
        return replace(settings, bf16=bf16_of_run(settings.bf16, run))

    vision, controller = args.vision, args.controller
    if isinstance(vision, train_vae.Args):
        vision = replace(vision, loss=chosen(vision.loss))
    return replace(
        args,
        vision=vision,
        memory=replace(args.memory, loss=chosen(args.memory.loss)),
        controller=replace(controller, dream=chosen(controller.dream)),
    )


def _train_vision(args: VisionArgs) -> Path:
    """Make V by the script that its settings belong to."""
    if isinstance(args, standardise_vectors.Args):
        return standardise_vectors.main(args)
    return train_vae.main(args) if isinstance(args, train_vae.Args) else train_vision.main(args)


def _train_memory(args: MemorySettings) -> Path:
    """Make M by the script that its settings belong to."""
    if isinstance(args, train_mdnrnn.Args):
        return train_mdnrnn.main(args)
    return train_transformer_memory.main(args)


def check_task(args: Args, task: Task) -> None:
    """Raise ValueError where the settings are for another kind of environment."""
    vectors = task.preprocess.kind == "vector"
    if vectors != isinstance(args.vision, standardise_vectors.Args):
        shows = "vectors" if vectors else "images"
        raise ValueError(
            f"{task.env_id} shows {shows} of {task.preprocess.shape}, and this V is "
            f"{'of frames' if vectors else 'of vectors'}; begin with the preset "
            f"{'vector' if vectors else 'image'}"
        )
    for name in ("first", "collect"):
        collect_rollouts.check_anywhere(getattr(args, name).anywhere, task, f"{name}.anywhere")
    if args.pace is not None and task.preprocess.kind != "car_racing":
        raise ValueError(
            f"pace is {args.pace}, a share of CarRacing's lap, and env {task.env_id}; begin with "
            "the preset vector or image, or set --pace None"
        )


def _folder_name(candidate: str) -> str:
    return candidate.replace(" ", "-")


def _timed(file: Path, seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Do the work of a stage; `file` adds up the wall clock of every process that did some."""
    if file.exists() and (file.with_suffix("") / RESULT_NAME).exists():
        result = work()  # which is done
    else:
        with _adding_to(file):
            result = work()
    seconds[name] = _read_seconds(file)
    return result


@contextlib.contextmanager
def _adding_to(file: Path) -> Iterator[None]:
    """Add the time in this block to that in the file, now and then: the process may be killed."""
    before, begun, over = _read_seconds(file), time.monotonic(), threading.Event()

    def write() -> None:
        write_json(file, {"seconds": round(before + time.monotonic() - begun, 1)})

    def keep() -> None:
        with contextlib.suppress(OSError):  # the work, or the end, meets it too
            while not over.wait(SECONDS_KEPT):
                write()

    file.parent.mkdir(parents=True, exist_ok=True)
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()
        with contextlib.suppress(OSError):
            write()


def _read_seconds(file: Path) -> float:
    """Seconds in a file; 0 if there is none, and, after a word, if it is damaged."""
    if not file.exists():
        return 0.0
    try:
        seconds = from_json(dict[str, float], read_json(file))["seconds"]
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds is {seconds}")
        return seconds
    except (ValueError, KeyError) as error:
        print(f"{file}: is damaged ({error}); what it counted is lost", file=sys.stderr)
        return 0.0
