"""Policy of Stable-Baselines3 as an agent that plays the game without a wrapper.

    agent = PolicyAgent.from_pretrained("runs/ppo/agent")
    action, state = agent.predict(obs, state, episode_start=start)     # a frame of CarRacing-v3

On disk it is sizes as JSON and weights as safetensors, which cannot run code when they are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from agents.configs import POLICY_NAME, Algorithm, NetworkConfig, PolicyConfig, SpaceConfig
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.task import Task, action_space
from generative.training.files import (
    MANIFEST_NAME,
    MAX_CONFIG_BYTES,
    MAX_STATE_BYTES,
    DamagedFileError,
    json_bytes,
    parse_json,
    read_file,
    read_folder,
    reading,
    write_folder,
)
from generative.training.hub import Shared, find_folder
from generative.training.pretrained import CONFIG_NAME, WEIGHTS_NAME, read_weights, without_memory
from generative.training.settings import from_json, to_json
from worldmodels.actions import check_finite_actions, from_env
from worldmodels.configs import ControllerConfig
from worldmodels.memory import Memory, load_memory
from worldmodels.vision import Vision, load_vision, see
from worldmodels.world_model import WorldModel

__all__ = [
    "ALGORITHMS",
    "PolicyAgent",
    "policy_kwargs",
    "space_from_config",
    "space_to_config",
]

ALGORITHMS = {"ppo": PPO, "dqn": DQN, "sac": SAC}
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class FrameState(NamedTuple):
    """State of an agent without an M between calls, one row per environment."""

    frames: np.ndarray
    """Last observations as V sees them: (N, 64, 64, 3 * stack), or vectors (N, D)."""
    action: np.ndarray
    """Held action, (N, *shape)."""
    countdown: np.ndarray
    """Remaining calls for which it is held, (N,)."""


class PolicyAgent(Shared):
    """Agent with `predict` on whole frames by a policy that sees pixels, z, or z and h.

    With h, `agents.world_model_agent.WorldModelAgent` does everything except choose the action: it
    holds actions and lets M read finished decisions.

    Args:
        policy: policy of Stable-Baselines3.
        config: observation and action repeat of the policy.
        vision, memory: V for "z", V and M for "zh".
        task: the task of the agent; by default the paper's car race.
    """

    def __init__(
        self,
        policy: BasePolicy,
        config: PolicyConfig,
        vision: Vision | None = None,
        memory: Memory | None = None,
        task: Task | None = None,
    ):
        needs = {"pixels": (), "z": ("V",), "zh": ("V", "M")}[config.observation]
        given = [name for name, part in (("V", vision), ("M", memory)) if part is not None]
        if missing := sorted(set(needs) - set(given)):
            raise ValueError(f"this policy sees {config.observation}; it needs {missing} too")
        self.policy, self.config = policy, config
        self.policy.set_training_mode(False)
        self.vision, self.memory = vision, memory
        self.task = task = task or Task()
        self._driver: WorldModelAgent | None = None
        if config.observation == "zh":
            assert vision is not None
            assert memory is not None
            self._controller = _PolicyController(policy, memory, task)
            self._driver = WorldModelAgent(
                WorldModel(vision, memory),
                self._controller,  # type: ignore[arg-type]  # has the methods of C that are used
                AgentConfig(config.action_repeat),
                task=task,
            )

    def predict(
        self,
        obs: np.ndarray,
        state: Any = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """Choose actions for observations.

        Args:
            obs: observation of the environment, or a batch of them.
            state: returned by the last call; None at the very beginning.
            episode_start: (N,) or a bool, True for environments that have just been reset.
            deterministic: take the policy's mean or likeliest action; otherwise draw one by torch's
                global generator. z is V's mean in both cases, as in training.
        Returns:
            an action of the policy's space, or a batch of them, and the state to pass next time.
        """
        if self._driver is not None:
            self._controller.deterministic = deterministic
            return self._driver.predict(obs, state, episode_start)
        return self._predict_by_frames(np.asarray(obs), state, episode_start, deterministic)

    def _predict_by_frames(
        self, obs: np.ndarray, state: FrameState | None, episode_start: Any, deterministic: bool
    ) -> tuple[Any, FrameState]:
        batch, single = self.task.preprocess.batch_of(obs)
        new, n = self.task.preprocess(batch), len(batch)
        if state is None:
            none_yet = [np.zeros_like(new)] * self.config.frame_stack
            space = action_space(self.task.action)
            state = FrameState(
                np.concatenate(none_yet, axis=-1),
                np.zeros((n, *(space.shape or ())), space.dtype),
                np.zeros(n, np.int64),
            )
        if len(state.action) != n:
            raise ValueError(f"got {n} observations and the state of {len(state.action)}")
        seen, action, countdown = (array.copy() for array in state)
        started = np.broadcast_to(False if episode_start is None else episode_start, n)
        seen[started], countdown[started] = 0, 0
        due = countdown == 0
        if due.any():
            seen[due] = np.concatenate([seen[due][..., new.shape[-1] :], new[due]], axis=-1)
            shown = (
                seen[due] if self.vision is None else see(self.vision, seen[due])[0].cpu().numpy()
            )
            action[due], _ = self.policy.predict(shown, deterministic=deterministic)
            check_finite_actions(action[due])
            countdown[due] = self.config.action_repeat
        state = FrameState(seen, action, countdown - 1)
        return (action[0] if single else action).copy(), state

    def save_pretrained(self, folder: Path | str, world: Path | str | None = None) -> None:
        """Write policy/, and V and M beside it if the policy uses them.

        Args:
            world: a folder that already holds this V and M. Its path relative to the agent's is
                written instead of a copy.
        """
        folder = Path(folder)
        place = folder if world is None else Path(world)
        if world is None:
            if self.vision is not None:
                self.vision.save_pretrained(folder / "vision")
            if self.memory is not None:
                self.memory.save_pretrained(folder / "memory")
        config = replace(
            self.config,
            world="." if world is None else os.path.relpath(place, folder),
            world_sha256=_digest(place, self.config),
        )
        weights = {name: x.detach().cpu().contiguous() for name, x in _weights(self.policy).items()}
        for name, weight in weights.items():
            if not weight.isfinite().all():
                raise ValueError(f"weight {name} of the policy is not finite; it was not saved")
        content = {"class": type(self).__name__, "format": 1, "config": to_json(config)}
        files = {CONFIG_NAME: json_bytes(content), WEIGHTS_NAME: safetensors.torch.save(weights)}
        write_folder(folder / POLICY_NAME, files)
        self.task.save(folder)

    @classmethod
    def from_pretrained(cls, folder: Path | str, trust: bool = False) -> PolicyAgent:
        """Load an agent that `save_pretrained` wrote; nothing in it can run code.

        Args:
            folder: the folder, or owner/name[@revision] of one on the hub.
            trust: see `Task.load`.
        Raises:
            DamagedFileError: a file is missing, cut, changed, or does not fit the others.
            ValueError: V or M are not those that the policy was trained on.
        """
        folder = find_folder(folder)
        path = folder / POLICY_NAME / CONFIG_NAME
        limits = {CONFIG_NAME: MAX_CONFIG_BYTES, WEIGHTS_NAME: MAX_STATE_BYTES}
        files = read_folder(folder / POLICY_NAME, limits)
        content = parse_json(files[CONFIG_NAME], path)
        if not isinstance(content, dict) or content.get("class") != cls.__name__:
            raise DamagedFileError(f"{path}: is not the config of a saved policy")
        with reading(path):
            config = from_json(PolicyConfig, content.get("config"))
        # Sizes are compared before memory is allocated for them.
        expected = _weights(without_memory(lambda: build_policy(config, on_meta_device), path))
        path = folder / POLICY_NAME / WEIGHTS_NAME
        weights = read_weights(files[WEIGHTS_NAME], path, expected)
        policy = build_policy(config)
        # Names that share a tensor with one of these need none of their own.
        policy.load_state_dict(weights, strict=False)
        place = folder / config.world
        if config.observation != "pixels" and _digest(place, config) != config.world_sha256:
            raise ValueError(
                f"{folder} was trained on another V or M than {place} holds; put those of its own "
                "training there"
            )
        vision = load_vision(place / "vision") if config.observation != "pixels" else None
        memory = load_memory(place / "memory") if config.observation == "zh" else None
        return cls(policy, config, vision, memory, Task.load(folder, trust))


class _PolicyController(nn.Module):
    """A policy behind the methods of C that `WorldModelAgent` uses."""

    def __init__(self, policy: BasePolicy, memory: Memory, task: Task):
        super().__init__()
        mem = memory.config
        self.config = ControllerConfig(
            mem.latent_dim, mem.hidden_dim, mem.action_dim, action=task.action
        )
        self.policy, self.deterministic = policy, True

    def act(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Actions as M reads them, (B, action_dim)."""
        seen = torch.cat([z, h], dim=1).cpu().numpy()
        actions, _ = self.policy.predict(seen, deterministic=self.deterministic)
        return torch.from_numpy(from_env(actions, self.config.action)).to(z)


