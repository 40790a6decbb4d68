"""The flow against autograd, quadrature, the book's parameter totals, and its own inverse."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from generative.flow import (
    ActNorm,
    AffineCoupling,
    Chain,
    Dequantiser,
    Flatten,
    FlowLearner,
    FlowLossConfig,
    ImageFlow,
    ImageRealNVPConfig,
    InvertibleConv,
    RealNVPConfig,
    SplineCoupling,
    Squeeze,
    make_mask,
    rational_quadratic,
    standard_normal_log_prob,
)
from generative.known.densities import Standardised, TwoMoons
from generative.known.quadrature import Grid, log_normaliser

torch.set_num_threads(1)
AFFINE = RealNVPConfig(num_couplings=4, hidden_dim=16, num_hidden=2)
SPLINE = RealNVPConfig(
    num_couplings=4, hidden_dim=16, num_hidden=1, coupling="spline", num_bins=6, num_waves=2,
    actnorm=True,
)  # fmt: skip
IMAGE = RealNVPConfig(
    shape=(2, 4, 4), masks=("checkerboard", "rows", "columns"), coupling="spline", num_couplings=6,
    hidden_dim=16, num_hidden=1, num_bins=4, actnorm=True,
)  # fmt: skip
CONFIGS = {"affine": AFFINE, "spline": SPLINE, "image": IMAGE}


def shaken(config: RealNVPConfig, dtype=torch.float64, size: float = 0.1) -> Chain:
    """A flow whose weights are anything, as after training."""
    torch.manual_seed(0)
    flow = config.build().to(dtype)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return flow.eval()


def test_parameter_totals_are_the_books():
    flow = RealNVPConfig().build()
    assert sum(p.numel() for p in flow.layers[0].parameters()) == 397_316
    assert sum(p.numel() for p in flow.parameters()) == 2_383_896
    two = RealNVPConfig(num_couplings=2).build()
    assert sum(p.numel() for p in two.parameters()) == 794_632


def test_book_starts_near_the_identity():
    torch.manual_seed(0)
    x = Standardised(TwoMoons()).sample(500, torch.Generator().manual_seed(0))
    assert (RealNVPConfig().build().encode(x) - x).abs().mean() < 0.2


@pytest.mark.parametrize("name", CONFIGS)
def test_log_determinant_is_autograds(name):
    flow = shaken(CONFIGS[name])
    x = 1.5 * torch.randn(5, flow.dim, dtype=torch.float64)
    z, log_det = flow.encode_log_det(x)
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda row: flow.encode(row[None])[0], x[i])
        expected = torch.linalg.slogdet(jacobian)
        assert expected.sign == 1 or name != "spline"
        torch.testing.assert_close(log_det[i], expected.logabsdet, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(flow.log_prob(x), standard_normal_log_prob(z) + log_det)
    losses = flow.loss(x)
    torch.testing.assert_close(losses.loss, -flow.log_prob(x).mean())
    torch.testing.assert_close(losses.loss, losses.latent - losses.log_det)


@pytest.mark.parametrize(
    ("name", "dtype", "most"),
    [(name, torch.float64, 1e-9) for name in CONFIGS]
    + [("affine", torch.float32, 1e-5), ("spline", torch.float32, 1e-5)],
)
def test_decode_inverts_encode(name, dtype, most):
    flow = shaken(CONFIGS[name], dtype)
    x = 1.5 * torch.randn(200, flow.dim, dtype=dtype)
    assert (flow.decode(flow.encode(x)) - x).abs().max() < most
    assert (flow.encode(flow.decode(x)) - x).abs().max() < most


@pytest.mark.parametrize("name", ["affine", "spline"])
def test_density_integrates_to_one(name):
    flow = shaken(CONFIGS[name], size=0.1)
    reach = float(flow.sample(20_000, torch.Generator().manual_seed(0)).abs().max()) + 3
    grid = Grid((-reach, -reach), (reach, reach), (600, 600))
    assert log_normaliser(flow.log_prob, grid) == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("size", [0.1, 0.2, 0.3])
def test_only_the_rounding_of_z_is_left_on_the_way_back(size):
    """In float32, at most half a last place of z by how far the way back stretches it, and one of
    x. Networks and splines in float32 left five to nine times as much."""
    torch.manual_seed(0)
    flow = replace(SPLINE, actnorm=False, num_bins=16, activation="silu").build().eval()
    for layer in flow.layers:
        torch.nn.init.normal_(layer.network[-1].weight, std=size)
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1))
    z = flow.encode(x)
    assert z.dtype == torch.float32
    rows = torch.autograd.functional.jacobian(lambda z: flow.decode(z).sum(0), z)
    stretch = torch.linalg.matrix_norm(rows.movedim(1, 0), ord=2)
    last_z, last_x = (2.0**-23 * v.detach().abs().amax(1).clamp(min=1) for v in (z, x))
    assert float(stretch.max()) > 3
    error = (flow.decode(z) - x).abs().amax(1)
    assert bool((error <= stretch * last_z / 2 + last_x).all())


def test_samples_have_the_density():
    """The share of samples in a box against the integral of the density over it."""
    flow = shaken(SPLINE, size=0.3)
    samples = flow.sample(20_000, torch.Generator().manual_seed(1))
    low, high = (-0.5, -1.0), (1.0, 0.7)
    share = math.exp(log_normaliser(flow.log_prob, Grid(low, high, (200, 200))))
    corners = torch.tensor([low, high])
    inside = ((samples > corners[0]) & (samples < corners[1])).all(1).double().mean()
    assert float(inside) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 20_000))


def test_affine_coupling_by_hand():
    """x2 <- (x2 - t(x1)) exp(-s(x1)), with networks that are spelled out in NumPy."""
    torch.manual_seed(0)
    layer = AffineCoupling(torch.tensor([True, False]), RealNVPConfig(hidden_dim=3, num_hidden=1))
    x = torch.randn(4, 2)

    def network(stack, x1):
        first, last = stack[0], stack[2]
        inputs = np.array([x1, 0.0])
        hidden = np.maximum(0, first.weight.detach().numpy() @ inputs + first.bias.detach().numpy())
        return (last.weight.detach().numpy() @ hidden + last.bias.detach().numpy())[1]

    z, log_det = layer.encode(x)
    for row, out, change in zip(x.numpy(), z.detach().numpy(), log_det, strict=True):
        s, t = math.tanh(network(layer.scale, row[0])), network(layer.shift, row[0])
        np.testing.assert_allclose(out, [row[0], (row[1] - t) * math.exp(-s)], rtol=1e-5)
        assert change.item() == pytest.approx(-s, rel=1e-5)


@pytest.mark.parametrize("kind", [AffineCoupling, SplineCoupling])
def test_coupling_leaves_the_masked_part(kind):
    mask = make_mask("checkerboard", (1, 4, 4))
    layer = kind(mask, IMAGE)
    x = torch.randn(3, 16)
    for out in (layer.encode(x)[0], layer.decode(x)):
        assert torch.equal(out[:, mask], x[:, mask])


def test_masks():
    assert make_mask("alternate", (5,)).tolist() == [False, True, False, True, False]
    board = make_mask("checkerboard", (2, 3, 4)).reshape(2, 3, 4)
    assert all(
        bool(board[c, r, k]) == ((r + k) % 2 == 1)
        for c in range(2) for r in range(3) for k in range(4)
    )  # fmt: skip
    assert make_mask("rows", (1, 2, 2)).tolist() == [False, False, True, True]
    assert make_mask("columns", (1, 2, 2)).tolist() == [False, True, False, True]


def test_image_masks_change_every_pixel():
    flow = shaken(IMAGE)
    x = torch.randn(2, flow.dim, dtype=torch.float64)
    assert ((flow.encode(x) - x).abs() > 1e-9).all()


# ---------------------------------------------------------------------------------------------
# Splines
# ---------------------------------------------------------------------------------------------


def random_spline(n: int = 400, num_bins: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 8 * torch.rand(n, generator=generator, dtype=torch.float64) - 4  # the bound is 3
    return x, 2 * torch.randn(n, 3 * num_bins - 1, generator=generator, dtype=torch.float64)


def test_spline_is_monotone_and_keeps_its_ends():
    _, raw = random_spline(1)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    y, _ = rational_quadratic(x, raw.expand(len(x), -1), 3.0)
    assert (y.diff() > 0).all()
    assert y.diff().max() < 0.1  # no jump
    outside = x.abs() >= 3
    assert torch.equal(y[outside], x[outside])
    assert y[~outside].abs().max() < 3


def test_spline_of_zeros_is_the_identity():
    x, raw = random_spline()
    y, log_slope = rational_quadratic(x, torch.zeros_like(raw), 3.0)
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x))


def test_spline_slope_is_autograds_and_inverse_inverts():
    x, raw = random_spline()
    x.requires_grad_()
    y, log_slope = rational_quadratic(x, raw, 3.0)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log())
    back, log_back = rational_quadratic(y, raw, 3.0, inverse=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(log_back, -log_slope, rtol=1e-6, atol=1e-7)


def test_spline_goes_through_its_knots():
    """Widths, heights and slopes set by hand: two pieces of [-1, 1], the knot at (-0.5, 0.2)."""
    num_bins, least = 2, 1e-3

    def shares(first):
        share = torch.tensor([first, 1 - first], dtype=torch.float64)
        return ((share - least) / (1 - least * num_bins)).log()

    slope = 1.7
    raw_slope = torch.tensor([math.log(math.expm1(slope - least))], dtype=torch.float64)
    unit = math.log(math.expm1(1 - least))
    raw = torch.cat([shares(0.25), shares(0.6), raw_slope - unit])[None]
    y, log_slope = rational_quadratic(torch.tensor([-0.5], dtype=torch.float64), raw, 1.0)
    assert float(y) == pytest.approx(0.2, abs=1e-9)
    assert float(log_slope) == pytest.approx(math.log(slope), abs=1e-6)


# ---------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------


def tiny_image_flow(levels: int = 3) -> ImageFlow:
    """For images of two pixels."""
    config = RealNVPConfig((1, 1, 2), num_couplings=2, hidden_dim=8, num_hidden=1)
    torch.manual_seed(1)
    model = ImageRealNVPConfig(config, levels=levels).build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_image_density_integrates_to_what_lies_in_the_unit_square():
    """Over all noisy images; the rest is what the logit's margin leaves outside."""
    model, levels = tiny_image_flow(), 3
    grid = Grid((0.0, 0.0), (levels, levels), (300, 300))

    def noisy_log_prob(level):
        return model._noisy_log_prob(level.unflatten(1, (1, 1, 2)) / levels)

    z = model.flow.sample(200_000, torch.Generator().manual_seed(0)).flatten(1)
    y = (z.sigmoid() - 0.05) / 0.9
    share = float(((y > 0) & (y < 1)).all(1).double().mean())
    assert math.exp(log_normaliser(noisy_log_prob, grid)) == pytest.approx(share, abs=0.005)


