"""V, M and C behind one `predict`: plays a stock CarRacing-v3, or another task of its training,
with no wrapper.

agent = WorldModelAgent.from_pretrained("pretrained/carracing-dream")
env = gymnasium.make("CarRacing-v3")
obs, _ = env.reset(seed=1)
state, start = None, True
for _ in range(1000):
    action, state = agent.predict(obs, state, episode_start=start)
    obs, reward, terminated, truncated, _ = env.step(action)
    if start := terminated or truncated:
        obs, _ = env.reset()
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agents.configs import AGENT_NAME, find_agent
from envs.task import Task
from generative.training.files import DamagedFileError, read_json, write_json
from generative.training.hub import Shared
from generative.training.ranges import Checked, Size
from generative.training.settings import from_json, to_json
from worldmodels.actions import to_env
from worldmodels.configs import DreamConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.settings import load_settings, save_settings
from worldmodels.vision import check_observations
from worldmodels.world_model import WorldModel

__all__ = ["AgentConfig", "AgentState", "WorldModelAgent"]


@dataclass(frozen=True)
class AgentConfig(Checked):
    """Settings of the agent beside its weights."""

    action_repeat: Size = 1
    """Environment steps for which an action is held; the agent sees the first frame of them."""


class AgentState(NamedTuple):
    """State of an agent between calls, one row per environment.

    M reads a decision when the next one is due, so that a wrapper that changes the action can pass
    on the executed one (`executed`).
    """

    h: Tensor
    c: Tensor
    z: Tensor
    """z of the last decision, not yet read by M."""
    prev_reward: Tensor
    """M's estimate of the previous reward, as `predict` gets no rewards."""
    action: np.ndarray
    """Held action, as M reads it (`worldmodels.actions`), (N, A)."""
    countdown: np.ndarray
    """Remaining calls for which it is held, (N,)."""
    begun: np.ndarray
    """True after the first decision of an episode, (N,) bool."""

    def executed(self, action: np.ndarray) -> AgentState:
        """State with the action that was really executed, (N, A), as M reads it."""
        return self._replace(action=np.array(action, np.float32).reshape(self.action.shape))


