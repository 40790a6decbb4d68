"""MUSE: all codes of a picture are filled in at once, the surest are kept, and so on.

    muse = MUSE.from_pretrained("runs/muse/model")
    codes = muse.sample(tokens, steps=4, guidance=2.0)  # captions (B, L) -> int64 (B, 3, 3)
    muse.fill(tokens, hidden)                           # log probabilities of each code

A Transformer sees some codes of a picture and its caption, and tells the others (Chang et al. 2022,
2023). Codes that are filled in together do not know of each other, so few steps contradict
themselves more often than many.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.text_encoder import PAD
from generative.sampling import sample_logits
from generative.text_to_codes.common import CodeLosses, check_captions, check_pairs, guided
from generative.text_to_codes.config import MUSEConfig
from generative.text_to_codes.networks import CaptionMemory, CodeDecoder
from generative.training.checks import check_some, checked
from generative.training.pretrained import Pretrained
from generative.training.ranges import Count, NonNegative

__all__ = ["MUSE", "hidden_at"]


class MUSE(Pretrained, nn.Module):
    """p(hidden codes | seen codes, caption), each by itself; code `num_codes` is a hidden one."""

    config_class = MUSEConfig

    def __init__(self, config: MUSEConfig | None = None):
        super().__init__()
        self.config = config = config or MUSEConfig()
        self.grid, self.num_codes = config.grid, config.num_codes
        self.memory, self.decoder = CaptionMemory(config), CodeDecoder(config, causal=False)

    @property
    def hidden(self) -> int:
        """Code in the place of a hidden one."""
        return self.num_codes

    def hide(self, codes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Places that are hidden in training, bool of the shape of codes (B, h, w).

        Their share is cos(pi u / 2) with an even u, and at least one is.
        """
        size = codes[0].numel()
        # Drawn alike whatever torch's default type is.
        settings = {"generator": generator, "device": codes.device, "dtype": torch.float32}
        u = torch.rand(len(codes), 1, **settings)
        count = (size * (math.pi / 2 * u).cos()).ceil().clamp(1, size)
        order = torch.rand(len(codes), size, **settings)
        return (order.argsort(1).argsort(1) < count).view_as(codes)

    def loss(
        self, tokens: Tensor, codes: Tensor, generator: torch.Generator | None = None
    ) -> CodeLosses:
        """Mean nats of a hidden code of pictures (B, h, w), given captions (B, L)."""
        check_some(codes, self)
        check_pairs(tokens, codes, self.grid, self.num_codes, self)
        hidden = self.hide(codes, generator)
        logits = self._logits(tokens, codes.masked_fill(hidden, self.hidden))
        nats = F.cross_entropy(logits[hidden], codes[hidden])
        return CodeLosses(nats, nats)

    @torch.no_grad()
    def fill(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Log probabilities of the codes at each place, (B, h, w, num_codes).

        Args:
            tokens: captions (B, L).
            codes: (B, h, w), with `hidden` where a code is hidden.
        """
        check_pairs(tokens, codes, self.grid, self.num_codes + 1, self)
        return self._logits(tokens, codes).log_softmax(-1)

    @checked
    @torch.no_grad()
    def sample(
        self,
        tokens: Tensor,
        generator: torch.Generator | None = None,
        temperature: NonNegative = 1.0,
        steps: Count | None = None,
        noise: NonNegative | None = None,
        guidance: NonNegative = 1.0,
    ) -> Tensor:
        """Codes of a picture for each caption (B, L), int64 (B, h, w).

        At each step all hidden codes are drawn, and the least sure of them are hidden again.

        Args:
            temperature: see `generative.sampling.shape_logits`.
            steps: of decoding, the config's number if None; as many as codes are enough.
            noise: of confidences, the config's if None. Gumbel noise times it, which falls to 0 at
                the last step, is added to the log probability of what was drawn; a large one
                chooses places at random, and with a step for each place samples are then exact.
            guidance: 1 for none; s takes empty + s (given - empty) of the logits.
        """
        check_captions(tokens, self)
        size, count = math.prod(self.grid), steps or self.config.steps
        spread = self.config.noise if noise is None else noise
        memory = self.memory(tokens if guidance == 1 else torch.cat([tokens, tokens * PAD]))
        line = torch.full_like(tokens[:, :1], self.hidden).repeat(1, size)
        for step in range(1, count + 1):
            logits = self.decoder(line if guidance == 1 else line.repeat(2, 1), memory)
            logits = logits if guidance == 1 else guided(logits, guidance)
            flat = logits.flatten(0, 1)
            drawn = sample_logits(flat, temperature, generator=generator).view_as(line)
            sure = logits.log_softmax(-1).gather(2, drawn[..., None])[..., 0]
            u = torch.rand(sure.shape, generator=generator, device=sure.device, dtype=sure.dtype)
            gumbel = -(-u.clamp_min(1e-20).log()).clamp_min(1e-20).log()
            sure = sure + spread * (1 - step / count) * gumbel
            known = line != self.hidden
            sure = sure.masked_fill(known, math.inf)
            filled = torch.where(known, line, drawn)
            # Whatever the schedule says, a step fills in one code at least.
            hidden = (~known).sum(1, keepdim=True)
            keep = torch.minimum(torch.full_like(hidden, hidden_at(step, count, size)), hidden - 1)
            least = sure.argsort(1).argsort(1) < keep.clamp_min(0)
            line = filled.masked_fill(least, self.hidden)
        return line.unflatten(1, self.grid)

    def _logits(self, tokens: Tensor, codes: Tensor) -> Tensor:
        return self.decoder(codes.flatten(1), self.memory(tokens)).unflatten(1, self.grid)


def hidden_at(step: int, steps: int, size: int) -> int:
    """Codes of `size` that are still hidden after a step of `steps`, 0 after the last.

    floor(size cos(pi step / (2 steps))) (Chang et al. 2022, section 3.3).
    """
    return 0 if step >= steps else math.floor(size * math.cos(math.pi / 2 * step / steps))
