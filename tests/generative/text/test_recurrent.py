"""Recurrent text models against the book's tables, loops in NumPy, and enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.text.config import TextLossConfig
from generative.text.recurrent import (
    Bidirectional,
    BidirectionalConfig,
    GRUBefore,
    RecurrentText,
    RecurrentTextConfig,
)
from generative.text.tokens import TextLearner, generate, up_to_end

torch.set_num_threads(1)
CELLS = ("lstm", "gru", "gru-before", "rnn")


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tiny(
    cell: str = "lstm", num_layers: int = 1, vocab_size: int = 7, from_start: bool = True
) -> RecurrentText:
    torch.manual_seed(0)
    config = RecurrentTextConfig(
        vocab_size, 5, 6, num_layers, cell, length=9, from_start=from_start
    )
    model = RecurrentText(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_sizes_are_the_books():
    model = RecurrentText()
    assert [count(part) for part in (model.embedding, model.recurrent, model.head)] == [
        1_000_000, 117_248, 1_290_000,
    ]  # fmt: skip
    assert count(model) == 2_407_248
    assert count(RecurrentText(RecurrentTextConfig(num_layers=2))) == 2_538_832
    assert count(RecurrentText(RecurrentTextConfig(cell="gru")).recurrent) == 88_320
    assert count(RecurrentText(RecurrentTextConfig(cell="gru-before")).recurrent) == 87_936
    both = Bidirectional()
    assert count(both.recurrent) == 121_200
    assert both.recurrent(torch.zeros(1, 3, 100))[0].shape == (1, 3, 200)


def test_lstm_by_its_six_steps():
    model, x = tiny(), torch.tensor([[3, 4, 2, 6]])
    w = {name: p.detach().numpy() for name, p in model.recurrent.named_parameters()}
    h = c = np.zeros(6)
    for k, e in enumerate(model.embedding(x)[0].detach().numpy()):
        gates = w["weight_ih_l0"] @ e + w["weight_hh_l0"] @ h + w["bias_ih_l0"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = model.head(torch.tensor(h, dtype=torch.float32)).detach()
        torch.testing.assert_close(model.logits(x)[0][0, k].detach(), logits)


def test_gru_resets_before_the_matrix():
    torch.manual_seed(0)
    layer, x = GRUBefore(3, 4), torch.randn(1, 5, 3)
    inputs, gates, candidate = (
        part[0].weight.detach().numpy() for part in (layer.inputs, layer.gates, layer.candidates)
    )
    h, expected = np.zeros(4), []
    for e in x[0].numpy():
        r_x, z_x, g_x = np.split(inputs @ e, 3)
        r_h, z_h = np.split(gates @ h, 2)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        h = (1 - z) * h + z * np.tanh(g_x + candidate @ (r * h))
        expected.append(h)
    np.testing.assert_allclose(layer(x)[0][0].detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_two_grus_agree_where_nothing_is_reset_only():
    """With the reset gate open nn.GRU is the same network, its update gate turned round."""
    torch.manual_seed(0)
    ours, theirs = GRUBefore(3, 4), nn.GRU(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    with torch.no_grad():
        for part in (ours.inputs[0].bias, theirs.bias_ih_l0, theirs.bias_hh_l0):
            part.zero_()
        sign = torch.tensor([1.0, -1.0, 1.0]).repeat_interleave(4)[:, None]
        theirs.weight_ih_l0.copy_(sign * ours.inputs[0].weight)
        theirs.weight_hh_l0.copy_(
            sign * torch.cat([ours.gates[0].weight, ours.candidates[0].weight])
        )
        assert (ours(x)[0] - theirs(x)[0]).abs().max() > 1e-3
        ours.inputs[0].bias[:4] = 100.0
        theirs.bias_ih_l0[:4] = 100.0
        torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_state_carries_all_that_was_read(cell, num_layers):
    model, x = tiny(cell, num_layers), torch.tensor([[3, 4, 2, 6, 5], [2, 2, 3, 0, 0]])
    whole, _ = model.logits(x)
    first, state = model.logits(x[:, :2])
    second, _ = model.logits(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@pytest.mark.parametrize("cell", CELLS)
def test_probabilities_of_all_texts_sum_to_one(cell):
    """A text is over at its first 0; of what stands behind, zeros alone are a text."""
    model = tiny(cell, vocab_size=3)
    texts = torch.tensor(list(itertools.product(range(3), repeat=4)))
    texts = texts[(texts * ~up_to_end(texts) == 0).all(1)]
    assert len(texts) == 1 + 2 + 4 + 8 + 16
    total = float(model.log_prob(texts).detach().double().exp().sum())
    assert total == pytest.approx(1, abs=1e-5)


def test_losses_by_hand():
    """Padding counts in the book's loss only, the first token in ours only."""
    model, x = tiny(), torch.tensor([[3, 4, 0, 0], [5, 2, 6, 3]])
    inputs = F.pad(x[:, :-1], (1, 0))
    log_p = model.logits(inputs)[0].log_softmax(-1).gather(2, x[:, :, None])[:, :, 0].detach()
    ours = -(log_p[0, :3].sum() + log_p[1].sum()) / 7
    torch.testing.assert_close(model.loss(x).loss, ours)
    torch.testing.assert_close(model.log_prob(x)[0], log_p[0, :3].sum())
    torch.testing.assert_close(model.token_log_probs(x).detach(), log_p)
    given = model.logits(x[:, :-1])[0].log_softmax(-1).gather(2, x[:, 1:, None])[:, :, 0]
    book = tiny(from_start=False)
    torch.testing.assert_close(book.loss(x, padding=True).loss, -given.mean())
    torch.testing.assert_close(book.log_prob(x), torch.stack([given[0, :2].sum(), given[1].sum()]))


