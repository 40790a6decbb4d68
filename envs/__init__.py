"""Environments: the fast car race, and the world model as an environment of its own.

`envs.LatentObservation` shows any agent a world model's z and h (`envs.latent`).

Importing this package registers their ids, and so does naming it in the id, by which Gymnasium
imports it: `gymnasium.make("envs:WorldModels/CarRacing64-v0")`.
"""

from __future__ import annotations

from typing import Any

import gymnasium


def register_envs() -> None:
    """Register those of this project's environments that are not registered yet.

    Their classes are named by strings, so nothing heavy is imported until one is made.
    """
    for name, kind, pool in (
        ("WorldModels/CarRacing64-v0", "CarRacing64", "car_racing_64_pool"),
        ("WorldModels/FastCarRacing-v0", "FastCarRacing", "fast_car_racing_pool"),
    ):
        if name not in gymnasium.registry:
            gymnasium.register(
                id=name,
                entry_point=f"envs.car_racing:{kind}",
                vector_entry_point=f"envs.pool:{pool}",
                max_episode_steps=1000,
            )
    if "WorldModels/TakeCover64-v0" not in gymnasium.registry:  # truncates itself
        gymnasium.register(
            id="WorldModels/TakeCover64-v0", entry_point="envs.take_cover:TakeCover64"
        )
    # A dream truncates itself at its `horizon`, in decisions.
    if "WorldModels/CarRacingDream-v0" not in gymnasium.registry:
        gymnasium.register(
            id="WorldModels/CarRacingDream-v0",
            entry_point="envs.dream:DreamEnv",
            vector_entry_point="envs.dream:DreamVectorEnv",
        )


def __getattr__(name: str) -> Any:
    # Loads torch, which registering the environments does not need.
    if name == "LatentObservation":
        from envs.latent import LatentObservation

        return LatentObservation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_envs()
