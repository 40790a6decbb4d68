"""Train an agent inside its own dream, end to end: for CarRacing, or for any `--env ID`.

Rounds of: record real episodes with the current agent, train V and M on all that was recorded,
train controllers in the dream, let a few real episodes choose one of them. No update of a
controller uses a real reward. At the end the best rounds drive again on fresh tracks, the winner
is the agent, and it is scored on the published tracks of the stock game (or on as many fresh
episodes of the environment).

Killed at any moment, the same command continues.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agents.rounds.controller import QUICK_CONTROLLER, ControllerSettings
from agents.rounds.memory import (
    QUICK_MDNRNN,
    QUICK_TRANSFORMER,
    MDNRNNSettings,
    TransformerSettings,
)
from agents.rounds.recording import (
    QUICK_FIRST,
    QUICK_LATER,
    AgentRecording,
    RandomRecording,
    task_of,
)
from agents.rounds.settings import RoundsSettings as Args
from agents.rounds.train import train_in_dream
from agents.rounds.vision import QUICK_VAE, AutoencoderSettings, VAESettings, VectorSettings
from generative.training.cli import start
from generative.training.settings import recast
from generative.vae.config import ConvVAEConfig
from scripts import (
    collect_rollouts,
    train_controller,
    train_mdnrnn,
    train_transformer_memory,
    train_vae,
    train_vision,
)
from worldmodels.configs import (
    PAPER_MDNRNN,
    DreamConfig,
    EvaluationConfig,
    EvolutionConfig,
    MDNRNNConfig,
    MemoryLossConfig,
)

GPU_VISION = replace(
    QUICK_VAE, model=ConvVAEConfig(), batch_size=256, loss=replace(QUICK_VAE.loss, lr=5e-4)
)

SMOKE_CONTROLLER = recast(ControllerSettings, train_controller.PRESETS["smoke"])

DEFAULT_PRESET = "quick"
PRESETS = {
    "quick": Args(
        rounds=5,
        controller=replace(
            QUICK_CONTROLLER, gradient=replace(QUICK_CONTROLLER.gradient, steps=150, lanes=192)
        ),
    ),
    "standard": Args(
        rounds=8,
        first=replace(QUICK_FIRST, episodes=300),
        collect=replace(QUICK_LATER, episodes=100, decisions=120),
        vision=replace(QUICK_VAE, steps=3500),
        vision_steps=1000,
        memory=replace(QUICK_MDNRNN, steps=1500),
        memory_steps=800,
        controller=replace(
            QUICK_CONTROLLER,
            gradient=replace(QUICK_CONTROLLER.gradient, steps=300, lr=0.004),
            searches=4,
        ),
        choose_episodes=8,
        final_agents=6,
        final_episodes=30,
        test_episodes=100,
    ),
    "gpu": Args(
        rounds=12,
        first=replace(QUICK_FIRST, episodes=1000),
        collect=replace(QUICK_LATER, episodes=200, decisions=200),
        vision=replace(GPU_VISION, steps=10_000),
        vision_rounds=5,
        vision_steps=3000,
        memory=replace(QUICK_MDNRNN, batch_size=128, steps=4000),
        memory_steps=2000,
        controller=replace(
            QUICK_CONTROLLER,
            dream=replace(QUICK_CONTROLLER.dream, bf16=False),
            gradient=replace(QUICK_CONTROLLER.gradient, steps=300, lanes=2048),
            searches=8,
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
        first=RandomRecording(),
        vision=VAESettings(steps=1_000_000),
        vision_rounds=1,
        memory=recast(
            MDNRNNSettings,
            train_mdnrnn.PRESETS["paper"],
            model=replace(PAPER_MDNRNN, predict_reward=True, predict_end=True),
        ),
        controller=ControllerSettings(
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
        first=recast(RandomRecording, collect_rollouts.PRESETS["smoke"], episodes=8),
        collect=recast(AgentRecording, collect_rollouts.PRESETS["smoke"], episodes=2),
        vision=recast(VAESettings, train_vae.PRESETS["smoke"]),
        vision_rounds=1,
        memory=recast(MDNRNNSettings, train_mdnrnn.PRESETS["smoke"]),
        memory_steps=3,
        controller=replace(SMOKE_CONTROLLER, method="gradient", searches=2),
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


VECTOR_MEMORY = MDNRNNSettings(
    model=MDNRNNConfig(
        hidden_dim=64, num_mixtures=3, predict_reward=True, predict_end=True, residual=True
    ),
    # Exact vectors make the likelihood's gradients large: the end would hardly be learned beside.
    loss=MemoryLossConfig(lr=5e-3, final_lr=2e-4, reward_weight=10.0, end_weight=10.0),
    steps=1500,
    batch_size=64,
    length=16,
)
VECTOR_CONTROLLER = ControllerSettings(
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
    first=RandomRecording(episodes=200, decisions=200),
    collect=AgentRecording(episodes=25, decisions=300, noise=0.5),
    vision=VectorSettings(),
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

DOOM = ControllerSettings(
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
        first=replace(QUICK_FIRST, anywhere=0.0, max_idle=None, decisions=200),
        collect=replace(QUICK_LATER, anywhere=0.0, max_idle=None, decisions=300),
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
        first=RandomRecording(episodes=400, decisions=525),
        collect=AgentRecording(episodes=100, decisions=525),
        vision=replace(QUICK_VAE, model=replace(QUICK_VAE.model, latent_dim=64), steps=3000),
        vision_rounds=2,
        vision_steps=1000,
        memory=replace(
            QUICK_MDNRNN,
            model=replace(QUICK_MDNRNN.model, hidden_dim=512, dropout=0.25),
            # Fireballs that hit are rare among the moments of an episode.
            loss=replace(QUICK_MDNRNN.loss, end_weight=10.0),
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
        first=RandomRecording(episodes=6, decisions=30),
        collect=AgentRecording(episodes=2, decisions=30),
        vision_rounds=1,
        memory=recast(MDNRNNSettings, train_mdnrnn.PRESETS["smoke"], length=8),
        memory_steps=3,
        controller=replace(SMOKE_CONTROLLER, max_idle=None, reward_quantile=1.0),
        choose_episodes=1,
        final_agents=2,
        final_episodes=1,
        test_episodes=2,
    ),
}

PRESETS |= {
    f"{name}-autoencoder": replace(PRESETS[name], vision=vision)
    for name, vision in {
        "quick": AutoencoderSettings(),
        "standard": AutoencoderSettings(steps=3500),
        "smoke": recast(AutoencoderSettings, train_vision.PRESETS["smoke"]),
    }.items()
}

PRESETS |= {
    "quick-transformer": replace(PRESETS["quick"], memory=QUICK_TRANSFORMER),
    "smoke-transformer": replace(
        PRESETS["smoke-vector"],
        memory=recast(TransformerSettings, train_transformer_memory.PRESETS["smoke"], length=8),
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
    task = task_of(args.env, args.env_kwargs)
    assert task is not None  # as env is not empty
    name = "vector" if task.preprocess.kind == "vector" else "image"
    return replace(PRESETS[name], **common)


COMMON = ("out", "env", "env_kwargs", "workers", "threads", "device", "seed")
"""Settings that mean the same for every environment."""

CAR_ENVS = ("CarRacing-v3", "WorldModels/CarRacing64-v0", "WorldModels/FastCarRacing-v0")


def main(args: Args) -> Path:
    """Returns the folder of the agent."""
    return train_in_dream(settings_for(args))


if __name__ == "__main__":
    start(main, PRESETS, default=DEFAULT_PRESET)
