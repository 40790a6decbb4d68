"""Train a CarRacing agent inside its own dream, end to end.

Rounds of: record real episodes with the current agent, train V and M on all that was recorded,
train controllers in the dream, let a few real episodes choose one of them. No update of a
controller uses a real reward. At the end the best rounds drive again on fresh tracks, the winner
is the agent, and it is scored on the published tracks of the stock game.

Killed at any moment, the same command continues.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from agents.report.records import Candidate, RoundRecord, append_round
from generative.configs.vae import ConvVAEConfig
from generative.training.cli import start
from generative.training.files import DamagedFileError, read_json, remove_leftovers, write_json
from generative.training.run import Run, read_config, read_result
from generative.training.settings import from_json, to_json
from scripts import (
    collect_rollouts,
    encode_rollouts,
    train_controller,
    train_mdnrnn,
    train_vae,
    train_vision,
)
from worldmodels.configs import PAPER_MDNRNN, ControllerConfig, DreamConfig

LAP_REWARD, LAP_STEPS = 1000.0, 1000
"""A whole lap pays 1,000, and the game ends after 1,000 environment steps."""

NUM_STARTS = 1000
"""Moments that are kept beside the finished agent."""

FIRST = collect_rollouts.PRESETS["quick"]
LATER = replace(FIRST, episodes=50, decisions=100, max_idle=40, anywhere=0.7)
VISION = train_vae.PRESETS["quick"]
AUTOENCODER = train_vision.PRESETS["autoencoder"]
VisionArgs = (
    Annotated[train_vae.Args, tyro.conf.subcommand("vae")]
    | Annotated[train_vision.Args, tyro.conf.subcommand("autoencoder")]
)
"""V has the settings of the script that trains its family."""
MEMORY = train_mdnrnn.PRESETS["quick"]
CONTROLLER = train_controller.PRESETS["quick"]


@dataclass(frozen=True)
class Args:
    """Train a CarRacing agent inside its own dream, end to end.

    Settings of the stages (collect, vision, memory, controller) are those of the scripts that run
    them; their paths, seeds and workers are set here.
    """

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"rounds", "workers"})

    out: Path = Path("runs/dream")
    """Run folder; the agent is in its `agent` folder, the report in report.html."""
    rounds: int = 6
    """Rounds of collecting, training V and M, dreaming and choosing. A finished run goes on if it
    is given more; its agent is then chosen, and scored, again."""
    action_repeat: int = 3
    """Environment steps per decision."""
    first: collect_rollouts.Args = FIRST
    """The first recording, by random drivers."""
    collect: collect_rollouts.Args = LATER
    """Every later recording, by the agent of the round before."""
    vision: VisionArgs = VISION
    """V in the first round. Presets like quick-autoencoder have one of another family than the VAE,
    with settings of its own."""
    vision_rounds: int = 3
    """Rounds that train V; then it stays as it is."""
    vision_steps: int = 500
    """Steps of V in the later of these rounds."""
    memory: train_mdnrnn.Args = MEMORY
    """M in the first round."""
    memory_steps: int = 500
    """Steps of M in later rounds."""
    controller: train_controller.Args = CONTROLLER
    """C, from zero in every round: what an early M taught would hold it back."""
    pace: float = 0.9
    """Dreams pay no more than this multiple of the pace that finishes a lap just in time. Haste
    earns next to nothing in the game, and dreams show fewer sharp bends than there are."""
    choose_episodes: int = 6
    """Real episodes per controller to choose between those of a round."""
    final_agents: int = 3
    """Controllers, the best of all rounds, that drive again at the end."""
    final_episodes: int = 16
    """Real episodes for each of them."""
    test_episodes: int = 20
    """Published tracks of the stock game that the final agent is scored on."""
    episode_steps: int = 1000
    """Environment steps of the real episodes that choose and score (the game ends at 1000)."""
    film_steps: int = 500
    """Environment steps that the film in the report shows (50 are a second)."""
    workers: int = 2
    """Processes that collect, dream and choose. Results do not depend on it."""
    threads: int = 2
    """CPU threads that train V and M."""
    device: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.controller.where != "dream" or not self.memory.model.predict_reward:
            raise ValueError(
                "here C learns in the dream alone: controller.where must be dream and M needs "
                "memory.model.predict_reward (train_controller.py trains on real tracks)"
            )
        if self.controller.dream.pace_cap is not None:
            raise ValueError(
                f"controller.dream.pace_cap is {self.controller.dream.pace_cap}; here it follows "
                "from --pace: set that, and leave the cap out"
            )
        counts = {
            name: getattr(self, name)
            for name in (
                "rounds", "vision_rounds", "choose_episodes", "final_agents", "final_episodes",
                "test_episodes", "episode_steps", "film_steps", "threads",
            )
        }  # fmt: skip
        small = [f"{name} is {count}" for name, count in counts.items() if count < 1]
        if small:
            raise ValueError(f"{', '.join(small)}; these count from 1")
        if self.test_episodes > 100:
            raise ValueError(f"test_episodes is {self.test_episodes}; there are 100 such tracks")


GPU_VISION = replace(
    VISION, model=ConvVAEConfig(), batch_size=256, loss=replace(VISION.loss, lr=5e-4)
)

DEFAULT_PRESET = "quick"
PRESETS = {
    "quick": Args(
        rounds=5,
        controller=replace(CONTROLLER, gradient=replace(CONTROLLER.gradient, steps=150, lanes=192)),
    ),
    "standard": Args(
        rounds=8,
        first=replace(FIRST, episodes=300),
        collect=replace(LATER, episodes=100, decisions=120),
        vision=replace(VISION, steps=3500),
        vision_steps=1000,
        memory=replace(MEMORY, steps=1500),
        memory_steps=800,
        controller=replace(
            CONTROLLER,
            gradient=replace(CONTROLLER.gradient, steps=300, lr=0.004),
            searches=4,
        ),
        choose_episodes=8,
        final_agents=6,
        final_episodes=30,
        test_episodes=100,
    ),
    "gpu": Args(
        rounds=12,
        first=replace(FIRST, episodes=1000),
        collect=replace(LATER, episodes=200, decisions=200),
        vision=replace(GPU_VISION, steps=10_000),
        vision_rounds=5,
        vision_steps=3000,
        memory=replace(MEMORY, batch_size=128, steps=4000),
        memory_steps=2000,
        controller=replace(
            CONTROLLER,
            dream=replace(CONTROLLER.dream, bf16=False),
            gradient=replace(CONTROLLER.gradient, steps=300, lanes=2048),
            searches=8,
            workers=0,
        ),
        choose_episodes=16,
        final_agents=6,
        final_episodes=60,
        test_episodes=100,
        workers=16,
    ),
    "paper": Args(
        rounds=1,
        action_repeat=1,
        first=collect_rollouts.PRESETS["paper"],
        vision=replace(train_vae.PRESETS["paper"], steps=1_000_000),
        vision_rounds=1,
        memory=replace(
            train_mdnrnn.PRESETS["paper"],
            model=replace(PAPER_MDNRNN, predict_reward=True, predict_end=True),
        ),
        controller=replace(
            train_controller.PRESETS["paper"],
            where="dream",
            dream=DreamConfig(horizon=1000, temperature=1.15, dropout=False),
        ),
        test_episodes=100,
        workers=64,
    ),
    "smoke": Args(
        rounds=2,
        first=replace(collect_rollouts.PRESETS["smoke"], episodes=8),
        collect=replace(collect_rollouts.PRESETS["smoke"], episodes=2),
        vision=train_vae.PRESETS["smoke"],
        vision_rounds=1,
        memory=train_mdnrnn.PRESETS["smoke"],
        memory_steps=3,
        controller=replace(train_controller.PRESETS["smoke"], method="gradient", searches=2),
        choose_episodes=1,
        final_agents=5,
        final_episodes=1,
        test_episodes=1,
        episode_steps=60,
        film_steps=20,
        workers=0,
        threads=1,
    ),
}


PRESETS |= {
    f"{name}-autoencoder": replace(PRESETS[name], vision=vision)
    for name, vision in {
        "quick": AUTOENCODER,
        "standard": replace(AUTOENCODER, steps=3500),
        "smoke": train_vision.PRESETS["smoke"],
    }.items()
}


@dataclass(frozen=True)
class Choice:
    """Settings of a choice between agents; the rest follows from the run it belongs to."""

    out: Path
    round: int
    """The choice at the end counts as the round after the last."""


class Rounds:
    """The state that passes from round to round, all of it in files."""

    def __init__(self, args: Args, run: Run):
        self.args, self.run = args, run
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
        self.memory = stage("memory", train_mdnrnn.main, self._memory(index))
        controllers = stage("controller", train_controller.main, self._controller(index))
        agent: Path = stage("choose", lambda found: self._choose(index, found), controllers)
        self.agent, self.controller = agent, agent / "controller"
        self._record(index, seconds)

    def _collect(self, index: int) -> collect_rollouts.Args:
        settings = self.args.first if index == 0 else self.args.collect
        return replace(
            settings,
            out=self._out(index, "collect"),
            agent=self.agent,
            action_repeat=self.args.action_repeat,
            workers=self.args.workers,
            seed=self._seed("collect", index),
        )

    def _vision(self, index: int) -> VisionArgs:
        settings = self.args.vision
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

    def _memory(self, index: int) -> train_mdnrnn.Args:
        settings = self.args.memory
        return replace(
            settings,
            out=self._out(index, "memory"),
            encoded=tuple(self.encodings),
            start_from=self.memory,
            model=replace(settings.model, latent_dim=self.args.vision.model.latent_dim),
            steps=settings.steps if index == 0 else self.args.memory_steps,
            threads=self.args.threads,
            device=self.args.device,
            seed=self._seed("memory", index),
        )

    def _controller(self, index: int) -> train_controller.Args:
        return replace(
            self.args.controller,
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
                self._save_agent(folders[-1], found[0].load_vector(vector))
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

    def _dream_returns(self, index: int, vectors) -> list[float]:
        from worldmodels.dream import Dream, DreamStarts
        from worldmodels.memory import MDNRNN

        settings = self.args.controller
        clip = read_result(self._out(index, "controller"))["reward_clip"]
        assert self.memory is not None
        memory = MDNRNN.from_pretrained(self.memory)
        sizes = ControllerConfig(memory.config.latent_dim, memory.config.hidden_dim)
        return train_controller.dream_returns(
            Dream(memory, sizes, replace(self._dream, reward_clip=tuple(clip))),
            DreamStarts.load(self._out(index, "controller") / "starts.safetensors"),
            vectors,
            settings.test_dreams,
            self._seed("dream returns", index),
        )

    @property
    def seconds(self) -> float:
        """Wall clock of everything up to the finished agent."""
        stages = [sum(record.seconds.values()) for record in self.records]
        return sum(stages) + read_json(self.run.path / "final.seconds")["seconds"]

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
        from envs.dream import STARTS_NAME
        from worldmodels.dream import DreamStarts

        starts = DreamStarts.load(self._out(index, "controller") / "starts.safetensors")
        starts.draw(NUM_STARTS, self.run.rng("starts")).save(folder / STARTS_NAME)

    def _drive(self, folders: list[Path], episodes: int, block: int):
        """Real episodes on our drawing of the game; every block has tracks of its own."""
        from agents.evaluation import SELECTION_SEEDS, evaluate_many

        first = block * max(self.args.choose_episodes, self.args.final_episodes)
        return evaluate_many(
            folders,
            SELECTION_SEEDS[first : first + episodes],
            workers=self.args.workers,
            env_id="WorldModels/CarRacing64-v0",
            env_kwargs={"max_episode_steps": self.args.episode_steps},
        )

    def _save_agent(self, folder: Path, controller) -> None:
        from agents.world_model_agent import AgentConfig, WorldModelAgent
        from worldmodels.memory import MDNRNN
        from worldmodels.vision import load_vision
        from worldmodels.world_model import WorldModel

        assert self.vision is not None
        assert self.memory is not None
        world = WorldModel(load_vision(self.vision), MDNRNN.from_pretrained(self.memory))
        WorldModelAgent(world, controller, AgentConfig(self.args.action_repeat)).save_pretrained(
            folder
        )

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
        )
        self.records.append(record)
        append_round(self.run.path, record)
        highest = max(candidate.dream_return for candidate in candidates)
        if highest > LAP_REWARD:
            print(
                f"ALARM: round {index} dreams of {highest:.0f}; no episode of the real game pays "
                f"more than {LAP_REWARD:.0f}, so C exploits an error of M",
                file=sys.stderr,
            )

    def _out(self, index: int, name: str) -> Path:
        return self.run.path / f"round-{index:02d}" / name

    def _seed(self, name: str, index: int) -> int:
        return self.run.seed_for(name, index) % 2**31


def _train_vision(args: VisionArgs) -> Path:
    """Train V by the script that its settings belong to."""
    return train_vae.main(args) if isinstance(args, train_vae.Args) else train_vision.main(args)


def _folder_name(candidate: str) -> str:
    return candidate.replace(" ", "-")


def _timed(file: Path, seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Do the work; a continued run still finds its wall-clock time in `file`."""
    begun = time.monotonic()
    result = work()
    if not file.exists():
        write_json(file, {"seconds": round(time.monotonic() - begun, 1)})
    seconds[name] = read_json(file)["seconds"]
    return result


