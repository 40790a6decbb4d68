"""Loading of agents: a policy, a world-model agent, or an archive of Stable-Baselines3."""

from __future__ import annotations

import io
import zipfile
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from agents.configs import POLICY_NAME, Algorithm
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.task import Preprocess, Task, game_name
from generative.training.archives import open_zip, read_member
from generative.training.files import (
    MAX_LIST_BYTES,
    DamagedFileError,
    open_file,
    parse_json,
    reading,
)
from generative.training.hub import find_folder
from worldmodels.configs import ActionHead

if TYPE_CHECKING:
    from agents.policy_agent import PolicyAgent

__all__ = ["ArchiveAgent", "load_agent", "load_car"]

MAX_ARCHIVE_BYTES = 2**30
"""Largest archive of Stable-Baselines3, in bytes, packed and unpacked."""


def load_agent(
    path: Path | str, trust: bool = False
) -> PolicyAgent | WorldModelAgent | ArchiveAgent:
    """Load the agent at a path, of any kind.

    Args:
        path: folder of a policy, or of V, M and C, or owner/name[@revision] of one on the hub; or
            an archive of Stable-Baselines3.
        trust: open an archive, which may run any code of its makers, or a folder whose task.json
            names an environment of a module that would be imported.
    Raises:
        ValueError: the path is an archive that is not trusted, or a run folder.
        FileNotFoundError: the path holds no agent.
    """
    path = find_folder(path)
    if path.is_file():
        return ArchiveAgent.load(path, trust)
    if (path / "agent" / POLICY_NAME).is_dir():
        raise ValueError(f"{path} is the folder of a run; pass its agent, {path / 'agent'}")
    if (path / POLICY_NAME).is_dir():
        from agents.policy_agent import PolicyAgent  # imports Stable-Baselines3

        return PolicyAgent.from_pretrained(path, trust)
    return WorldModelAgent.from_pretrained(path, trust=trust)


def load_car(folder: Path | str) -> WorldModelAgent:
    """Load V, M and C of CarRacing with three numbers per action, for programs that need these.

    Raises:
        ValueError: the folder's agent has another task.
    """
    agent = WorldModelAgent.from_pretrained(folder, trust=True)  # its environment is not made
    task = agent.task
    if task.preprocess.kind != "car_racing" or task.action.kind not in ("car_racing", "raw"):
        raise ValueError(
            f"{folder} plays {game_name(task.env_id, task.env_kwargs)}; "
            "films and the page show CarRacing-v3 with continuous actions"
        )
    return agent


class ArchiveAgent:
    """A model.zip of Stable-Baselines3, which acts on single frames as in its training."""

    def __init__(self, model: Any, where: str = "the model"):
        space = model.observation_space
        sides = {side: [(side, side, 3), (3, side, side)] for side in (96, 64)}
        if space.shape not in sides[96] + sides[64]:
            raise ValueError(
                f"{where} was trained on {space}; supported are policies that see one frame of "
                "CarRacing, 96x96x3, or 64x64x3 without the status bar"
            )
        choices = model.action_space.n if isinstance(model.action_space, spaces.Discrete) else 0
        self.task = (
            Task(env_kwargs={"continuous": False}, action=ActionHead("discrete", num=int(choices)))
            if choices
            else Task()
        )
        self.model, self.config = model, AgentConfig()
        self._small = space.shape in sides[64]

    @classmethod
    def load(cls, path: Path, trust: bool = False) -> ArchiveAgent:
        """Read an archive, if it is trusted; see `load_agent`.

        Raises:
            DamagedFileError: the archive is damaged, its settings do not fit its weights, its sizes
                are too large, or a weight is not finite.
        """
        with open_file(path, MAX_ARCHIVE_BYTES, links=True) as file:
            if not zipfile.is_zipfile(file):
                raise ValueError(f"{path} is a file, but no archive of Stable-Baselines3")
            if not trust:
                raise ValueError(
                    f"{path} is an archive of Stable-Baselines3, which holds pickles: reading it "
                    "can run any code of those who made it. If you know where it is from, pass "
                    "--trust"
                )
            algorithm = _algorithm(file, path)
            from agents.policy_agent import ALGORITHMS

            with reading(path, "is no whole archive of Stable-Baselines3"):
                _check_sizes(file, path)
                model = ALGORITHMS[algorithm].load(file, device="cpu")
        for name, weight in model.policy.state_dict().items():
            if not weight.isfinite().all():
                raise DamagedFileError(f"{path}: weight {name} is not finite")
        return cls(model, str(path))

    def predict(
        self,
        obs: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        """Action for a frame of CarRacing, (96, 96, 3) or (64, 64, 3), or for a batch of them."""
        batch, single = Preprocess().batch_of(np.asarray(obs))
        frames = Preprocess()(batch) if self._small else batch
        actions, _ = self.model.predict(frames, deterministic=deterministic)
        return (actions[0] if single else actions), None


def _algorithm(file: BufferedReader, path: Path) -> Algorithm:
    """Algorithm whose settings an archive lists; reads its JSON only."""
    telling: dict[Algorithm, str] = {
        "ppo": "clip_range",
        "dqn": "exploration_fraction",
        "sac": "target_entropy",
    }
    with open_zip(file, path, MAX_ARCHIVE_BYTES) as archive:
        listed: Any = {}
        for name in archive.namelist():
            data = read_member(archive, name, path)
            if name == "data" and len(data) <= MAX_LIST_BYTES:
                listed = parse_json(data, path)
            elif name.endswith(".pth"):
                open_zip(io.BytesIO(data), path, MAX_ARCHIVE_BYTES)
    found: list[Algorithm] = [name for name, key in telling.items() if key in listed]
    if len(found) != 1:
        raise ValueError(f"{path} is no archive of PPO, DQN or SAC; others are not supported")
    return found[0]


def _check_sizes(file: BufferedReader, path: Path) -> None:
    """Compare the sizes of the policy of an archive with the weights in it."""
    from stable_baselines3.common.save_util import load_from_zip_file

    from agents.policy_agent import on_meta_device
    from generative.training.pretrained import without_memory

    data, weights, _ = load_from_zip_file(file, device="cpu")
    assert data is not None
    asked = {"lr_schedule": lambda _: 0.0, **data.get("policy_kwargs", {})}
    asked |= {name: data[name] for name in ("observation_space", "action_space")}
    policy = without_memory(lambda: on_meta_device(data["policy_class"])(**asked), path)
    needed = sum(x.nbytes for x in policy.state_dict().values())
    # A tensor can repeat a number with a stride of 0; its storage cannot.
    held = sum(x.untyped_storage().nbytes() for x in weights["policy"].values())
    if needed > 4 * held:  # names that share a tensor are counted separately
        raise DamagedFileError(f"{path}: asks for weights of {needed} bytes and holds {held}")
