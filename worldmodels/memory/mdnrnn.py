"""M as the paper has it, the MDN-RNN: an LSTM that predicts the next z as a mixture of Gaussians.

memory = MDNRNN(BOOK_MDNRNN)
out, state = memory(z, action, prev_reward=reward)    # (B, T, 32), (B, T, 3), (B, T)
loss = -out.mixture.log_prob(next_z).mean()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from generative.training.precision import BF16
from worldmodels.configs import PAPER_MDNRNN, MDNRNNConfig
from worldmodels.memory.base import Memory, State
from worldmodels.memory.joined import JoinedMDNRNN

if TYPE_CHECKING:
    from worldmodels.dreaming.rollout import Dream, DreamBackend

__all__ = ["MDNRNN"]


class MDNRNN(Memory):
    """LSTM + mixture density head + optional reward and end heads."""

    config_class = MDNRNNConfig
    config: MDNRNNConfig

    def __init__(self, config: MDNRNNConfig = PAPER_MDNRNN):
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.input_dim, config.hidden_dim, batch_first=True)
        # torch keeps two bias vectors that only ever act as their sum. The second stays at zero
        # and is not trained, so that parameters count as in the paper.
        _, _, _, bias_hh = self.lstm.all_weights[0]
        nn.init.zeros_(bias_hh).requires_grad_(False)
        self._add_heads()

    def read(
        self, z: Tensor, action: Tensor, state: State | None, prev_reward: Tensor | None
    ) -> tuple[Tensor, State]:
        """The LSTM alone: h at every step, (B, T, hidden_dim), and the last (h, c)."""
        if state is not None:
            state = (state[0].unsqueeze(0), state[1].unsqueeze(0))
        h, (h_last, c_last) = self.lstm(self.inputs(z, action, prev_reward), state)
        return h, (h_last[0], c_last[0])

    def joined(self, bf16: BF16 = False) -> JoinedMDNRNN:
        """The same M for the dreams of a population, its gates in one matrix too."""
        return JoinedMDNRNN(self, bf16)

    def backend(self, dream: Dream) -> DreamBackend | None:
        """On a CPU the kernels of an LSTM."""
        if dream.device.type != "cpu" or dream.dtype != torch.float32:
            return super().backend(dream)
        from worldmodels.dreaming.backends.fused import FusedDream

        return FusedDream(dream)
