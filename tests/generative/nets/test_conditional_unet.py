"""The conditional U-Net: its published sizes, its beginning, and what tokens and padding do."""

import math

import pytest
import torch
from torch import nn

from generative.diffusion import Diffusion, DiffusionLossConfig, ScheduleConfig
from generative.nets.conditional_unet import Condition, ConditionalUNet, ConditionalUNetConfig

torch.set_num_threads(1)

SD1 = ConditionalUNetConfig(
    320, (1, 2, 4, 4), (2,), (0, 1, 2), num_heads=8, context_dim=768,
    scale_shift=False, transformer=True,
)  # fmt: skip
SD2 = ConditionalUNetConfig(
    320, (1, 2, 4, 4), (2,), (0, 1, 2), head_dim=64, context_dim=1024,
    scale_shift=False, transformer=True,
)  # fmt: skip
FOUR = (1, 2, 3, 4)
TOTALS = {
    "16x16, test": (3, 3, ConditionalUNetConfig(), 823_235),
    "32x32, test": (3, 3, ConditionalUNetConfig(32, (1, 2, 2), attention=(1, 2)), 1_360_067),
    "upsampler, test": (6, 3, ConditionalUNetConfig(16, (1, 2, 2), attention=(2,)), 326_291),
    "64x64": (
        3, 3, ConditionalUNetConfig(96, FOUR, (2,), (2, 3), context_dim=256), 56_323_683,
    ),
    "64x64, wide": (
        3, 3, ConditionalUNetConfig(128, FOUR, (2,), (2, 3), context_dim=256), 99_231_875,
    ),
    "upsampler to 128x128": (
        6, 3, ConditionalUNetConfig(64, FOUR, (2,), (3,), context_dim=256), 23_875_075,
    ),
    "latents, test": (4, 4, ConditionalUNetConfig(attention=(0, 1)), 855_684),
    "latents": (
        4, 4, ConditionalUNetConfig(128, (1, 2, 4), (2,), (0, 1, 2), context_dim=256), 73_851_780,
    ),
    "Stable Diffusion 1": (4, 4, SD1, 859_520_964),
    "Stable Diffusion 2": (4, 4, SD2, 865_910_724),
}  # fmt: skip


@pytest.mark.parametrize("name", TOTALS)
def test_totals(name):
    channels, out_channels, config, total = TOTALS[name]
    with torch.device("meta"):
        network = ConditionalUNet(channels, config, out_channels)
    assert sum(parameter.numel() for parameter in network.parameters()) == total


KINDS = {
    "plain": {},
    "vector and level": {"vector_dim": 6, "told_level": True, "scale_shift": False},
    "transformer": {"transformer": True, "num_heads": 2},
    "efficient": {"efficient": True, "scale_skips": True, "num_blocks": (1, 2)},
    "patches": {"patch": 2, "multipliers": (1, 2)},
    "deep": {"multipliers": (1, 2, 1), "num_blocks": (2, 1, 2), "attention": (0, 2)},
}


