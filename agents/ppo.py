"""PPO, DQN and SAC of Stable-Baselines3, built from our settings, and trained past any kill.

    learner = make_learner("ppo", env, PPOConfig(n_steps=50), NetworkConfig(), seed=1)
    train(learner, 5_000_000, checkpoints=Checkpoints(folder))
    evaluate_policy(learner, env)                   # an ordinary model of Stable-Baselines3

`env` is any environment that Stable-Baselines3 takes: real pixels, latents
(`envs.latent.LatentObservation`), or dreams (`envs.sb3.DreamVecEnv`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, unwrap_vec_wrapper

from agents.configs import Algorithm, NetworkConfig, OffPolicyConfig, PPOConfig
from agents.policy_agent import ALGORITHMS, policy_kwargs
from envs.sb3 import DreamVecEnv
from generative.training.checkpoint import Checkpoints, check_finite
from generative.training.words import with_article

__all__ = ["check_action_space", "learner_state", "load_learner_state", "make_learner", "train"]

SUPPORTED: dict[str, tuple[type[spaces.Space], ...]] = {
    "ppo": (spaces.Box, spaces.Discrete),
    "dqn": (spaces.Discrete,),
    "sac": (spaces.Box,),
}


def check_action_space(
    algorithm: Algorithm, space: spaces.Space, env: str = "this environment"
) -> None:
    """Raise ValueError, with both names, where an algorithm does not take the actions."""
    if isinstance(space, SUPPORTED[algorithm]):
        return
    names = " and ".join(kind.__name__ for kind in SUPPORTED[algorithm])
    hint = "; DQN drives CarRacing with continuous=False" if algorithm == "dqn" else ""
    raise ValueError(f"{algorithm.upper()} takes actions of {names}, {env} has {space}{hint}")


def make_learner(
    algorithm: Algorithm,
    env: VecEnv,
    config: PPOConfig | OffPolicyConfig,
    network: NetworkConfig | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> BaseAlgorithm:
    """A model of Stable-Baselines3 with these settings, silent.

    Args:
        env: its observations decide the networks: convolutions for uint8 pictures, else layers.
        config: of the algorithm's own kind.
        seed: of the weights and of what the learner draws; the environment keeps its own.
    Raises:
        ValueError: the algorithm does not take the environment's actions, or the settings are
            another algorithm's; says which.
    """
    network = network or NetworkConfig()
    check_action_space(algorithm, env.action_space)
    if isinstance(config, PPOConfig) != (algorithm == "ppo"):
        raise ValueError(f"{algorithm} got the settings of {with_article(type(config).__name__)}")
    pixels = len(env.observation_space.shape or ()) == 3
    # What Stable-Baselines3 would do if it were given the seed, but for the environment's seed,
    # which is not the learner's to set.
    set_random_seed(seed, using_cuda=torch.device(device).type == "cuda")
    learner = ALGORITHMS[algorithm](
        "CnnPolicy" if pixels else "MlpPolicy",
        env,
        policy_kwargs=_without_sde(policy_kwargs(algorithm, network)),
        device=device,
        **(
            _ppo_settings(config, network)
            if isinstance(config, PPOConfig)
            else _off_policy_settings(algorithm, config, network)
        ),
    )
    learner.seed = seed
    learner.action_space.seed(seed)
    learner.set_logger(Logger(folder=None, output_formats=[]))  # `configure` leaves one in /tmp
    if network.initial_action is not None:
        _begin_at(learner, network.initial_action)
    return learner


def _ppo_settings(config: PPOConfig, network: NetworkConfig) -> dict[str, Any]:
    return {
        "learning_rate": _schedule(config.lr, config.final_lr),
        "n_steps": config.n_steps,
        "batch_size": config.batch_size,
        "n_epochs": config.n_epochs,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip_range,
        "ent_coef": config.ent_coef,
        "vf_coef": config.vf_coef,
        "max_grad_norm": config.max_grad_norm,
        "target_kl": config.target_kl,
        "use_sde": network.sde,
    }


def _off_policy_settings(
    algorithm: Algorithm, config: OffPolicyConfig, network: NetworkConfig
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "learning_rate": config.lr,
        "buffer_size": config.buffer_size,
        "learning_starts": config.learning_starts,
        "batch_size": config.batch_size,
        "gamma": config.gamma,
        "train_freq": config.train_freq,
        "gradient_steps": config.gradient_steps,
    }
    if algorithm == "sac":
        return {**settings, "use_sde": network.sde}
    return {
        **settings,
        "target_update_interval": config.target_update_interval,
        "exploration_fraction": config.exploration_fraction,
        "exploration_final_eps": config.exploration_final,
    }


def _without_sde(kwargs: dict[str, Any]) -> dict[str, Any]:
    # The algorithms hand use_sde to their policies themselves.
    return {name: value for name, value in kwargs.items() if name != "use_sde"}


def _schedule(first: float, last: float | None) -> Callable[[float], float] | float:
    """Learning rate by what remains of the training, 1 to 0, and below 0 in its last update, which
    ends above the number of decisions."""
    return first if last is None else lambda remaining: last + (first - last) * max(remaining, 0.0)


@torch.no_grad()
def _begin_at(learner: BaseAlgorithm, action: tuple[float, ...]) -> None:
    """Let the mean of an untrained Gaussian policy be about this action."""
    net, space = getattr(learner.policy, "action_net", None), learner.action_space
    if not isinstance(net, torch.nn.Linear) or not isinstance(space, spaces.Box):
        raise ValueError(f"initial_action is for PPO on a Box, the action space here is {space}")
    if len(action) != len(net.bias):
        raise ValueError(f"initial_action is {action}; {space} has {len(net.bias)} numbers")
    net.bias.copy_(torch.tensor(action))


def train(
    learner: BaseAlgorithm,
    decisions: int,
    *,
    checkpoints: Checkpoints | None = None,
    every: int = 100_000,
    log: Callable[[int, dict[str, float]], None] | None = None,
    report: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    callback: BaseCallback | None = None,
    env_seed: Callable[[int], int] | None = None,
) -> bool:
    """Run `learner.learn` up to `decisions` in all, from its latest checkpoint if there is one.

    PPO in a `DreamVecEnv` goes on to the same weights bit for bit, unless its noise is gSDE: lanes
    and random numbers are part of the checkpoint. Real environments begin new episodes (on tracks
    of their own, by `env_seed`), and DQN and SAC fill a new replay buffer.

    Args:
        decisions: of all environments together; PPO ends its last update above that.
        checkpoints: where to save; nowhere if not given.
        every: decisions between checkpoints, at least.
        log: takes the number of decisions so far and the measured values.
        report: told of every decision taken.
        stop: whether to end before the next decision.
        callback: one more, of Stable-Baselines3's kind.
        env_seed: seed of the environments by the decisions taken before this call, so that a
            training that goes on does not begin on the same episodes again; they keep theirs if it
            is not given.
    Returns:
        whether all decisions were taken.
    """
    latest = None if checkpoints is None else checkpoints.load_latest()
    if env_seed is not None and learner.env is not None:
        done = learner.num_timesteps if latest is None else latest[1]["num_timesteps"]
        learner.env.seed(env_seed(done))
    if latest is not None:
        load_learner_state(learner, latest[1])
        if report is not None:
            report(learner.num_timesteps)
    if learner.num_timesteps >= decisions:
        return True
    keeper = _Keeper(checkpoints, every, log, report, stop)
    learner.learn(
        decisions - learner.num_timesteps,
        callback=CallbackList([keeper, *([callback] if callback else [])]),
        reset_num_timesteps=False,
    )
    if keeper.stopped:
        return False
    keeper.record()
    return True


class _Keeper(BaseCallback):
    """Logs and saves between an update and the next decision, the one moment when all is whole."""

    def __init__(
        self,
        checkpoints: Checkpoints | None,
        every: int,
        log: Callable[[int, dict[str, float]], None] | None,
        report: Callable[[int], None] | None,
        stop: Callable[[], bool] | None,
    ):
        super().__init__()
        self.checkpoints, self.every, self.log = checkpoints, every, log
        self.report, self.stop, self.stopped = report, stop, False
        self.recorded = -1

    def _on_training_start(self) -> None:
        self.recorded = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps >= self.recorded + self.every:
            self.record()

    def record(self) -> None:
        """Log the measured values, and save."""
        step = self.recorded = self.model.num_timesteps
        if self.log is not None:
            self.log(step, training_values(self.model))
        if self.checkpoints is not None:
            state = learner_state(self.model)
            check_finite(state["parameters"], "training the policy", step, self.model.seed)
            self.checkpoints.save(step, state)

    def _on_step(self) -> bool:
        if self.report is not None:
            self.report(self.training_env.num_envs)
        self.stopped = self.stop is not None and self.stop()
        return not self.stopped


def training_values(learner: BaseAlgorithm) -> dict[str, float]:
    """Return and length of the last hundred episodes, and the statistics of the last update."""
    episodes = learner.ep_info_buffer or []
    values = {
        name: float(value)
        for name, value in learner.logger.name_to_value.items()
        if name.startswith("train/")
    }
    if episodes:
        values["episode_return"] = float(np.mean([episode["r"] for episode in episodes]))
        values["episode_length"] = float(np.mean([episode["l"] for episode in episodes]))
    return values


def learner_state(learner: BaseAlgorithm) -> dict[str, Any]:
    """Weights, optimisers and random numbers; in a dream, all lanes too."""
    names, tensors = learner._get_torch_save_params()
    state: dict[str, Any] = {
        "parameters": learner.get_parameters(),
        "tensors": {name: _attribute(learner, name).detach() for name in tensors},
        "num_timesteps": learner.num_timesteps,
        "n_updates": getattr(learner, "_n_updates", 0),
        "episodes": list(learner.ep_info_buffer or []),
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002  (Stable-Baselines3 draws from it)
        "python": random.getstate(),
        "env": None,
    }
    assert set(names) == set(state["parameters"])
    dream = _dream(learner)
    if dream is not None and isinstance(learner, OnPolicyAlgorithm):
        monitor = _monitor(learner)
        state["env"] = {
            "dream": dream.state_dict(),
            "obs": learner._last_obs,
            "starts": learner._last_episode_starts,
            "returns": None if monitor is None else monitor.episode_returns,
            "lengths": None if monitor is None else monitor.episode_lengths,
        }
    return state


def load_learner_state(learner: BaseAlgorithm, state: dict[str, Any]) -> None:
    """Go on from where `learner_state` was called, with the same settings."""
    learner.set_parameters(state["parameters"], device=learner.device)
    for name, tensor in state["tensors"].items():
        _attribute(learner, name).data.copy_(tensor)
    learner.num_timesteps, learner._n_updates = state["num_timesteps"], state["n_updates"]
    learner._total_timesteps = learner.num_timesteps
    learner._setup_learn(0, None, reset_num_timesteps=False)
    assert learner.ep_info_buffer is not None  # _setup_learn has made one
    learner.ep_info_buffer.extend(state["episodes"])
    dream, env = _dream(learner), state["env"]
    if env is not None and dream is not None:
        dream.load_state_dict(env["dream"])
        learner._last_obs, learner._last_episode_starts = env["obs"], env["starts"]
        monitor = _monitor(learner)
        if monitor is not None:
            monitor.episode_returns, monitor.episode_lengths = env["returns"], env["lengths"]
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])


def _dream(learner: BaseAlgorithm) -> DreamVecEnv | None:
    inner = None if learner.env is None else learner.env.unwrapped
    return inner if isinstance(inner, DreamVecEnv) else None


def _monitor(learner: BaseAlgorithm) -> VecMonitor | None:
    found = None if learner.env is None else unwrap_vec_wrapper(learner.env, VecMonitor)
    return found if isinstance(found, VecMonitor) else None


def _attribute(learner: BaseAlgorithm, dotted: str) -> torch.Tensor:
    value: Any = learner
    for name in dotted.split("."):
        value = getattr(value, name)
    return value
