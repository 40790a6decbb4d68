"""The stage that trains C, the linear controller: in the dream, or on real tracks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from generative.training.cli import Input
from generative.training.files import MANIFEST_NAME, json_bytes, read_file
from generative.training.parallel import ParallelConfig
from generative.training.ranges import (
    Checked,
    Count,
    Device,
    Folder,
    NonNegative,
    Positive,
    Probability,
    Seed,
    Workers,
)
from generative.training.run import Run
from generative.training.settings import recast, to_json
from worldmodels.configs import (
    CAR_RACING,
    ActionHead,
    ControllerConfig,
    DreamConfig,
    EvaluationConfig,
    EvolutionConfig,
    GradientConfig,
    MemoryConfig,
)

if TYPE_CHECKING:
    import numpy as np

    from generative.training.progress import Progress
    from worldmodels.controller import LinearController
    from worldmodels.evolution import EvolutionResult, Generation, Restarts

__all__ = [
    "ControllerSettings",
    "ControllerTraining",
    "Found",
    "Search",
    "dream_returns",
    "search_dream",
    "train_controller",
    "write_starts",
]

TEST_STREAM = 2**32
"""Sets the random numbers of a finished controller's test apart from those of its training."""


@dataclass(frozen=True)
class ControllerSettings(Checked):
    """C, and how dreams train it."""

    method: Literal["cma", "gradient", "both"] = "cma"
    """CMA-ES, back-propagation through the dream, or the first and then the second."""
    features: Literal["z", "zh", "zhc"] = "zh"
    """Inputs of C: z alone, z and h, or z, h and c."""
    searches: Count = 1
    """Independent searches with other random numbers; each gives a controller to choose from."""
    dream: DreamConfig = field(default_factory=DreamConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Scoring of candidates by CMA-ES, in dreams or on real tracks."""
    test_dreams: Count = 512
    """Dreams by which a finished controller's dream return is measured."""
    max_idle: Count | None = 12
    """Dreams begin at most this many decisions after a reward; None: anywhere."""
    trouble_weight: Count = 1
    """Times that a moment counts as a start if the car then soon lost its way."""
    reward_quantile: Probability | None = 0.9995
    """A dreamed decision never pays more than this quantile of the recorded ones, nor less than
    the lowest; None: it pays what M says."""

    @property
    def steps(self) -> int:
        """Generations and gradient steps of a search."""
        evolution = self.evolution.generations if self.method in ("cma", "both") else 0
        gradient = self.gradient.steps if self.method in ("gradient", "both") else 0
        return evolution + gradient


@dataclass(frozen=True)
class ControllerTraining(ControllerSettings):
    """Train C, the linear controller: in the dream (no real reward), or on real tracks."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset(
        {"workers", "backend", "ray_address", "gpus", "deadline", "patience"}
    )

    out: Folder = Path("runs/controller")
    """Run folder; the controllers are in its folders `model-0`, `model-1`, ..."""
    where: Literal["dream", "real"] = "dream"
    """Score by imagined returns, or by driving real tracks (the paper's CarRacing experiment)."""
    vision: Path = Path("runs/vae/model")
    """Folder of V (only driven on real tracks)."""
    memory: Annotated[Path, Input("train_mdnrnn.py")] = Path("runs/mdnrnn/model")
    """Folder of M."""
    encoded: tuple[Path, ...] = (Path("runs/encoded/data"),)
    """Encoded episodes: dreams begin at their moments."""
    start_from: Annotated[Path, Input("train_controller.py")] | None = None
    """Folder of a controller to go on from; zeros if not given."""
    action: ActionHead = CAR_RACING
    """Map from C's outputs to actions; train_in_dream.py chooses it by the environment."""
    action_repeat: Count = 1
    """Environment steps per decision, on real tracks."""
    workers: Workers = 0
    """Processes; 0 runs everything in this one. Of Ray: workers of the cluster, 0 for as many as
    it has room for."""
    backend: Literal["processes", "ray"] = "processes"
    """Place where CMA-ES scores candidates: this machine, or a Ray cluster. No result depends on
    it."""
    ray_address: str = "local"
    """`local` starts a Ray of its own on this machine; `auto` or HOST:PORT joins a cluster."""
    gpus: NonNegative = 0.0
    """GPUs that a worker of Ray claims and dreams on; 0.5 puts two workers on each."""
    deadline: Positive = 600.0
    """Seconds for an episode, after which its worker is ended and the episode given to another."""
    patience: Positive = 600.0
    """Seconds without any worker, after which the run stops."""
    device: Device = "auto"
    seed: Seed = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where == "real" and self.method != "cma":
            raise ValueError(
                f"real tracks have no gradient, and method is {self.method}: use method cma, or "
                "where dream"
            )
        if self.where == "real" and self.action != CAR_RACING:
            raise ValueError(
                f"real tracks are those of CarRacing, and action is {self.action}; train in the "
                "dream"
            )
        if self.where == "dream" and self.evaluation.racing:
            raise ValueError(
                f"racing is {self.evaluation.racing}, but the dreams of a candidate run at once; "
                "it saves time on real tracks only"
            )
        if self.where == "dream" and self.action_repeat != 1:
            raise ValueError(
                f"action_repeat is {self.action_repeat}, and holds actions on real tracks; a dream "
                "has the decisions that M was trained on: leave it out"
            )
        if self.dream.reward_clip is not None:
            raise ValueError(
                f"dream.reward_clip is {self.dream.reward_clip}; here it follows from "
                "--reward-quantile: set that, and leave the clip out"
            )

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs that dreamed could have an action_repeat, which meant nothing there."""
        return settings if settings.get("where") == "real" else {**settings, "action_repeat": 1}

    @property
    def parallel(self) -> ParallelConfig:
        """Settings of the processes that score candidates."""
        return ParallelConfig(
            "serial" if self.backend == "processes" and not self.workers else self.backend,
            self.workers,
            self.ray_address,
            gpus=self.gpus,
            deadline=self.deadline,
            patience=self.patience,
        )

    @property
    def shares_candidates(self) -> bool:
        """True if workers share the candidates of one search, False if each takes a search."""
        return self.method != "gradient" and (self.backend == "ray" or self.searches == 1)


def train_controller(args: ControllerTraining) -> list[Path]:
    """Returns the folders of the controllers, one per search."""
    import torch

    from generative.training.parallel import run_jobs
    from generative.training.precision import bf16_of_run
    from generative.training.progress import progress
    from generative.training.signals import exit_on_signals
    from worldmodels.controller import LinearController
    from worldmodels.memory import load_memory

    with Run.open(args, kind="train_controller") as run:
        folders = [run.path / f"model-{i}" for i in range(args.searches)]
        if run.done:
            return folders
        memory = load_memory(args.memory, device=str(run.device))
        controller = LinearController(
            ControllerConfig(
                memory.config.latent_dim,
                memory.config.hidden_dim,
                args.action.size,
                args.features,
                args.action,
            )
        )
        if args.start_from is not None:
            controller = LinearController.from_pretrained(args.start_from)
        _check_sizes(args, memory.config, controller.config)
        clip = None
        if args.where == "real":
            searches = [search_real_tracks(args, run, controller, i) for i in range(args.searches)]
        else:
            starts_file = run.path / "starts.safetensors"
            with progress(1, "finding moments to dream from") as bar:
                clip = write_starts(args, memory, starts_file)
                bar.advance()
            dream = replace(args.dream, reward_clip=clip, bf16=bf16_of_run(args.dream.bf16, run))
            jobs = [
                Search(
                    recast(ControllerSettings, args, dream=dream),
                    args.memory,
                    starts_file,
                    controller.to_vector().numpy(),
                    controller.config,
                    run.path / f"search-{i}",
                    run.seed_for("search", i),
                    str(run.device),
                )
                for i in range(args.searches)
            ]
            what, workers = f"dreaming ({args.method})", args.workers
            if args.shares_candidates:
                with exit_on_signals(), progress(args.steps * len(jobs), what) as bar:
                    searches = [search_dream(job, bar.advance, args.parallel, bar) for job in jobs]
            else:
                # No environment that could hang is in it, and a generation may take long.
                searches = run_jobs(
                    search_dream, jobs, workers, args.steps, what, deadline=math.inf
                )
        for folder, found in zip(folders, searches, strict=True):
            controller.load_vector(torch.from_numpy(found.vector)).save_pretrained(folder)
        run.finish(
            {
                "returns": [found.score for found in searches],
                "curves": [found.curve for found in searches],
                "dream_steps": sum(found.dream_steps for found in searches),
                "reward_clip": clip,
                "real_episodes": sum(found.real_episodes for found in searches),
            }
        )
        return folders


@dataclass(frozen=True)
class Found:
    """Result of a search."""

    vector: object
    """The controller as a flat array."""
    score: float
    """Mean return over dreams (or real episodes) that the search did not use."""
    curve: list[float]
    """Mean return per step or generation."""
    dream_steps: int = 0
    real_episodes: int = 0


@dataclass(frozen=True)
class Search:
    """One search in the dream; all that its process needs."""

    settings: ControllerSettings
    memory: Path
    """Folder of M."""
    starts: Path
    """File of the moments that dreams begin at."""
    vector: object
    controller: ControllerConfig
    folder: Path
    seed: int
    device: str


def search_dream(
    job: Search,
    report: Callable[[int], None],
    parallel: ParallelConfig | None = None,
    bar: Progress | None = None,
) -> Found:
    """Evolve, climb, or both; then measure the dream return on dreams not used before.

    Args:
        report: told of generations and gradient steps.
        parallel: where candidates are scored; in this process if not given.
        bar: gets the generations instead, with what there is to say of them.
    """
    import torch

    from worldmodels.dreaming.gradient import climb
    from worldmodels.dreaming.rollout import Dream
    from worldmodels.dreaming.starts import DreamStarts
    from worldmodels.memory import load_memory

    settings = job.settings
    memory = load_memory(job.memory, device=job.device).requires_grad_(False)
    starts = DreamStarts.load(job.starts)
    dream = Dream(memory, job.controller, settings.dream)
    vector, curve, dreams = torch.from_numpy(job.vector), [], 0
    if settings.method in ("cma", "both"):
        result = evolve_in_dream(job, report, parallel, bar)
        vector = torch.from_numpy(result.mean).float()
        curve = [generation.average for generation in result.generations]
        dreams += settings.evaluation.episodes * sum(len(g.scores) for g in result.generations)
    if settings.method in ("gradient", "both"):
        climbed = climb(dream, starts, vector, settings.gradient, job.seed, lambda _: report(1))
        vector = climbed.vector
        curve += [step.dream_return for step in climbed.steps]
        checks = 1 + -(-settings.gradient.steps // settings.gradient.check_every)
        dreams += (
            settings.gradient.steps * settings.gradient.lanes
            + checks * settings.gradient.check_dreams
        )
    return Found(
        vector.cpu().numpy(),
        dream_returns(dream, starts, vector.unsqueeze(0), settings.test_dreams, job.seed)[0],
        curve,
        dream_steps=(dreams + settings.test_dreams) * settings.dream.horizon,
    )


def evolve_in_dream(
    job: Search,
    report: Callable[[int], None],
    parallel: ParallelConfig | None,
    bar: Progress | None,
) -> EvolutionResult:
    """CMA-ES on imagined returns."""
    import numpy as np

    from worldmodels.dream_returns import DreamReturns, same_generation
    from worldmodels.evolution import evolve
    from worldmodels.evolution_log import EvolutionLog
    from worldmodels.scoring import Scoring

    settings = job.settings
    device = "cuda" if parallel and parallel.gpus else job.device
    returns = DreamReturns(
        job.memory, job.starts, job.controller, settings.dream, job.seed, device=device
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    with Scoring(returns, settings.evaluation, parallel, seed_of=same_generation) as evaluation:

        def test(mean: np.ndarray, generation: int) -> float:
            # 0 and 1 are taken by the seeds of generations and of the finished controller.
            seeds = np.full((1, settings.evolution.test_episodes), 2 * TEST_STREAM + generation)
            return float(evaluation.scores(mean[None], seeds).mean())

        of = identity(settings, 1, job.memory / MANIFEST_NAME, job.starts)
        with EvolutionLog(job.folder, bar, evaluation.speed, of=of) as log:

            def after(generation: Generation, strategy: Restarts) -> None:
                log(generation, strategy)
                if bar is None:
                    report(1)

            return evolve(
                evaluation,
                np.asarray(job.vector),
                settings.evolution,
                job.seed,
                log.journal(job.folder),
                after,
                test if settings.evolution.test_every else None,
                of,
            )


def identity(settings: ControllerSettings, action_repeat: int, *files: Path) -> str:
    """Hash of everything but the seed that the scores of a search depend on."""
    values = to_json([settings.dream, settings.evaluation, action_repeat])
    parts = [json_bytes(values), *[read_file(file, 2**30) for file in files]]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def dream_returns(dream, starts, vectors, dreams: int, seed: int) -> list[float]:
    """Mean imagined return of each controller (P, num_parameters), all from the same starts."""
    import numpy as np

    rng = np.random.default_rng([seed, TEST_STREAM])
    chosen = starts.draw(dreams, rng)
    result = dream.evaluate(vectors.to(dream.device), chosen, seed=int(rng.integers(2**63)))
    return result.returns.mean(1).tolist()


def _check_sizes(
    args: ControllerTraining, memory: MemoryConfig, controller: ControllerConfig
) -> None:
    """Stop early where M and C do not fit, or M cannot dream."""
    sizes = [(c.latent_dim, c.hidden_dim, c.action_dim) for c in (memory, controller)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "{} holds an M of z {}, h {} and actions {}, {} a controller for z {}, h {} and "
            "actions {}; pass the M it was trained with, or another start_from".format(
                args.memory, *sizes[0], args.start_from, *sizes[1]
            )
        )
    if args.where == "dream" and not memory.predict_reward:
        raise ValueError(
            f"{args.memory} holds an M without a reward head, and a dream needs rewards; train it "
            "with train_mdnrnn.py --model.predict-reward"
        )


def write_starts(args: ControllerTraining, memory, path: Path) -> tuple[float, float] | None:
    """Write the moments that dreams begin at; returns the range of rewards that are possible, or
    None where they are not to be clipped."""
    import numpy as np

    from worldmodels.dreaming.starts import warm_up
    from worldmodels.sequences import EncodedRollouts

    encoded = EncodedRollouts.concat([EncodedRollouts.load(folder) for folder in args.encoded])
    if encoded.z_dim != memory.config.latent_dim:
        raise ValueError(
            f"{args.encoded[0]} holds z of {encoded.z_dim} dimensions, the M of {args.memory} was "
            f"trained with {memory.config.latent_dim}; pass the encoded episodes it was trained on"
        )
    starts = warm_up(memory, encoded, args.max_idle, args.trouble_weight)
    if not len(starts):
        raise ValueError(
            f"no moment of {', '.join(map(str, args.encoded))} lies within {args.max_idle} "
            "decisions of a reward; collect more episodes or raise max_idle"
        )
    starts.save(path)
    if args.reward_quantile is None:
        return None
    highest = np.quantile(encoded.rewards, args.reward_quantile)
    return float(encoded.rewards.min()), float(highest)


def search_real_tracks(
    args: ControllerTraining, run: Run, controller: LinearController, index: int
) -> Found:
    """CMA-ES on the scores of real tracks."""
    import numpy as np

    from agents.real_scores import RealTracks
    from generative.training.progress import progress
    from generative.training.signals import exit_on_signals
    from worldmodels.evolution import evolve
    from worldmodels.evolution_log import EvolutionLog
    from worldmodels.scoring import Scoring

    evolution, episodes = args.evolution, args.evaluation.episodes
    folder = run.path / f"search-{index}"
    tracks = RealTracks(args.vision, args.memory, args.action_repeat, controller=controller.config)
    folder.mkdir(exist_ok=True)
    files = args.vision / MANIFEST_NAME, args.memory / MANIFEST_NAME
    of = identity(args, args.action_repeat, *files)

    def seed_of(generation: int, candidate: int, episode: int) -> int:
        place = (generation, candidate) if candidate else (generation,)
        return run.seed_for("track", index, *place, episode) % 2**31

    with (
        exit_on_signals(),
        Scoring(tracks, args.evaluation, args.parallel, seed_of=seed_of) as evaluation,
        progress(evolution.generations, "evolving on real tracks") as bar,
        EvolutionLog(folder, bar, evaluation.speed, of=of) as log,
    ):

        def score(mean: np.ndarray, name: str, count: int, *numbers: int) -> float:
            seeds = [run.seed_for(name, index, *numbers, i) % 2**31 for i in range(count)]
            return float(evaluation.scores(mean[None], np.array([seeds])).mean())

        def test(mean: np.ndarray, generation: int) -> float:
            return score(mean, "test of the mean", evolution.test_episodes, generation)

        result = evolve(
            evaluation,
            controller.to_vector().numpy(),
            evolution,
            run.seed_for("search", index),
            log.journal(folder),
            log,
            test if evolution.test_every else None,
            of,
        )
        final = score(result.mean, "test", episodes)
    tests = sum(g.mean_score is not None for g in result.generations) * evolution.test_episodes
    candidates = sum(len(g.scores) for g in result.generations)
    return Found(
        result.mean.astype("float32"),
        final,
        [generation.average for generation in result.generations],
        real_episodes=(candidates + 1) * episodes + tests,
    )


QUICK_CONTROLLER = ControllerSettings(
    method="gradient",
    dream=DreamConfig(horizon=30, temperature=1.15, bf16="auto"),
    searches=2,
    max_idle=40,
    trouble_weight=8,
)
"""Settings by which the quick rounds train C."""