def test_bound_lies_below_the_log_probability():
    """P(image) is the integral of the density over its unit square (Jensen)."""
    model, levels = tiny_image_flow(), 3
    for a in range(levels):
        for b in range(levels):
            square = Grid((a, b), (a + 1, b + 1), (40, 40))
            exact = log_normaliser(
                lambda y: model._noisy_log_prob(y.unflatten(1, (1, 1, 2)) / levels), square
            )
            x = torch.tensor([a, b], dtype=torch.float64).reshape(1, 1, 1, 2) / (levels - 1)
            with torch.no_grad():
                bound = float(model.bound(x, 300, torch.Generator().manual_seed(0)))
            assert exact - 0.5 < bound < exact + 0.01


def test_images_come_on_levels():
    model = tiny_image_flow(levels=5)
    x = model.sample(50, torch.Generator().manual_seed(0))
    assert x.shape == (50, 1, 1, 2)
    torch.testing.assert_close(4 * x, (4 * x).round())
    losses = model.loss(x)
    assert losses.bits_per_dim.item() == pytest.approx(losses.loss.item() / (2 * math.log(2)))


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_dequantiser_by_its_definition(margin):
    """Noise fills each level's share of [0, 1); the slope is autograd's; the way back is exact."""
    dequantiser = Dequantiser(levels=4, margin=margin)
    x = torch.tensor([0.0, 1 / 3, 1.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    noisy = dequantiser.noisy(x.expand(4000, -1, -1, -1), torch.Generator().manual_seed(0))
    low, high = noisy.amin(0).flatten(), noisy.amax(0).flatten()
    torch.testing.assert_close(low, torch.tensor([0, 0.25, 0.75]).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(high, torch.tensor([0.25, 0.5, 1]).double(), rtol=0, atol=1e-3)
    assert noisy.mean().item() == pytest.approx((0.125 + 0.375 + 0.875) / 3, abs=5e-3)
    v, log_det = dequantiser.squash(noisy[:1])
    jacobian = torch.autograd.functional.jacobian(
        lambda level: dequantiser.squash(level.reshape(1, 1, 1, 3) / 4)[0].flatten(),
        4 * noisy[0].flatten(),
    )
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian).logabsdet)
    torch.testing.assert_close(dequantiser.images(v), x)
    assert dequantiser.centred(x).flatten().tolist() == [0.125, 0.375, 0.875]


def test_code_of_an_image_gives_the_image():
    model = tiny_image_flow(levels=5)
    x = model.sample(20, torch.Generator().manual_seed(0))
    z = model.encode(x)
    assert z.shape == (20, 2)
    torch.testing.assert_close(model.decode(z), x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            torch.full((1, 1, 1, 2), 0.3, dtype=torch.float64),
            r"between the levels.*multiples of 1/2",
        ),
        (torch.full((1, 1, 1, 2), 3.0, dtype=torch.float64), r"pixels from 3 to 3.*in \[0, 1\]"),
        (torch.full((1, 1, 1, 2), math.nan, dtype=torch.float64), r"pixels from nan to nan"),
        (torch.zeros(1, 1, 1, 2, dtype=torch.uint8), r"uint8.*to_float_bchw"),
        (torch.zeros(1, 1, 2), r"shape \(1, 1, 2\).*\(B, 1, 1, 2\)"),
    ],
)
def test_wrong_images_are_explained(x, message):
    with pytest.raises(ValueError, match=message):
        tiny_image_flow().loss(x)


