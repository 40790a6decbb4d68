"""GPT: a causal Transformer that generates text token by token. Network, loss, sampler.

Every position attends to the ones before it and predicts the next token (Radford
et al. 2018; Foster 2023, chapter 9). The default is the book's network for wine reviews; with
`GPTConfig(..., block=gpt2_block(768, 12), tied=True, init="normal")` it is GPT-2, whose weights
`from_gpt2` loads.

    model = GPT.from_pretrained("runs/gpt/model")
    tokens = model.generate(prompt, 40, temperature=0.5, top_p=0.9)    # (B, T) -> (B, T + 40)
    model.log_prob(tokens)                                             # nats, (B,)
    maps = model.attention_maps(tokens)                                # (B, H, T, T) of each block
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.nets.transformer import BlockCache, TransformerBlock, init_weights, make_norm
from generative.text.config import BlockConfig, GPTConfig, TextLossConfig, gpt2_block
from generative.text.tokens import (
    END,
    TextLearner,
    TextLosses,
    generate,
    next_token_losses,
    text_log_prob,
    token_log_probs,
    with_start,
)
from generative.training.checkpoint import read_tensors
from generative.training.checks import check_dtype, check_some, check_tokens, checked
from generative.training.files import MAX_STATE_BYTES, cut, read_file, read_json, reading
from generative.training.pretrained import Pretrained, without_memory
from generative.training.ranges import CountOrZero
from generative.training.words import with_article

__all__ = [
    "GPT",
    "BlockConfig",
    "GPTConfig",
    "TextLearner",
    "TextLossConfig",
    "gpt2_block",
]


@dataclass
class GPTState:
    """State of generation: the text so far, and the keys and values of its positions."""

    tokens: Tensor
    caches: list[BlockCache] = field(default_factory=list)


class GPT(Pretrained, nn.Module):
    """Tokens and positions -> causal blocks -> logits of the next token.

    At the book's sizes it has 5,809,168 parameters.
    """

    config_class = GPTConfig

    def __init__(self, config: GPTConfig | None = None):
        super().__init__()
        self.config = config = config or GPTConfig()
        dim = config.block.dim
        self.embedding = nn.Embedding(config.vocab_size, dim)
        self.positions = None if config.block.rotary else nn.Embedding(config.max_len, dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.block, causal=True) for _ in range(config.num_layers)
        )
        self.norm = make_norm(config.block) if config.block.norm == "pre" else nn.Identity()
        self.head = None if config.tied else nn.Linear(dim, config.vocab_size)
        # The book's dropout is in its blocks only; GPT-2 also has one on their input.
        self.dropout = nn.Dropout(config.block.dropout if config.block.norm == "pre" else 0.0)
        init_weights(self, config.init, config.num_layers)

    # -----------------------------------------------------------------------------------------
    # Network
    # -----------------------------------------------------------------------------------------

    def features(
        self,
        tokens: Tensor,
        caches: list[BlockCache] | None = None,
        maps: list[Tensor] | None = None,
        before: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> input of the output layer, (B, T, dim); see `logits`.

        Args:
            before: number of a block, its input (B, T, dim) -> the input that it gets instead.
        """
        start = len(caches[0]) if caches else 0
        room = self.config.max_len - start
        check_tokens(tokens, self.config.vocab_size, room, self)
        x = self.embedding(tokens)
        if self.positions is not None:
            places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
            x = x + self.positions(places)
        x = self.dropout(x)
        for k, block in enumerate(self.blocks):
            x = x if before is None else before(k, x)
            x = block(x, cache=caches[k] if caches else None, maps=maps)
        return self.norm(x)

    def logits(
        self,
        tokens: Tensor,
        caches: list[BlockCache] | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Tokens (B, T) -> logits of the token after each, (B, T, V).

        Args:
            caches: from `make_caches`; the tokens then continue those of earlier calls.
            maps: gets the attention weights of each block appended, (B, H, T, positions so far).
        Raises:
            ValueError: not int64 (B, T) in the vocabulary, or more than `max_len` positions.
        """
        return self.read_out(self.features(tokens, caches, maps))

    def read_out(self, features: Tensor) -> Tensor:
        """Features (..., dim) -> logits (..., V)."""
        check_dtype(features, "features", self)
        return (
            F.linear(features, self.embedding.weight) if self.head is None else self.head(features)
        )

    def make_caches(self) -> list[BlockCache]:
        """Empty caches of all blocks."""
        return [BlockCache() for _ in self.blocks]

    # -----------------------------------------------------------------------------------------
    # Texts
    # -----------------------------------------------------------------------------------------

    def loss(self, x: Tensor, padding: bool = False) -> TextLosses:
        """Mean loss over the tokens of texts (B, T) up to their ends; with `padding` over all.

        T is at most max_len, or one more if the first token is given.
        """
        text = check_some(self._text(x), self)
        return next_token_losses(self.logits, text, self.config.from_start, padding)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of each text (B, T) up to its end, in nats, (B,)."""
        return text_log_prob(self.logits, self._text(x), self.config.from_start)

    def token_log_probs(self, x: Tensor) -> Tensor:
        """log p of each token of texts (B, T) after those before it, in nats; see `tokens`."""
        return token_log_probs(self.logits, self._text(x), self.config.from_start)

    def next_logits(self, prompt: Tensor) -> Tensor:
        """Logits of the token after texts (B, T), (B, V); only the last max_len tokens are seen."""
        tokens = with_start(prompt, self.config.from_start)[:, -self.config.max_len :]
        return self.read_out(self.features(tokens)[:, -1])

    def generate(
        self, prompt: Tensor, num_tokens: int, *, cache: bool = True, **options: Any
    ) -> Tensor:
        """Continue texts (B, T), (B, T + num_tokens); only the last max_len tokens are seen.

        Args:
            cache: keep keys and values; without them the result is the same, but every token costs
                as much as a whole text.
            options: those of `tokens.generate`: temperature, top_k, top_p, generator, ends.
        """
        start = with_start(prompt, self.config.from_start)
        step = self._step if cache else self._step_anew
        return generate(step, start, num_tokens, **options)[:, start.shape[1] - prompt.shape[1] :]

    @checked
    def sample(
        self, n: CountOrZero, generator: torch.Generator | None = None, **options: Any
    ) -> Tensor:
        """n texts after the end of another, int64 (n, max_len); options as for `generate`."""
        end = torch.full((n, 1), END, device=self.embedding.weight.device)
        prompt = end[:, : not self.config.from_start]
        found = self.generate(prompt, self.config.max_len, generator=generator, **options)
        return found[:, prompt.shape[1] :]

    @torch.no_grad()
    def attention_maps(self, tokens: Tensor) -> list[Tensor]:
        """Attention weights of each block, (B, H, T, T); rows sum to 1.

        The tokens are taken as they are; `tokens.with_start` adds the END in front of a text.
        """
        maps: list[Tensor] = []
        self.features(tokens, maps=maps)
        return maps

    def _text(self, x: Tensor) -> Tensor:
        longest = self.config.max_len + (not self.config.from_start)
        return check_tokens(x, self.config.vocab_size, longest, self)

    def _step(self, new: Tensor, state: GPTState | None) -> tuple[Tensor, GPTState]:
        """Logits after the last of new tokens (B, T), with the cache of those before them."""
        tokens = new if state is None else torch.cat([state.tokens, new], 1)
        tokens = tokens[:, -self.config.max_len :]
        if state is not None and len(state.caches[0]) + new.shape[1] <= self.config.max_len:
            caches = state.caches
        else:  # if the window moves, all keys and values change: a token less has been read
            new, caches = tokens, self.make_caches()
        features = self.features(new, caches)[:, -1]
        return self.read_out(features), GPTState(tokens, caches)

    def _step_anew(self, new: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
        """As `_step`, computed from all tokens."""
        tokens = new if tokens is None else torch.cat([tokens, new], 1)
        tokens = tokens[:, -self.config.max_len :]
        return self.read_out(self.features(tokens)[:, -1]), tokens

    # -----------------------------------------------------------------------------------------
    # GPT-2
    # -----------------------------------------------------------------------------------------

    @classmethod
    @torch.inference_mode(False)
    def from_gpt2(cls, folder: Path | str) -> Self:
        """Load GPT-2 from a folder of Hugging Face (config.json and model.safetensors) in float32.

        GPT-2 ends a text by its last token; here 0 does, which is "!" in GPT-2. Pass `ends=False`
        to `generate`.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the files are of another architecture, or damaged.
        """
        folder = Path(folder)
        files = [folder / "config.json", folder / "model.safetensors"]
        lacking = [file for file in files if not file.exists()]
        if files[0] in lacking:
            raise FileNotFoundError(f"{files[0]}: no such file; pass a folder of Hugging Face's")
        settings = read_json(files[0], links=True)
        kind = settings.get("model_type") if isinstance(settings, dict) else None
        if kind != "gpt2":
            raise ValueError(f"{folder} holds {with_article(cut(str(kind), 60))}, not a gpt2")
        if lacking:
            raise FileNotFoundError(f"{files[1]}: no such file; it holds the weights of a gpt2")
        weights = read_tensors(read_file(files[1], MAX_STATE_BYTES, links=True), files[1])
        with reading(folder, "is no GPT-2"):
            ours = gpt2_weights(weights)
            config = gpt2_config(settings)
            # Sizes are compared before memory is allocated for them.
            expected = without_memory(lambda: cls(config), files[0]).state_dict()
            if {n: x.shape for n, x in expected.items()} != {n: x.shape for n, x in ours.items()}:
                raise ValueError("its weights are not those that config.json asks for")
            model = cls(config).float()
            model.load_state_dict(ours)
        return model.eval()


def gpt2_config(settings: dict[str, Any]) -> GPTConfig:
    """Sizes from the config.json of a Hugging Face GPT-2."""
    dim, heads = settings["n_embd"], settings["n_head"]
    return GPTConfig(
        settings["vocab_size"],
        settings["n_positions"],
        settings["n_layer"],
        gpt2_block(dim, heads, settings.get("resid_pdrop", 0.1)),
        tied=True,
        init="normal",
        from_start=False,
    )


def gpt2_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a Hugging Face GPT-2 under the names of this module.

    Its linear maps are stored as (in, out), and those of queries, keys and values as one.
    """
    theirs = {name.removeprefix("transformer."): w for name, w in theirs.items()}
    ours = {"embedding.weight": theirs["wte.weight"], "positions.weight": theirs["wpe.weight"]}
    names = {
        "ln_1": "attention_norm", "attn.c_proj": "attention.out", "ln_2": "feed_forward_norm",
        "mlp.c_fc": "feed_forward.0", "mlp.c_proj": "feed_forward.3", "ln_f": "norm",
    }  # fmt: skip
    for name, weights in theirs.items():
        prefix, parts = "", name.split(".")
        if parts[0] == "h":
            prefix, parts = f"blocks.{parts[1]}.", parts[2:]
        layer, kind = ".".join(parts[:-1]), parts[-1]
        if layer == "attn.c_attn":
            for part, piece in zip(("query", "key", "value"), weights.chunk(3, -1), strict=True):
                ours[f"{prefix}attention.{part}.{kind}"] = piece.t() if piece.dim() == 2 else piece
        elif layer in names:
            ours[f"{prefix}{names[layer]}.{kind}"] = weights.t() if weights.dim() == 2 else weights
    return ours
