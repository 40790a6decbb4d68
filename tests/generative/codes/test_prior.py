"""Priors of codes: probabilities that sum to 1, what each code depends on, windows, completion."""

import itertools

import pytest
import torch

from generative.codes import (
    CodeTransformerConfig,
    GPTPrior,
    PixelCNNPrior,
    PriorConfig,
    uniform_codes,
)
from generative.nets.config import gpt2_block
from generative.pixelcnn import GatedConfig, PixelCNNConfig, PlainConfig

torch.set_num_threads(1)
NETWORKS = {
    "gated": GatedConfig(hidden_dim=8, num_layers=2, embed_dim=4),
    "plain": PlainConfig(hidden_dim=8, num_blocks=1, first_kernel=3),
    "transformer": CodeTransformerConfig(1, gpt2_block(8, 2)),
}
CLASSES = {
    "gated": GatedConfig(hidden_dim=8, num_layers=2, embed_dim=4, num_classes=2),
    "transformer": CodeTransformerConfig(1, gpt2_block(8, 2), 2),
}


def prior(network, grid=(2, 2), num_codes=3) -> GPTPrior | PixelCNNPrior:
    """With weights that are anything, as some layers begin as zeros."""
    torch.manual_seed(0)
    made = PriorConfig(grid, num_codes, network).build().double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def every_grid(num_codes: int) -> torch.Tensor:
    """All grids of 2x2."""
    return torch.tensor(list(itertools.product(range(num_codes), repeat=4))).view(-1, 2, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_of_all_grids_sum_to_one(name):
    log_p = prior(NETWORKS[name]).log_prob(every_grid(3)).detach()
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(log_p.std()) > 0.1


@pytest.mark.parametrize("name", CLASSES)
def test_probabilities_of_each_class_sum_to_one_and_differ(name):
    made, grids = prior(CLASSES[name]), every_grid(3)
    log_p = [made.log_prob(grids, torch.full((81,), c)).detach() for c in range(2)]
    for each in log_p:
        assert float(each.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    assert not torch.allclose(*log_p)
    both = torch.stack(log_p).exp().mean(0).log()
    torch.testing.assert_close(made.log_prob(grids).detach(), both)


def test_a_class_that_is_not_told_follows_from_the_rows_that_are_kept():
    """Completions are as frequent as they are given the upper row, whatever the class."""
    made, n = prior(CLASSES["transformer"], num_codes=2), 4000
    upper = torch.tensor([[1, 0]])
    grids = every_grid(2)
    ends = grids[(grids[:, 0] == upper).all(1)]
    p = made.log_prob(ends).exp().detach()
    codes = torch.cat([upper, upper]).expand(n, 2, 2)
    done = made.complete(codes, 1, torch.Generator().manual_seed(1))
    found = (done[:, None] == ends).all(-1).all(-1).double().sum(0)
    expected = n * p / p.sum()
    assert float(found.sum()) == n
    assert float(((found - expected) ** 2 / expected).sum()) < 16.3  # 3 degrees, 1 in 1000


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_are_as_frequent_as_they_are_probable(name):
    made, grids, n = prior(NETWORKS[name], num_codes=2), every_grid(2), 4000
    drawn = made.sample(n, torch.Generator().manual_seed(1))
    found = (drawn[:, None] == grids).all(-1).all(-1).double().sum(0)
    expected = n * made.log_prob(grids).exp().detach()
    chi2 = float(((found - expected) ** 2 / expected).sum())
    assert chi2 < 37.7  # 15 degrees of freedom: one seed in a thousand is above


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_that_are_known_stay_and_others_follow_from_them(name):
    made = prior(NETWORKS[name], (3, 4), 5)
    codes = torch.randint(5, (6, 3, 4), generator=torch.Generator().manual_seed(2))
    for rows in (0, 2, 3):
        done = made.complete(codes, rows, torch.Generator().manual_seed(3))
        assert torch.equal(done[:, :rows], codes[:, :rows])
        assert done.min() >= 0
        assert done.max() < 5
    likeliest = made.complete(codes, 2, temperature=0.0)
    for column in range(4):
        best = []
        for code in range(5):
            tried = likeliest.clone()
            tried[:, 2, column] = code
            # What comes later is summed out by comparing the same with only earlier codes changed.
            best.append(step_log_prob(made, tried, 4 * 2 + column))
        assert torch.equal(torch.stack(best).argmax(0), likeliest[:, 2, column])


def step_log_prob(made, codes: torch.Tensor, place: int) -> torch.Tensor:
    """log p of one code given those before it."""
    if isinstance(made, PixelCNNPrior):
        image = codes[:, None].double() / (made.num_codes - 1)
        return made.pixelcnn.pixel_log_probs(image).flatten(1)[:, place]
    log_p = made.logits(codes).log_softmax(-1).flatten(1, 2)[:, place]
    return log_p.gather(1, codes.flatten(1)[:, place, None])[:, 0]


def test_codes_know_only_those_before_them():
    made, codes = prior(NETWORKS["transformer"], (3, 4), 5), torch.zeros(2, 3, 4, dtype=torch.int64)
    logits = made.logits(codes).flatten(1, 2)
    for place in range(12):
        other = codes.clone().flatten(1)
        other[:, place] = 3
        moved = (made.logits(other.view(2, 3, 4)).flatten(1, 2) != logits).any(2).any(0)
        assert moved.tolist() == [at > place for at in range(12)]


def test_a_code_has_a_vector_and_no_order():
    """Codes that swap names with their vectors and outputs keep their probabilities."""
    made = prior(NETWORKS["gated"])
    grids = every_grid(3)
    log_p = made.log_prob(grids)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        made.pixelcnn.network.embed.weight[order] = made.pixelcnn.network.embed.weight.clone()
        last = made.pixelcnn.network.last[-1]
        last.weight[order], last.bias[order] = last.weight.clone(), last.bias.clone()
    torch.testing.assert_close(made.log_prob(order[grids]), log_p)


# ---------------------------------------------------------------------------------------------
# Sliding window
# ---------------------------------------------------------------------------------------------


def test_window_as_large_as_the_grid_is_the_whole_model_bit_for_bit():
    made = prior(NETWORKS["transformer"], (3, 4), 5)
    codes = torch.randint(5, (2, 3, 4), generator=torch.Generator().manual_seed(2))
    logits = made.logits(codes)
    for row in range(3):
        for column in range(4):
            assert torch.equal(made.window_logits(codes, row, column), logits[:, row, column])


@pytest.mark.parametrize("place", [(0, 0), (0, 6), (2, 3), (3, 1), (5, 6), (4, 0)])
def test_nothing_outside_the_window_or_later_is_seen(place):
    """The window of 3x4 lies around the code, or at the border."""
    made = prior(NETWORKS["transformer"], (3, 4), 5)
    codes, (row, column) = torch.zeros(1, 6, 7, dtype=torch.int64), place
    top, left = min(max(row - 1, 0), 3), min(max(column - 2, 0), 3)
    logits = made.window_logits(codes, row, column)
    for r in range(6):
        for c in range(7):
            changed = codes.clone()
            changed[0, r, c] = 4
            inside = top <= r < top + 3 and left <= c < left + 4
            seen = inside and (r, c) < (row, column)
            assert torch.equal(made.window_logits(changed, row, column), logits) != seen, (r, c)


def test_a_larger_grid_is_filled_and_a_smaller_one_refused():
    made = prior(NETWORKS["transformer"], (3, 4), 5)
    drawn = made.sample(2, torch.Generator().manual_seed(0), grid=(6, 8))
    assert drawn.shape == (2, 6, 8)
    kept = made.complete(drawn, 5, torch.Generator().manual_seed(1))
    assert torch.equal(kept[:, :5], drawn[:, :5])
    with pytest.raises(ValueError, match=r"grid of 2x8.*fills grids from 3x4"):
        made.sample(1, grid=(2, 8))
    with pytest.raises(ValueError, match="9 rows to keep"):
        made.complete(drawn, 9)


# ---------------------------------------------------------------------------------------------
# Uniform codes, refusals
# ---------------------------------------------------------------------------------------------


def test_uniform_codes_are_chosen_evenly():
    codes = uniform_codes(2000, (2, 3), 4, torch.Generator().manual_seed(0))
    assert codes.shape == (2000, 2, 3)
    counts = torch.bincount(codes.flatten(), minlength=4).double()
    assert float(((counts - 3000) ** 2 / 3000).sum()) < 16.3  # 3 degrees, one seed in a thousand


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_told_and_checked(name):
    made = prior(CLASSES[name], num_codes=4)
    assert made.sample(3, torch.Generator().manual_seed(0)).shape == (3, 2, 2)
    asked = made.sample(3, torch.Generator().manual_seed(0), labels=torch.tensor([1, 0, 1]))
    assert asked.shape == (3, 2, 2)
    with pytest.raises(ValueError, match="labels from 0 to 2; this"):
        made.log_prob(asked, torch.tensor([0, 1, 2]))


def test_what_does_not_fit_together_is_told():
    with pytest.raises(ValueError, match="this prior has no labels; it has num_classes 0"):
        prior(NETWORKS["transformer"]).log_prob(every_grid(3)[:1], torch.tensor([0]))
    with pytest.raises(ValueError, match=r"this prior needs labels \(B,\); it has num_classes 2"):
        prior(CLASSES["transformer"]).logits(every_grid(3)[:1])
    with pytest.raises(ValueError, match="embed_dim is 4 with image_shape"):
        PixelCNNConfig((3, 4, 4), 5, 0, NETWORKS["gated"])