def policy_kwargs(algorithm: Algorithm, network: NetworkConfig) -> dict[str, Any]:
    """Stable-Baselines3's `policy_kwargs` for the networks."""
    policy, value = list(network.policy), list(network.value)
    kwargs: dict[str, Any] = {"activation_fn": ACTIVATIONS[network.activation]}
    if algorithm == "dqn":
        return {**kwargs, "net_arch": policy}
    if algorithm == "sac":
        return {**kwargs, "net_arch": {"pi": policy, "qf": value}, "use_sde": network.sde}
    return {
        **kwargs,
        "net_arch": {"pi": policy, "vf": value},
        "log_std_init": network.log_std,
        "use_sde": network.sde,
    }


def on_meta_device(kind: type[BasePolicy]) -> type[BasePolicy]:
    """Variant of a class for `without_memory`; the class moves parts to the CPU too early."""
    return type(kind.__name__, (kind,), {"device": torch.device("meta")})


@torch.inference_mode(False)  # a policy loaded inside inference mode stays trainable
def build_policy(
    config: PolicyConfig, change: Callable[[type[BasePolicy]], type[BasePolicy]] = lambda kind: kind
) -> BasePolicy:
    """Build the networks of a saved policy, with random weights.

    Args:
        change: changes the class that is built, such as `on_meta_device`.
    """
    name = "CnnPolicy" if len(config.observation_space.shape) == 3 else "MlpPolicy"
    kind = ALGORITHMS[config.algorithm].policy_aliases[name]
    with torch.random.fork_rng(devices=[]):  # initial weights must not use up random numbers
        policy = change(kind)(
            space_from_config(config.observation_space),
            space_from_config(config.action_space),
            lr_schedule=_no_learning,
            **policy_kwargs(config.algorithm, config.network),
        )
    policy.float().set_training_mode(False)  # whatever torch's default is
    return policy


