"""Train an agent inside its own dream, end to end: for CarRacing, or for any `--env ID`.

Rounds of: record real episodes with the current agent, train V and M on all that was recorded,
train controllers in the dream, let a few real episodes choose one of them. No update of a
controller uses a real reward. At the end the best rounds drive again on fresh tracks, the winner
is the agent, and it is scored on the published tracks of the stock game (or on as many fresh
episodes of the environment).

Killed at any moment, the same command continues.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from generative.training.cli import start
from generative.training.files import DamagedFileError, remove_leftovers, write_json
from generative.training.run import Run, read_result
from generative.vae.config import ConvVAEConfig
from scripts import (
    collect_rollouts,
    standardise_vectors,
    train_controller,
    train_mdnrnn,
    train_transformer_memory,
    train_vae,
    train_vision,
)
from scripts.common.dream_settings import (
    AUTOENCODER,
    CONTROLLER,
    FIRST,
    LATER,
    MEMORY,
    TRANSFORMER,
    VISION,
    Args,
)
from scripts.common.rounds import Rounds
from worldmodels.configs import (
    PAPER_MDNRNN,
    DreamConfig,
    EvaluationConfig,
    EvolutionConfig,
    MDNRNNConfig,
    MemoryLossConfig,
)

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
            max_idle=None,
            reward_quantile=None,
        ),
        pace=None,
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


VECTOR_MEMORY = train_mdnrnn.Args(
    model=MDNRNNConfig(
        hidden_dim=64, num_mixtures=3, predict_reward=True, predict_end=True, residual=True
    ),
    # Exact vectors make the likelihood's gradients large: the end would hardly be learned beside.
    loss=MemoryLossConfig(lr=5e-3, final_lr=2e-4, reward_weight=10.0, end_weight=10.0),
    steps=1500,
    batch_size=64,
    length=16,
)
VECTOR_CONTROLLER = train_controller.Args(
    method="cma",
    searches=1,
    dream=DreamConfig(horizon=150, temperature=1.0, dropout=False),
    evolution=EvolutionConfig(popsize=32, sigma=0.3, generations=30),
    evaluation=EvaluationConfig(episodes=16),
    test_dreams=256,
    max_idle=None,
    reward_quantile=1.0,
)
VECTOR = Args(
    rounds=4,
    action_repeat=1,
    first=collect_rollouts.Args(episodes=200, decisions=200),
    collect=collect_rollouts.Args(episodes=25, decisions=300, noise=0.5),
    vision=standardise_vectors.Args(),
    vision_rounds=4,
    memory=VECTOR_MEMORY,
    memory_steps=800,
    memory_from_recording=True,
    controller=VECTOR_CONTROLLER,
    pace=None,
    choose_episodes=6,
    final_agents=3,
    final_episodes=20,
    test_episodes=100,
    episode_steps=None,
    workers=0,
    threads=1,
)
"""Small networks: where observations are few numbers, a minute of a CPU goes far."""

LINEAR = replace(
    VECTOR_CONTROLLER,
    features="z",
    dream=replace(VECTOR_CONTROLLER.dream, horizon=200),
    evolution=replace(VECTOR_CONTROLLER.evolution, popsize=24, sigma=0.5, generations=25),
)
"""C sees z alone where that is the whole state, and a linear map of it is enough."""

DOOM = train_controller.Args(
    features="zhc",
    searches=2,
    # Every tic pays 1: a dream's return is how long it was survived.
    dream=DreamConfig(horizon=60, temperature=1.0, bf16="auto"),
    evolution=EvolutionConfig(popsize=32, generations=40, diagonal=True),
    evaluation=EvaluationConfig(episodes=64, candidates_per_task=32),
    max_idle=None,
    reward_quantile=1.0,
)

PRESETS |= {
    "vector": VECTOR,
    "image": replace(
        PRESETS["quick"],
        action_repeat=2,
        memory_from_recording=True,
        pace=None,
        episode_steps=None,
        first=replace(FIRST, anywhere=0.0, max_idle=None, decisions=200),
        collect=replace(LATER, anywhere=0.0, max_idle=None, decisions=300),
        controller=replace(
            PRESETS["quick"].controller, max_idle=None, trouble_weight=1, reward_quantile=1.0
        ),
    ),
    "cartpole": replace(
        VECTOR,
        env="CartPole-v1",
        rounds=1,
        first=replace(VECTOR.first, hold=4.0),
        controller=LINEAR,
    ),
    "pendulum": replace(
        VECTOR,
        env="Pendulum-v1",
        first=replace(VECTOR.first, episodes=30),
        collect=replace(VECTOR.collect, episodes=10),
        controller=replace(
            VECTOR_CONTROLLER,
            dream=replace(VECTOR_CONTROLLER.dream, horizon=100),
            evolution=replace(VECTOR_CONTROLLER.evolution, generations=150),
            searches=2,
        ),
    ),
    "lunar-lander": replace(
        VECTOR,
        env="LunarLander-v3",
        rounds=12,
        action_repeat=2,
        collect=replace(VECTOR.collect, episodes=100),
        memory=replace(
            VECTOR_MEMORY,
            model=replace(VECTOR_MEMORY.model, hidden_dim=128, dropout=0.2),
            length=32,
        ),
        memory_steps=1500,
        controller=replace(
            LINEAR,
            searches=3,
            # An M that is sure of itself is exploited: dreams of +200 were real crashes.
            dream=replace(LINEAR.dream, horizon=120, temperature=1.3, dropout=True),
            evolution=replace(LINEAR.evolution, popsize=32, generations=40),
        ),
        choose_episodes=10,
    ),
    "car-discrete": replace(
        PRESETS["quick"],
        env="WorldModels/CarRacing64-v0",
        env_kwargs='{"continuous": false}',
    ),
    "doom": Args(
        env="WorldModels/TakeCover64-v0",
        rounds=7,
        action_repeat=4,
        first=collect_rollouts.Args(episodes=400, decisions=525),
        collect=collect_rollouts.Args(episodes=100, decisions=525),
        vision=replace(VISION, model=replace(VISION.model, latent_dim=64), steps=3000),
        vision_rounds=2,
        vision_steps=1000,
        memory=replace(
            MEMORY,
            model=replace(MEMORY.model, hidden_dim=512, dropout=0.25),
            # Fireballs that hit are rare among the moments of an episode.
            loss=replace(MEMORY.loss, end_weight=10.0),
            steps=1500,
        ),
        memory_steps=1000,
        memory_from_recording=True,
        controller=DOOM,
        pace=None,
        choose_episodes=20,
        final_agents=4,
        final_episodes=60,
        test_episodes=100,
        episode_steps=None,
    ),
    "smoke-vector": replace(
        VECTOR,
        env="CartPole-v1",
        rounds=2,
        first=collect_rollouts.Args(episodes=6, decisions=30),
        collect=collect_rollouts.Args(episodes=2, decisions=30),
        vision_rounds=1,
        memory=replace(train_mdnrnn.PRESETS["smoke"], length=8),
        memory_steps=3,
        controller=replace(train_controller.PRESETS["smoke"], max_idle=None, reward_quantile=1.0),
        choose_episodes=1,
        final_agents=2,
        final_episodes=1,
        test_episodes=2,
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

PRESETS |= {
    "quick-transformer": replace(PRESETS["quick"], memory=TRANSFORMER),
    "smoke-transformer": replace(
        PRESETS["smoke-vector"],
        memory=replace(train_transformer_memory.PRESETS["smoke"], length=8),
    ),
}


def settings_for(args: Args) -> Args:
    """The settings themselves, or those that fit the environment where only CarRacing's are given.

    `--env ID` and nothing else takes the stages from the preset of that environment, or else from
    `vector` or `image`, by what it shows. Where more was changed, nothing is chosen.

    Raises:
        ValueError: there is no such environment, or its spaces do not fit.
    """
    common = {name: getattr(args, name) for name in COMMON}
    if not args.env or args.env in CAR_ENVS or args != replace(PRESETS[DEFAULT_PRESET], **common):
        return args
    own = [preset for preset in PRESETS.values() if preset.env == args.env]
    if own and args.env_kwargs == own[0].env_kwargs:
        return replace(own[0], **common)
    task = collect_rollouts.task_of(args.env, args.env_kwargs)
    assert task is not None  # as env is not empty
    name = "vector" if task.preprocess.kind == "vector" else "image"
    return replace(PRESETS[name], **common)


COMMON = ("out", "env", "env_kwargs", "workers", "threads", "device", "seed")
"""Settings that mean the same for every environment."""

CAR_ENVS = ("CarRacing-v3", "WorldModels/CarRacing64-v0", "WorldModels/FastCarRacing-v0")


def score(args: Args, run: Run, rounds: Rounds, agent: Path) -> None:
    """Play the published seeds; write facts, report and, of the car, a film."""
    from agents.evaluation import EVALUATION_SEEDS, TrainingFacts, evaluate, random_scores
    from agents.report import RANDOM_NAME, write_report
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
    seeds = EVALUATION_SEEDS[: args.test_episodes]
    env_id = rounds.task.env_id if rounds.task else "CarRacing-v3"
    file = run.path / "evaluation.json"
    if not file.exists():
        evaluation = evaluate(
            agent, seeds, workers=args.workers, env_id=env_id, env_kwargs=rounds.env_kwargs
        )
        write_json(file, evaluation.to_json())
    if rounds.task is not None:
        yardstick = run.path / RANDOM_NAME
        if not yardstick.exists():
            write_json(yardstick, random_scores(env_id, rounds.env_kwargs, seeds))
        content = write_report(run.path, agent, check_drives=0)
        run.finish({name: content[name] for name in (*RESULTS, "random_mean", "random_std")})
        return
    film = run.path / "videos" / "drive-and-dream.mp4"
    if not film.exists():
        shutil.rmtree(film.parent, ignore_errors=True)  # half a film, if anything
        driver = WorldModelAgent.from_pretrained(agent)
        frames = drive_and_dream(driver, EVALUATION_SEEDS[0], max_steps=args.film_steps)
        write_video(film, progress(frames, "filming a drive beside its dream"))
    content = write_report(run.path, agent, check_steps=args.episode_steps or 1000)
    run.finish({name: content[name] for name in RESULTS})


RESULTS = ("game", "episodes", "real_mean", "real_std", "real_interval_95", "wall_seconds")
"""What of the report stands in the run's result."""


def describe(run: Run, agent: Path) -> str:
    """What a finished run came to, and where to look."""
    result = run.result
    low, high = result["real_interval_95"]
    game = result.get("game", "")  # older results do not say
    what, beside = "tracks of the stock game" + game.removeprefix("CarRacing-v3"), ""
    if "random_mean" in result:
        what = f"episodes of {game or run.config.env}"
        beside = f"; random actions score {result['random_mean']:.0f}"
    return (
        f"\n{result['episodes']} {what}: {result['real_mean']:.0f} +/- "
        f"{result['real_std']:.0f} (95 % interval of the mean {low:.0f} to {high:.0f}), trained "
        f"in {result['wall_seconds'] / 60:.1f} minutes{beside}\n"
        f"agent:  {agent}\nreport: {run.path / 'report.html'}"
    )


def main(args: Args) -> Path:
    """Returns the folder of the agent."""
    from generative.training.signals import exit_on_signals

    args = settings_for(args)
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
    if args.threads:
        torch.set_num_threads(args.threads)  # not by the stages alone: some may be skipped
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