# ---------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------


def test_actnorm_takes_a_batch_to_mean_zero_and_deviation_one():
    flow = SPLINE.build()
    x = 3 * torch.randn(500, 2) + torch.tensor([5.0, -7.0])
    flow.initialise(x)
    last = flow.layers[-1]
    assert isinstance(last, ActNorm)
    z, log_det = last.encode(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2), rtol=1e-5, atol=0)
    torch.testing.assert_close(log_det, -x.std(0, correction=0).log().sum().expand(500))
    torch.testing.assert_close(last.decode(z), x)


@pytest.mark.nightly
def test_learns_the_moons():
    """Far below the best single Gaussian (2.72 nats) within seconds; the floor is 1.13.

    In every run a flow of splines has a density that integrates to one, and the families'
    `test_comes_half_the_way_to_eight_examples` trains one.
    """
    torch.manual_seed(0)
    moons = Standardised(TwoMoons())
    config = RealNVPConfig(
        coupling="spline", num_couplings=4, hidden_dim=32, num_hidden=1, num_bins=8
    )
    learner = FlowLearner(config.build(), FlowLossConfig(lr=5e-3, final_lr=5e-4), steps=150)
    for _ in range(150):
        last = learner.update(moons.sample(256))
    assert 1.13 < last["loss"] < 1.9


