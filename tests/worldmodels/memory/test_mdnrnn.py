"""M against parameter counts of paper and book, a plain LSTM loop and losses by hand."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal

from generative.mdn import MixtureDensityHead
from generative.training.precision import default_bf16
from worldmodels.configs import MemoryLossConfig
from worldmodels.memory import (
    BOOK_MDNRNN,
    MDNRNN,
    PAPER_MDNRNN,
    MDNRNNConfig,
    MemoryLearner,
    MemoryLosses,
    memory_loss,
    mixture_nll,
)
from worldmodels.memory.learner import fast_dropout

torch.set_num_threads(1)
SMALL = MDNRNNConfig(
    latent_dim=4,
    hidden_dim=12,
    num_mixtures=3,
    reward_input=True,
    predict_reward=True,
    predict_end=True,
    residual=True,
    reward_scale=2.5,
)


def small_memory(seed: int = 0, **changes) -> MDNRNN:
    torch.manual_seed(seed)
    return MDNRNN(dataclasses.replace(SMALL, **changes)).eval()


def random_batch(b: int = 3, t: int = 7, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(b, t + 1, 4, generator=generator)
    reward = torch.randn(b, t + 1, generator=generator)
    return {
        "z": z[:, :-1],
        "next_z": z[:, 1:],
        "action": torch.rand(b, t, 3, generator=generator),
        "reward": reward[:, 1:],
        "prev_reward": reward[:, :-1],
        "terminated": (torch.rand(b, t, generator=generator) < 0.2).float(),
        "mask": torch.ones(b, t),
    }


@pytest.mark.parametrize(
    ("config", "trained", "inputs", "outputs"),
    [(PAPER_MDNRNN, 422_368, 35, 480), (BOOK_MDNRNN, 423_649, 36, 481)],
)
def test_sizes_of_paper_and_book(config, trained, inputs, outputs):
    memory = MDNRNN(config)
    assert sum(p.numel() for p in memory.parameters() if p.requires_grad) == trained
    # PyTorch's second bias vector is there, but stays at zero.
    assert sum(p.numel() for p in memory.parameters()) == trained + 4 * 256
    assert not memory.lstm.bias_hh_l0.any()
    assert config.input_dim == memory.lstm.input_size == inputs
    heads = [memory.mixture_head.linear, memory.reward_head, memory.end_head]
    assert sum(h.out_features for h in heads if h is not None) == outputs


def cell_of(memory: MDNRNN) -> nn.LSTMCell:
    cell = nn.LSTMCell(memory.config.input_dim, memory.config.hidden_dim)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(cell, name).data.copy_(getattr(memory.lstm, f"{name}_l0"))
    return cell


@pytest.mark.parametrize("given_state", [False, True])
def test_reads_like_a_loop_of_lstm_cells(given_state):
    memory, batch = small_memory(), random_batch()
    cell, (h, c) = cell_of(memory), memory.initial_state(3)
    if given_state:
        h, c = torch.rand(3, 12) - 0.5, torch.randn(3, 12)
    out, last = memory(batch["z"], batch["action"], (h, c), batch["prev_reward"])
    stepped, state = [], (h, c)
    for t in range(7):
        inputs = [batch["z"][:, t], batch["action"][:, t], batch["prev_reward"][:, t, None] / 2.5]
        h, c = cell(torch.cat(inputs, dim=1), (h, c))
        torch.testing.assert_close(out.h[:, t], h)
        logits = memory.mixture_head.linear(h).reshape(3, 3, 4, 3)
        torch.testing.assert_close(out.mixture.log_pi[:, t], logits[:, 0].log_softmax(-1))
        torch.testing.assert_close(
            out.mixture.mu[:, t], logits[:, 1] + batch["z"][:, t].unsqueeze(-1)
        )
        torch.testing.assert_close(out.mixture.log_std[:, t], logits[:, 2])
        torch.testing.assert_close(out.reward[:, t], 2.5 * memory.reward_head(h)[:, 0])
        torch.testing.assert_close(out.end_logit[:, t], memory.end_head(h)[:, 0])
        one, state = memory.step(
            batch["z"][:, t], batch["action"][:, t], state, batch["prev_reward"][:, t]
        )
        stepped.append(one)
        torch.testing.assert_close(state, (h, c))
    torch.testing.assert_close(last, (h, c))
    torch.testing.assert_close(torch.stack([s.reward for s in stepped], 1), out.reward)
    torch.testing.assert_close(torch.stack([s.mixture.mu for s in stepped], 1), out.mixture.mu)


def test_heads_that_are_off_give_nothing():
    memory = small_memory(predict_reward=False, predict_end=False, reward_input=False)
    out, _ = memory(torch.zeros(2, 3, 4), torch.zeros(2, 3, 3))
    assert out.reward is None
    assert out.end_logit is None
    losses = memory_loss(out, random_batch(2, 3), memory.config, MemoryLossConfig())
    assert losses.reward == losses.end == 0
    assert losses.loss == losses.nll


def test_residual_moves_the_means_by_z_alone():
    moving, fixed = small_memory(), small_memory(residual=False)
    batch = random_batch()
    args = batch["z"], batch["action"], None, batch["prev_reward"]
    ours, plain = moving(*args)[0].mixture, fixed(*args)[0].mixture
    torch.testing.assert_close(ours.mu, plain.mu + batch["z"].unsqueeze(-1))
    assert torch.equal(ours.log_pi, plain.log_pi)
    assert torch.equal(ours.log_std, plain.log_std)


def test_loss_by_hand():
    memory, batch = small_memory(), random_batch(seed=1)
    batch["mask"][1, 4:] = 0
    weights = MemoryLossConfig(reward_weight=0.5, end_weight=3.0)
    out, _ = memory(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
    nll = reward = end = steps = 0.0
    for b in range(3):
        for t in range(7 if b != 1 else 4):
            mixture = MixtureSameFamily(
                Categorical(logits=out.mixture.log_pi[b, t]),
                Normal(out.mixture.mu[b, t], out.mixture.log_std[b, t].exp()),
            )
            nll -= mixture.log_prob(batch["next_z"][b, t]).mean().item()
            reward += ((out.reward[b, t] - batch["reward"][b, t]).item() / 2.5) ** 2
            p = 1 / (1 + math.exp(-out.end_logit[b, t].item()))
            end -= math.log(p if batch["terminated"][b, t] else 1 - p)
            steps += 1
    losses = memory_loss(out, batch, memory.config, weights)
    assert losses.nll.item() == pytest.approx(nll / steps, rel=1e-5)
    assert losses.reward.item() == pytest.approx(reward / steps, rel=1e-5)
    assert losses.end.item() == pytest.approx(end / steps, rel=1e-5)
    expected = (nll + 0.5 * reward + 3 * end) / steps
    assert losses.loss.item() == pytest.approx(expected, rel=1e-5)


def test_padding_never_counts():
    """Whatever stands behind the mask, losses and gradients stay the same."""
    results = []
    for filler in (0.0, 50.0):
        memory, batch = small_memory(), random_batch()
        batch["mask"][0, 5:] = 0
        batch["mask"][2, :] = 0
        hidden = batch["mask"] == 0
        for name in ("next_z", "reward", "terminated", "action"):
            batch[name] = batch[name].clone()
            batch[name][hidden] = filler
        out, _ = memory(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
        losses = memory_loss(out, batch, memory.config, MemoryLossConfig())
        losses.loss.backward()
        gradients = [p.grad for p in memory.parameters() if p.requires_grad]
        results.append((losses, gradients))
    torch.testing.assert_close(results[0], results[1])


def test_gradients_reach_every_trained_parameter():
    memory, batch = small_memory(), random_batch()
    out, _ = memory(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
    memory_loss(out, batch, memory.config, MemoryLossConfig()).loss.backward()
    for name, parameter in memory.named_parameters():
        if name == "lstm.bias_hh_l0":
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name


def test_dropout_hides_h_from_the_heads_in_training_only():
    memory, batch = small_memory(dropout=0.5), random_batch()
    args = batch["z"], batch["action"], None, batch["prev_reward"]
    calm = [memory(*args)[0] for _ in range(2)]
    assert torch.equal(calm[0].reward, calm[1].reward)
    memory.train()
    trained = [memory(*args) for _ in range(2)]
    assert not torch.equal(trained[0][0].reward, trained[1][0].reward)
    assert torch.equal(trained[0][0].h, calm[0].h)  # what M remembers is whole
    assert torch.equal(trained[0][1][1], trained[1][1][1])


def learner_for(seed: int = 0, steps: int = 60, **settings) -> MemoryLearner:
    torch.manual_seed(seed)
    memory = MDNRNN(dataclasses.replace(SMALL, dropout=0.1))
    return MemoryLearner(memory, MemoryLossConfig(**settings), steps)


@torch.no_grad()
def calm_losses(learner: MemoryLearner, batch: dict[str, torch.Tensor]) -> MemoryLosses:
    """Losses without dropout."""
    memory = learner.model.eval()
    out, _ = memory(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
    return memory_loss(out, batch, memory.config, learner.config)


NATIVE = pytest.mark.skipif(not default_bf16(), reason="oneDNN has no bfloat16 LSTM here")


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=[NATIVE, pytest.mark.nightly])])
def test_overfits_a_batch(bf16):
    """In every run bfloat16 is compared with float32 by `test_likelihood_in_bfloat16_is_near`."""
    learner, batch = learner_for(steps=150, lr=0.02, final_lr=1e-3, bf16=bf16), random_batch()
    first = calm_losses(learner, batch)
    for _ in range(150):
        learner.update(batch)
    last = calm_losses(learner, batch)
    assert last.nll < first.nll - 1
    assert last.reward < 0.4 * first.reward
    assert last.end < 0.2 * first.end
    assert not learner.model.lstm.bias_hh_l0.any()
    assert learner.optimisation.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_learner_goes_on_from_its_state_dict():
    batch, whole = random_batch(), learner_for()
    for step in range(6):
        torch.manual_seed(step)
        whole.update(batch)
        if step == 2:
            resumed = learner_for(seed=1)
            resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for step in range(3, 6):
        torch.manual_seed(step)
        resumed.update(batch)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_are_clipped_by_value():
    learner, batch = learner_for(clip_value=1e-4), random_batch()
    learner.update(batch)
    largest = max(p.grad.abs().max() for p in learner.model.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-4)


@pytest.mark.parametrize("residual", [False, True])
def test_learner_takes_the_steps_of_a_plain_loop(residual):
    """Its likelihood, dropout and optimiser are ways of its own to the same result."""
    torch.manual_seed(0)
    memory = MDNRNN(dataclasses.replace(SMALL, residual=residual))
    settings, batch = MemoryLossConfig(clip_value=0.01, end_weight=2.0), random_batch()
    batch["mask"][1, 4:] = 0
    plain = copy.deepcopy(memory)
    learner = MemoryLearner(memory, settings, steps=1000)
    optimizer = torch.optim.Adam(plain.parameters(), lr=settings.lr)
    for _ in range(3):
        out, _ = plain(batch["z"], batch["action"], prev_reward=batch["prev_reward"])
        expected = memory_loss(out, batch, plain.config, settings)
        optimizer.zero_grad()
        expected.loss.backward()
        for parameter in plain.parameters():
            if parameter.grad is not None:
                parameter.grad.clamp_(-0.01, 0.01)
        optimizer.step()
        given = learner.update(batch)
        for name, value in expected._asdict().items():
            torch.testing.assert_close(given[name], value.detach(), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(memory.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=3e-5)


@pytest.mark.parametrize("rows_at_once", [8, 1000])
def test_likelihood_and_gradients_are_those_of_torch_distributions(rows_at_once, monkeypatch):
    monkeypatch.setattr("worldmodels.memory.loss._MixtureNLL.rows_at_once", rows_at_once)
    torch.manual_seed(0)
    head = MixtureDensityHead(in_dim=6, out_dim=4, num_mixtures=3).double()
    with torch.no_grad():
        head.linear.bias[-3:] = torch.tensor([-9.0, 6.0, 0.0])  # two of them are clamped
    features = torch.randn(5, 7, 6, dtype=torch.float64, requires_grad=True)
    x, share = torch.randn(5, 7, 4, dtype=torch.float64), torch.rand(5, 7, dtype=torch.float64)
    logits, mu, log_std = head.linear(features).unflatten(-1, (3, 4, 3)).unbind(-3)
    mixture = MixtureSameFamily(Categorical(logits=logits), Normal(mu, log_std.clamp(-7, 5).exp()))
    plain = -(mixture.log_prob(x).mean(-1) * share).sum()
    ours = mixture_nll(features, head, x, share, torch.float64)
    torch.testing.assert_close(ours, plain)
    inputs = [features, head.linear.weight, head.linear.bias]
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, inputs), torch.autograd.grad(3 * plain, inputs)
    )


def test_likelihood_in_bfloat16_is_near():
    torch.manual_seed(0)
    head, features = MixtureDensityHead(64, 8, 5), torch.randn(300, 64)
    x, share = torch.randn(300, 8), torch.full((300,), 1 / 300)
    exact, near = (mixture_nll(features, head, x, share, t) for t in (torch.float, torch.bfloat16))
    torch.testing.assert_close(near, exact, rtol=0.01, atol=0)
    gradients = [torch.autograd.grad(nll, head.linear.weight)[0] for nll in (exact, near)]
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_learners_dropout_hides_and_scales(p, dtype):
    x = torch.ones(101, 997, dtype=dtype)
    torch.manual_seed(3)
    dropped = fast_dropout(x, p)
    assert dropped.dtype == dtype
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).to(dtype).item()}
    deviation = math.sqrt(p * (1 - p) / x.numel())
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=4 * deviation)
    torch.manual_seed(3)
    assert torch.equal(fast_dropout(x, p), dropped)
    assert not torch.equal(fast_dropout(x, p), dropped)
    assert fast_dropout(x, 0.0) is x


def test_what_does_not_fit_is_explained():
    memory = small_memory()
    z, action, reward = torch.zeros(2, 5, 4), torch.zeros(2, 5, 3), torch.zeros(2, 5)
    with pytest.raises(ValueError, match="z has 6 dimensions, this M was trained with 4"):
        memory(torch.zeros(2, 5, 6), action, prev_reward=reward)
    with pytest.raises(ValueError, match="action has 2 numbers, this M was trained with 3"):
        memory(z, action[..., :2], prev_reward=reward)
    with pytest.raises(ValueError, match="pass prev_reward"):
        memory(z, action)
    with pytest.raises(ValueError, match="dropout is 1"):
        MDNRNNConfig(dropout=1.0)
    with pytest.raises(ValueError, match="reward_scale is 0"):
        MDNRNNConfig(reward_scale=0.0)


def test_saved_and_loaded(tmp_path):
    memory, batch = small_memory(), random_batch()
    memory.save_pretrained(tmp_path / "memory")
    again = MDNRNN.from_pretrained(tmp_path / "memory")
    assert again.config == memory.config
    args = batch["z"], batch["action"], None, batch["prev_reward"]
    assert torch.equal(again(*args)[0].reward, memory(*args)[0].reward)
    assert not again.lstm.bias_hh_l0.requires_grad


def test_the_papers_rate_falls_by_its_programs_factor():
    """By the paper's program: (lr - min_lr) * decay ** step + min_lr."""
    learner, batch = learner_for(steps=3, lr=1e-3, final_lr="paper"), random_batch()
    rates = []
    for _ in range(4):
        rates.append(learner.optimisation.optimizers[0].param_groups[0]["lr"])
        learner.update(batch)
    expected = [(1e-3 - 1e-5) * 0.99999**step + 1e-5 for step in range(4)]
    assert rates == pytest.approx(expected, rel=1e-12)
    learner.load_state_dict({**learner.state_dict(), "step": 100_000})
    assert learner.optimisation.optimizers[0].param_groups[0]["lr"] == pytest.approx(
        3.742e-4, rel=1e-3
    )
