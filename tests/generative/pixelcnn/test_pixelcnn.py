"""PixelCNNs against gradients, enumeration, torch.distributions, and the book's sizes."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Categorical,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)
from torch.nn import functional as F

from generative.pixelcnn import (
    GatedConfig,
    MaskedConv2d,
    PixelCNN,
    PixelCNNConfig,
    PixelCNNLearner,
    PixelCNNLossConfig,
    PlainConfig,
    PlusPlusConfig,
    RecurrentConfig,
    Softmax,
)
from generative.pixelcnn.mixture import (
    MIN_SCALE,
    LogisticMixture,
    PlusPlusNet,
    WeightNormConv,
    log_level_probs,
)
from generative.training.settings import from_json, to_json

torch.set_num_threads(1)

PLAIN = PlainConfig(hidden_dim=12, num_blocks=2, first_kernel=5)
GATED = GatedConfig(hidden_dim=6, num_layers=4, first_kernel=5)
PLUS_PLUS = PlusPlusConfig(num_filters=4, dropout=0.0)
RECURRENT = RecurrentConfig(hidden_dim=6, num_recurrent=1, first_kernel=3)


def make(
    shape: tuple[int, int, int], levels: int, network, num_mixtures: int = 0, noise: float = 0.3
) -> PixelCNN:
    """A model in float64 with weights that are anything."""
    torch.manual_seed(0)
    model = PixelCNNConfig(shape, levels, num_mixtures, network).build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model


def every_image(shape: tuple[int, int, int], levels: int) -> Tensor:
    """All images of so many levels, float64 (levels ** (C H W), C, H, W)."""
    values = itertools.product(range(levels), repeat=math.prod(shape))
    return torch.tensor(list(values), dtype=torch.float64).view(-1, *shape) / (levels - 1)


def random_images(n: int, shape: tuple[int, int, int], levels: int) -> Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(levels, size=(n, *shape)) / (levels - 1))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def influence(model: PixelCNN) -> Tensor:
    """Gradients of the parameters of each pixel, added with random weights, by an image's numbers.

    (H, W, groups, H, W, C), with a group of parameters for each colour that the network orders.
    """
    groups = model.output.colours if model.output.ordered_network else 1
    c, h, w = model.config.image_shape
    where = list(itertools.product(range(h), range(w), range(groups)))
    x = torch.rand(1, c, h, w, generator=generator(0), dtype=torch.float64)
    # A copy of the image for each of them, so that one run backward gives all gradients.
    x = x.repeat(len(where), 1, 1, 1).requires_grad_()
    params = model.pixel_params(x).unflatten(1, (-1, groups))
    weights = torch.randn(params.shape[1], generator=generator(1), dtype=torch.float64)
    total = sum(weights @ params[n, :, g, i, j] for n, (i, j, g) in enumerate(where))
    (gradient,) = torch.autograd.grad(total, x)
    return gradient.movedim(1, -1).unflatten(0, (h, w, groups)).abs()


def earlier(h: int, w: int, groups: int, c: int) -> Tensor:
    """Which numbers come before which, in reading order and then by colour, by a loop."""
    found = torch.zeros(h, w, groups, h, w, c, dtype=torch.bool)
    for i, j, g, k, m, b in itertools.product(*map(range, found.shape)):
        found[i, j, g, k, m, b] = (k, m) < (i, j) or ((k, m) == (i, j) and b < g)
    return found


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------


def test_sizes_are_the_books():
    model = PixelCNNConfig().build()
    assert sum(p.numel() for p in model.parameters()) == 307_460
    assert model.network(torch.zeros(1, 1, 16, 16)).shape == (1, 4, 16, 16)
    convolutions = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    counts = [sum(p.numel() for p in m.parameters()) for m in convolutions]
    assert counts == [6_400, *(8_256, 36_928, 8_320) * 5, 16_512, 16_512, 516]


def test_sizes_of_the_mixture_are_the_librarys():
    """623,535 weights and biases, and a length for each of the 1,455 output channels."""
    model = PixelCNNConfig((1, 32, 32), 256, 5, PlusPlusConfig()).build()
    assert sum(p.numel() for p in model.parameters()) == 624_990
    lengths = [p.numel() for name, p in model.named_parameters() if name.endswith("log_length")]
    assert (len(lengths), sum(lengths)) == (36, 1_455)


def test_masks_are_the_books():
    for kind, side, seen in (("A", 7, 24), ("B", 3, 5), ("A", 3, 4), ("B", 1, 1)):
        assert int(MaskedConv2d(1, 1, side, kind).mask.sum()) == seen
    assert MaskedConv2d(1, 1, 3, "A").mask[0, 0].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    own = MaskedConv2d(3, 6, 3, "A", colours=3).mask[:, :, 1, 1]
    assert own.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]] * 2


# ---------------------------------------------------------------------------------------------
# Who sees what
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", [1, 3])
def test_gated_network_sees_exactly_what_comes_before(colours):
    # Wide enough that no colour's share of the rectified features is dead at this image.
    model = make((colours, 5, 5), 4, dataclasses.replace(GATED, hidden_dim=48))
    seen = influence(model)
    before = earlier(5, 5, colours, colours)
    assert seen[~before].max() == 0
    assert seen[before].min() > 0  # nothing before is missed: no blind spot


@pytest.mark.parametrize("colours", [1, 3])
def test_one_layer_of_diagonal_lstms_sees_exactly_what_comes_before(colours):
    model = make((colours, 6, 6), 4, dataclasses.replace(RECURRENT, hidden_dim=48))
    seen = influence(model)
    before = earlier(6, 6, colours, colours)
    assert seen[~before].max() == 0
    assert seen[before].min() > 0  # one layer, and a first kernel of 3, reach the whole image


@pytest.mark.parametrize("colours", [1, 3])
def test_plain_network_sees_nothing_that_comes_later(colours):
    model = make((colours, 6, 6), 4, PLAIN)
    seen = influence(model)
    before = earlier(6, 6, colours, colours)
    assert seen[~before].max() == 0
    assert not seen[before].all()


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_plus_plus_network_sees_nothing_that_comes_later(scales):
    network = dataclasses.replace(PLUS_PLUS, num_scales=scales, num_resnet=2)
    model = make((2, 8, 8), 4, network, num_mixtures=2)
    seen = influence(model)
    before = earlier(8, 8, 1, 2)
    assert seen[~before].max() == 0
    # All of the own row's left part and of the row above that the kernels reach, to begin with.
    assert seen[5, 5, 0, 5, 4].min() > 0
    assert seen[5, 5, 0, 4, 3:8].min() > 0


def test_blind_spot_of_the_books_network():
    """At (15, 8) it sees 126 of 248 earlier pixels; within its 8 rows it is blind to 10.

    Against a walk through the kernels, step by step.
    """
    model = make((1, 16, 16), 4, PlainConfig(hidden_dim=4), noise=0.0)
    with torch.no_grad():  # nothing cancels and no unit is dead where everything is positive
        for parameter in model.parameters():
            parameter.fill_(0.01)
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.network(x)[0, :, 15, 8].sum(), x)
    seen = {(int(r), int(c)) for r, c in gradient[0, 0].nonzero()}

    reached = {(15, 8)}
    for _ in range(5):
        steps = [(0, 0), (0, -1), (-1, -1), (-1, 0), (-1, 1)]
        reached = {(r + a, c + b) for r, c in reached for a, b in steps}
    above = [(a, b) for a in (-3, -2, -1) for b in range(-3, 4)]
    first = [*above, (0, -3), (0, -2), (0, -1)]
    expected = {(r + a, c + b) for r, c in reached for a, b in first}
    expected = {(r, c) for r, c in expected if 0 <= r < 16 and 0 <= c < 16}
    assert seen == expected
    assert len(seen) == 126
    within = {(r, c) for r in range(7, 16) for c in range(16) if (r, c) < (15, 8)}
    assert len({(r, c) for r, c in within if 0 <= 8 - c <= 8 or c > 8} - seen) == 10


# ---------------------------------------------------------------------------------------------
# Probabilities
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "levels", "network", "num_mixtures"),
    [
        ((1, 2, 2), 4, PLAIN, 0),
        ((1, 2, 2), 4, GATED, 0),
        ((1, 2, 2), 4, GATED, 3),
        ((1, 2, 2), 4, PLUS_PLUS, 3),
        ((1, 2, 2), 4, RECURRENT, 0),
        ((3, 1, 2), 2, RECURRENT, 0),
        ((3, 1, 2), 2, PLAIN, 0),
        ((3, 1, 2), 2, GATED, 0),
        ((3, 1, 2), 3, GATED, 2),
        ((3, 2, 2), 2, PLUS_PLUS, 2),
    ],
)
def test_probabilities_of_all_images_sum_to_one(shape, levels, network, num_mixtures):
    model = make(shape, levels, network, num_mixtures)
    with torch.no_grad():
        log_p = model.log_prob(every_image(shape, levels))
    assert len(log_p) == levels ** math.prod(shape)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert float(log_p.std()) > 0.1  # and are not all alike


def test_softmax_is_cross_entropy():
    """The book's loss: the mean over pixels of the cross-entropy with the levels."""
    model, x = make((1, 6, 6), 4, PLAIN), random_images(5, (1, 6, 6), 4)
    logits, level = model.pixel_params(x), (3 * x).round().long()[:, 0]
    expected = F.cross_entropy(logits, level)
    losses = model.loss(x)
    torch.testing.assert_close(losses.loss / 36, expected)
    torch.testing.assert_close(losses.bits_per_dim, expected / math.log(2))


