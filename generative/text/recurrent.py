"""Texts by recurrent networks: LSTM, GRU, stacked, and two directions that fill gaps.

A recurrent network reads a text token by token into a state, and the state gives the probability of
every token that may follow (Foster 2023, chapter 5).

    model = RecurrentText.from_pretrained("runs/recurrent_text/model")
    tokens = model.generate(prompt, 100, temperature=0.2)      # (B, T) -> (B, T + 100)
    model.log_prob(tokens)                                     # nats, (B,)

`Bidirectional` reads from both sides: it fills in hidden tokens, and cannot predict the next one.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from generative.text.config import BidirectionalConfig, RecurrentTextConfig, TextLossConfig
from generative.text.corruption import hide_tokens
from generative.text.tokens import (
    END,
    TextLearner,
    TextLosses,
    generate,
    next_token_losses,
    text_log_prob,
    token_log_probs,
    token_losses,
    with_start,
)
from generative.training.checks import check_some, check_tokens, checked
from generative.training.pretrained import Pretrained
from generative.training.ranges import CountOrZero

__all__ = [
    "Bidirectional",
    "BidirectionalConfig",
    "GRUBefore",
    "RecurrentText",
    "RecurrentTextConfig",
    "TextLearner",
    "TextLossConfig",
]


class RecurrentText(Pretrained, nn.Module):
    """Token -> vector -> recurrent layers -> logits of the next token.

    At the book's sizes an LSTM has 2,407,248 parameters, two stacked 2,538,832.
    """

    config_class = RecurrentTextConfig

    def __init__(self, config: RecurrentTextConfig | None = None):
        super().__init__()
        self.config = config = config or RecurrentTextConfig()
        self.embedding = nn.Embedding(config.vocab_size, config.embed_dim)
        self.recurrent = make_recurrent(config)
        self.head = nn.Linear(config.hidden_dim, config.vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)  # as in the book's framework
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Tokens (B, T) -> logits of the token after each (B, T, V), and the state after the last.

        Args:
            state: returned by an earlier call, whose tokens these continue.
        Raises:
            ValueError: not int64 (B, T) in the vocabulary.
        """
        check_tokens(tokens, self.config.vocab_size, None, self)
        states, state = self.recurrent(self.embedding(tokens), state)
        return self.head(states), state

    def loss(self, x: Tensor, padding: bool = False) -> TextLosses:
        """Mean loss over the tokens of texts (B, T) up to their ends; with `padding` over all."""
        check_some(check_tokens(x, self.config.vocab_size, None, self), self)
        return next_token_losses(self._read, x, self.config.from_start, padding)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of each text (B, T) up to its end, in nats, (B,)."""
        check_tokens(x, self.config.vocab_size, None, self)
        return text_log_prob(self._read, x, self.config.from_start)

    def token_log_probs(self, x: Tensor) -> Tensor:
        """log p of each token of texts (B, T) after those before it, in nats; see `tokens`."""
        check_tokens(x, self.config.vocab_size, None, self)
        return token_log_probs(self._read, x, self.config.from_start)

    def next_logits(self, prompt: Tensor) -> Tensor:
        """Logits of the token after texts (B, T), (B, V)."""
        return self._read(with_start(prompt, self.config.from_start))[:, -1]

    def generate(self, prompt: Tensor, num_tokens: int, **options: Any) -> Tensor:
        """Continue texts (B, T), (B, T + num_tokens); options are those of `tokens.generate`."""

        def step(new: Tensor, state: Any) -> tuple[Tensor, Any]:
            logits, state = self.logits(new, state)
            return logits[:, -1], state

        start = with_start(prompt, self.config.from_start)
        whole = generate(step, start, num_tokens, **options)
        return whole[:, start.shape[1] - prompt.shape[1] :]

    @checked
    def sample(
        self, n: CountOrZero, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """n texts after the end of another, int64 (n, length); options as for `generate`."""
        end = torch.full((n, 1), END, device=self.head.weight.device)
        prompt = end[:, : not self.config.from_start]
        found = self.generate(prompt, self.config.length, generator=generator, **options)
        return found[:, prompt.shape[1] :]

    def _read(self, tokens: Tensor) -> Tensor:
        return self.logits(tokens)[0]


class Bidirectional(Pretrained, nn.Module):
    """Recurrent networks from both sides; logits of hidden tokens.

    On texts of a hidden Markov model its optimum is known: the forward and backward messages, one
    in each direction.
    """

    config_class = BidirectionalConfig

    def __init__(self, config: BidirectionalConfig | None = None):
        super().__init__()
        self.config = config = config or BidirectionalConfig()
        kind = nn.GRU if config.cell == "gru" else nn.LSTM
        self.embedding = nn.Embedding(config.vocab_size + 1, config.embed_dim)
        self.recurrent = kind(
            config.embed_dim,
            config.hidden_dim,
            config.num_layers,
            batch_first=True,
            bidirectional=True,
        )
        self.head = nn.Linear(2 * config.hidden_dim, config.vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        start_recurrent(self.recurrent)

    @property
    def mask_token(self) -> int:
        """Token that replaces a hidden one."""
        return self.config.vocab_size

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T), some of them `mask_token` -> logits of the hidden tokens (B, T, V)."""
        check_tokens(tokens, self.config.vocab_size + 1, None, self)
        return self.head(self.recurrent(self.embedding(tokens))[0])

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> TextLosses:
        """Hide tokens of texts (B, T) at random; mean loss over the hidden ones."""
        check_some(check_tokens(x, self.config.vocab_size, None, self), self)
        hidden = hide_tokens(x, self.config.mask_rate, generator)
        return token_losses(self.logits(x.masked_fill(hidden, self.mask_token)), x, hidden)


