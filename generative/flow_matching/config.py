"""Settings of flow matching and MeanFlow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from generative.nets.config import ConditionedMLPConfig, DiTConfig, UNetConfig
from generative.training.config import AdamWConfig
from generative.training.ranges import (
    Checked,
    Finite,
    NonNegative,
    Positive,
    Probability,
    Share,
    Size,
)

if TYPE_CHECKING:
    from generative.flow_matching.mean_flow import MeanFlow
    from generative.flow_matching.model import FlowMatching

__all__ = [
    "FlowMatchingLossConfig",
    "ImageFlowMatchingConfig",
    "ImageMeanFlowConfig",
    "MeanFlowLossConfig",
    "PointFlowMatchingConfig",
    "PointMeanFlowConfig",
]

Solver = Literal["euler", "heun", "rk4"]
"""Names of `generative.solvers.SOLVERS`."""


@dataclass(frozen=True)
class PointFlowMatchingConfig(Checked):
    """Flow matching of vectors."""

    dim: Size = 2
    """Numbers of an example."""
    network: ConditionedMLPConfig = field(default_factory=ConditionedMLPConfig)
    solver: Solver = "heun"
    """Steps of sampling: Euler's ask for the velocity once, Heun's twice, Runge-Kutta's of order 4
    four times."""
    steps: Size = 50
    """Steps of sampling, unless another number is asked for."""
    ode_steps: Size = 100
    """Runge-Kutta steps of order 4 of `encode`, `decode` and `log_prob`."""

    def build(self) -> FlowMatching:
        """Flow matching around a perceptron."""
        from generative.flow_matching.model import FlowMatching
        from generative.flow_matching.networks import VelocityMLP

        return FlowMatching(
            VelocityMLP(self.dim, self.network), (self.dim,), self.solver, self.steps,
            self.ode_steps, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class ImageFlowMatchingConfig(Checked):
    """Flow matching of images."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); a U-Net halves H and W at every resolution but the last, a DiT cuts patches."""
    network: UNetConfig | DiTConfig = field(default_factory=UNetConfig)
    """A U-Net, or a Transformer of patches."""
    solver: Solver = "heun"
    """Steps of sampling; see `PointFlowMatchingConfig`."""
    steps: Size = 25
    """Steps of sampling, unless another number is asked for."""
    ode_steps: Size = 25
    """Runge-Kutta steps of order 4 of `encode` and `decode`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network.check_sides(self.image_shape)

    def build(self) -> FlowMatching:
        """Flow matching of pixels around a U-Net or a DiT."""
        from generative.flow_matching.model import FlowMatching
        from generative.flow_matching.networks import TimedNetwork

        return FlowMatching(
            TimedNetwork(self.image_shape, self.network), self.image_shape, self.solver,
            self.steps, self.ode_steps, pixels=True, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class PointMeanFlowConfig(Checked):
    """MeanFlow of vectors."""

    dim: Size = 2
    """Numbers of an example."""
    network: ConditionedMLPConfig = field(default_factory=ConditionedMLPConfig)
    steps: Size = 1
    """Jumps of sampling, unless another number is asked for."""

    def build(self) -> MeanFlow:
        """MeanFlow around a perceptron."""
        from generative.flow_matching.mean_flow import MeanFlow
        from generative.flow_matching.networks import VelocityMLP

        network = VelocityMLP(self.dim, self.network, num_times=2)
        return MeanFlow(network, (self.dim,), self.steps, config=self)


@dataclass(frozen=True)
class ImageMeanFlowConfig(Checked):
    """MeanFlow of images."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); a U-Net halves H and W at every resolution but the last, a DiT cuts patches."""
    network: UNetConfig | DiTConfig = field(default_factory=lambda: UNetConfig(max_frequency=8.0))
    """Its embedding of the time is slow: the loss has the derivative by the time, which fast sines
    would make large and rough."""
    steps: Size = 1
    """Jumps of sampling, unless another number is asked for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network.check_sides(self.image_shape)

    def build(self) -> MeanFlow:
        """MeanFlow of pixels around a U-Net or a DiT."""
        from generative.flow_matching.mean_flow import MeanFlow
        from generative.flow_matching.networks import TimedNetwork

        network = TimedNetwork(self.image_shape, self.network, num_times=2)
        return MeanFlow(network, self.image_shape, self.steps, pixels=True, config=self)


@dataclass(frozen=True)
class FlowMatchingLossConfig(AdamWConfig):
    """Loss and optimiser of flow matching."""

    times: Literal["uniform", "logit-normal"] = "uniform"
    """Law of the times in training: uniform in [0, 1], or that of sigmoid(mean + std * normal),
    which spends more on the middle (Esser et al. 2024, section 3.1)."""
    mean: Finite = 0.0
    """Mean of the logits; below 0 times lean to the noise."""
    std: Positive = 1.0
    """Standard deviation of the logits."""
    even: bool = True
    """Spread the times of a batch evenly, for a steadier gradient."""
    pairing: Literal["independent", "optimal"] = "independent"
    """Noise of each example: any, or within a batch the one of the cheapest pairing by squared
    distance, which makes paths straighter (Pooladian et al. 2023; Tong et al. 2024)."""
    lr: Positive = 2e-3
    final_lr: NonNegative = 1e-5
    clip: NonNegative = 1.0
    ema: Share = 0.999


@dataclass(frozen=True)
class MeanFlowLossConfig(AdamWConfig):
    """Loss and optimiser of MeanFlow (Geng et al. 2025)."""

    times: Literal["uniform", "logit-normal"] = "uniform"
    """Law of the two times of a line, of which the smaller is t; see `FlowMatchingLossConfig`."""
    mean: Finite = 0.4
    """Mean of the logits. The paper has -0.4 with the time turned round."""
    std: Positive = 1.0
    """Standard deviation of the logits."""
    instant: Probability = 0.5
    """Share of the batch whose times are equal: the loss of flow matching, on which all else
    rests. The paper has 0.75."""
    tangent: Literal["line", "model"] = "model"
    """Direction in which the loss differentiates the mean velocity: data - noise, as in the paper,
    or the velocity that the model has there (improved MeanFlow, Geng et al. 2025b), which costs a
    further forward pass. Both have the same optimum; between two modes, where paths part, a line is
    far from the path, and the loss then has very large values."""
    power: NonNegative = 0.0
    """The error d of an example gets the weight 1 / (d^2 + offset)^power, through which no gradient
    goes. 0: all alike, whose optimum is the mean velocity; the paper has 1 for images."""
    offset: Positive = 1e-3
    """Keeps that weight finite."""
    lr: Positive = 2e-3
    final_lr: NonNegative = 1e-5
    clip: NonNegative = 1.0
    ema: Share = 0.999
