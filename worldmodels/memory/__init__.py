"""M, the memory of a world model: an LSTM or a Transformer that predicts the next latent.

    memory = load_memory("pretrained/carracing-dream/memory")
    state = memory.initial_state(batch_size=1)
    state = memory.observe(z, action, state, prev_reward)       # a real decision is over

`base` says what every M offers, `mdnrnn` and `transformer` are two of them, `loss` and `learner`
train them, `joined` is their form for thousands of dreams, `scores` measures their predictions.
"""

from worldmodels.configs import (
    BOOK_MDNRNN,
    PAPER_MDNRNN,
    MDNRNNConfig,
    MemoryConfig,
    MemoryLossConfig,
    TransformerMemoryConfig,
)
from worldmodels.memory.base import Memory, MemoryOutput, State
from worldmodels.memory.learner import MemoryLearner
from worldmodels.memory.loading import MEMORIES, load_memory
from worldmodels.memory.loss import MemoryLosses, memory_loss, mixture_nll
from worldmodels.memory.mdnrnn import MDNRNN
from worldmodels.memory.transformer import TransformerMemory

__all__ = [
    "BOOK_MDNRNN",
    "MDNRNN",
    "MEMORIES",
    "PAPER_MDNRNN",
    "MDNRNNConfig",
    "Memory",
    "MemoryConfig",
    "MemoryLearner",
    "MemoryLossConfig",
    "MemoryLosses",
    "MemoryOutput",
    "State",
    "TransformerMemory",
    "TransformerMemoryConfig",
    "load_memory",
    "memory_loss",
    "mixture_nll",
]
