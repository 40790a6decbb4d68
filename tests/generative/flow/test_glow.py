"""Glow and the multi-scale RealNVP against autograd, quadrature, and layers spelled out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from generative.flow import (
    ActNorm,
    CheckerboardCoupling,
    ConvCoupling,
    FlowLearner,
    FlowLossConfig,
    ImageFlow,
    InvertibleConv,
    ReverseChannels,
    Split,
    Squeeze,
    standard_normal_log_prob,
)
from generative.flow.config import GlowConfig
from generative.training.files import write_folder

torch.set_num_threads(1)
GLOW = GlowConfig((2, 4, 4), num_scales=2, num_steps=2, hidden_dim=8, levels=5)
REALNVP = replace(
    GLOW, mixing="reverse", checkerboard=2, num_blocks=1, learnt_prior=False, margin=0.05
)
SPLINE = replace(GLOW, coupling="spline", mixing="plain", num_bins=4, checkerboard=1)
CONFIGS = {"glow": GLOW, "realnvp": REALNVP, "spline": SPLINE}
LAYERS = {
    "squeeze": Squeeze,
    "reverse": ReverseChannels,
    "actnorm": lambda: ActNorm(2),
    "convolution": lambda: InvertibleConv(2, lu=False),
    "LU convolution": lambda: InvertibleConv(2, lu=True),
    "affine coupling": lambda: ConvCoupling(2, GLOW),
    "spline coupling": lambda: ConvCoupling(2, SPLINE),
    "residual coupling": lambda: ConvCoupling(2, REALNVP),
    "checkerboard": lambda: CheckerboardCoupling((2, 4, 4), False, GLOW),
    "checkerboard spline": lambda: CheckerboardCoupling((2, 4, 4), True, SPLINE),
}


def shaken(module: torch.nn.Module, size: float = 0.1) -> torch.nn.Module:
    """With weights that are anything, as after training, in float64."""
    torch.manual_seed(0)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return module


def autograd_log_det(function, x: torch.Tensor) -> torch.Tensor:
    """log |det| of a function of one example (C, H, W), whatever the shape of its value."""
    jacobian = torch.autograd.functional.jacobian(lambda row: function(row[None]).flatten(), x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_autograds_log_determinant_and_an_inverse(name):
    torch.manual_seed(1)
    layer = shaken(LAYERS[name]())
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    z, log_det = layer.encode(x)
    assert log_det.shape == (3,)
    expected = torch.stack([autograd_log_det(lambda v: layer.encode(v)[0], row) for row in x])
    torch.testing.assert_close(log_det, expected)
    torch.testing.assert_close(layer.decode(z), x)
    torch.testing.assert_close(layer.encode(layer.decode(x.reshape_as(z)))[0], x.reshape_as(z))


@pytest.mark.parametrize("learnt_prior", [True, False])
def test_split_has_autograds_log_determinant_and_an_inverse(learnt_prior):
    split = shaken(Split(3, learnt_prior))
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    kept, aside, log_det = split.encode(x)
    assert (kept.shape, aside.shape) == ((2, 2, 2, 2), (2, 1, 2, 2))
    for i in range(2):
        expected = autograd_log_det(lambda v: torch.cat(split.encode(v)[:2], 1), x[i])
        torch.testing.assert_close(log_det[i], expected)
    torch.testing.assert_close(split.decode(kept, aside), x)


def test_learnt_prior_is_a_normal_density():
    """What the split adds to the log density is that of torch's Normal."""
    split = shaken(Split(2, learnt_prior=True))
    x = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    kept, aside, log_det = split.encode(x)
    mean, log_std = split.prior(x[:, :1]).chunk(2, 1)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(x[:, 1:]).sum((1, 2, 3))
    torch.testing.assert_close(standard_normal_log_prob(aside.flatten(1)) + log_det, expected)
    assert torch.equal(kept, x[:, :1])


