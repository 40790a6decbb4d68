"""pix2pix and CycleGAN: published sizes, noise, losses by hand, the buffer, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generative.classifier import CNNClassifierConfig
from generative.gan import GANLossConfig, ProjectedCriticConfig, critic_loss, generator_loss
from generative.known.sprites import COLOURS, sprites
from generative.translation import (
    CycleGANConfig,
    CycleGANLearner,
    CycleGANLossConfig,
    FakeBuffer,
    Pix2PixConfig,
    Pix2PixLearner,
    Pix2PixLossConfig,
    edges,
    grey,
)

torch.set_num_threads(1)

PIX2PIX = Pix2PixConfig((3, 16, 16), 1, 4, 3, num_dropout=1, critic_width=4, critic_levels=1)
CYCLEGAN = CycleGANConfig((3, 16, 16), 4, 1, 4, 1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        pix2pix = Pix2PixConfig().build()
        small = Pix2PixConfig((3, 32, 32), 3, 16, 5, critic_width=16, critic_levels=2).build()
        cyclegan = CycleGANConfig().build()
        small_cyclegan = CycleGANConfig((3, 32, 32), 16, 3, 16, 2, "batch").build()
    assert count(pix2pix.generator) == 54_413_955
    assert count(pix2pix.critic) == 2_768_705  # 3 more channels than the critic of single images
    assert count(small.generator) == 1_043_619
    for direction in ("there", "back"):
        assert count(cyclegan.generator[direction]) == 11_378_179
        assert count(cyclegan.critic[direction]) == 2_764_737
        assert count(small_cyclegan.generator[direction]) == 272_515
        assert count(small_cyclegan.critic[direction]) == 42_961


def test_edges_tell_shape_place_and_size_and_not_colour():
    everything = sprites()
    outlines = edges(everything.as_tensor()).flatten(1).byte().numpy()
    keys = everything.factors[:, [0, 2, 3, 4]]
    seen: dict[bytes, set] = {}
    for outline, key in zip(outlines, keys, strict=True):
        seen.setdefault(outline.tobytes(), set()).add(tuple(key))
    assert len(seen) == len(everything) // len(COLOURS)
    assert all(len(found) == 1 for found in seen.values())


def test_edges_and_grey_by_hand():
    x = torch.zeros(1, 3, 3, 3)
    x[0, 1, 1, 1] = 0.5
    assert edges(x)[0, 0].tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert edges(x, threshold=0.6).sum() == 0
    assert grey(x)[0, 0, 1, 1] == pytest.approx(0.587 * 0.5)
    assert grey(torch.ones(1, 3, 2, 2)).max() <= 1


def test_dropout_is_noise_in_evaluation_too_and_repeats_with_a_seed():
    model, x = PIX2PIX.build().eval(), torch.rand(4, 1, 16, 16)
    state = torch.get_rng_state()
    first, again, other = (model.translate(x, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(1).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (4, 3, 16, 16)
    assert first.min() >= 0
    assert first.max() <= 1
    without = Pix2PixConfig((3, 16, 16), 1, 4, 3, dropout=0.0, num_dropout=0).build().eval()
    assert torch.equal(without.translate(x, generator(1)), without.translate(x, generator(2)))
    # Of one alone or of many: in evaluation no image depends on its neighbours.
    torch.testing.assert_close(without.translate(x[:1]), without.translate(x)[:1])


def test_half_of_the_features_are_left_out_and_the_mean_stays():
    torch.manual_seed(0)
    model = Pix2PixConfig((3, 16, 16), 1, 32, 4, num_dropout=1).build().eval()
    seen = []
    model.generator.up[1].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    x = torch.rand(64, 1, 16, 16)
    model.translate(x, generator(0))
    width = model.generator.up[0][1].out_channels  # behind the map from the way down
    dropped = seen[0][:, -width:]
    model.generator.dropout = 0.0
    model.translate(x, generator(0))
    whole = seen[1][:, -width:]
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])


def test_noise_changes_whole_maps_and_repeats_with_a_seed():
    torch.manual_seed(0)
    config = Pix2PixConfig((3, 16, 16), 1, 4, 3, num_dropout=0, noise_dim=3)
    model, x = config.build().eval(), torch.rand(1, 1, 16, 16).expand(64, -1, -1, -1)
    state = torch.get_rng_state()
    first, again = (model.translate(x, generator(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    # Of one source there are as many images as draws of three numbers of -1 and 1.
    images, counts = first.flatten(1).unique(dim=0, return_counts=True)
    assert len(images) == 2**3
    assert counts.min() > 1
    # With its linear maps 0, a norm is told nothing, and there is one image.
    for norm in model.generator.norms:
        nn.init.zeros_(norm.gain.weight)
        nn.init.zeros_(norm.shift.weight)
    assert len(model.translate(x, generator(1)).flatten(1).unique(dim=0)) == 1


def test_noise_is_even_and_of_two_values():
    torch.manual_seed(0)
    model = Pix2PixConfig((3, 16, 16), 1, 4, 3, num_dropout=0, noise_dim=5).build().eval()
    seen = []
    model.generator.read.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model.translate(torch.zeros(1000, 1, 16, 16), generator(0))
    assert seen[0].shape == (1000, 5)
    assert set(seen[0].unique().tolist()) == {-1.0, 1.0}
    assert seen[0].mean(0).abs().max() < 4 / 1000**0.5


def test_the_end_sees_the_source_pixel_by_pixel():
    """Two convolutions of 3x3 behind the source: a pixel reaches two further, by that way alone."""
    torch.manual_seed(0)
    generator = Pix2PixConfig((3, 16, 16), 1, 4, 3, num_dropout=0, noise_dim=2).build().generator
    generator.eval()
    for block in generator.down:
        for weight in block.parameters():
            nn.init.zeros_(weight)
    x = torch.zeros(1, 1, 16, 16)
    moved = x.clone()
    moved[0, 0, 8, 5] = 1.0
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    with torch.no_grad():
        pair = [generator(z, seed) for z, seed in zip((x, moved), seeds, strict=True)]
    rows, columns = (pair[0] != pair[1])[0].any(0).nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max())) == (6, 10)
    assert (int(columns.min()), int(columns.max())) == (3, 7)


def test_a_projected_critic_judges_pairs():
    torch.manual_seed(0)
    features = CNNClassifierConfig((3, 16, 16), 4, (4, 4), (3, 3), (2, 2), hidden_dim=8)
    config = replace(PIX2PIX, projected=ProjectedCriticConfig(features, 4, 4))
    model = config.build().eval()
    x, y = torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    heights = model.heights(x, y)
    assert heights.shape == (2, 3)
    # The heads of the maps see the image alone, that of the pixels sees both.
    changed = model.heights(1 - x, y) != heights
    assert changed.any(0).tolist() == [False, False, True]
    assert (model.heights(x, 1 - y) != heights).all()
    model.train()
    before = {name: w.clone() for name, w in model.critic.network.state_dict().items()}
    learner = Pix2PixLearner(model, Pix2PixLossConfig(GANLossConfig(objective="hinge"), l1=0.1), 2)
    learner.update((x, y))
    assert all(torch.equal(w, before[n]) for n, w in model.critic.network.state_dict().items())


def test_there_and_back_are_two_networks():
    model, x = CYCLEGAN.build().eval(), torch.rand(3, 3, 16, 16)
    there, back = model.translate(x), model.translate(x, back=True)
    assert not torch.equal(there, back)
    with torch.no_grad():
        by_hand = (model.generator["back"](2 * x - 1) + 1) / 2
    assert torch.equal(back, by_hand)
    assert not torch.equal(model.heights(x), model.heights(x, back=True))
    assert model.heights(x).shape == (3, 6, 6)


def test_squares_by_hand():
    config = GANLossConfig(objective="squares", label_noise=0.0)
    real, fake = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]])
    assert float(critic_loss(real, fake, config)) == pytest.approx((0.5 + 1.25 / 2) / 2)
    assert float(generator_loss(fake, real, config)) == pytest.approx((0.25 + 4) / 2)


def test_pix2pix_losses_by_hand():
    """Of a first update with rates of 0, as its networks then stay what they are."""
    torch.manual_seed(0)
    model = Pix2PixConfig(
        (3, 16, 16), 1, 4, 3, dropout=0.0, num_dropout=0, critic_width=4, critic_levels=1,
        critic_norm="none",
    ).build()  # fmt: skip
    gan = GANLossConfig(label_noise=0.0, r1=2.0, r2=3.0, lr=0.0, critic_lr=0.0)
    learner = Pix2PixLearner(model.train(), Pix2PixLossConfig(gan, gan_weight=0.5, l1=7.0), 1)
    x, y = torch.rand(4, 1, 16, 16), torch.rand(4, 3, 16, 16)
    logged = learner.update((x, y))
    with torch.no_grad():
        fake = model.generator(2 * x - 1)
    real = (2 * y - 1).requires_grad_()
    fake.requires_grad_()
    of_real, of_fake = (model.critic(torch.cat([z, 2 * x - 1], 1)) for z in (real, fake))
    slopes = [
        torch.autograd.grad(h.mean((1, 2)).sum(), z, retain_graph=True)[0].flatten(1)
        for h, z in ((of_real, real), (of_fake, fake))
    ]
    r1, r2 = (slope.square().sum(1).mean() for slope in slopes)
    c_loss = (F.softplus(-of_real).mean() + F.softplus(of_fake).mean()) / 2 + r1 + 1.5 * r2
    g_loss, l1 = F.softplus(-of_fake).mean(), (fake - real).abs().mean()
    torch.testing.assert_close(logged["c_loss"], c_loss.detach())
    torch.testing.assert_close(logged["g_loss"], g_loss.detach())
    torch.testing.assert_close(logged["l1"], l1.detach() / 2)
    torch.testing.assert_close(logged["loss"], (7 * l1 + 0.5 * g_loss).detach())


def test_lazy_penalties_come_every_so_often_and_weigh_as_many_times_as_much():
    torch.manual_seed(0)
    model = Pix2PixConfig(
        (3, 16, 16), 1, 4, 3, dropout=0.0, num_dropout=0, critic_width=4, critic_levels=1,
        critic_norm="none",
    ).build().train()  # fmt: skip
    batch = torch.rand(4, 1, 16, 16), torch.rand(4, 3, 16, 16)
    found = {}
    for r, every in ((0.0, 1), (1.0, 1), (1.0, 3)):
        gan = GANLossConfig(label_noise=0.0, r1=r, r2=r, penalty_every=every, lr=0.0, critic_lr=0.0)
        learner = Pix2PixLearner(model, Pix2PixLossConfig(gan), 9)
        found[r, every] = [float(learner.update(batch)["c_loss"]) for _ in range(4)]
    plain, whole = found[0.0, 1][0], found[1.0, 1][0]
    assert found[1.0, 1] == pytest.approx([whole] * 4)
    lazy = plain + 3 * (whole - plain)
    assert found[1.0, 3] == pytest.approx([lazy, plain, plain, lazy])


def test_without_weight_there_is_no_critic_to_train():
    model = PIX2PIX.build().train()
    before = [p.clone() for p in model.critic.parameters()]
    learner = Pix2PixLearner(model, Pix2PixLossConfig(gan_weight=0.0), 2)
    logged = learner.update((torch.rand(4, 1, 16, 16), torch.rand(4, 3, 16, 16)))
    assert set(logged) == {"l1", "loss"}
    assert all(torch.equal(p, q) for p, q in zip(before, model.critic.parameters(), strict=True))


def test_cyclegan_losses_by_hand():
    torch.manual_seed(0)
    model = CYCLEGAN.build().train()
    gan = GANLossConfig(objective="squares", label_noise=0.0, lr=0.0, critic_lr=0.0)
    config = CycleGANLossConfig(gan, cycle=3.0, identity=2.0)
    x, y = torch.rand(2, 4, 3, 16, 16)
    logged = CycleGANLearner(model, config, 1).update((x, y))
    a, b = 2 * x - 1, 2 * y - 1
    with torch.no_grad():
        there, back = model.generator["there"], model.generator["back"]
        of_b, of_a = model.critic["there"], model.critic["back"]
        cycle = (back(there(a)) - a).abs().mean() + (there(back(b)) - b).abs().mean()
        identity = (there(b) - b).abs().mean() + (back(a) - a).abs().mean()
        g_loss = (of_b(there(a)) - 1).square().mean() + (of_a(back(b)) - 1).square().mean()
        c_loss = ((of_b(b) - 1).square().mean() + of_b(there(a)).square().mean()) / 2
        c_loss += ((of_a(a) - 1).square().mean() + of_a(back(b)).square().mean()) / 2
    torch.testing.assert_close(logged["cycle"], cycle / 4)
    torch.testing.assert_close(logged["identity"], identity / 4)
    torch.testing.assert_close(logged["g_loss"], g_loss)
    torch.testing.assert_close(logged["c_loss"], c_loss)
    torch.testing.assert_close(logged["loss"], g_loss + 3 * cycle + 2 * identity)


@pytest.mark.parametrize("kind", ["pix2pix", "cyclegan"])
def test_gradients_reach_every_parameter(kind):
    torch.manual_seed(0)
    if kind == "pix2pix":
        model = PIX2PIX.build().train()
        learner = Pix2PixLearner(model, Pix2PixLossConfig(), 1)
        learner.update((torch.rand(4, 1, 16, 16), torch.rand(4, 3, 16, 16)))
    else:
        model = CYCLEGAN.build().train()
        learner = CycleGANLearner(model, CycleGANLossConfig(), 1)
        learner.update((torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_rates_stay_and_then_fall_in_a_straight_line():
    model = PIX2PIX.build().train()
    gan = GANLossConfig(lr=1.0, critic_lr=2.0, lr_end=0.2)
    learner = Pix2PixLearner(model, Pix2PixLossConfig(gan, constant=0.5), 10)
    rates = []
    for _ in range(12):
        rates.append([o.param_groups[0]["lr"] for o in learner.optimizers.values()])
        for part in learner.parts.values():
            part.advance()
    expected = [1.0] * 6 + [0.84, 0.68, 0.52, 0.36, 0.2, 0.2]
    assert np.allclose([rate for rate, _ in rates], expected)
    assert np.allclose([rate for _, rate in rates], 2 * np.array(expected))


def test_buffer_fills_and_then_exchanges_every_second_image():
    torch.manual_seed(0)
    buffer = FakeBuffer(50)
    images = torch.arange(2000.0)[:, None, None, None]
    shown = torch.cat([buffer.exchange(part) for part in images.split(10)])
    assert torch.equal(shown[:50], images[:50])
    new = shown[50:] == images[50:]
    assert float(new.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert (shown[50:][~new] < images[50:][~new]).all()
    # Nothing is lost and nothing is doubled: what was put in has come out again, or is in there.
    assert buffer.images is not None
    together = torch.cat([shown[50:], buffer.images]).flatten()
    assert torch.equal(together.sort().values, images.flatten())
    assert FakeBuffer(0).exchange(images) is images


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pix2PixConfig((3, 48, 48)), r"\(3, 48, 48\); 8 convolutions.*256 divides"),
        (lambda: Pix2PixConfig((3, 32, 32), num_levels=3), "num_dropout is 3.*at most 2"),
        (lambda: replace(PIX2PIX, noise_dim=2), "noise_dim is 2 and num_dropout 1.*one of them 0"),
        (lambda: replace(PIX2PIX, projected=ProjectedCriticConfig()), r"shape is \(3, 16, 16\)"),
        (lambda: CycleGANConfig((3, 30, 32)), r"\(3, 30, 32\); 2 convolutions.*4 divides"),
        (
            lambda: PIX2PIX.build().translate(torch.rand(2, 3, 16, 16)),
            r"sources of shape \(2, 3, 16, 16\).*\(B, 1, 16, 16\)",
        ),
        (
            lambda: PIX2PIX.build().heights(torch.rand(2, 1, 16, 16), torch.rand(3, 3, 16, 16)),
            "2 sources and 3 images",
        ),
        (
            lambda: CycleGANConfig((3, 8, 8), 4, 1, 4, 3).build().heights(torch.rand(1, 3, 8, 8)),
            "8x8 leave no patch",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