def test_next_pixel_and_the_log_probs_of_pixels_agree():
    """In every place and colour, and whatever the later pixels are."""
    for network, num_mixtures in (
        (PLAIN, 0), (GATED, 0), (GATED, 2), (PLUS_PLUS, 2), (RECURRENT, 0), (RECURRENT, 2)
    ):  # fmt: skip
        model = make((3, 4, 4), 4, network, num_mixtures)
        x = random_images(2, (3, 4, 4), 4)
        with torch.no_grad():
            log_p = model.pixel_log_probs(x)
            for i, j, c in itertools.product(range(4), range(4), range(3)):
                later = x.clone()
                later[:, c:, i, j] = 0
                later[:, :, i, j + 1 :] = 1
                later[:, :, i + 1 :] = 0
                p = model.next_pixel(later, i, j, c)
                assert p.shape == (2, 4)
                level = (3 * x[:, c, i, j]).round().long()
                torch.testing.assert_close(p[range(2), level].log(), log_p[:, c, i, j])
                torch.testing.assert_close(p.sum(1), torch.ones(2).double())


def test_layout_of_colours_in_the_softmax():
    params = torch.randn(2, 3 * 5, 1, 1, generator=generator(0))
    level = torch.tensor([[1, 4, 0], [2, 2, 3]]).float()[..., None, None]
    output = Softmax(3, 5)
    log_p = output.log_probs(params, level)
    for b, c in itertools.product(range(2), range(3)):
        logits = params[b, [3 * k + c for k in range(5)], 0, 0]
        expected = logits.log_softmax(0)[int(level[b, c])]
        torch.testing.assert_close(log_p[b, c, 0, 0], expected)
        torch.testing.assert_close(
            output.table(params[:, :, 0, 0], level[:, :, 0, 0], c)[b], logits.log_softmax(0)
        )


