"""Train C, the linear controller: in the dream (no real reward), or on real tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from generative.training.cli import start
from generative.training.run import Run
from worldmodels.configs import (
    ControllerConfig,
    DreamConfig,
    EvolutionConfig,
    GradientConfig,
    MDNRNNConfig,
)

TEST_STREAM = 2**32
"""Sets the random numbers of a finished controller's test apart from those of its training."""


@dataclass(frozen=True)
class Args:
    """Train C, the linear controller: in the dream (no real reward), or on real tracks."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"workers"})

    out: Path = Path("runs/controller")
    """Run folder; the controllers are in its folders `model-0`, `model-1`, ..."""
    where: Literal["dream", "real"] = "dream"
    """Score by imagined returns, or by driving real tracks (the paper's CarRacing experiment)."""
    method: Literal["cma", "gradient", "both"] = "cma"
    """CMA-ES, back-propagation through the dream, or the first and then the second."""
    vision: Path = Path("runs/vae/model")
    """Folder of V (only driven on real tracks)."""
    memory: Path = Path("runs/mdnrnn/model")
    """Folder of M."""
    encoded: tuple[Path, ...] = (Path("runs/encoded/data"),)
    """Encoded episodes: dreams begin at their moments."""
    start_from: Path | None = None
    """Folder of a controller to go on from; zeros if not given."""
    searches: int = 1
    """Independent searches with other random numbers; each gives a controller to choose from."""
    dream: DreamConfig = field(default_factory=DreamConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    episodes: int = 16
    """Dreams or real episodes per candidate of CMA-ES."""
    test_dreams: int = 512
    """Dreams by which a finished controller's dream return is measured."""
    max_idle: int = 12
    """Dreams begin at most this many decisions after a reward."""
    trouble_weight: int = 1
    """Times that a moment counts as a start if the car then soon lost its way."""
    reward_quantile: float = 0.9995
    """A dreamed decision never pays more than this quantile of the recorded ones, nor less than
    the lowest."""
    action_repeat: int = 1
    """Environment steps per decision, on real tracks."""
    workers: int = 0
    """Processes; 0 runs everything in this one."""
    device: str = "auto"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.where == "real" and self.method != "cma":
            raise ValueError(
                f"real tracks have no gradient, and method is {self.method}: use method cma, or "
                "where dream"
            )
        if min(self.searches, self.episodes, self.test_dreams, self.trouble_weight) < 1:
            raise ValueError(
                f"searches {self.searches}, episodes {self.episodes}, test_dreams "
                f"{self.test_dreams} and trouble_weight {self.trouble_weight} count from 1"
            )


PRESETS = {
    "paper": Args(where="real", workers=64),
    "dream": Args(evolution=EvolutionConfig(popsize=64, generations=200)),
    "quick": Args(
        method="gradient",
        dream=DreamConfig(horizon=30, temperature=1.15, bf16=True),
        searches=2,
        max_idle=40,
        trouble_weight=8,
        workers=2,
        action_repeat=3,
    ),
    "smoke": Args(
        evolution=EvolutionConfig(popsize=4, generations=2),
        gradient=GradientConfig(steps=2, lanes=4, check_dreams=8),
        dream=DreamConfig(horizon=5),
        episodes=2,
        test_dreams=8,
    ),
}


def main(args: Args) -> list[Path]:
    """Returns the folders of the controllers, one per search."""
    import torch

    from generative.training.progress import progress
    from worldmodels.controller import LinearController
    from worldmodels.memory import MDNRNN
    from worldmodels.parallel import run_jobs

    with Run.open(args, kind="train_controller") as run:
        folders = [run.path / f"model-{i}" for i in range(args.searches)]
        if run.done:
            return folders
        memory = MDNRNN.from_pretrained(args.memory, device=str(run.device))
        controller = LinearController(
            ControllerConfig(memory.config.latent_dim, memory.config.hidden_dim)
        )
        if args.start_from is not None:
            controller = LinearController.from_pretrained(args.start_from)
        _check_sizes(args, memory.config, controller.config)
        clip = None
        if args.where == "real":
            searches = [_search_real_tracks(args, run, controller, i) for i in range(args.searches)]
        else:
            starts_file = run.path / "starts.safetensors"
            with progress(1, "finding moments to dream from") as bar:
                clip = write_starts(args, memory, starts_file)
                bar.advance()
            jobs = [
                Search(
                    replace(args, dream=replace(args.dream, reward_clip=clip)),
                    starts_file,
                    controller.to_vector().numpy(),
                    controller.config,
                    run.path / f"search-{i}",
                    run.seed_for("search", i),
                    str(run.device),
                )
                for i in range(args.searches)
            ]
            searches = run_jobs(
                search_dream, jobs, args.workers, _steps(args), f"dreaming ({args.method})"
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
    """What a search ended with."""

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

    args: Args
    starts: Path
    vector: object
    controller: ControllerConfig
    folder: Path
    seed: int
    device: str


def search_dream(job: Search, report: Callable[[int], None]) -> Found:
    """Evolve, climb, or both; then measure the dream return on dreams not used before."""
    import numpy as np
    import torch

    from worldmodels.dream import Dream, DreamStarts
    from worldmodels.evolution import evolve
    from worldmodels.gradient import climb
    from worldmodels.memory import MDNRNN

    args = job.args
    memory = MDNRNN.from_pretrained(args.memory, device=job.device).requires_grad_(False)
    starts = DreamStarts.load(job.starts)
    dream = Dream(memory, job.controller, args.dream)
    vector, curve, dreams = torch.from_numpy(job.vector), [], 0
    if args.method in ("cma", "both"):

        def evaluate(candidates: np.ndarray, generation: int) -> np.ndarray:
            rng = np.random.default_rng([job.seed, generation])
            lanes = torch.from_numpy(candidates).float().to(dream.device)
            chosen = starts.draw(args.episodes, rng)
            returns = dream.evaluate(lanes, chosen, seed=int(rng.integers(2**63))).returns
            return returns.mean(1).double().cpu().numpy()

        def after(generation, _strategy) -> None:
            curve.append(generation.average)
            report(1)

        job.folder.mkdir(parents=True, exist_ok=True)
        journal = job.folder / "journal.jsonl"
        result = evolve(evaluate, vector.numpy(), args.evolution, job.seed, journal, after)
        vector = torch.from_numpy(result.mean).float()
        curve = [generation.average for generation in result.generations]
        dreams += args.evolution.generations * args.evolution.popsize * args.episodes
    if args.method in ("gradient", "both"):
        climbed = climb(dream, starts, vector, args.gradient, job.seed, lambda _: report(1))
        vector = climbed.vector
        curve += [step.dream_return for step in climbed.steps]
        checks = 1 + -(-args.gradient.steps // args.gradient.check_every)
        dreams += args.gradient.steps * args.gradient.lanes + checks * args.gradient.check_dreams
    return Found(
        vector.cpu().numpy(),
        dream_returns(dream, starts, vector.unsqueeze(0), args.test_dreams, job.seed)[0],
        curve,
        dream_steps=(dreams + args.test_dreams) * args.dream.horizon,
    )


def dream_returns(dream, starts, vectors, dreams: int, seed: int) -> list[float]:
    """Mean imagined return of each controller (P, num_parameters), all from the same starts."""
    import numpy as np

    rng = np.random.default_rng([seed, TEST_STREAM])
    chosen = starts.draw(dreams, rng)
    result = dream.evaluate(vectors.to(dream.device), chosen, seed=int(rng.integers(2**63)))
    return result.returns.mean(1).tolist()


def _check_sizes(args: Args, memory: MDNRNNConfig, controller: ControllerConfig) -> None:
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


def _steps(args: Args) -> int:
    evolution = args.evolution.generations if args.method in ("cma", "both") else 0
    gradient = args.gradient.steps if args.method in ("gradient", "both") else 0
    return evolution + gradient


def write_starts(args: Args, memory, path: Path) -> tuple[float, float]:
    """Write the moments that dreams begin at; returns the range of rewards that are possible."""
    import numpy as np

    from worldmodels.dream import warm_up
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
    highest = np.quantile(encoded.rewards, args.reward_quantile)
    return float(encoded.rewards.min()), float(highest)


def _search_real_tracks(args: Args, run: Run, controller, index: int) -> Found:
    from agents.real_scores import RealScores
    from generative.training.progress import progress
    from generative.training.signals import exit_on_signals
    from worldmodels.evolution import evolve

    seed = run.seed_for("search", index)
    folder = run.path / f"search-{index}"
    with (
        exit_on_signals(),
        RealScores(
            args.vision,
            args.memory,
            args.action_repeat,
            args.workers,
            controller=controller.config,
        ) as scores,
        progress(args.evolution.generations, "evolving on real tracks") as bar,
    ):
        folder.mkdir(exist_ok=True)
        result = evolve(
            lambda candidates, generation: scores(
                candidates,
                [run.seed_for("track", index, generation, i) % 2**31 for i in range(args.episodes)],
            ).mean(1),
            controller.to_vector().numpy(),
            args.evolution,
            seed,
            folder / "journal.jsonl",
            lambda *_: bar.advance(),
        )
        tracks = [run.seed_for("test", index, i) % 2**31 for i in range(args.episodes)]
        score = float(scores(result.mean[None], tracks).mean())
    return Found(
        result.mean.astype("float32"),
        score,
        [generation.average for generation in result.generations],
        real_episodes=(args.evolution.generations * args.evolution.popsize + 1) * args.episodes,
    )


if __name__ == "__main__":
    start(main, PRESETS)