@pytest.mark.parametrize("name", CONFIGS)
def test_log_determinant_is_autograds(name):
    flow = shaken(CONFIGS[name].build())
    v = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    z, log_det = flow.flow.encode_log_det(v)
    assert z.shape == (2, 2 * 4 * 4)  # as many numbers as there were
    for i in range(2):
        expected = autograd_log_det(lambda row: flow.flow.encode_log_det(row)[0], v[i])
        torch.testing.assert_close(log_det[i], expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_decode_inverts_encode(name):
    flow = shaken(CONFIGS[name].build())
    v = torch.randn(20, 2, 4, 4, dtype=torch.float64)
    assert (flow.flow.decode(flow.flow.encode_log_det(v)[0]) - v).abs().max() < 1e-9
    single = flow.float()
    v = v.float()
    assert (single.flow.decode(single.flow.encode_log_det(v)[0]) - v).abs().max() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_code_of_an_image_gives_the_image(name):
    flow = shaken(CONFIGS[name].build()).float()
    x = torch.randint(0, 5, (6, 2, 4, 4)) / 4
    torch.testing.assert_close(flow.decode(flow.encode(x)), x)


@pytest.mark.parametrize("name", CONFIGS)
def test_noise_does_not_leave_its_level(name):
    """Any noise of an image is decoded to the image: the levels and their shares fit together."""
    flow = shaken(CONFIGS[name].build())
    x = torch.randint(0, 5, (6, 2, 4, 4)).double() / 4
    v, _ = flow.dequantiser.squash(flow.dequantiser.noisy(x))
    torch.testing.assert_close(flow.decode(flow.flow.encode_log_det(v)[0]), x)


@pytest.mark.parametrize("settings", [{}, {"mixing": "reverse", "checkerboard": 2}])
def test_density_integrates_to_one(settings):
    """Over images of four numbers, by midpoints of equal cells."""
    config = GlowConfig((1, 2, 2), num_scales=1, num_steps=2, hidden_dim=8, **settings)
    flow = shaken(config.build(), 0.2)
    reach, count = 7.0, 18
    axis = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 * reach - reach
    total = 0.0
    with torch.no_grad():
        for first in axis:
            v = torch.cartesian_prod(first[None], axis, axis, axis).reshape(-1, 1, 2, 2)
            z, log_det = flow.flow.encode_log_det(v)
            total += float((standard_normal_log_prob(z) + log_det).exp().sum())
    assert total * (2 * reach / count) ** 4 == pytest.approx(1, abs=0.01)


# ---------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------


def test_squeeze_keeps_the_colours_of_a_pixel_together():
    x = torch.arange(2 * 4 * 4).reshape(1, 2, 4, 4).float()
    z, _ = Squeeze().encode(x)
    assert z.shape == (1, 8, 2, 2)
    for k, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(z[0, 2 * k : 2 * k + 2], x[0, :, row::2, column::2])


@pytest.mark.parametrize("lu", [False, True])
def test_convolution_is_a_matrix_at_every_pixel_that_begins_as_a_rotation(lu):
    torch.manual_seed(0)
    layer = InvertibleConv(6, lu)
    matrix = layer.matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6), rtol=0, atol=1e-5)
    x = torch.randn(2, 6, 3, 4)
    z, log_det = layer.encode(x)
    torch.testing.assert_close(z, torch.einsum("ij,bjhw->bihw", matrix, x))
    torch.testing.assert_close(log_det, torch.zeros(2), rtol=0, atol=1e-4)


def test_lu_factors_are_triangular_whatever_is_learnt():
    layer = shaken(InvertibleConv(5, lu=True), size=1.0)
    product = layer.permutation.T @ layer.matrix()
    lower, upper = layer.lower.tril(-1), layer.upper.triu(1)
    eye = torch.eye(5, dtype=torch.float64)
    expected = (lower + eye) @ (upper + torch.diag(layer.sign * layer.log_s.exp()))
    torch.testing.assert_close(product, expected)
    sign, log_abs_det = torch.linalg.slogdet(layer.matrix())
    torch.testing.assert_close(log_abs_det, layer.log_s.sum())
    assert sign == torch.linalg.det(layer.permutation).sign() * layer.sign.prod()


def test_couplings_leave_what_they_should():
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    coupling = shaken(ConvCoupling(2, GLOW))
    assert torch.equal(coupling.encode(x)[0][:, :1], x[:, :1])
    for odd in (False, True):
        board = shaken(CheckerboardCoupling((2, 4, 4), odd, GLOW))
        same = (board.encode(x)[0] == x).all(0).all(0)
        row, column = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
        assert torch.equal(same, (row + column) % 2 == int(odd))


def test_fresh_affine_coupling_is_a_scale():
    """Zero at first, and sigmoid(2) as in Glow's program."""
    x = torch.randn(2, 4, 3, 3)
    z, log_det = ConvCoupling(4, GLOW).encode(x)
    torch.testing.assert_close(z[:, 2:], x[:, 2:] / (1 + math.exp(-2)))
    torch.testing.assert_close(log_det, torch.full((2,), -18 * math.log1p(math.exp(-2))))


def test_actnorm_takes_channels_to_mean_zero_and_deviation_one():
    layer, x = ActNorm(3), 5 + 2 * torch.randn(40, 3, 4, 4)
    layer.initialise(x)
    z, log_det = layer.encode(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.ones(3))
    expected = -16 * x.std((0, 2, 3), correction=0).log().sum()
    torch.testing.assert_close(log_det, expected.expand(40))


def test_a_first_batch_sets_every_actnorm():
    torch.manual_seed(0)
    flow = GLOW.build()
    x = torch.randint(0, 5, (64, 2, 4, 4)) / 4
    flow.initialise(x)
    v, _ = flow.dequantiser.squash(flow.dequantiser.noisy(x))
    z, _ = flow.flow.encode_log_det(v)
    last = z[:, -flow.flow.code_shapes[-1][0] :]  # a pixel of the last scale
    assert last.mean().abs() < 0.1
    assert abs(last.std() - 1) < 0.1