# ---------------------------------------------------------------------------------------------
# Mixture of logistics
# ---------------------------------------------------------------------------------------------


def logistic(mean: Tensor, scale: Tensor) -> TransformedDistribution:
    """By torch.distributions: a uniform number through the inverse sigmoid, scaled and moved."""
    uniform = Uniform(torch.zeros_like(mean), torch.ones_like(mean))
    return TransformedDistribution(
        uniform, [SigmoidTransform().inv, AffineTransform(mean, scale)], validate_args=False
    )


def test_levels_of_logistics_against_torch_distributions():
    torch.manual_seed(0)
    mean = torch.empty(20, 1, dtype=torch.float64).uniform_(-1.2, 1.2)
    scale = torch.empty(20, 1, dtype=torch.float64).uniform_(0.01, 0.5)
    level = torch.arange(256, dtype=torch.float64)
    log_p = log_level_probs(level, mean, scale, 256)
    cdf = logistic(mean, scale).cdf((2 * torch.arange(255).double() + 1) / 255 - 1)
    expected = torch.diff(F.pad(F.pad(cdf, (0, 1), value=1.0), (1, 0), value=0.0))
    torch.testing.assert_close(log_p.exp(), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(20).double())
    # The lowest and the highest level have the tails.
    torch.testing.assert_close(log_p[:, 0], cdf[:, 0].log())
    torch.testing.assert_close(log_p[:, 255], (1 - cdf[:, -1]).log())


