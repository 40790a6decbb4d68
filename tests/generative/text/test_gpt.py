"""GPT against the book's table, enumeration, and GPT-2 as transformers has it."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from generative.text.gpt import GPT, BlockConfig, GPTConfig, gpt2_block
from generative.text.tokens import up_to_end
from tests.dtypes import default_dtype

torch.set_num_threads(1)
GPT2 = GPTConfig(11, 12, 2, gpt2_block(16, 2), tied=True, init="normal")
BOOK = GPTConfig(11, 12, 1, BlockConfig(16, 2, 8, 16))


ROTARY = replace(GPT2, block=replace(GPT2.block, rotary=True))
SHIFTED = replace(GPT2, block=replace(GPT2.block, rotary=True, shift=3))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def wild(config: GPTConfig, from_start: bool = True) -> GPT:
    """With weights that are anything, so that nothing is nearly uniform."""
    torch.manual_seed(0)
    model = GPT(replace(config, from_start=from_start))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, 11, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_sizes_are_the_books():
    model = GPT()
    assert model.head is not None
    parts = (model.embedding, model.positions, model.blocks, model.head)
    assert [count(part) for part in parts] == [2_560_000, 20_480, 658_688, 2_570_000]
    assert count(model) == 5_809_168


def test_with_rotary_blocks_there_are_no_vectors_of_places():
    model = wild(ROTARY)
    assert model.positions is None
    assert count(wild(GPT2)) - count(model) == ROTARY.max_len * ROTARY.block.dim
    order = [2, 0, 1, 3]  # the last token of a text in another order
    x = tokens(1, 4)
    assert not torch.allclose(model.logits(x)[:, -1], model.logits(x[:, order])[:, -1], atol=1e-3)


@pytest.mark.parametrize("config", [BOOK, GPT2, ROTARY, SHIFTED])
def test_what_comes_later_changes_nothing(config):
    model, x = wild(config), tokens(1, 12)
    changed = x.clone()
    changed[0, 7] = 2 + (int(x[0, 7]) - 1) % 9
    difference = (model.logits(x) - model.logits(changed)).abs().amax(2)[0]
    assert (difference[:7] == 0).all()
    assert (difference[7:] > 1e-4).all()


@pytest.mark.parametrize("config", [BOOK, GPT2, ROTARY, SHIFTED])
def test_cached_logits_are_those_of_the_whole(config):
    model, x = wild(config), tokens(3, 12)
    caches = model.make_caches()
    parts = [model.logits(part, caches) for part in x.split([5, 1, 4, 1, 1], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model.logits(x))
    with pytest.raises(ValueError, match="T from 1 to 0"):
        model.logits(x[:, :1], caches)


@pytest.mark.parametrize("config", [BOOK, GPT2, ROTARY, SHIFTED])
def test_generation_with_and_without_cache_is_the_same(config):
    """Beyond the longest text too, where the last tokens alone are seen."""
    model, prompt = wild(config, from_start=False), tokens(2, 5)
    options = {"temperature": 0.8, "top_k": 5, "ends": False}
    with_cache, without = (
        model.generate(
            prompt, 25, cache=cache, generator=torch.Generator().manual_seed(1), **options
        )
        for cache in (True, False)
    )
    assert torch.equal(with_cache, without)
    assert torch.equal(with_cache[:, :5], prompt)
    greedy = model.generate(prompt, 20, temperature=0.0, ends=False)
    for place in range(5, 25):
        seen = greedy[:, max(0, place - 12) : place]
        assert torch.equal(model.logits(seen)[:, -1].argmax(1), greedy[:, place])


@pytest.mark.parametrize("from_start", [True, False])
def test_prompts_begin_as_texts_do(from_start):
    """What follows a prompt has the probability that the whole text has beyond it."""
    model, prompt = wild(GPT2, from_start), tokens(2, 4)
    follows = model.next_logits(prompt).log_softmax(-1)
    longer = torch.cat([prompt, torch.tensor([[5], [7]])], 1)
    difference = model.log_prob(longer) - model.log_prob(prompt)
    torch.testing.assert_close(difference, follows[[0, 1], [5, 7]])
    best = model.generate(prompt, 1, temperature=0.0)
    assert torch.equal(best[:, :4], prompt)
    assert torch.equal(best[:, 4], follows.argmax(1))
    if from_start:
        nothing = prompt[:, :0]
        drawn = model.generate(nothing, 12, generator=torch.Generator().manual_seed(3))
        assert torch.equal(drawn, model.sample(2, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("config", [BOOK, GPT2, ROTARY, SHIFTED])
def test_probabilities_of_all_texts_sum_to_one(config):
    model = wild(GPTConfig(3, 4, 1, config.block, config.tied))
    texts = torch.tensor(list(itertools.product(range(3), repeat=4)))
    texts = texts[(texts * ~up_to_end(texts) == 0).all(1)]
    total = float(model.log_prob(texts).detach().double().exp().sum())
    assert total == pytest.approx(1, abs=1e-5)


def test_probabilities_of_tokens_are_those_of_texts():
    model, x = wild(GPT2), tokens(3, 9)
    x[1, 6:] = 0
    each = model.token_log_probs(x)
    torch.testing.assert_close((each * up_to_end(x)).sum(1), model.log_prob(x))
    counted = up_to_end(x).sum()
    torch.testing.assert_close(model.loss(x).loss, -model.log_prob(x).sum() / counted)


def test_book_mode_predicts_all_but_the_first():
    model, x = wild(BOOK, from_start=False), tokens(2, 13)
    x[0, 4:] = 0
    log_p = model.logits(x[:, :-1]).log_softmax(-1).gather(2, x[:, 1:, None])[:, :, 0]
    torch.testing.assert_close(model.loss(x, padding=True).loss, -log_p.mean())
    torch.testing.assert_close(model.token_log_probs(x), log_p)
    ours = -(log_p[0, :4].sum() + log_p[1].sum()) / 16
    torch.testing.assert_close(model.loss(x).loss, ours)


def test_attention_maps_are_lower_triangles():
    maps = wild(GPT2).attention_maps(tokens(2, 7))
    assert [tuple(weights.shape) for weights in maps] == [(2, 2, 7, 7)] * 2
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 7))
        assert not weights.triu(1).any()


def hugging_face():
    transformers = pytest.importorskip("transformers", reason="compares with its GPT-2")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=12, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return theirs


@pytest.mark.oracle
def test_gpt2_of_hugging_face_gives_the_same_logits(tmp_path):
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path)
    ours, x = GPT.from_gpt2(tmp_path), tokens(3, 12)
    with torch.no_grad():
        assert (ours.logits(x) - theirs(x).logits).abs().max() < 1e-4
    assert count(ours) == count(theirs)
    greedy = theirs.generate(x[:, :4], max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert torch.equal(ours.generate(x[:, :4], 8, temperature=0.0, ends=False), greedy)
    maps = ours.attention_maps(x)
    theirs.set_attn_implementation("eager")
    for mine, other in zip(maps, theirs(x, output_attentions=True).attentions, strict=True):
        torch.testing.assert_close(mine, other.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.oracle
def test_gpt2_is_float32_and_can_be_trained_wherever_it_is_loaded(tmp_path):
    hugging_face().save_pretrained(tmp_path)
    with default_dtype(torch.float64), torch.inference_mode():
        ours = GPT.from_gpt2(tmp_path)
    ours.loss(tokens(3, 12)).loss.backward()
    assert {p.grad.dtype for p in ours.parameters()} == {torch.float32}


def test_other_architectures_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="holds a llama, not a gpt2"):
        GPT.from_gpt2(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPTConfig(max_len=0), "max_len is 0"),
        (lambda: GPTConfig(vocab_size=2), "vocab_size is 2"),
        (lambda: wild(BOOK, False).loss(tokens(2, 14)), r"\(2, 14\).*T from 1 to 13"),
        (lambda: wild(BOOK).generate(tokens(1, 2).float(), 3), "float32.*int64"),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
