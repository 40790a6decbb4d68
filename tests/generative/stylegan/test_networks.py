"""Networks that grow and networks with styles, against totals, closed forms and each other."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.nets.equalised import upsample
from generative.stylegan import (
    ProGAN,
    ProGANConfig,
    Stage,
    StyleGAN2Config,
    StyleGANConfig,
    adain,
    contributions,
    reduce,
    stage_of,
)

torch.set_num_threads(1)

TINY = ProGANConfig((3, 16, 16), latent_dim=6, channel_base=128, channel_max=8)
STYLED = StyleGANConfig((3, 16, 16), 6, 128, 8, style_dim=5, mapping_layers=2)
STYLED2 = StyleGAN2Config((3, 16, 16), 6, 128, 8, style_dim=5, mapping_layers=2)
SMALL = {"shape": (3, 64, 64), "latent_dim": 256, "channel_base": 8192, "channel_max": 256}
TEST = {"shape": (3, 16, 16), "latent_dim": 32, "channel_base": 512, "channel_max": 32}
STYLES = {"style_dim": 32, "mapping_layers": 2}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def noisy(config, seed: int = 0):
    """A pair whose weights are anything: strengths of noise begin at 0."""
    torch.manual_seed(seed)
    model = config.build().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "generator", "critic"),
    [
        (ProGANConfig(), 23_079_115, 23_087_249),
        (ProGANConfig(**SMALL), 5_625_487, 5_629_313),
        (ProGANConfig(**TEST), 62_953, 63_361),
        (StyleGAN2Config(), 30_370_060, 29_012_513),
        (StyleGAN2Config(channel_base=16_384), 24_900_764, 24_038_161),
        (StyleGAN2Config(**SMALL, style_dim=256), 5_962_392, 5_854_593),
        (StyleGAN2Config(**TEST, **STYLES), 57_614, 65_153),
    ],
)
def test_totals_are_the_published_ones(config, generator, critic):
    with torch.device("meta"):
        model = config.build()
    assert (count(model.generator), count(model.critic)) == (generator, critic)


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (StyleGANConfig(), 26_211_507),
        (StyleGANConfig(**SMALL, style_dim=256), 6_290_563),
        (StyleGANConfig(**TEST, **STYLES), 61_827),
    ],
)
def test_totals_of_stylegan_with_its_last_way_out_alone(config, total):
    with torch.device("meta"):
        generator = config.build().generator
    assert count(generator) - count(generator.to_rgb[:-1]) == total


def test_channels_halve_from_where_the_largest_number_ends():
    assert ProGANConfig().channels == (512, 512, 512, 512, 256, 128, 64, 32, 16)
    assert StyleGAN2Config().channels == (512,) * 5 + (256, 128, 64, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (3, 28, 28)}, r"28, 28.*4, 8, 16.*give 16 or 32"),
        ({"shape": (3, 32, 16)}, r"\(3, 32, 16\).*square"),
        ({"shape": (2,)}, r"\(C, S, S\)"),
        ({"channel_base": 8}, r"channel_base is 8.*side 16.*at least 16"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


# ---------------------------------------------------------------------------------------------
# Growth
# ---------------------------------------------------------------------------------------------


def test_stages_by_the_number_of_images():
    """4 is trained; 8 is faded in and trained; 16 is faded in and trained, and stays."""
    expected = {
        0: (4, 1), 99: (4, 1), 100: (8, 0), 125: (8, 0.25), 199: (8, 0.99), 200: (8, 1),
        299: (8, 1), 300: (16, 0), 399: (16, 0.99), 400: (16, 1), 10**6: (16, 1),
    }  # fmt: skip
    assert {n: tuple(stage_of(n, 16, 100)) for n in expected} == expected


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_images_at_a_stage():
    x = draw(2, 3, 16, 16)
    blocks = x.unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    assert torch.allclose(reduce(x, Stage(8, 1.0)), blocks)
    assert torch.equal(reduce(x, Stage(16, 1.0)), x)
    assert torch.allclose(reduce(x, Stage(16, 0.0)), doubled(blocks))
    assert torch.allclose(reduce(x, Stage(16, 0.3)), 0.3 * x + 0.7 * doubled(blocks))


@pytest.mark.parametrize("config", [TINY, STYLED])
def test_new_layers_of_the_generator_are_faded_in(config):
    generator, z = noisy(config).generator, draw(4, 6)
    for side in (8, 16):
        old, new = doubled(generator(z, side // 2)), generator(z, side)
        assert new.shape == (4, 3, side, side)
        assert torch.equal(generator(z, side, 0.0), old)
        assert torch.equal(generator(z, side, 1.0), new)
        assert torch.allclose(generator(z, side, 0.3), 0.3 * new + 0.7 * old)
    assert torch.equal(generator(z), generator(z, 16))


def test_new_layers_of_the_critic_are_faded_in():
    critic = noisy(TINY).critic
    for side in (8, 16):
        x = draw(4, 3, side, side)
        assert torch.equal(critic(x, 0.0), critic(F.avg_pool2d(x, 2)))
        assert not torch.allclose(critic(x, 0.5), critic(x))
    with pytest.raises(ValueError, match=r"side is 12.*4, 8, 16"):
        critic(draw(4, 3, 12, 12))


def test_only_the_layers_of_a_stage_have_gradients():
    model = noisy(TINY)
    used = {}
    for stage in ((8, 0.5), (8, 1.0)):
        model.zero_grad()
        model.critic(model.generator(draw(4, 6), *stage), stage[1]).sum().backward()
        used[stage] = {n for n, p in model.named_parameters() if p.grad is not None}
    fading, grown = used.values()
    assert {n for n in fading if "rgb.0" in n} != set()
    assert not any("rgb.0" in n for n in grown)
    assert not any("blocks.1" in n or "rgb.2" in n for n in fading)


def test_minibatch_deviation_of_the_critic_can_be_left_out():
    with_it, without = (replace(TINY, std_group=n).build().critic for n in (4, 0))
    assert count(with_it) - count(without) == 9 * 8
    assert without(torch.zeros(3, 3, 16, 16)).shape == (3,)
    with pytest.raises(ValueError, match=r"3 examples.*groups of 4"):
        with_it(torch.zeros(3, 3, 16, 16))


def test_a_height_depends_on_its_group_alone():
    critic, x = noisy(replace(TINY, std_group=2)).critic, draw(6, 3, 16, 16)
    before = critic(x)
    x[0] += 1.0
    assert (critic(x) != before).tolist() == [True, False, False, True, False, False]


# ---------------------------------------------------------------------------------------------
# Styles
# ---------------------------------------------------------------------------------------------


def test_adain_gives_the_moments_of_the_style():
    x, scale, shift = 3 + 5 * draw(2, 4, 6, 6), draw(2, 4).abs(), draw(2, 4, seed=2)
    y = adain(x, scale, shift)
    assert torch.allclose(y.mean((2, 3)), shift)
    assert torch.allclose(y.std((2, 3), correction=0), scale)
    with pytest.raises(ValueError, match="one pixel"):
        adain(x[:, :, :1, :1], scale, shift)


def test_styles_begin_as_deviation_one_and_mean_zero():
    layer = STYLED.build().generator.layers[3]
    scale, shift = layer.affine(torch.zeros(1, 5)).chunk(2, 1)
    assert torch.equal(scale, torch.ones_like(scale))
    assert torch.equal(shift, torch.zeros_like(shift))


@pytest.mark.parametrize("config", [STYLED, STYLED2])
def test_noise_of_strength_zero_changes_nothing(config):
    model = noisy(config)
    w = model.styles(draw(3, 6))
    maps = [model.draw_noise(3, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    loud = [model.synthesise(w, noise) for noise in maps]
    assert not torch.equal(*loud)
    assert torch.equal(model.synthesise(w, maps[0]), loud[0])
    with torch.no_grad():
        for layer in model.generator.layers:
            layer.strength.zero_()
    quiet = [model.synthesise(w, noise) for noise in (*maps, None)]
    assert torch.equal(quiet[0], quiet[1])
    assert torch.equal(quiet[0], quiet[2])


@pytest.mark.parametrize("config", [STYLED, STYLED2])
def test_layers_before_the_crossover_do_not_know_the_second_style(config):
    model = noisy(config)
    seen: list[torch.Tensor] = []
    for layer in model.generator.layers:
        layer.register_forward_hook(lambda _layer, _given, out: seen.append(out))
    first, second = model.styles(draw(2, 6)), model.styles(draw(2, 6, seed=2))
    mixed = torch.cat([first[:, :3], second[:, 3:]], 1)
    model.synthesise(first)
    model.synthesise(mixed)
    n = len(model.generator.layers)
    equal = [torch.equal(a, b) for a, b in zip(seen[:n], seen[n:], strict=True)]
    assert equal == [True] * 3 + [False] * (n - 3)


@pytest.mark.parametrize("config", [STYLED, STYLED2])
def test_truncation_goes_from_the_mean_style_to_that_of_z(config):
    model, z = noisy(config), draw(3, 6)
    mean, own = model.mean_style(), model.styles(z)
    assert own.shape == (3, model.generator.num_layers, 5)
    assert torch.equal(model.styles(z, 1.0), own)
    assert torch.allclose(model.styles(z, 0.7), 0.7 * own + 0.3 * mean)
    samples = model.sample(2, torch.Generator().manual_seed(0), truncation=0.0)
    assert samples.shape == (2, 3, 16, 16)
    draws = model.generator.mapping(draw(20_000, 6, seed=5)).detach()
    assert torch.allclose(mean, draws.mean(0), atol=5 * float(draws.std()) / math.sqrt(4096))


def test_generate_knows_nothing_of_the_size_of_z():
    model, z = noisy(STYLED2), draw(3, 6)
    assert torch.allclose(model.generate(z), model.generate(37 * z), atol=1e-6)


def test_image_is_the_sum_of_its_parts():
    model = noisy(STYLED2)
    w, noise = model.styles(draw(4, 6)), model.draw_noise(4)
    parts = model.generator.parts(w, noise)
    assert [part.shape[-1] for part in parts] == [4, 8, 16]
    whole = upsample(upsample(parts[0])) + upsample(parts[1]) + parts[2]
    assert torch.allclose(model.generator.synthesis(w, noise), whole)
    found = contributions(model.generator, w, noise)
    assert torch.allclose(found[2], parts[2].std() / whole.std())
    assert torch.allclose(found[0], upsample(upsample(parts[0])).std() / whole.std())


def test_every_layer_of_stylegan2_has_its_style_and_the_way_out_that_of_the_next():
    """A change of style k moves the maps from layer k on, and the part of the side before it."""
    generator = noisy(STYLED2).generator
    w = draw(1, 6, 5)
    before = generator.parts(w, None)
    for k in range(6):
        changed = w.clone()
        changed[:, k] += 1.0
        parts = generator.parts(changed, None)
        moved = [not torch.equal(a, b) for a, b in zip(before, parts, strict=True)]
        assert moved == [k <= 2 * i + 1 for i in range(3)]


def test_styles_of_another_shape_are_refused():
    model = noisy(STYLED2)
    with pytest.raises(ValueError, match=r"styles of shape \(2, 5\).*\(B, 6, 5\)"):
        model.synthesise(draw(2, 5))
    with pytest.raises(ValueError, match=r"truncation is -1.*at least 0"):
        model.sample(1, truncation=-1)


def test_a_pair_put_together_by_hand_is_used_like_one_with_a_recipe(tmp_path):
    whole = noisy(TINY)
    own = ProGAN(copy.deepcopy(whole.generator), copy.deepcopy(whole.critic), (3, 16, 16), 6)
    z = draw(4, 6)
    assert torch.equal(own.generate(z), whole.generate(z))
    own.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        own.generator.bias += 1
    own.load_weights(tmp_path / "model")
    assert torch.equal(own.generate(z), whole.generate(z))
    assert own.sample(0).shape == (0, 3, 16, 16)
    assert own.heights(own.generate(z)).shape == (4,)


@pytest.mark.parametrize("config", [TINY, STYLED])
def test_alpha_without_a_side_is_of_the_full_side(config):
    model, z = noisy(config), draw(2, 6)
    assert torch.equal(model.generate(z, alpha=0.3), model.generate(z, 16, 0.3))
    assert torch.equal(model.generate(z, alpha=0.0), model.generate(z, 16, 0.0))
    assert torch.equal(model.generate(z), model.generate(z, 16))
    assert not torch.equal(model.generate(z), model.generate(z, alpha=0.3))
    whole, faded = (
        model.sample(2, torch.Generator().manual_seed(0), alpha=alpha) for alpha in (1.0, 0.3)
    )
    assert not torch.equal(whole, faded)
    if config is STYLED:
        w = model.styles(z)
        assert torch.equal(model.synthesise(w, alpha=0.3), model.synthesise(w, None, 16, 0.3))


@pytest.mark.parametrize("config", [TINY, STYLED, STYLED2])
@pytest.mark.parametrize("alpha", [-5, 1.01, math.nan])
def test_an_alpha_that_is_no_share_is_refused(config, alpha):
    model = noisy(config)
    calls = [lambda: model.sample(1, alpha=alpha), lambda: model.generate(draw(1, 6), 8, alpha)]
    if config is not TINY:
        w = model.styles(draw(1, 6))
        calls.append(lambda: model.synthesise(w, alpha=alpha))
    for call in calls:
        with pytest.raises(ValueError, match=r"alpha is .*at least 0 and at most 1"):
            call()


def test_stages_of_a_network_that_does_not_grow_are_refused():
    model, z = noisy(STYLED2), draw(2, 6)
    assert not model.grows
    assert noisy(STYLED).grows
    assert noisy(TINY).grows
    calls = [
        lambda: model.sample(2, side=8),
        lambda: model.sample(2, alpha=0.3),
        lambda: model.generate(z, 8),
        lambda: model.synthesise(model.styles(z), side=8),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"StyleGAN does not grow.*side 16 alone.*leave both"):
            call()
    assert torch.equal(model.generate(z, 16), model.generate(z))


@pytest.mark.parametrize("config", [STYLED, STYLED2])
def test_noise_of_another_shape_is_refused(config):
    model = noisy(config)
    w, noise = model.styles(draw(3, 6)), model.draw_noise(3)
    model.synthesise(w, noise)
    model.synthesise(w, [None, *noise[1:]])
    for bad, message in [
        (
            model.draw_noise(2),
            r"noise of shape \(2, 1, 4, 4\) for layer 0; 3 images.*\(3, 1, 4, 4\)",
        ),
        ([*noise[:-1], noise[0]], r"shape \(3, 1, 4, 4\).*\(3, 1, 16, 16\): draw_noise\(3\)"),
        (noise[:-1], r"got \d maps of noise; \d layers add noise"),
        ([None, noise[1].float(), *noise[2:]], r"noise for layer 1 of torch.float32"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.synthesise(w, bad)
