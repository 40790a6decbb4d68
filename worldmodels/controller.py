"""C, the controller: one linear map from z and h to the action (867 parameters for CarRacing).

Ha & Schmidhuber (2018), section 2.4: a = W [z h] + b, squashed to the environment's ranges
(`worldmodels.actions`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.training.checks import check_dtype
from generative.training.pretrained import Pretrained
from worldmodels.actions import car_racing_action, squash
from worldmodels.configs import ControllerConfig

__all__ = ["ControllerConfig", "LinearController", "car_racing_action", "split_candidates"]


def split_candidates(candidates: Tensor, config: ControllerConfig) -> tuple[Tensor, Tensor]:
    """Flat (P, num_parameters) -> weights (P, action_dim, feature_dim), biases (P, action_dim).

    Raises:
        ValueError: the vectors have another length.
    """
    if candidates.dim() != 2 or candidates.shape[1] != config.num_parameters:
        raise ValueError(
            f"got candidates of shape {tuple(candidates.shape)}; a controller of "
            f"{config.feature_dim} features and {config.action_dim} actions needs "
            f"(P, {config.num_parameters})"
        )
    split = config.action_dim * config.feature_dim
    weight = candidates[:, :split].unflatten(1, (config.action_dim, config.feature_dim))
    return weight, candidates[:, split:]


class LinearController(Pretrained, nn.Module):
    """Features (B, feature_dim) -> raw outputs (B, action_dim); `act` squashes them."""

    config_class = ControllerConfig

    def __init__(self, config: ControllerConfig | None = None):
        super().__init__()
        self.config = config = config or ControllerConfig()
        self.linear = nn.Linear(config.feature_dim, config.action_dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def features(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Inputs of C from z (..., latent_dim), h and c (..., hidden_dim)."""
        return torch.cat([z, h, c][: len(self.config.features)], dim=-1)

    def forward(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        return self.linear(check_dtype(self.features(z, h, c), "z and h", self))

    def act(self, z: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Action as M reads it, (B, action_dim); `worldmodels.actions.to_env` converts it."""
        return squash(self(z, h, c), self.config.action)

    def to_vector(self) -> Tensor:
        """All parameters as one flat vector (num_parameters,): weights row by row, then biases."""
        return torch.cat([self.linear.weight.detach().flatten(), self.linear.bias.detach()])

    @torch.no_grad()
    def load_vector(self, vector: Tensor) -> LinearController:
        """Set all parameters from a flat vector in the form of `to_vector`."""
        weight, bias = split_candidates(vector.reshape(1, -1), self.config)
        self.linear.weight.copy_(weight[0])
        self.linear.bias.copy_(bias[0])
        return self
