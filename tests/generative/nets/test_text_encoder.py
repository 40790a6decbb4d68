"""Text encoder: published totals, padding without influence, and the vector at the first end."""

from dataclasses import replace

import pytest
import torch

from generative.nets.text_encoder import EOS, TextEncoder, TextEncoderConfig, clip_block
from generative.nets.transformer import QuickGELU

torch.set_num_threads(1)
CAUSAL = TextEncoderConfig(20, 12, 2, clip_block(16, 2))
BOTH = replace(CAUSAL, causal=False)
SHIFTED = replace(BOTH, block=replace(BOTH.block, shift=3))


def make(config: TextEncoderConfig) -> TextEncoder:
    torch.manual_seed(0)
    encoder = TextEncoder(config).eval()
    for name, weights in encoder.named_parameters():
        if name.endswith("shift.factors"):
            torch.nn.init.normal_(weights)
    return encoder


def caption(*words: int, length: int) -> list[int]:
    row = [2, *words, EOS]
    return row + [0] * (length - len(row))


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (TextEncoderConfig(49_408, 77, 12, clip_block(768, 12)), 123_060_480),
        (TextEncoderConfig(), 113_920 - 64 * 64),  # CLIP adds a projection
        (TextEncoderConfig(4096, 32, 6, clip_block(256, 4)), 5_861_376 - 256 * 256),
    ],
)
def test_totals_of_publications(config: TextEncoderConfig, total: int):
    with torch.device("meta"):
        assert sum(p.numel() for p in TextEncoder(config).parameters()) == total


@pytest.mark.parametrize("config", [CAUSAL, BOTH, SHIFTED])
def test_padding_changes_no_bit(config: TextEncoderConfig):
    """More of it, behind every caption of the batch."""
    encoder = make(config)
    short = torch.tensor([caption(5, 6, 7, length=7), caption(8, length=7)])
    long = torch.nn.functional.pad(short, (0, 30))
    with torch.no_grad():
        few, many = encoder(short), encoder(long)
    assert many.outputs.shape == (2, 37, 16)
    assert torch.equal(many.outputs[:, :7], few.outputs)
    assert torch.equal(many.vector, few.vector)
    assert not many.outputs[:, 7:].any()
    assert not few.outputs[1, 3:].any()


@pytest.mark.parametrize("config", [CAUSAL, BOTH, SHIFTED])
def test_a_caption_is_read_alike_beside_longer_ones(config: TextEncoderConfig):
    encoder = make(config).double()
    tokens = torch.tensor([caption(5, 6, length=12), caption(*range(4, 14), length=12)])
    with torch.no_grad():
        together, alone = encoder(tokens), encoder(tokens[:1, :4])
        encoder.embedding.weight[0] = 1e3  # nothing reads the vector of padding
        changed = encoder(tokens)
    torch.testing.assert_close(together.outputs[:1, :4], alone.outputs)
    torch.testing.assert_close(together.vector[:1], alone.vector)
    assert torch.equal(changed.outputs, together.outputs)


@pytest.mark.parametrize("config", [CAUSAL, BOTH, SHIFTED])
def test_the_empty_caption_is_zero_and_has_finite_gradients(config: TextEncoderConfig):
    encoder = make(config)
    tokens = torch.tensor([[0] * 6, caption(5, length=6)])
    outputs, vector = encoder(tokens)
    assert not outputs[0].any()
    assert not vector[0].any()
    assert outputs[1, :3].abs().sum(1).all()
    (outputs.square().sum() + vector.sum()).backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    assert not encoder.embedding.weight.grad[0].any()
    alone = encoder(tokens[:1])
    assert alone.outputs.shape == (1, 6, 16)
    assert not alone.outputs.any()


def test_the_vector_is_that_of_the_first_end_whatever_its_number():
    """Word 19 is the highest token, where the published program would read."""
    encoder = make(CAUSAL)
    tokens = torch.tensor([[2, 19, EOS, 7, EOS, 0]])
    with torch.no_grad():
        outputs, vector = encoder(tokens)
    assert torch.equal(vector, outputs[:, 2])


def test_only_a_causal_encoder_is_blind_to_later_words():
    tokens = torch.tensor([caption(5, 6, length=4), caption(5, 7, length=4)])
    with torch.no_grad():
        causal, both = make(CAUSAL)(tokens).outputs, make(BOTH)(tokens).outputs
    assert torch.equal(causal[0, :2], causal[1, :2])
    assert (both[0, :2] - both[1, :2]).abs().max() > 1e-4


def test_attention_maps_leave_padding_out():
    maps = []
    tokens = torch.tensor([caption(5, length=9), caption(5, 6, 7, length=9)])
    make(BOTH)(tokens, maps)
    assert [tuple(m.shape) for m in maps] == [(2, 2, 5, 5)] * 2
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 5))
    assert not maps[0][0, :, :3, 3:].any()


def test_quick_gelu():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + (-1.702 * x).exp()))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[2, 5, 6]], r"caption 0 has no \[EOS\] \(3\)"),
        ([[2, 3, 0], [2, 20, 3]], r"from 0 to 20.*0 to 19"),
        ([[2, *[5] * 12, 3, 0]], r"captions of 14 tokens.*positions for 12"),
    ],
)
def test_errors_say_what_is_needed(tokens: list[list[int]], message: str):
    with pytest.raises(ValueError, match=message):
        make(CAUSAL)(torch.tensor(tokens))


def test_the_same_numbers_as_transformers():
    """Weights of a CLIP text model of another library give its outputs."""
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    theirs = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=20, hidden_size=16, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=12, bos_token_id=2, eos_token_id=EOS,
        )
    ).eval()  # fmt: skip
    encoder = make(CAUSAL)
    encoder.load_state_dict(from_transformers(theirs.state_dict()))
    tokens = torch.tensor([caption(5, 6, 19, length=5), caption(7, 8, 9, length=5)])
    with torch.no_grad():
        found, wanted = encoder(tokens), theirs(tokens)
    torch.testing.assert_close(found.outputs, wanted.last_hidden_state)
    torch.testing.assert_close(found.vector, wanted.pooler_output)


def from_transformers(theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights under the names of this module."""
    names = {
        "embeddings.token_embedding": "embedding",
        "embeddings.position_embedding": "positions",
        "final_layer_norm": "norm",
        "encoder.layers": "blocks",
        "self_attn.q_proj": "attention.query", "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value", "self_attn.out_proj": "attention.out",
        "layer_norm1": "attention_norm", "layer_norm2": "feed_forward_norm",
        "mlp.fc1": "feed_forward.0", "mlp.fc2": "feed_forward.3",
    }  # fmt: skip
    ours = {}
    for name, weight in theirs.items():
        name = name.removeprefix("text_model.")  # up to transformers 4
        for old, new in names.items():
            name = name.replace(old, new)
        ours[name] = weight
    ours.pop("embeddings.position_ids", None)
    return ours