def score(args: Args, run: Run, rounds: Rounds, agent: Path) -> None:
    """Drive the published tracks of the stock game; write facts, film and report."""
    from agents.evaluation import EVALUATION_SEEDS, TrainingFacts, evaluate
    from agents.report import write_report
    from agents.video import drive_and_dream, write_video
    from agents.world_model_agent import WorldModelAgent
    from generative.training.progress import progress

    last = rounds.records[-1]
    TrainingFacts(
        real_frames=last.real_frames_total,
        selection_episodes=rounds.selection_episodes,
        dream_steps=last.dream_steps_total,
        wall_seconds=rounds.seconds,
        seed=args.seed,
        dream_mean=read_result(run.path / "final")["dream_mean"],
    ).save(agent)
    file = run.path / "evaluation.json"
    if not file.exists():
        evaluation = evaluate(
            agent,
            EVALUATION_SEEDS[: args.test_episodes],
            workers=args.workers,
            env_kwargs={"max_episode_steps": args.episode_steps},
        )
        write_json(file, evaluation.to_json())
    film = run.path / "videos" / "drive-and-dream.mp4"
    if not film.exists():
        shutil.rmtree(film.parent, ignore_errors=True)  # half a film, if anything
        driver = WorldModelAgent.from_pretrained(agent)
        frames = drive_and_dream(driver, EVALUATION_SEEDS[0], max_steps=args.film_steps)
        write_video(film, progress(frames, "filming a drive beside its dream"))
    content = write_report(run.path, agent, check_steps=args.episode_steps)
    names = ("episodes", "real_mean", "real_std", "real_interval_95", "wall_seconds")
    run.finish({name: content[name] for name in names})