# ---------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------


def make_recurrent(config: RecurrentTextConfig) -> nn.Module:
    """Layers (B, T, embed_dim), state -> (B, T, hidden_dim), state, with the book's weights."""
    sizes = (config.embed_dim, config.hidden_dim, config.num_layers)
    if config.cell == "gru-before":
        return GRUBefore(*sizes, dropout=config.dropout)
    kind: Any = {
        "lstm": nn.LSTM,
        "gru": nn.GRU,
        "rnn": partial(nn.RNN, nonlinearity="tanh"),
    }[config.cell]
    layer = kind(*sizes, batch_first=True, dropout=config.dropout)
    start_recurrent(layer)
    if config.cell != "gru":
        # One bias per gate is enough, as in the book; the GRU's second one is inside a gate.
        for k in range(config.num_layers):
            name = f"bias_hh_l{k}"
            bias = getattr(layer, name)
            delattr(layer, name)
            layer.register_buffer(name, torch.zeros_like(bias), persistent=False)
        layer._init_flat_weights()
    return layer


@torch.no_grad()
def start_recurrent(layer: nn.RNNBase) -> None:
    """Draw Keras's initial weights: Glorot-uniform, orthogonal, zeros, and an open forget gate."""
    for name, weights in layer.named_parameters():
        size = layer.hidden_size
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(weights)  # all gates are one matrix there too
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(weights)
        else:
            weights.zero_()
            if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
                weights[size : 2 * size] = 1.0


class GRUBefore(nn.Module):
    """GRU with the reset gate before the matrix (Cho et al. 2014; Foster 2023, chapter 5).

        r = sigmoid(W_r [h, x]),   z = sigmoid(W_z [h, x])
        g = tanh(W [r * h, x]),    h <- (1 - z) * h + z * g

    `nn.GRU` resets the product instead, and its z is 1 - z; the two are different networks.
    """

    takes_muon: ClassVar[bool] = True
    """True: its matrices are inner ones, which Muon may train."""

    def __init__(self, input_dim: int, hidden_dim: int, num_layers: int = 1, dropout: float = 0.0):
        super().__init__()
        self.hidden_dim = hidden_dim
        inputs = [input_dim] + [hidden_dim] * (num_layers - 1)
        self.inputs = nn.ModuleList(nn.Linear(dim, 3 * hidden_dim) for dim in inputs)
        self.gates = nn.ModuleList(
            nn.Linear(hidden_dim, 2 * hidden_dim, bias=False) for _ in inputs
        )
        self.candidates = nn.ModuleList(
            nn.Linear(hidden_dim, hidden_dim, bias=False) for _ in inputs
        )
        self.dropout = nn.Dropout(dropout)
        for layer in self.inputs:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (*self.gates, *self.candidates):
            assert isinstance(layer, nn.Linear)
            nn.init.orthogonal_(layer.weight)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, D), state (layers, B, H) -> states of the last layer (B, T, H), state."""
        if state is None:
            state = x.new_zeros(len(self.inputs), len(x), self.hidden_dim)
        last = []
        for k, layer in enumerate(self.inputs):
            x = x if k == 0 else self.dropout(x)
            h, states = state[k], []
            for r_in, z_in, g_in in (step.chunk(3, 1) for step in layer(x).unbind(1)):
                r_h, z_h = self.gates[k](h).chunk(2, 1)
                r, z = (r_in + r_h).sigmoid(), (z_in + z_h).sigmoid()
                h = (1 - z) * h + z * (g_in + self.candidates[k](r * h)).tanh()
                states.append(h)
            x = torch.stack(states, 1)
            last.append(h)
        return x, torch.stack(last)