def test_far_tails_keep_their_digits_in_float32():
    """Where a difference of two sigmoids has none left: in the tail it is e^-|b| (1 - e^-d)."""
    level = torch.tensor([5.0, 250.0])
    mean, scale = torch.tensor([0.9, -0.9]), torch.tensor(0.005)
    log_p = log_level_probs(level, mean, scale, 256)
    width = 2 / 255 / 0.005
    near = (0.9 - (2 * 5 + 1 - 255) / 255) / 0.005
    expected = -near + math.log1p(-math.exp(-width))
    assert log_p.tolist() == pytest.approx([expected, expected], rel=1e-5)
    narrow = log_level_probs(torch.tensor(100.0), torch.tensor(0.0), torch.tensor(MIN_SCALE), 256)
    assert narrow.isfinite()


def test_mixture_of_one_colour_against_torch_distributions():
    """logits, means and raw scales in this order, as the book's library has them."""
    output = LogisticMixture(1, 256, 3)
    assert output.num_params == 9
    params = torch.randn(4, 9, generator=generator(0), dtype=torch.float64)
    table = output.table(params, torch.zeros(4, 1), 0)
    pi = Categorical(logits=params[:, :3]).probs
    scale = F.softplus(params[:, 6:]) + math.exp(-7)
    edges = ((2 * torch.arange(255).double() + 1) / 255 - 1)[:, None, None]
    cdf = (pi * logistic(params[:, 3:6], scale).cdf(edges)).sum(-1).T
    expected = torch.diff(F.pad(F.pad(cdf, (0, 1), value=1.0), (1, 0), value=0.0))
    torch.testing.assert_close(table.exp(), expected, rtol=0, atol=1e-13)
    assert float((table.exp().sum(1) - 1).abs().max()) < 1e-12


def test_mixture_of_colours_by_a_loop():
    """One component for the whole pixel; green moves with red, blue with both (section 2.2)."""
    k, levels = 2, 8
    output = LogisticMixture(3, levels, k)
    assert output.num_params == k * 10
    params = torch.randn(1, k * 10, 1, 1, generator=generator(0), dtype=torch.float64)
    logits, means, raw, slopes = params[0, :, 0, 0].split([k, 3 * k, 3 * k, 3 * k])
    pixel = torch.tensor([6.0, 0.0, 3.0]).double()
    red, green, _ = (2 * pixel / (levels - 1) - 1).tolist()
    total = 0.0
    for i, weight in enumerate(logits.softmax(0)):
        m, s = means[3 * i : 3 * i + 3], F.softplus(raw[3 * i : 3 * i + 3]) + math.exp(-7)
        a, b, c = slopes[3 * i : 3 * i + 3].tanh()
        moved = torch.stack([m[0], m[1] + a * red, m[2] + b * red + c * green])
        total += weight * log_level_probs(pixel, moved, s, levels).sum().exp()
    log_p = output.log_probs(params, pixel.view(1, 3, 1, 1))
    torch.testing.assert_close(log_p.sum(), total.log())


# ---------------------------------------------------------------------------------------------
# Samples
# ---------------------------------------------------------------------------------------------

CRITICAL = {7: 24.3, 15: 37.7, 3: 16.3}
"""Chi-square that is exceeded once in a thousand, by degrees of freedom."""


def chi_square(images: Tensor, levels: int, p: Tensor) -> float:
    digits = (images.flatten(1) * (levels - 1)).round().long()
    index = sum(digits[:, i] * levels ** (digits.shape[1] - 1 - i) for i in range(digits.shape[1]))
    found = torch.bincount(index, minlength=len(p)).double()
    expected = len(images) * p
    return float(((found - expected).square() / expected).sum())


