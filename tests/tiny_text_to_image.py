"""Parts of tiny text-to-image models that several tests put together."""

from typing import Any

import torch

from generative.diffusion import ScheduleConfig
from generative.nets.config import clip_block
from generative.text_to_image import TextEncoderConfig

WORDS = ("red", "blue", "square", "disc")
TEXT = TextEncoderConfig(8, 6, 1, clip_block(8, 2), causal=False)
SCHEDULE = ScheduleConfig(max_signal=0.999)


def shaken(config: Any, by: float = 0.05) -> Any:
    """The model of a config in evaluation mode, with weights that are anything: a new network gives
    zeros."""
    torch.manual_seed(0)
    model = config.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model.eval()
