"""Environments: the fast car race, and the world model as an environment of its own.

`envs.LatentObservation` shows any agent a world model's z and h (`envs.latent`).

Importing this package registers their ids, and so does naming it in the id, by which Gymnasium
imports it: `gymnasium.make("envs:WorldModels/CarRacing64-v0")`.
"""

from __future__ import annotations

from typing import Any

from envs.registration import register_envs


def __getattr__(name: str) -> Any:
    # Loads torch, which registering the environments does not need.
    if name == "LatentObservation":
        from envs.latent import LatentObservation

        return LatentObservation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_envs()