def make(kind: str, noise: float = 0.1) -> ConditionalUNet:
    """A small network of two channels and tokens of width 5, weights anything unless noise is 0."""
    torch.manual_seed(0)
    config = ConditionalUNetConfig(**{"width": 8, "head_dim": 4, "context_dim": 5, **KINDS[kind]})
    network = ConditionalUNet(2, config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return network.eval()


def told(kind: str, n: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(n, 4, 5, generator=generator)
    mask = torch.tensor([[True, True, False, False], [True] * 4, [True, False, True, False]])[:n]
    if kind != "vector and level":
        return Condition(tokens, mask)
    return Condition(tokens, mask, torch.randn(n, 6, generator=generator), level=torch.zeros(n))


every_kind = pytest.mark.parametrize("kind", KINDS)
X, LEVELS = torch.randn(3, 2, 8, 12, generator=torch.Generator().manual_seed(2)), torch.arange(3.0)


@every_kind
def test_begins_at_zero_and_the_loss_of_the_noise_at_its_mean_square(kind):
    network = make(kind, noise=0.0)
    assert torch.equal(network(X, LEVELS, told(kind)), torch.zeros_like(X))
    diffusion = Diffusion(network, (2, 8, 12), ScheduleConfig(), "noise")
    config = DiffusionLossConfig(weighting="noise")
    loss = diffusion.loss(X, config, torch.Generator().manual_seed(3), told(kind)).loss
    generator = torch.Generator().manual_seed(3)
    torch.rand(1, generator=generator)  # the shift of the noise levels
    eps = torch.randn(X.shape, generator=generator)
    torch.testing.assert_close(loss, eps.square().mean())


@every_kind
def test_padding_has_no_influence_at_all(kind):
    network, condition = make(kind), told(kind)
    assert condition.tokens is not None
    assert condition.mask is not None
    changed = torch.where(condition.mask[..., None], condition.tokens, torch.tensor(1e3))
    y = network(X, LEVELS, condition)
    assert torch.equal(network(X, LEVELS, condition._replace(tokens=changed)), y)
    other = torch.where(condition.mask[..., None], 2 * condition.tokens, condition.tokens)
    assert not torch.allclose(network(X, LEVELS, condition._replace(tokens=other)), y)
    # Padding alone is a condition too: it tells nothing, and is no division of 0 by 0.
    none = condition._replace(mask=torch.zeros_like(condition.mask))
    y = network(X, LEVELS, none)
    assert y.isfinite().all()
    assert torch.equal(network(X, LEVELS, none._replace(tokens=changed)), y)


@every_kind
def test_every_weight_takes_part(kind):
    network = make(kind)
    network(X, LEVELS, told(kind)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@every_kind
def test_each_example_is_worked_on_alone(kind):
    network, condition = make(kind), told(kind)
    whole = network(X, LEVELS, condition)
    one = Condition(*(None if part is None else part[1:2] for part in condition))
    torch.testing.assert_close(network(X[1:2], LEVELS[1:2], one), whole[1:2], rtol=1e-4, atol=1e-5)


def test_the_vector_the_level_and_the_image_are_seen():
    network, condition = make("vector and level"), told("vector and level")
    y = network(X, LEVELS, condition)
    assert condition.vector is not None
    assert condition.level is not None
    for changed in (
        condition._replace(vector=-condition.vector), condition._replace(level=condition.level + 3)
    ):  # fmt: skip
        assert not torch.allclose(network(X, LEVELS, changed), y)
    with_image = condition._replace(image=X[:, 1:])
    assert torch.equal(network(X[:, :1], LEVELS, with_image), y)


def test_attention_weights_are_shared_out_among_the_tokens():
    maps, condition = [], told("plain")
    make("plain")(X, LEVELS, condition, maps)
    assert [part.shape[2] for part in maps] == [24, 24, 24, 24]  # 4x6 places: down, middle, up
    assert condition.mask is not None
    for part in maps:
        torch.testing.assert_close(part.sum(3), torch.ones_like(part.sum(3)))
        assert part.transpose(1, 3)[~condition.mask].abs().max() == 0


def test_no_block_of_the_efficient_order_works_on_the_whole_image():
    seen = []
    network = make("efficient")
    for module in network.modules():
        if type(module).__name__ == "ResidualBlock":
            module.register_forward_hook(lambda *args: seen.append(tuple(args[2].shape[2:])))
    network(X, LEVELS, told("efficient"))
    assert set(seen) == {(4, 6), (2, 3)}
    assert seen == [(4, 6), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (4, 6)]


@every_kind
def test_no_images_give_none(kind):
    network = make(kind)
    whole = network(X, LEVELS, told(kind))
    found = network(X[:0], LEVELS[:0], told(kind, 0))
    assert found.shape == (0, *whole.shape[1:])


def remember(inputs: list):
    """Hook that keeps a module's first input."""
    return lambda module, args: inputs.append(args[0])


def test_skips_are_scaled():
    """With the middle at zero, the way up of a scaled network sees all skips times 1 / sqrt(2)."""
    found = []
    for scale_skips in (False, True):
        torch.manual_seed(0)
        config = ConditionalUNetConfig(8, (1,), attention=(), head_dim=4, context_dim=0,
                                       scale_skips=scale_skips)  # fmt: skip
        network = ConditionalUNet(2, config)
        inputs = []
        network.get_submodule("up.0.stages.0").register_forward_pre_hook(remember(inputs))
        network(X, LEVELS)
        found.append(inputs[0][:, 8:])
    torch.testing.assert_close(found[1], found[0] * math.sqrt(0.5))


def test_groups_divide_the_channels():
    with torch.device("meta"):
        network = ConditionalUNet(4, SD1)
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} <= {30, 32}
    assert all(norm.num_channels % norm.num_groups == 0 for norm in norms)


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: ConditionalUNetConfig(num_blocks=(1, 1, 1)), r"\(1, 1, 1\).*2 multipliers"),
        (lambda: ConditionalUNetConfig(attention=(2,)), r"\(2,\).*there are 2.*0 to 1"),
        (lambda: ConditionalUNetConfig(width=7), "width is 7.*even"),
        (lambda: ConditionalUNetConfig(head_dim=48), "head_dim is 48.*64 feature maps"),
        (lambda: make("plain")(X, LEVELS), r"tokens.*none.*\(B, S, 5\), B = 3"),
        (lambda: make("plain")(X, LEVELS, told("plain", 2)), r"\(2, 4, 5\).*B = 3"),
        (lambda: make("plain")(X, LEVELS, told("plain")._replace(vector=torch.zeros(3, 6))),
         r"a vector.*\(3, 6\).*needs none"),
        (lambda: make("plain")(X, LEVELS, told("plain")._replace(mask=torch.ones(3, 4))),
         r"mask \(3, 4\) of torch.float32.*bool"),
        (lambda: make("plain")(X, LEVELS, told("plain")._replace(level=torch.zeros(3))),
         "a noise level of an image"),
        (lambda: make("plain")(X[:, :1], LEVELS, told("plain")), "1 channels.*takes 2"),
        (lambda: make("deep")(X[..., :6], LEVELS, told("deep")), "8x6 pixels.*4 divides"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_explained(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