# ---------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        (GLOW, [(4, 2, 2), (16, 1, 1)]),
        (GlowConfig((3, 32, 32), num_steps=1, hidden_dim=4), [(6, 16, 16), (12, 8, 8), (48, 4, 4)]),
        (GlowConfig((1, 8, 4), 2, 1, hidden_dim=4), [(2, 4, 2), (8, 2, 1)]),
    ],
)
def test_scales_lose_no_dimension(config, shapes):
    flow = config.build()
    assert flow.flow.code_shapes == shapes
    assert sum(map(math.prod, shapes)) == flow.dim == math.prod(config.image_shape)


def test_parameter_total_by_hand():
    """One scale of one step on (1, 2, 2): 4 channels, of which 2 decide."""
    flow = GlowConfig((1, 2, 2), num_scales=1, num_steps=1, hidden_dim=5).build()
    network = (2 * 9 * 5 + 5) + (5 * 5 + 5) + (5 * 9 * 4 + 4)
    actnorms, convolution = 2 * 2 * 4, 16 + 16 + 4
    assert sum(p.numel() for p in flow.parameters()) == network + actnorms + convolution


def test_temperature_scales_the_code():
    flow = shaken(replace(GLOW, levels=256).build())
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(5, flow.dim, generator=generator, dtype=torch.float64)
    x = flow.sample(5, torch.Generator().manual_seed(3), temperature=0.5)
    torch.testing.assert_close(x, flow.decode(0.5 * z))


def test_bound_is_the_mean_over_draws():
    flow = shaken(GLOW.build())
    x = torch.randint(0, 5, (3, 2, 4, 4)).double() / 4
    bound = flow.bound(x, 4, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = [flow.loss(x, generator) for _ in range(4)]
    assert bound.mean().item() == pytest.approx(-sum(float(part.loss) for part in losses) / 4)
    for part in losses:
        assert float(part.bits_per_dim) == pytest.approx(float(part.loss) / 32 / math.log(2))


def test_uniform_images_cost_the_logarithm_of_the_levels():
    """An untrained flow of scale 1 on y - 1/2 sees a density of 1 over a cube."""
    flow = GlowConfig((1, 2, 2), num_scales=1, num_steps=1, hidden_dim=4, levels=8).build()
    x = torch.randint(0, 8, (2000, 1, 2, 2), generator=torch.Generator().manual_seed(0)) / 7
    flow.initialise(x)
    bits = float(flow.loss(x).bits_per_dim)
    # A normal density of the cube's variance 1/12 instead of the cube itself.
    excess = 0.5 * math.log2(2 * math.pi * math.e / 12)
    assert bits == pytest.approx(3 + excess, abs=0.05)


def test_learns_two_images():
    torch.manual_seed(0)
    x = torch.zeros(2, 1, 4, 4)
    x[0, :, :2], x[1, :, :, 2:] = 1.0, 0.5
    flow = GlowConfig((1, 4, 4), 1, 2, hidden_dim=16, levels=5).build()
    flow.initialise(x.repeat(32, 1, 1, 1))
    learner = FlowLearner(flow, FlowLossConfig(lr=1e-2, final_lr=1e-3, clip=50.0), 80)
    before = distance_of_samples(flow, x)
    for _ in range(80):
        learner.update(x.repeat(8, 1, 1, 1))
    assert distance_of_samples(learner.kept, x) < 0.7 * before


def distance_of_samples(flow: ImageFlow, x: torch.Tensor) -> torch.Tensor:
    """Median of the mean difference of 50 samples from the nearest of the images x."""
    samples = flow.sample(50, torch.Generator().manual_seed(0))
    return (samples[:, None] - x).abs().flatten(2).mean(2).min(1).values.median()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"checkerboard": -1}, "checkerboard is -1"),
        ({"image_shape": (3, 20, 20)}, r"3 scales need a height and width that 8 divides"),
        ({"num_bins": 1}, "num_bins is 1, and must be at least 2"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"levels": 1}, "levels is 1"),
        ({"margin": 0.5}, "margin is 0.5"),
    ],
)
def test_impossible_sizes_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        GlowConfig(**settings)


def test_wrong_codes_are_explained():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(B, 32\)"):
        GLOW.build().decode(torch.zeros(2, 3))


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_from_before_scales_were_a_flow_of_their_own_are_loaded(name, tmp_path):
    flow = shaken(CONFIGS[name].build()).float()
    flow.save_pretrained(tmp_path / "model")
    weights = {
        key.removeprefix("flow."): value.contiguous() for key, value in flow.state_dict().items()
    }
    assert any(key.startswith("scales.") for key in weights)
    config = (tmp_path / "model" / "config.json").read_bytes()
    write_folder(tmp_path / "older", {"config.json": config, "model.safetensors": save(weights)})
    again = ImageFlow.from_pretrained(tmp_path / "older")
    assert again.config == flow.config
    for key, value in flow.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