def test_l2_is_the_sum_of_squared_weights():
    torch.manual_seed(0)
    flow = RealNVPConfig(num_couplings=1, hidden_dim=4, num_hidden=1).build()
    x = torch.zeros(1, 2)
    plain, penalised = (
        FlowLearner(flow, FlowLossConfig(l2=l2, lr=0.0, final_lr=0.0), 1) for l2 in (0.0, 0.01)
    )
    gradients = []
    for learner in (plain, penalised):
        learner.update(x)
        gradients.append([p.grad.clone() for p in flow.parameters()])
    for parameter, a, b in zip(flow.parameters(), *gradients, strict=True):
        expected = 0.02 * parameter if parameter.dim() == 2 else torch.zeros_like(parameter)
        torch.testing.assert_close(b - a, expected, rtol=1e-4, atol=1e-6)


def test_average_by_hand():
    torch.manual_seed(0)
    config = RealNVPConfig(num_couplings=1, hidden_dim=4, num_hidden=1)
    learner = FlowLearner(config.build(), FlowLossConfig(lr=1e-2, ema=0.5), steps=8)
    expected = None
    for n in range(8):
        learner.update(torch.randn(16, 2))
        now = [p.detach().clone() for p in learner.model.parameters()]
        decay = min(0.5, (1 + n) / (10 + n))
        if expected is None:
            expected = now
        else:
            pairs = zip(expected, now, strict=True)
            expected = [decay * a + (1 - decay) * b for a, b in pairs]
    for ours, theirs in zip(learner.kept.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_couplings": 0}, "num_couplings is 0"),
        ({"shape": (1, 2)}, r"give \(D,\) or \(C, H, W\)"),
        ({"masks": ("rows",)}, r"points of shape \(2,\) alternate only"),
        ({"masks": ("diagonal",)}, "give some of"),
        ({"num_bins": 1}, "num_bins is 1, and must be at least 2"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_impossible_sizes_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        RealNVPConfig(**settings)


def test_any_list_of_layers_is_a_flow(tmp_path):
    """Images through layers of several kinds: exact, trained, saved by their weights."""

    def by_hand() -> Chain:
        torch.manual_seed(0)
        shape = (2, 2, 2)
        mask = make_mask("alternate", (8,))
        layers = [
            AffineCoupling(mask, RealNVPConfig((8,), hidden_dim=8, num_hidden=1)),
            Flatten((8, 1, 1)),
            ActNorm(8),
            InvertibleConv(8, lu=True),
            Squeeze(),
        ]
        return Chain(layers, shape)

    flow, x = by_hand().double(), torch.randn(40, 2, 2, 2, dtype=torch.float64)
    flow.initialise(x)
    z, log_det = flow.encode_log_det(x)
    torch.testing.assert_close(flow.decode(z), x)
    jacobian = torch.autograd.functional.jacobian(lambda row: flow.encode(row[None])[0], x[0])
    torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian.flatten(1)).logabsdet)
    learner = FlowLearner(flow, FlowLossConfig(lr=0.01), 30)
    losses = [float(learner.update(x)["loss"]) for _ in range(30)]
    assert losses[-1] < losses[0]
    flow.eval().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"a Chain that was put together by hand.*load_weights"):
        Chain.from_pretrained(tmp_path / "model")
    again = by_hand().double()
    again.load_weights(tmp_path / "model")
    assert torch.equal(again.log_prob(x), flow.log_prob(x))