class WorldModelAgent(Shared):
    """Stable-Baselines3's `predict` over a world model and a linear controller.

    Args:
        task: task of the agent; by default the paper's car race.
        dream: settings of the dream that it was trained in, if they are known.
    """

    def __init__(
        self,
        world: WorldModel,
        controller: LinearController,
        config: AgentConfig | None = None,
        seed: int = 0,
        task: Task | None = None,
        dream: DreamConfig | None = None,
    ):
        mem, con = world.memory.config, controller.config
        sizes = [(c.latent_dim, c.hidden_dim, c.action_dim) for c in (con, mem)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "the controller was trained on z {}, h {} and actions {}, this M has z {}, h {} "
                "and actions {}; pass the V and M of its own run".format(*sizes[0], *sizes[1])
            )
        self.task = task = task or Task()
        if con.action != task.action:
            raise ValueError(
                f"the controller was trained for actions of {con.action}, {task.env_id} takes "
                f"{task.action}; pass the controller of this environment"
            )
        check_observations(
            world.vision, task.preprocess.seen_shape, f"{task.env_id} shows", "this agent's V"
        )
        self.world, self.controller = world.eval(), controller.eval()
        self.config, self.dream = config or AgentConfig(), dream
        self.generator = torch.Generator(world.device).manual_seed(seed)

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, device: str = "cpu", trust: bool = False
    ) -> WorldModelAgent:
        """Load `folder`/vision, /memory, /controller, agent.json and, if they are there, task.json
        and dream.json.

        Args:
            folder: the folder, or owner/name[@revision] of one on the hub.
            trust: see `Task.load`.
        """
        folder = find_agent(folder, (AGENT_NAME,))
        path = folder / AGENT_NAME
        settings = read_json(path)
        try:
            config = from_json(AgentConfig, settings)
        except ValueError as error:
            raise DamagedFileError(f"{path}: {error}") from error
        world = WorldModel.from_pretrained(folder, device=device)
        controller = LinearController.from_pretrained(folder / "controller", device=device)
        task, dream = Task.load(folder, trust), load_settings(folder)
        return cls(world, controller, config, task=task, dream=dream)

    def save_pretrained(self, folder: Path | str, dtype: torch.dtype | None = None) -> None:
        """Write the agent; `dtype` torch.float16 halves V and M (C stays float32)."""
        folder = Path(folder)
        self.world.save_pretrained(folder, dtype=dtype)
        self.controller.save_pretrained(folder / "controller")
        write_json(folder / "agent.json", to_json(self.config))
        self.task.save(folder)
        if self.dream is not None:
            save_settings(folder, self.dream)

    def initial_state(self, num_envs: int) -> AgentState:
        """State before the first decision of an episode."""
        h, c = self.world.memory.initial_state(num_envs)
        return AgentState(
            h,
            c,
            h.new_zeros(num_envs, self.controller.config.latent_dim),
            h.new_zeros(num_envs),
            np.zeros((num_envs, self.controller.config.action_dim), np.float32),
            np.zeros(num_envs, np.int64),
            np.zeros(num_envs, bool),
        )

    @torch.no_grad()
    def predict(
        self,
        obs: np.ndarray,
        state: AgentState | None = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, AgentState]:
        """Choose actions for observations.

        Args:
            obs: observation of the environment, or a batch of them. For CarRacing uint8 (96, 96, 3)
                or, from CarRacing64, (64, 64, 3).
            state: returned by the last call; None at the very beginning.
            episode_start: (N,) or a bool, True for environments that have just been reset.
            deterministic: use V's mean; otherwise draw z from V's posterior.
        Returns:
            actions in the environment's form, float32 (A,) or (N, A), or for a discrete space one
            int64 or (N,) of them; and the state for the next call.
        """
        frames, single = self.task.preprocess.batch_of(np.asarray(obs))
        num_envs = len(frames)
        state = self.initial_state(num_envs) if state is None else state
        if len(state.action) != num_envs:
            raise ValueError(f"got {num_envs} observations and the state of {len(state.action)}")
        if episode_start is not None and np.any(episode_start):
            state = self._forget(state, np.broadcast_to(episode_start, num_envs))

        due = state.countdown == 0
        if due.any():
            state = self._decide(frames, state, due, deterministic)
        state = state._replace(countdown=state.countdown - 1)
        actions = to_env(state.action, self.task.action)
        return (actions[0] if single else actions).copy(), state

    def _forget(self, state: AgentState, started: np.ndarray) -> AgentState:
        fresh = self.initial_state(len(started))
        mask = torch.from_numpy(np.array(started, bool)).to(state.h.device)

        def choose(new: Any, old: Any) -> Any:
            if isinstance(new, np.ndarray):
                return np.where(started.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            return torch.where(mask.reshape(-1, *[1] * (new.dim() - 1)), new, old)

        return AgentState(*map(choose, fresh, state))

    def _decide(
        self, frames: np.ndarray, state: AgentState, due: np.ndarray, deterministic: bool
    ) -> AgentState:
        """Decide in the rows that are due: M reads the last decision, V encodes, C acts."""
        rows = torch.from_numpy(np.flatnonzero(due)).to(state.h.device)
        h, c, prev_reward = self._remember(state, due, rows)
        seen = self.task.preprocess(frames[due])
        z = self.world.encode(seen, sample=not deterministic, generator=self.generator)
        actions, countdown = state.action.copy(), state.countdown.copy()
        actions[due] = self.controller.act(z, h, c).float().cpu().numpy()
        countdown[due] = self.config.action_repeat
        return AgentState(
            state.h.index_copy(0, rows, h),
            state.c.index_copy(0, rows, c),
            state.z.index_copy(0, rows, z),
            state.prev_reward.index_copy(0, rows, prev_reward),
            actions,
            countdown,
            state.begun | due,
        )

    def _remember(
        self, state: AgentState, due: np.ndarray, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(h, c, estimated reward) after the last decision, unchanged if there was none."""
        h, c, prev_reward = state.h[rows], state.c[rows], state.prev_reward[rows]
        memory = self.world.memory
        z, action = state.z[rows], torch.from_numpy(state.action[due]).to(h)
        h_read, c_read = memory.observe(z, action, (h, c), prev_reward)
        begun = torch.from_numpy(state.begun[due]).to(h.device)
        h = torch.where(begun[:, None], h_read, h)
        c = torch.where(begun[:, None], c_read, c)
        reward, _ = memory.reward_and_end(h_read)
        if memory.config.reward_input and reward is not None:
            prev_reward = torch.where(begun, reward, prev_reward)
        return h, c, prev_reward
