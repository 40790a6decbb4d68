"""VQ-VAE and VQ-GAN: totals, what reaches which weights, the critic's time and weight."""

import math

import pytest
import torch

from generative.codes import (
    VQVAE,
    CodeTransformerConfig,
    PatchCriticConfig,
    PriorConfig,
    QuantiserConfig,
    ViTVQGANConfig,
    VQGANConfig,
    VQGANLearner,
    VQGANLossConfig,
    VQVAEConfig,
    VQVAELearner,
    VQVAELossConfig,
    gradient_energy,
    psnr,
)
from generative.nets.config import gpt2_block, vit_block

torch.set_num_threads(1)
TINY = VQGANConfig((3, 16, 16), 4, (1, 2), 1, (1,), QuantiserConfig(8, 4), PatchCriticConfig(4, 1))


def total(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def images(n: int = 4, side: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_totals_are_those_that_were_counted():
    """Convolutions inside the residual blocks have no bias; with it, VQ-VAE's would be larger."""
    with torch.device("meta"):
        small = VQVAEConfig().build()
        large = VQVAEConfig((3, 32, 32), (64, 128), 32, 2, QuantiserConfig(512, 64)).build()
        gan = VQGANConfig().build()
        faces = VQGANConfig((3, 64, 64), 64, (1, 2, 4), 2, (2,), QuantiserConfig(1024, 256)).build()
        vit = ViTVQGANConfig().build()
        large_vit = ViTVQGANConfig(
            (3, 64, 64), 8, 6, vit_block(256, 4), QuantiserConfig(1024, 32, "cosine")
        ).build()
        gpt = PriorConfig(network=CodeTransformerConfig()).build()
        large_gpt = PriorConfig(
            (16, 16), 1024, CodeTransformerConfig(8, gpt2_block(256, 4))
        ).build()
    pairs = [(total(model.encoder), total(model.decoder)) for model in (small, large)]
    assert pairs == [(28_512, 23_345), (372_096, 289_987)]
    assert (small.quantiser.vectors.numel(), large.quantiser.vectors.numel()) == (1024, 32_768)
    # Half of the two 1x1 convolutions beside the quantiser, 2,112 and 131,584, belongs to each.
    halves = ((gan, 1056), (faces, 65_792))
    pairs = [(total(m.encoder) - half, total(m.decoder) - half) for m, half in halves]
    assert pairs == [(105_008, 165_091), (6_704_576, 9_625_475)]
    assert (total(vit.encoder), total(vit.decoder)) == (113_992, 114_176)
    assert (total(large_vit.encoder), total(large_vit.decoder)) == (4_813_088, 4_813_248)
    assert (total(gpt), total(large_gpt)) == (112_448, 6_908_672)


@pytest.mark.parametrize(
    "config",
    [VQVAEConfig((3, 16, 16), (4, 8), 4, 1, QuantiserConfig(8, 4)), TINY,
     ViTVQGANConfig((3, 16, 16), 4, 1, vit_block(8, 2), QuantiserConfig(8, 4, "cosine"))],
)  # fmt: skip
def test_decoding_codes_is_reconstructing_bit_for_bit(config):
    torch.manual_seed(0)
    model = config.build().eval()
    x = images()
    codes = model.encode(x)
    assert codes.shape == (4, *model.grid)
    again = model.decode(codes)
    assert again.shape == x.shape
    assert torch.equal(again, model.through(x).images.clamp(0, 1))
    assert torch.equal(again, model.reconstruct(x))
    assert model.decode(codes[:0]).shape == (0, 3, 16, 16)


def test_convolutions_decode_a_larger_grid_and_patches_do_not():
    codes = torch.zeros(1, 10, 12, dtype=torch.int64)
    assert TINY.build().decode(codes).shape == (1, 3, 20, 24)
    vit = ViTVQGANConfig((3, 16, 16), 4, 1, vit_block(8, 2), QuantiserConfig(8, 4)).build()
    with pytest.raises(ValueError, match=r"\(1, 10, 12\).*int64 \(B, 4, 4\) in 0 to 7"):
        vit.decode(codes)


def test_loss_of_a_vqvae_is_the_sum_of_its_terms():
    torch.manual_seed(0)
    model = VQVAEConfig(
        (3, 16, 16), (4, 8), 4, 1, QuantiserConfig(8, 4, learning="loss", beta=0.25)
    ).build()
    x = images()
    losses = model.loss(x)
    z = model.vectors(x)
    e = model.quantiser.vectors[model.encode(x)]
    apart = float((z - e).detach().square().mean())
    recon = float((model.decode_vectors(e) - x).detach().square().mean())
    assert float(losses.recon.detach()) == pytest.approx(recon, rel=1e-5)
    assert float(losses.loss.detach()) == pytest.approx(recon + 1.25 * apart, rel=1e-5)


def test_nothing_is_revived_in_the_last_steps():
    torch.manual_seed(0)
    config = VQVAEConfig((3, 16, 16), (4, 8), 4, 1, QuantiserConfig(64, 4, revive=1, decay=0.0))
    model, x = config.build(), images(1)
    learner = VQVAELearner(model, VQVAELossConfig(lr=1e-9, final_lr=1e-9, revive_until=0.5), 4)
    moved = []
    for _ in range(4):
        unused = ~torch.isin(torch.arange(64), model.encode(x))
        before = model.quantiser.vectors[unused].clone()
        learner.update(x)
        moved.append(bool((model.quantiser.vectors[unused] != before).any()))
    assert moved == [True, True, False, False]


# ---------------------------------------------------------------------------------------------
# The critic
# ---------------------------------------------------------------------------------------------


def vqgan(steps: int, **settings) -> VQGANLearner:
    torch.manual_seed(0)
    settings = {"perceptual": 0.0, "lr_end": 1.0, **settings}
    return VQGANLearner(TINY.build(), VQGANLossConfig(**settings), steps)


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def differ(before: list[torch.Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_critic_learns_from_the_first_step_and_counts_from_its_time_on():
    """Until then the autoencoder is, bit for bit, that of a critic without weight."""
    learner, alone = vqgan(8, begin=0.5), vqgan(8, adversarial=0.0)
    x, found = images(), []
    for step in range(8):
        critic = weights(learner.model.critic)
        torch.manual_seed(step)
        logged = learner.update(x)
        torch.manual_seed(step)
        alone.update(x)
        assert differ(critic, learner.model.critic), step
        found.append(float(logged["weight"]) > 0)
        same = not differ(weights(learner.model.autoencoder), alone.model.autoencoder)
        assert same == (step < 4), step
    assert found == [False] * 4 + [True] * 4


@pytest.mark.parametrize(("most", "adversarial"), [(1e4, 0.8), (1e-3, 0.5)])
def test_weight_is_the_ratio_of_gradients_up_to_its_cap(most, adversarial):
    learner = vqgan(4, begin=0.0, most=most, adversarial=adversarial, objective="hinge", r1=0, r2=0)
    model, x = learner.model, images()
    last = model.decoder.last.weight
    passed = model.through(x)
    recon = (passed.images - x).abs().mean()
    term = -model.critic(2 * passed.images - 1).mean()
    of_recon, of_term = (
        torch.autograd.grad(part, last, retain_graph=True)[0].square().sum().sqrt()
        for part in (recon, term)
    )
    expected = adversarial * min(float(of_recon / (of_term + 1e-4)), most)
    assert float(learner.update(x)["weight"]) == pytest.approx(expected, rel=1e-4)


def test_no_gradient_of_the_critics_loss_reaches_the_autoencoder():
    """Whatever the critic's loss and rate, the first step of the autoencoder is the same."""
    after = []
    for settings in ({"r1": 0.0, "r2": 0.0}, {"r1": 50.0, "r2": 50.0, "critic_lr": 0.1}):
        learner = vqgan(4, begin=0.0, **settings)
        torch.manual_seed(0)
        learner.update(images())
        after.append(weights(learner.model.autoencoder))
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


def test_penalties_are_squared_slopes_of_mean_heights():
    """With a critic of one linear map of the mean, the slope is known."""

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.3))

        def forward(self, x):
            return (self.weight * x.mean((1, 2, 3)))[:, None, None].expand(-1, 2, 2)

    torch.manual_seed(0)
    built = TINY.build()
    model = VQVAE(built.encoder, built.quantiser, built.decoder, (3, 16, 16), (8, 8), Mean())
    config = VQGANLossConfig(perceptual=0.0, r1=4.0, r2=0.0, objective="hinge", begin=1.0)
    learner = VQGANLearner(model, config, 2)
    x = images()
    fake = model.through(x).images.detach()
    learner.update(x)
    # Within the margins of the hinge, its loss is 2 + mean height of fakes - mean height of x. The
    # critic sees 2 x - 1, so that d height / d x = 2 w / 768 at each of 768 numbers.
    means = [(2 * part - 1).mean((1, 2, 3)) for part in (x, fake)]
    assert all(bool((0.3 * mean.abs() < 1).all()) for mean in means)
    slope = means[1].mean() - means[0].mean() + 4.0 / 2 * 2 * 0.3 * 4 / 768
    assert float(model.critic.weight.grad) == pytest.approx(float(slope.detach()), rel=1e-3)


def test_what_a_learner_needs_is_told():
    plain = VQVAEConfig((3, 16, 16), (4,), 4, 1, QuantiserConfig(8, 4)).build()
    with pytest.raises(ValueError, match="has no critic; build one of VQGANConfig"):
        VQGANLearner(plain, VQGANLossConfig(perceptual=0.0), 2)
    with pytest.raises(ValueError, match="has no critic; pass a VQGAN"):
        plain.patch_heights(images())
    with pytest.raises(ValueError, match=r"perceptual is 1\.0 and there is no distance"):
        VQGANLearner(TINY.build(), VQGANLossConfig(), 2)
    with pytest.raises(ValueError, match="leave no patch behind 3"):
        VQGANConfig((3, 8, 8), 4, (1, 2), attention=(), critic=PatchCriticConfig(4, 3)).build()
    with pytest.raises(ValueError, match=r"attention is at resolutions \(2,\); there are 2"):
        VQGANConfig((3, 8, 8), 4, (1, 2))
    with pytest.raises(ValueError, match="2 convolutions of stride 2 need"):
        VQVAEConfig((3, 18, 16))


# ---------------------------------------------------------------------------------------------
# Measures
# ---------------------------------------------------------------------------------------------


def test_psnr_of_a_known_error():
    x = torch.full((2, 3, 4, 4), 0.5)
    assert float(psnr(x + 0.1, x)) == pytest.approx(20.0, abs=1e-4)
    assert float(psnr(x, x)) == pytest.approx(120.0)


def test_a_blur_lowers_the_gradient_energy_and_a_shift_of_levels_does_not():
    x = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    by_hand = [
        (x[..., 1:, :] - x[..., :-1, :]).pow(2).mean(), (x[..., 1:] - x[..., :-1]).pow(2).mean(),
    ]  # fmt: skip
    assert float(gradient_energy(x)) == pytest.approx(float(sum(by_hand)) / 2)
    torch.testing.assert_close(gradient_energy(x + 0.2), gradient_energy(x))
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    assert gradient_energy(blurred) < gradient_energy(x) / 2
    assert math.isclose(float(gradient_energy(2 * x)), 4 * float(gradient_energy(x)), rel_tol=1e-5)