def _no_learning(_progress: float) -> float:
    return 0.0


def _weights(policy: nn.Module) -> dict[str, Tensor]:
    """Tensors of the policy by name, each once even if names share it (a common extractor)."""
    named, seen = {}, set()
    for name, tensor in policy.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            named[name] = tensor
            seen.add(id(tensor))
    return named


def _digest(place: Path, config: PolicyConfig) -> str:
    """SHA-256 of the manifests of those of V and M that a policy uses; "" for pixels."""
    names = {"pixels": (), "z": ("vision",), "zh": ("vision", "memory")}[config.observation]
    if not names:
        return ""
    manifests = [read_file(place / name / MANIFEST_NAME, MAX_CONFIG_BYTES) for name in names]
    return hashlib.sha256(b"".join(manifests)).hexdigest()


def space_to_config(space: spaces.Space) -> SpaceConfig:
    """Settings of a space; raises ValueError for spaces that are neither Box nor Discrete."""
    if isinstance(space, spaces.Discrete):
        return SpaceConfig("Discrete", n=int(space.n), start=int(space.start))
    if not isinstance(space, spaces.Box):
        raise ValueError(f"the space is {space}; supported are Box and Discrete")
    low, high = (
        tuple(np.unique(b).tolist() if len(np.unique(b)) == 1 else b.reshape(-1).tolist())
        for b in (space.low, space.high)
    )
    low, high = tuple(map(float, low)), tuple(map(float, high))
    return SpaceConfig("Box", tuple(space.shape), low, high, str(space.dtype))  # type: ignore[arg-type]


def space_from_config(config: SpaceConfig) -> spaces.Box | spaces.Discrete:
    """Space of its settings, the inverse of `space_to_config`."""
    if config.kind == "Discrete":
        return spaces.Discrete(config.n, start=config.start)
    dtype = np.dtype(config.dtype).type
    low, high = (
        np.broadcast_to(np.array(b, dtype), (int(np.prod(config.shape)),)).reshape(config.shape)
        for b in (config.low, config.high)
    )
    return spaces.Box(low, high, dtype=dtype)
