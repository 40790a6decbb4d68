"""Settings of the diffusion models."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from generative.nets.config import UNET_BOOK, ConditionedMLPConfig, DiTConfig, UNetConfig
from generative.training.config import AdamWConfig, MuonConfig
from generative.training.ranges import (
    Checked,
    Choices,
    Depth,
    Finite,
    NonNegative,
    Positive,
    Share,
    Size,
    Waves,
)

if TYPE_CHECKING:
    from generative.diffusion.edm import EDM
    from generative.diffusion.model import Diffusion

__all__ = [
    "DIFFUSION_BOOK",
    "IMAGE_DIFFUSION_BOOK",
    "DiffusionLossConfig",
    "EDMLossConfig",
    "ImageDiffusionConfig",
    "ImageEDMConfig",
    "ImagePrediction",
    "PointDiffusionConfig",
    "PointEDMConfig",
    "Prediction",
    "ScheduleConfig",
    "UNetConfig",
    "check_prediction",
    "last_signal",
]


Prediction = Literal["noise", "velocity", "data", "flow"]
"""Output of a network, from which noise and data follow."""
ImagePrediction = Literal["noise", "velocity", "data", "flow", "pixels"]
"""The same of images, whose pixels have a range."""


@dataclass(frozen=True)
class ScheduleConfig(Checked):
    """Share of signal left at time t in [0, 1]; the defaults are the book's (chapter 8)."""

    kind: Literal[
        "offset-cosine", "cosine", "rectified", "linear", "scaled-linear", "cosine-betas"
    ] = "offset-cosine"
    """offset-cosine: the angle goes evenly from acos(max_signal) to acos(min_signal). cosine: from
    0 to a right angle, no signal at the end. rectified: signal to noise as on the straight line
    (1 - t) data + t noise of flow matching (Lipman et al. 2023; Liu et al. 2023). The others are
    tables of betas: linear (Ho et al. 2020), scaled-linear (evenly in their roots), cosine-betas
    (Nichol & Dhariwal 2021)."""
    max_signal: Share = 0.95
    """Offset-cosine: signal rate at t = 0. What is finer than the noise then left is never seen."""
    min_signal: Share = 0.02
    """Offset-cosine: signal rate at t = 1."""
    num_betas: Size = 1000
    """Length of a table of betas."""
    beta_start: Share = 1e-4
    """First of the linear betas."""
    beta_end: Share = 0.02
    """Last of the linear betas."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_signal < self.max_signal:
            raise ValueError(
                f"signal rates are {self.max_signal} at first and {self.min_signal} at last; give "
                "two numbers between 0 and 1, the first the larger"
            )
        if not 0 < self.beta_start <= self.beta_end:
            raise ValueError(
                f"betas go from {self.beta_start} to {self.beta_end}; give two numbers between 0 "
                "and 1, the first not the larger"
            )


SIGMA_DATA = 0.5
"""Deviation of pixels in [-1, 1] that EDM supposes (Karras et al. 2022)."""
LEAST_SIGNAL = 0.005
"""Least signal rate at which the data are estimated from the noise; DDPM's linear betas end at
0.0064. That estimate has the error of the noise divided by it."""


def last_signal(schedule: ScheduleConfig) -> float:
    """Signal rate at t = 1, where sampling begins."""
    if schedule.kind == "offset-cosine":
        return schedule.min_signal
    if schedule.kind in ("cosine", "rectified"):
        return 0.0
    if schedule.kind == "cosine-betas":
        # All but the last beta, which is held at 0.999, follow the square of the cosine.
        angles = [(t + 0.008) / 1.008 * math.pi / 2 for t in (1 - 1 / schedule.num_betas, 0.0)]
        return math.cos(angles[0]) / math.cos(angles[1]) * math.sqrt(1 - 0.999)
    power = 2 if schedule.kind == "scaled-linear" else 1
    start, end = (beta ** (1 / power) for beta in (schedule.beta_start, schedule.beta_end))
    rise = (end - start) / max(1, schedule.num_betas - 1)
    betas = ((start + rise * i) ** power for i in range(schedule.num_betas))
    return math.sqrt(math.prod(1 - beta for beta in betas))


def check_prediction(schedule: ScheduleConfig, prediction: str) -> None:
    """Refuse an estimate of the noise where no signal is left to tell the image by.

    Raises:
        ValueError: the schedule ends with too little signal.
    """
    signal = last_signal(schedule)
    if prediction == "noise" and signal < LEAST_SIGNAL:
        raise ValueError(
            f"schedule {schedule.kind} ends with signal rate {signal:.2g}, where an image can not "
            f"be told from an estimate of the noise; prediction noise needs {LEAST_SIGNAL} or "
            "more: use prediction velocity, or schedule.kind offset-cosine"
        )


@dataclass(frozen=True)
class ImageDiffusionConfig(Checked):
    """A diffusion model of images; schedule, prediction and steps are the book's, and
    `IMAGE_DIFFUSION_BOOK` is all of its model."""

    image_shape: tuple[Size, Size, Size] = (3, 64, 64)
    """(C, H, W); a U-Net halves H and W at every resolution but the last, a DiT cuts patches."""
    network: UNetConfig | DiTConfig = field(default_factory=UNetConfig)
    """A U-Net, or a Transformer of patches."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prediction: ImagePrediction = "noise"
    """Output of the network: the noise; or signal rate * noise - noise rate * image, which stays
    meaningful where there is only noise (Salimans & Ho 2022); or the image (data); or image -
    noise, the velocity of flow matching (flow); or the image, brought into the range of pixels
    (pixels), which saves learning black and white exactly."""
    steps: Size = 20
    """Steps of sampling, unless another number is asked for."""
    levels: Choices = 256
    """Values a pixel can have; only `bound` needs to know."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network.check_sides(self.image_shape)
        check_prediction(self.schedule, self.prediction)

    def build(self) -> Diffusion:
        """Diffusion of pixels around a U-Net or a DiT."""
        from generative.diffusion.model import Diffusion
        from generative.nets.image_network import image_network

        network = image_network(self.image_shape, self.network)
        return Diffusion(
            network, self.image_shape, self.schedule, self.prediction, self.steps,
            levels=self.levels, config=self,
        )  # fmt: skip


IMAGE_DIFFUSION_BOOK = ImageDiffusionConfig(network=UNET_BOOK)
"""The book's model, 1,950,627 weights."""