@pytest.mark.parametrize("from_start", [True, False])
def test_prompts_begin_as_texts_do(from_start):
    """What follows a prompt has the probability that the whole text has beyond it."""
    model, prompt = tiny(from_start=from_start), torch.tensor([[3, 4, 2]])
    follows = model.next_logits(prompt).log_softmax(-1)[0]
    longer = torch.cat([prompt, torch.tensor([[5]])], 1)
    torch.testing.assert_close((model.log_prob(longer) - model.log_prob(prompt))[0], follows[5])
    best = model.generate(prompt, 1, temperature=0.0)
    assert best.tolist() == [[3, 4, 2, int(follows.argmax())]]
    assert model.sample(3).shape == (3, 9)


def test_generation_goes_on_until_the_end():
    def step(new, state):
        """2, 3, 4 in turn; 0 after 4, in the first row only."""
        logits = torch.full((len(new), 6), -50.0)
        for row, last in enumerate(new[:, -1].tolist()):
            logits[row, {2: 3, 3: 4, 4: 0 if row == 0 else 2, 0: 5}[last]] = 0.0
        return logits, state

    prompt = torch.tensor([[2], [2]])
    assert generate(step, prompt, 5).tolist() == [[2, 3, 4, 0, 0, 0], [2, 3, 4, 2, 3, 4]]
    assert generate(step, prompt[:1], 6).tolist() == [[2, 3, 4, 0, 0, 0, 0]]
    with pytest.raises(KeyError):  # 5 comes after 0 where 0 ends nothing, and after 5 nothing
        generate(step, prompt[:1], 6, ends=False)


def test_samples_have_the_models_probabilities():
    model = tiny(vocab_size=4)
    x = model.sample(20_000, torch.Generator().manual_seed(0))[:, :2]
    for text in ([2, 3], [3, 3], [0, 0], [2, 0]):
        row = torch.tensor([text])
        share = float((x == row).all(1).float().mean())
        assert share == pytest.approx(math.exp(float(model.log_prob(row).detach())), abs=0.012)


def test_bidirectional_sees_both_sides():
    torch.manual_seed(0)
    model = Bidirectional(BidirectionalConfig(7, 5, 6))
    x = torch.tensor([[3, 4, model.mask_token, 5, 6]])
    for place in (0, 1, 3, 4):
        changed = x.clone()
        changed[0, place] = 2
        assert (model.logits(x) - model.logits(changed))[0, 2].abs().max() > 1e-4
    assert model.logits(x).shape == (1, 5, 7)


def test_rates_rise_and_fall():
    model = tiny()
    config = TextLossConfig(lr=0.1, final_lr=0.01, warmup=4)
    learner, rates = TextLearner(model, config, 24), []
    for _ in range(24):
        rates.append(learner.optimisation.optimizers[0].param_groups[0]["lr"])
        learner.update(torch.tensor([[2, 3, 4]]))
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[14] == pytest.approx(0.055)
    assert learner.optimisation.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)


def test_decay_is_of_matrices_and_muon_of_inner_ones():
    model = tiny("gru-before")
    learner = TextLearner(model, TextLossConfig(optimizer="muon", weight_decay=0.1), 1)
    adam, muon = learner.optimisation.optimizers
    decayed, plain = adam.param_groups
    assert {id(p) for p in decayed["params"]} == {
        id(model.embedding.weight), id(model.head.weight)
    }  # fmt: skip
    assert all(p.dim() == 1 for p in plain["params"])
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert len(muon.param_groups[0]["params"]) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecurrentTextConfig(hidden_dim=0), "hidden_dim is 0"),
        (lambda: RecurrentTextConfig(2), "vocab_size is 2"),
        (lambda: RecurrentTextConfig(dropout=1.0), "dropout is 1.0"),
        (lambda: BidirectionalConfig(mask_rate=0.0), "mask_rate is 0.0"),
        (
            lambda: Bidirectional(BidirectionalConfig(7, 2, 2)).loss(torch.zeros(1, 3).long()),
            "empty",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
