"""The ids of this project's environments, for `gymnasium.make`."""

from __future__ import annotations

import gymnasium

__all__ = ["register_envs"]


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