def describe(run: Run, agent: Path) -> str:
    """What a finished run came to, and where to look."""
    result = run.result
    low, high = result["real_interval_95"]
    return (
        f"\n{result['episodes']} tracks of the stock game: {result['real_mean']:.0f} +/- "
        f"{result['real_std']:.0f} (95 % interval of the mean {low:.0f} to {high:.0f}), trained "
        f"in {result['wall_seconds'] / 60:.1f} minutes\n"
        f"agent:  {agent}\nreport: {run.path / 'report.html'}"
    )


def main(args: Args) -> Path:
    """Returns the folder of the agent."""
    from generative.training.signals import exit_on_signals

    with exit_on_signals(), Run.open(args, kind="train_in_dream") as run:
        agent = run.path / "agent"
        if not run.done:
            try:
                train(args, run, agent)
            except DamagedFileError as error:
                error.add_note(
                    "Delete the folder of the stage that it belongs to (of the agent: final), and "
                    "the same command makes it again, to the same result."
                )
                raise
        print(describe(run, agent))
        return agent


def train(args: Args, run: Run, agent: Path) -> None:
    """All rounds, the choice between them, and the report; what is done already is skipped."""
    import torch

    from agents.evaluation import SELECTION_SEEDS

    tracks = (args.rounds + 1) * max(args.choose_episodes, args.final_episodes)
    if tracks > len(SELECTION_SEEDS):
        raise ValueError(
            f"{args.rounds} rounds and the choice at the end need {tracks} tracks, there are "
            f"{len(SELECTION_SEEDS)}; lower rounds, choose_episodes or final_episodes"
        )
    torch.set_num_threads(args.threads)  # not by the stages alone, of which some may be skipped
    for folder in [path for path in run.path.rglob("*") if path.is_dir()]:
        remove_leftovers(folder)
    rounds = Rounds(args, run)
    rounds.forget_other_end()
    for index in range(args.rounds):
        rounds.play(index)
    rounds.finish()
    score(args, run, rounds, agent)


if __name__ == "__main__":
    start(main, PRESETS, default=DEFAULT_PRESET)