@pytest.mark.parametrize(
    ("shape", "network", "num_mixtures"),
    [
        ((1, 2, 2), PLAIN, 0),
        ((1, 2, 2), GATED, 0),
        ((1, 2, 2), RECURRENT, 0),
        ((1, 2, 2), PLUS_PLUS, 2),
        ((3, 1, 1), GATED, 0),
        ((3, 1, 1), GATED, 2),
    ],
)
def test_frequencies_of_samples_are_the_probabilities(shape, network, num_mixtures):
    model = make(shape, 2, network, num_mixtures)
    with torch.no_grad():
        p = model.log_prob(every_image(shape, 2)).exp()
    samples = model.float().sample(20_000, generator(3))
    assert chi_square(samples, 2, p) < CRITICAL[len(p) - 1]
    assert chi_square(samples, 2, p.flip(0)) > CRITICAL[len(p) - 1]  # the test can fail


def test_temperature_divides_the_log_probabilities_of_every_pixel():
    model = make((1, 1, 2), 2, GATED)
    first = model.next_pixel(torch.zeros(1, 1, 1, 2).double(), 0, 0).detach()[0]
    sharp = first**2 / (first**2).sum()
    second = torch.cat(
        [model.next_pixel(torch.tensor([[[[a, 0.0]]]]).double(), 0, 1).detach() for a in (0.0, 1.0)]
    )
    sharper = second**2 / (second**2).sum(1, keepdim=True)
    p = (sharp[:, None] * sharper).flatten()
    samples = model.float().sample(20_000, generator(0), temperature=0.5)
    assert chi_square(samples, 2, p) < CRITICAL[3]


@pytest.mark.parametrize(("network", "num_mixtures"), [(PLAIN, 0), (GATED, 0), (PLUS_PLUS, 2)])
def test_temperature_zero_takes_the_likeliest_level(network, num_mixtures):
    model = make((1, 4, 4), 4, network, num_mixtures)
    images = model.sample(3, temperature=0)
    assert torch.equal(images[0], images[1])
    for i, j in itertools.product(range(4), range(4)):
        best = model.next_pixel(images.double(), i, j).argmax(1)
        assert torch.equal(best, (3 * images[:, 0, i, j]).round().long())
    cold = model.sample(3, generator(0), temperature=1e-4)
    assert torch.equal(cold, images)


def classes_of(num_classes: int = 3, shape: tuple[int, int, int] = (1, 2, 2)) -> PixelCNN:
    return make(shape, 2, dataclasses.replace(GATED, num_classes=num_classes, num_views=2))


def test_each_class_has_a_distribution_and_the_whole_is_their_mean():
    model, x = classes_of(), every_image((1, 2, 2), 2)
    labels = torch.arange(3)[:, None].expand(-1, 16)
    p = torch.stack([model.log_prob(x, label).exp() for label in labels]).detach()
    torch.testing.assert_close(p.sum(1), torch.ones(3).double())
    assert (p.diff(dim=0).abs().amax(1) > 0.01).all()
    torch.testing.assert_close(model.log_prob(x).exp().detach(), p.mean(0))
    torch.testing.assert_close(model.class_log_probs(x).exp().detach(), p.T)
    torch.testing.assert_close(model.loss(x).loss.detach(), -p.mean(0).log().mean())
    mixed = torch.tensor([0, 2, 1, 1]).repeat(4)
    torch.testing.assert_close(model.log_prob(x, mixed).exp().detach(), p[mixed, range(16)])


@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 1, 2)])
def test_each_pixel_of_the_mean_by_enumeration(shape):
    """p(number | those before) is a ratio of sums over all images that begin alike."""
    model, x = classes_of(shape=shape), every_image(shape, 2)
    with torch.no_grad():
        p, log_p = model.log_prob(x).exp(), model.pixel_log_probs(x)
    order = x.movedim(1, -1).flatten(1)  # pixels row by row, then colours
    for number, (i, j, c) in enumerate(itertools.product(*map(range, (*shape[1:], shape[0])))):
        upto = (order[:, None, : number + 1] == order[None, :, : number + 1]).all(2).double()
        before = (order[:, None, :number] == order[None, :, :number]).all(2).double()
        expected = (upto @ p) / (before @ p)
        torch.testing.assert_close(log_p[:, c, i, j].exp(), expected)
        table = model.next_pixel(x, i, j, c).detach()
        torch.testing.assert_close(table[range(16), x[:, c, i, j].long()], expected)


