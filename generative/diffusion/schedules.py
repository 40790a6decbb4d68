"""Schedules of the fading signal: betas, signal rates, and the log signal-to-noise ratio.

At time t an example x has become

    x_t = signal * x + noise * eps,    eps ~ N(0, I),    signal^2 + noise^2 = 1

Everything about t is in one number, the log signal-to-noise ratio log_snr = log(signal^2 / noise^2)
(Kingma et al. 2021): signal^2 = sigmoid(log_snr), which the papers call alpha_bar, and noise^2 =
sigmoid(-log_snr). So networks and samplers take log_snr, and a sampler can use other times than
training did.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from generative.diffusion.config import ScheduleConfig
from generative.training.checks import checked
from generative.training.ranges import Count

__all__ = [
    "MAX_LOG_SNR",
    "Schedule",
    "ScheduleConfig",
    "cosine_betas",
    "linear_betas",
    "log_snr_of",
    "scaled_linear_betas",
    "signal_and_noise",
]

MAX_LOG_SNR = 14.0
"""Limit of log_snr: where a schedule begins without noise or ends without signal, rates stop at
0.0009."""


def signal_and_noise(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Signal rate and noise rate, the roots of alpha_bar and 1 - alpha_bar."""
    return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()


def log_snr_of(alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)); infinite at 0 and 1."""
    return alpha_bar.log() - (-alpha_bar).log1p()


def linear_betas(
    num: int = 1000, start: float = 1e-4, end: float = 0.02, endpoint: bool = True
) -> Tensor:
    """Evenly from start to end, float64 (num,) (Ho et al. 2020).

    Args:
        endpoint: whether `end` is the last; the book stops one step before it.
    """
    return torch.linspace(start, end, num + (not endpoint), dtype=torch.float64)[:num]


def scaled_linear_betas(num: int = 1000, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """Their roots go evenly from sqrt(start) to sqrt(end), float64 (num,) (Rombach et al. 2022)."""
    return torch.linspace(start**0.5, end**0.5, num, dtype=torch.float64).square()


def cosine_betas(num: int = 1000, offset: float = 0.008, most: float = 0.999) -> Tensor:
    """Such that alpha_bar follows cos^2((t + offset) / (1 + offset) * pi / 2), float64 (num,).

    None is larger than `most`, so a little signal is left at the end (Nichol & Dhariwal 2021,
    equation 17).
    """
    t = torch.arange(num + 1, dtype=torch.float64) / num
    alpha_bar = ((t + offset) / (1 + offset) * math.pi / 2).cos().square()
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=most)


class Schedule:
    """log_snr as a function of the time t, which goes from 0 (data) to 1 (noise)."""

    def __init__(self, config: ScheduleConfig | None = None):
        self.config = config or ScheduleConfig()

    @cached_property
    def alpha_bar(self) -> Tensor | None:
        """Product of 1 - beta up to each entry of a table of betas, float64 (T,); None without a
        table.

        The product needs the whole table in its order: taken over the times of a batch, as the
        book's linear schedule does, it means nothing.
        """
        config = self.config
        limits = config.num_betas, config.beta_start, config.beta_end
        if config.kind == "linear":
            betas = linear_betas(*limits)
        elif config.kind == "scaled-linear":
            betas = scaled_linear_betas(*limits)
        elif config.kind == "cosine-betas":
            betas = cosine_betas(config.num_betas)
        else:
            return None
        return (1 - betas).cumprod(0)

    def log_snr(self, t: Tensor) -> Tensor:
        """Times of any shape -> log signal-to-noise ratios, float64, within +-MAX_LOG_SNR.

        In a table of T betas t belongs to entry ceil(t T), counted from 1, so t = k / T is DDPM's
        step k.
        """
        t = t.double()
        table = self.alpha_bar
        if table is not None:
            # Step 980 written as 0.98 in float32 is a little more, and must not become step 981.
            index = (t * len(table) - 1e-3).ceil().long().sub(1).clamp(0, len(table) - 1)
            log_snr = log_snr_of(table)[index.cpu()].to(t.device)
        else:
            config = self.config
            if config.kind == "rectified":
                log_snr = 2 * ((-t).log1p() - t.log())
                return log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR)
            first, last = 0.0, math.pi / 2
            if config.kind == "offset-cosine":
                first, last = math.acos(config.max_signal), math.acos(config.min_signal)
            log_snr = -2 * (first + t * (last - first)).tan().abs().log()
        return log_snr.clamp(-MAX_LOG_SNR, MAX_LOG_SNR)

    @cached_property
    def ends(self) -> tuple[float, float]:
        """log_snr at t = 0 and at t = 1."""
        high, low = self.log_snr(torch.tensor([0.0, 1.0])).tolist()
        return high, low

    @checked
    def steps(self, num: Count, spacing: str = "time") -> list[float]:
        """log_snr at the num + 1 stations of a sampler, from noise to data.

        The last station is data without noise, log_snr = infinity: the last step returns its
        estimate of the data.

        Args:
            spacing: "time" for equal steps of t, those of the book and of DDPM; "log-snr" for equal
                steps of log_snr, which spends more of few steps on fine detail.
        Raises:
            ValueError: no step, or more than a table of betas has; or another spacing.
        """
        table = self.alpha_bar
        if table is not None and num > len(table):
            most = len(table)
            raise ValueError(f"{num} steps are asked for; ask for 1 to {most}, the number of betas")
        if spacing == "time":
            t = 1 - torch.arange(num, dtype=torch.float64) / num
            return [*self.log_snr(t).tolist(), math.inf]
        if spacing != "log-snr":
            raise ValueError(f"spacing is {spacing!r}; give 'time' or 'log-snr'")
        high, low = self.ends
        return [*torch.linspace(low, high, num, dtype=torch.float64).tolist(), math.inf]
