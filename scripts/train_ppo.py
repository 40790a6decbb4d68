"""Train a policy with Stable-Baselines3 (PPO, DQN or SAC): in the dream, on latents, or on pixels.

python scripts/train_ppo.py dream --out runs/ppo && python scripts/evaluate.py runs/ppo/agent
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from agents.configs import (
    Algorithm,
    NetworkConfig,
    Observation,
    OffPolicyConfig,
    PolicyConfig,
    PPOConfig,
)
from generative.training.cli import start
from generative.training.ranges import Checked, Count, Device, Folder, Positive, Seed
from generative.training.run import Run
from worldmodels.configs import DreamConfig

if TYPE_CHECKING:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv

    from envs.task import Task

LAP_PACE = 1.0
"""Reward per environment step that finishes a CarRacing lap just in time: 1000 in 1000 steps."""


@dataclass(frozen=True)
class Args(Checked):
    """Train a policy with Stable-Baselines3 (PPO, DQN or SAC): in the dream, on latents, or on
    pixels."""

    resumable_fields: ClassVar[frozenset[str]] = frozenset({"save_every"})

    out: Folder = Path("runs/ppo")
    """Run folder; the agent is in its folder `agent`."""
    algorithm: Algorithm = "ppo"
    """Learning algorithm. DQN needs `discrete`; SAC must not have it."""
    where: Literal["dream", "real"] = "dream"
    """In the dream of `model`, or in the environment."""
    observation: Observation = "zh"
    """Observations of the policy: frames, V's z, or z and M's h (always, in the dream)."""
    model: Path = Path("pretrained/carracing-dream")
    """Folder of V and M, and of the starts of dreams; not used for pixels."""
    env_id: str = "WorldModels/CarRacing64-v0"
    """The real environment, of 64x64 frames (or a CarRacing of 96x96)."""
    discrete: bool = False
    """CarRacing with five choices in place of three numbers (gymnasium's continuous=False)."""
    max_steps: Count | None = None
    """Environment steps of a real episode; the environment's own limit if not given."""
    action_repeat: Count = 3
    """Environment steps per decision; what M was trained with."""
    frame_stack: Count = 1
    """Frames that a policy of pixels sees at once."""
    decisions: Count = 5_000_000
    """To train on, over all environments."""
    num_envs: Count = 512
    """Dreams, or environments in this process, that are stepped side by side."""
    dream: DreamConfig = field(default_factory=DreamConfig)
    pace: Positive | None = 0.9
    """Dreams pay no more than this multiple of the pace that finishes a lap just in time (sets
    dream.pace_cap); None for no limit."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    off_policy: OffPolicyConfig = field(default_factory=OffPolicyConfig)
    """For DQN and SAC."""
    save_every: Count = 250_000
    """Decisions between checkpoints."""
    device: Device = "cpu"
    """Device of the learner and of the dream."""
    seed: Seed = 1

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older runs held whether to write TensorBoard's files, which `--track` tells now."""
        return {name: value for name, value in settings.items() if name != "tensorboard"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.where == "dream" and self.observation != "zh":
            raise ValueError(
                f"observation is {self.observation}, but a dream shows z and h; pass observation "
                "zh, or where real"
            )
        if self.frame_stack > 1 and self.observation != "pixels":
            raise ValueError(
                f"frame_stack is {self.frame_stack}; only a policy of pixels sees several frames"
            )
        if self.pace is not None and self.dream.pace_cap is not None:
            raise ValueError(
                f"dream.pace_cap is {self.dream.pace_cap} and pace {self.pace}; give one of them"
            )


DREAM = Args(
    decisions=5_000_000,
    save_every=512_000,
    dream=DreamConfig(horizon=150, temperature=1.15, reward_clip=(-1.0, 6.0)),
    network=NetworkConfig((), (64,), log_std=-1.0, initial_action=(0.0, 0.5, -0.1)),
    ppo=PPOConfig(1e-3, 2e-5, n_steps=50, batch_size=2560, n_epochs=4),
)

DEFAULT_PRESET = "dream"
PRESETS = {
    "dream": DREAM,
    "latent": replace(
        DREAM,
        where="real",
        decisions=150_000,
        num_envs=8,
        save_every=25_000,
        ppo=PPOConfig(1e-3, 5e-5, n_steps=256, batch_size=256, n_epochs=6),
    ),
    "pixels": replace(
        DREAM,
        where="real",
        observation="pixels",
        frame_stack=2,
        decisions=100_000,
        num_envs=8,
        save_every=20_000,
        network=replace(DREAM.network, policy=(), value=()),
        ppo=PPOConfig(3e-4, 3e-5, n_steps=256, batch_size=256, n_epochs=4),
    ),
    "smoke": replace(
        DREAM,
        decisions=400,
        num_envs=16,
        save_every=100,
        max_steps=12,
        dream=replace(DREAM.dream, horizon=5),
        ppo=PPOConfig(n_steps=5, batch_size=40, n_epochs=2),
        off_policy=OffPolicyConfig(
            buffer_size=500, learning_starts=32, batch_size=8, gradient_steps=1
        ),
    ),
}


def main(args: Args) -> Path:
    """Returns the folder of the agent."""
    import torch

    from agents.ppo import make_learner, train
    from agents.rounds.recording import track_seed
    from generative.training.progress import progress
    from generative.training.signals import stop_signals

    with Run.open(args, kind="train_ppo") as run, stop_signals() as stop:
        folder = run.path / "agent"
        if run.done:
            return folder
        torch.set_num_threads(1)  # networks this small are slower on several
        env = make_env(args, run)
        learner = make_learner(
            args.algorithm,
            env,
            args.ppo if args.algorithm == "ppo" else args.off_policy,
            args.network,
            seed=run.seed_for("learner") % 2**32,
            device=str(run.device),
        )
        began = time.process_time()
        what = f"{args.algorithm.upper()} in the dream" if args.where == "dream" else args.env_id
        with progress(args.decisions, what) as bar:
            done = train(
                learner,
                args.decisions,
                checkpoints=run.checkpoints,
                every=args.save_every,
                log=run.metrics.log,
                report=bar.advance,
                stop=lambda: stop.requested,
                env_seed=lambda done: track_seed(run.seed_for("env", done)),
            )
        if not done:
            stop.exit(f"stopped after {learner.num_timesteps:,} decisions")
        save_agent(args, learner, folder)
        episodes = [episode["r"] for episode in learner.ep_info_buffer or []]
        real = learner.num_timesteps if args.where == "real" else 0
        env.close()
        run.finish(
            {
                "decisions": learner.num_timesteps,
                # The last decision of an episode may be shorter.
                "most_real_steps": real * args.action_repeat,
                "last_returns": [float(r) for r in episodes],
                "cpu_seconds": time.process_time() - began,
            }
        )
        return folder


def make_env(args: Args, run: Run) -> VecEnv:
    """Dreams, or real environments one after the other, as Stable-Baselines3 takes them."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecMonitor

    from agents.ppo import check_action_space

    if args.where == "dream":
        from envs.sb3 import DreamVecEnv

        dream, cap = args.dream, args.dream.pace_cap
        if args.pace is not None:
            cap = args.pace * LAP_PACE * args.action_repeat
        vec = DreamVecEnv(
            args.num_envs,
            args.model,
            horizon=dream.horizon,
            temperature=dream.temperature,
            dropout=dream.dropout,
            reward_clip=dream.reward_clip,
            pace_cap=cap,
            pace_window=dream.pace_window,
            stagger=True,
            device=str(run.device),
        )
        check_action_space(args.algorithm, vec.action_space, f"the dream of {args.model}")
        return VecMonitor(vec)

    import gymnasium

    from envs.action_repeat import ActionRepeat
    from envs.latent import LatentObservation, SeenObservation, check_environment

    task, world = task_of(args), load_world(args)

    def make() -> gymnasium.Env:
        env = gymnasium.make(args.env_id, max_episode_steps=args.max_steps, **task.env_kwargs)
        check_action_space(args.algorithm, env.action_space, args.env_id)
        if args.action_repeat > 1:
            env = ActionRepeat(env, args.action_repeat)
        if args.observation == "pixels":
            return SeenObservation(env, task.preprocess)
        check_environment(env, trained := trained_for(args), args.model)
        return LatentObservation(env, world, memory=args.observation == "zh", task=trained)

    vec: VecEnv = DummyVecEnv([make] * args.num_envs)
    vec = VecMonitor(vec)
    return VecFrameStack(vec, args.frame_stack) if args.frame_stack > 1 else vec


def task_of(args: Args) -> Task:
    """Task of the agent: the one that M dreams of, or the real environment (a car race in its stock
    form)."""
    from envs.task import Task

    if args.where == "dream":
        return trained_for(args)
    task = Task.of(args.env_id, {"continuous": False} if args.discrete else {})
    if task.preprocess.kind == "car_racing":
        task = replace(task, env_id=Task().env_id)
    if args.observation != "pixels":  # V sees it as it was trained to
        task = replace(task, preprocess=trained_for(args).preprocess)
    return task


def trained_for(args: Args) -> Task:
    """Task that V and M were trained for; its environment is not made here."""
    from envs.task import Task

    return Task.load(args.model, trust=True)


def load_world(args: Args) -> Any:
    """V and M, or V alone; None for pixels."""
    from worldmodels.vision import load_vision
    from worldmodels.world_model import WorldModel

    if args.observation == "pixels":
        return None
    if args.observation == "z":
        return load_vision(args.model / "vision")
    return WorldModel.from_pretrained(args.model)


def save_agent(args: Args, learner: BaseAlgorithm, folder: Path) -> None:
    """Write what `scripts/evaluate.py` drives."""
    from agents.policy_agent import PolicyAgent, space_to_config

    config = PolicyConfig(
        args.algorithm,
        args.observation,
        space_to_config(learner.policy.observation_space),
        space_to_config(learner.policy.action_space),
        args.network,
        args.action_repeat,
        args.frame_stack,
        args.where,
        learner.num_timesteps,
    )
    world = load_world(args)
    vision, memory = getattr(world, "vision", world), getattr(world, "memory", None)
    policy = learner.policy.cpu()
    PolicyAgent(policy, config, vision, memory, task_of(args)).save_pretrained(folder)


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