def test_samples_of_classes():
    """Of one class, of the mean of all, and completed with a class drawn given the upper row."""
    model, x, n = classes_of(), every_image((1, 2, 2), 2), 5000
    of_two = model.log_prob(x, torch.full((16,), 2)).exp().detach()
    of_all = model.log_prob(x).exp().detach()
    drawn = model.sample(n, generator(0), labels=torch.full((n,), 2))
    assert chi_square(drawn, 2, of_two) < CRITICAL[15]
    assert chi_square(model.sample(n, generator(1)), 2, of_all) < CRITICAL[15]
    upper = x[6:7].expand(n, -1, -1, -1)
    given = (x[:, :, :1] == x[6:7, :, :1]).flatten(1).all(1)
    lower = model.complete(upper, 1, generator(2))[:, :, 1:]
    assert chi_square(lower, 2, of_all[given] / of_all[given].sum()) < CRITICAL[3]


def test_learner_takes_labels_and_views():
    model = classes_of(shape=(1, 4, 4)).float()
    x, labels = random_images(6, (1, 4, 4), 2).float(), torch.tensor([0, 1, 2] * 2)
    views = torch.tensor([1, 1, 0, 0, 1, 0])
    expected = -model.log_prob(x, labels).mean().detach()
    plain = PixelCNNLearner(model, PixelCNNLossConfig(lr=1e-9), 1).update((x, labels, None))
    torch.testing.assert_close(plain["loss"], expected)
    changed = PixelCNNLearner(model, PixelCNNLossConfig(lr=1e-9), 1).update((x, labels, views))
    assert abs(float(changed["loss"]) - float(expected)) > 0.01


def test_completion_keeps_its_rows_and_draws_the_others_given_them():
    model = make((1, 2, 2), 2, GATED)
    x = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]]).double()
    lower = every_image((1, 1, 2), 2)
    both = torch.cat([x[:, :, :1].expand(4, -1, -1, -1), lower], 2)
    p = model.log_prob(both).detach().softmax(0)
    drawn = model.complete(x.expand(20_000, -1, -1, -1), 1, generator(0))
    assert torch.equal(drawn[:, :, :1], x[:, :, :1].expand(20_000, -1, -1, -1))
    assert chi_square(drawn[:, :, 1:], 2, p) < CRITICAL[3]
    assert torch.equal(model.complete(x, 2), x)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def test_normalised_weights_against_torch():
    layer = WeightNormConv(3, 4, (3, 3), (2, 2), (1, 1))
    with torch.no_grad():
        layer.log_length.normal_(generator=generator(0))
    other = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        other.weight.copy_(layer.direction * layer.mask)
        other.bias.zero_()
    other = nn.utils.parametrizations.weight_norm(other)
    with torch.no_grad():
        other.parametrizations.weight.original0.copy_(layer.log_length.exp().view(4, 1, 1, 1))
    x = torch.randn(2, 3, 5, 5, generator=generator(1))
    torch.testing.assert_close(layer(x), other(x))


def test_first_batch_sets_the_scale_of_every_layer():
    torch.manual_seed(0)
    model = PixelCNNConfig((1, 8, 8), 256, 2, PlusPlusConfig(num_filters=4, dropout=0.0)).build()
    x = random_images(32, (1, 8, 8), 256).float()
    model.initialise(x)
    seen = []
    for layer in model.modules():
        if isinstance(layer, WeightNormConv):
            layer.register_forward_hook(lambda m, i, y: seen.append(y.detach()))
    assert isinstance(model.network, PlusPlusNet)
    model.network(x)
    for y in seen:
        assert float(y.mean((0, 2, 3)).abs().max()) < 1e-4
        torch.testing.assert_close(
            y.std((0, 2, 3), correction=0), torch.ones(y.shape[1]), rtol=0, atol=1e-3
        )