@dataclass(frozen=True)
class PointDiffusionConfig(Checked):
    """A diffusion model of vectors."""

    dim: Size = 2
    """Numbers of an example."""
    hidden_dim: Size = 128
    """Width of the network."""
    num_hidden: Depth = 3
    """Hidden layers."""
    num_waves: Waves = 0
    """The network also sees sines and cosines of x_t, of this many wavelengths, 8, 4, 2 ...; it is
    slow to learn sharp edges without."""
    embedding_dim: Size = 16
    """Sines and cosines that tell every layer the log signal-to-noise ratio."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig("linear"))
    prediction: Prediction = "velocity"
    """Output of the network; see ImageDiffusionConfig."""
    steps: Size = 50
    """Steps of sampling, unless another number is asked for."""
    ode_steps: Size = 64
    """Runge-Kutta steps of `log_prob`, `encode` and `decode`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dim < 4 or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim is {self.embedding_dim}; give an even number from 4")
        check_prediction(self.schedule, self.prediction)

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older networks see no waves."""
        return {"num_waves": 0, **settings}

    def build(self) -> Diffusion:
        """Diffusion of vectors around a perceptron; `log_prob` is quick enough for these."""
        from generative.diffusion.model import Diffusion
        from generative.diffusion.networks import DenoisingMLP

        network = ConditionedMLPConfig(
            self.hidden_dim, self.num_hidden, self.num_waves, self.embedding_dim
        )
        return Diffusion(
            DenoisingMLP(self.dim, network), (self.dim,), self.schedule, self.prediction,
            self.steps, solver="rk4", ode_steps=self.ode_steps, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class DiffusionLossConfig(MuonConfig):
    """Loss and optimiser of a diffusion model; `DIFFUSION_BOOK` are those of the book."""

    error: Literal["absolute", "squared"] = "squared"
    """Error of the noise, a mean over its entries. The least absolute error (the book's) is reached
    by the median of the noise, the least squared error by its mean, which is what the theory of
    sampling asks for (Ho et al. 2020)."""
    weighting: Literal["noise", "velocity", "data", "flow", "edm", "min-snr"] = "min-snr"
    """Weights of the noise levels. noise: all errors of the noise alike, the simple loss. velocity,
    data: all errors of the velocity, or of the image, alike. flow: of image - noise, the loss of
    flow matching (Lipman et al. 2023). edm: of what EDM's network gives (Karras et al. 2022).
    min-snr: errors of the image times min(SNR, gamma) (Hang et al. 2023)."""
    gamma: Positive = 5.0
    """Largest weight of min-snr."""
    levels: Literal["time", "log-snr", "normal"] = "time"
    """Noise levels of training. time: even in the time of the schedule. log-snr: even in the log
    signal-to-noise ratio between its ends, with which squared errors of the noise bound the
    likelihood (Kingma et al. 2021). normal: that ratio is normal, which spends most steps where
    there is most to learn (Karras et al. 2022)."""
    level_mean: Finite = -2.0
    """Mean of normal levels."""
    level_std: Positive = 2.5
    """Standard deviation of normal levels."""
    even: bool = True
    """Spread the noise levels of a batch evenly, for a steadier gradient (Kingma et al. 2021)."""
    drop: Share = 0.0
    """Share of examples that are told nothing in place of their condition, which guidance needs (Ho
    & Salimans 2022)."""
    final_lr: NonNegative = 1e-5
    weight_decay: NonNegative = 1e-4
    clip: NonNegative = 1.0
    ema: Share = 0.999

    @classmethod
    def upgrade(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Older losses draw no normal levels and leave no condition out."""
        return {"level_mean": -2.0, "level_std": 2.5, "drop": 0.0, **super().upgrade(settings)}


DIFFUSION_BOOK = DiffusionLossConfig(
    error="absolute", weighting="noise", even=False, final_lr=1e-3, clip=0.0
)
"""The book's program: its absolute error is least at the median of the noise, not at the mean that
sampling needs."""


def _check_sigmas(sigma_min: float, sigma_max: float) -> None:
    if sigma_min >= sigma_max:
        raise ValueError(
            f"sigma_min is {sigma_min} and sigma_max {sigma_max}; noise falls from the one to the "
            "other: give a smaller and a larger number"
        )


@dataclass(frozen=True)
class PointEDMConfig(Checked):
    """A diffusion model of vectors with the preconditioning of EDM (Karras et al. 2022)."""

    dim: Size = 2
    """Numbers of an example."""
    network: ConditionedMLPConfig = field(default_factory=ConditionedMLPConfig)
    sigma_data: Positive = 1.0
    """Standard deviation of the data."""
    sigma_min: Positive = 0.002
    """Least noise of sampling, before the last step takes it away."""
    sigma_max: Positive = 80.0
    """Noise with which sampling begins, in units of the data."""
    rho: Positive = 7.0
    """Spacing of the steps: larger for shorter steps near the data."""
    steps: Size = 18
    """Steps of sampling, unless another number is asked for."""
    ode_steps: Size = 64
    """Runge-Kutta steps of `log_prob`, `encode` and `decode`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sigmas(self.sigma_min, self.sigma_max)

    def build(self) -> EDM:
        """EDM around a perceptron."""
        from generative.diffusion.edm import EDM
        from generative.diffusion.networks import DenoisingMLP

        return EDM(
            DenoisingMLP(self.dim, self.network), (self.dim,), self.sigma_data,
            sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho, steps=self.steps,
            ode_steps=self.ode_steps, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class ImageEDMConfig(Checked):
    """A diffusion model of images with the preconditioning of EDM; sampling is the paper's."""

    image_shape: tuple[Size, Size, Size] = (3, 32, 32)
    """(C, H, W); a U-Net halves H and W at every resolution but the last, a DiT cuts patches."""
    network: UNetConfig | DiTConfig = field(default_factory=UNetConfig)
    """A U-Net, or a Transformer of patches."""
    sigma_data: Positive = 0.5
    """Standard deviation of pixels in [-1, 1]."""
    sigma_min: Positive = 0.002
    """Least noise of sampling, before the last step takes it away."""
    sigma_max: Positive = 80.0
    """Noise with which sampling begins."""
    rho: Positive = 7.0
    """Spacing of the steps: larger for shorter steps near the data."""
    steps: Size = 18
    """Steps of sampling, unless another number is asked for."""
    ode_steps: Size = 64
    """Runge-Kutta steps of `encode` and `decode`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_sigmas(self.sigma_min, self.sigma_max)
        self.network.check_sides(self.image_shape)

    def build(self) -> EDM:
        """EDM of pixels around a U-Net or a DiT."""
        from generative.diffusion.edm import EDM
        from generative.nets.image_network import image_network

        return EDM(
            image_network(self.image_shape, self.network), self.image_shape, self.sigma_data,
            sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho, steps=self.steps,
            ode_steps=self.ode_steps, pixels=True, config=self,
        )  # fmt: skip


@dataclass(frozen=True)
class EDMLossConfig(AdamWConfig):
    """Loss and optimiser of EDM; the law of the noise is that of Karras et al. (2022)."""

    mean: Finite = -1.2
    """Mean of log(sigma) in training."""
    std: Positive = 1.2
    """Standard deviation of log(sigma) in training."""
    even: bool = True
    """Spread the noise levels of a batch evenly, for a steadier gradient."""
    lr: Positive = 2e-3
    final_lr: NonNegative = 1e-5
    clip: NonNegative = 1.0
    ema: Share = 0.999