def test_settings_of_older_gated_networks_are_read():
    """Those that were saved before levels could have vectors."""
    config = PixelCNNConfig((1, 4, 4), 5, 0, GatedConfig(hidden_dim=8, num_layers=2))
    older = to_json(config)
    del older["network"]["embed_dim"]
    assert from_json(PixelCNNConfig, older) == config


def test_average_of_weights_is_kept_and_dropout_is_off_in_it():
    network = dataclasses.replace(GATED, dropout=0.5)
    torch.manual_seed(0)
    model = PixelCNNConfig((1, 4, 4), 4, 0, network).build()
    learner = PixelCNNLearner(model, PixelCNNLossConfig(ema=0.9, clip=1.0), 5)
    x = random_images(8, (1, 4, 4), 4).float()
    for _ in range(5):
        learner.update(x)
    kept = learner.kept
    assert not kept.training
    assert torch.equal(kept.log_prob(x), kept.log_prob(x))
    assert not torch.equal(model.log_prob(x), model.log_prob(x))
    ours = torch.cat([p.flatten() for p in model.parameters()])
    assert not torch.equal(torch.cat([p.flatten() for p in kept.parameters()]), ours)


def test_masked_weights_never_move():
    torch.manual_seed(0)
    model = PixelCNNConfig((1, 4, 4), 4, 0, PLAIN).build()
    before = model.network.first.weight.detach().clone()
    learner = PixelCNNLearner(model, PixelCNNLossConfig(lr=1e-2), 3)
    for _ in range(3):
        learner.update(random_images(8, (1, 4, 4), 4).float())
    moved = (model.network.first.weight.detach() != before).float()
    assert float((moved * (1 - model.network.first.mask)).sum()) == 0
    assert moved.any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PixelCNNConfig((0, 4, 4)), r"image_shape is \(0, 4, 4\), and must be at least 1"),
        (lambda: PixelCNNConfig(levels=1), "levels is 1"),
        (lambda: PixelCNNConfig(num_mixtures=-1), "num_mixtures is -1"),
        (lambda: PlainConfig(kernel=4), "kernel is 4; a kernel needs an odd side"),
        (lambda: PlainConfig(num_last=-1), "num_last is -1"),
        (lambda: GatedConfig(num_layers=0), "num_layers is 0"),
        (lambda: GatedConfig(dropout=1.0), "dropout is 1.0"),
        (lambda: PixelCNNConfig((3, 4, 4), network=PlainConfig(hidden_dim=10)), "3 colours"),
        (lambda: PixelCNNConfig((1, 5, 4), 4, 2, PlusPlusConfig()), "that 2 divides"),
        (lambda: PixelCNNConfig((3, 4, 4), 4, 0, PlusPlusConfig()), "give 5 or more"),
        (lambda: PixelCNNLossConfig(lr=0.0), "lr is 0.0, and must be above 0"),
        (lambda: PixelCNNLossConfig(ema=1.0), "ema is 1.0, and must be at least 0 and below 1"),
        (lambda: make((1, 2, 2), 2, PLAIN).complete(torch.zeros(1, 1, 2, 2), 3), "rows is 3"),
        (
            lambda: make((1, 2, 2), 2, PLAIN).sample(1, temperature=-1.0),
            "temperature is -1.0",
        ),
        (
            lambda: make((1, 2, 2), 3, PLAIN).float().log_prob(torch.full((1, 1, 2, 2), 0.3)),
            "of 1/2",
        ),
        (lambda: GatedConfig(num_classes=-1), "num_classes is -1"),
        (lambda: make((1, 2, 2), 2, PLAIN).class_log_probs(torch.zeros(1, 1, 2, 2)), "classes 0"),
        (lambda: classes_of().sample(2, labels=torch.tensor([0, 3])), "from 0 to 3; .* 0 to 2"),
        (lambda: classes_of().sample(2, labels=torch.tensor([0])), r"labels \(1,\) .* \(2,\)"),
    ],
)
def test_what_cannot_be_is_explained(build, message):
    with pytest.raises(ValueError, match=message):
        build()
