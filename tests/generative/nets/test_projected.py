"""Projected critic: heights by hand, what moves and what does not, and models that have one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.attention_gan import AttentionGANConfig
from generative.classifier import CNNClassifierConfig
from generative.gan import GAN, ConditionalGANConfig, GANLearner, GANLossConfig
from generative.gan.config import ProjectedCriticConfig
from generative.loading import load_model
from generative.nets.projected import ProjectedCritic
from generative.stylegan import (
    ProGANConfig,
    ProGANLearner,
    ProGANLossConfig,
    StyleGAN2Config,
    StyleGANConfig,
    StyleGANLearner,
    StyleGANLossConfig,
)

torch.set_num_threads(1)
SHAPE = (3, 16, 16)
FEATURES = CNNClassifierConfig(
    SHAPE, 4, channels=(4, 8), kernels=(3, 3), strides=(2, 2), hidden_dim=8, dropout=0.0
)
PROJECTED = ProjectedCriticConfig(FEATURES, 4, 4)
CONDITIONAL = ConditionalGANConfig(SHAPE, 8, (4, 8), num_classes=3, projected=PROJECTED)
HINGE = GANLossConfig(objective="hinge", lr=1e-2, critic_lr=1e-2, ema=0.9)


class Halves(nn.Module):
    """Maps are means of 2x2 and of 4x4 pixels."""

    def __init__(self):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.ones(())), nn.BatchNorm2d(3)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        assert not self.norm.training
        return [self.weight * F.avg_pool2d(x, side) for side in (2, 4)]


def images(n: int = 4) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_heights_by_hand():
    """Each head sees its own map, of the image in [0, 1] and normalised, and the last one the
    pixels in [-1, 1]; a label adds the product of its vector and the features."""
    torch.manual_seed(0)
    critic = ProjectedCritic(Halves(), SHAPE, 4, 6, num_classes=3).train()
    x, labels = 2 * images() - 1, torch.tensor([0, 2, 1, 1])
    critic(x, labels)
    critic.eval()
    found = critic(x, labels)
    assert found.shape == (4, 3)
    maps = [F.avg_pool2d((x + 1) / 2, side) for side in (2, 4)]  # of three features, in one group
    means = [m.flatten(1).mean(1)[:, None, None, None] for m in maps]
    stds = [m.flatten(1).var(1, correction=0).add(1e-5).sqrt()[:, None, None, None] for m in maps]
    seen = [*((m - a) / b for m, a, b in zip(maps, means, stds, strict=True)), x]
    for head, h, told in zip(critic.heads, seen, found.T, strict=True):
        for layer in head.layers:
            if isinstance(layer, nn.Conv2d):
                h = F.conv2d(h, layer.weight, layer.bias, layer.stride, layer.padding)
            else:
                h = torch.where(h > 0, h, 0.2 * h)
        h = h.flatten(1)
        for i, label in enumerate(labels):
            by_hand = (
                h[i] @ head.out.weight[0] + head.out.bias[0] + h[i] @ head.of_label.weight[label]
            )
            torch.testing.assert_close(told[i], by_hand)
    assert [head.layers[0].in_channels for head in critic.heads] == [3, 3, 3]
    assert [len(head.layers) for head in critic.heads] == [4, 2, 6]  # 8 -> 4, 4, and 16 -> 4


def test_the_network_is_a_copy_that_nothing_changes():
    network = Halves()
    critic = ProjectedCritic(network, SHAPE).train()
    x = (2 * images() - 1).requires_grad_()
    before = critic.eval()(x)
    network.weight.data.fill_(5.0)
    torch.testing.assert_close(critic(x), before)
    critic.train()(x).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert critic.network.weight.grad is None
    assert not critic.network.norm.training
    trained = {name for name, p in critic.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in critic.named_parameters() if name.startswith("heads")}


def test_weights_of_heads_are_no_longer_than_one():
    """After enough power iterations, by the singular values."""
    torch.manual_seed(0)
    critic = ProjectedCritic(Halves(), SHAPE, num_classes=3).train()
    for _ in range(50):
        critic(2 * images() - 1, torch.tensor([0, 1, 2, 0]))
    layers = [m for m in critic.heads.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 3 * 2 + 6
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert float(largest.detach()) == pytest.approx(1, abs=0.01)


def test_a_gan_learns_through_features_that_stay(tmp_path):
    torch.manual_seed(0)
    gan = CONDITIONAL.build()
    learner = GANLearner(gan, HINGE, 10)
    before = {name: value.clone() for name, value in gan.critic.state_dict().items()}
    for _ in range(3):
        logged = learner.update((images(), torch.tensor([0, 1, 2, 0])))
    assert 0 <= float(logged["accuracy"]) <= 1
    for name, value in gan.critic.state_dict().items():
        if name.startswith("network."):
            assert torch.equal(value, before[name]), name
    moved = [n for n, p in gan.critic.named_parameters() if not torch.equal(p, before[n])]
    assert moved
    kept = learner.kept
    kept.save_pretrained(tmp_path)
    again = GAN.from_pretrained(tmp_path)
    x, labels = images(), torch.tensor([2, 1, 0, 2])
    assert torch.equal(again.heights(x, labels), kept.heights(x, labels))
    torch.testing.assert_close(
        kept.heights(x, labels), kept.critic(2 * x - 1, labels).mean(1), rtol=0, atol=0
    )


def test_other_gans_have_one_too(tmp_path):
    """BigGAN's and StyleGAN2's learners move the heads and not the features."""
    torch.manual_seed(0)
    attentive = AttentionGANConfig(
        SHAPE, 3, 8, (4, 8), attention_side=8, spectral_norm="none", projected=PROJECTED
    )
    styled = StyleGAN2Config(SHAPE, 8, 64, 8, style_dim=8, mapping_layers=1, projected=PROJECTED)
    loss = StyleGANLossConfig(phase_images=0, objective="hinge", r1=0.0)
    labelled = images(), torch.tensor([0, 1, 2, 0])
    for config, kind, settings, batch in (
        (attentive, GANLearner, HINGE, labelled),
        (styled, StyleGANLearner, loss, images()),
    ):
        gan = config.build()
        learner = kind(gan, settings, 10)
        before = {name: p.clone() for name, p in gan.critic.named_parameters()}
        learner.update(batch)
        moved = {n for n, p in gan.critic.named_parameters() if not torch.equal(p, before[n])}
        assert moved
        assert all(name.startswith("heads.") for name in moved)
        folder = tmp_path / type(config).__name__
        learner.kept.save_pretrained(folder)
        given = labelled[1:] if isinstance(config, AttentionGANConfig) else ()
        found = load_model(folder).heights(images(), *given)
        assert torch.equal(found, learner.kept.heights(images(), *given))


def test_heads_that_compare_images():
    """A head's last convolution sees a further map, the deviation within each group; so a height
    depends on the images of its group and on no others."""
    torch.manual_seed(0)
    critic = ProjectedCritic(Halves(), SHAPE, 4, 6, std_group=2).eval()
    x = 2 * images() - 1
    for head, m in zip(critic.heads, critic._maps(x), strict=True):
        *before, compared, conv, _ = head.layers
        h = nn.Sequential(*before)(m)
        seen = compared(h)
        assert seen.shape[1] == h.shape[1] + 1 == conv.in_channels
        for i in (0, 1):  # groups are of the images 0 and 2, 1 and 3
            std = h[[i, i + 2]].std(0, correction=0).mean()
            torch.testing.assert_close(seen[[i, i + 2], -1], std.expand(2, *h.shape[2:]))
    before = critic(x)
    other = x.clone()
    other[3] = 0.0
    changed = (critic(other) != before).any(1)
    assert changed.tolist() == [False, True, False, True]
    config = replace(PROJECTED, std_group=2)
    assert config.build(SHAPE).heads[0].layers[2].group_size == 2
    config.check_batch(6)
    with pytest.raises(ValueError, match=r"batch_size is 5.*std_group 2.*multiple"):
        config.check_batch(5)
    with pytest.raises(ValueError, match=r"a batch of 3.*groups of 2"):
        critic(x[:3])


def test_a_gan_that_grows_is_judged_at_the_full_side(tmp_path):
    """Smaller images with each pixel repeated, whatever share of the newest layers there is."""
    torch.manual_seed(0)
    small = ProGANConfig(SHAPE, 8, 64, 8, projected=PROJECTED)
    styled = StyleGANConfig(SHAPE, 8, 64, 8, projected=PROJECTED, style_dim=8, mapping_layers=1)
    for config, kind, settings in (
        (small, ProGANLearner, ProGANLossConfig),
        (styled, StyleGANLearner, StyleGANLossConfig),
    ):
        gan = config.build()
        gan.critic.eval()
        x = 2 * images()[:, :, ::4, ::4] - 1
        full = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert torch.equal(gan.critic(x), gan.critic(full))
        assert torch.equal(gan.critic(full, 0.3), gan.critic(full))
        with pytest.raises(ValueError, match="side is 5; this network grows through 4, 8, 16"):
            gan.critic(torch.zeros(1, 3, 5, 5))
        loss = settings(phase_images=4, objective="hinge", r1=0.0, gradient_penalty=0.0, drift=0.0)
        learner = kind(gan, loss, 10)
        sides = [learner.update(images())["side"] for _ in range(6)]
        assert sides == [4, 8, 8, 16, 16, 16]
        folder = tmp_path / type(config).__name__
        learner.kept.save_pretrained(folder)
        assert torch.equal(load_model(folder).heights(images()), learner.kept.heights(images()))


def test_a_residual_generator_of_a_conditional_gan(tmp_path):
    """Noise and label count; in evaluation each image is of its own; saved as a whole."""
    torch.manual_seed(0)
    gan = replace(CONDITIONAL, generator="residual", latent_dim=9).build()
    GANLearner(gan, HINGE, 10).update((images(), torch.tensor([0, 1, 2, 0])))
    gan.eval()
    z = torch.randn(3, 9)
    made = gan.generate(z, torch.tensor([0, 1, 2]))
    assert made.shape == (3, *SHAPE)
    turned = torch.tensor([1, 2, 0])
    for other in (gan.generate(z.roll(1, 0), torch.arange(3)), gan.generate(z, turned)):
        assert float((made - other).abs().flatten(1).amax(1).min()) > 1e-4
    torch.testing.assert_close(gan.generate(z[1:2], torch.tensor([1])), made[1:2])
    gan.save_pretrained(tmp_path)
    assert torch.equal(GAN.from_pretrained(tmp_path).generate(z, torch.arange(3)), made)
    with pytest.raises(ValueError, match=r"latent_dim 8;.*multiple of 3"):
        replace(CONDITIONAL, generator="residual")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(CONDITIONAL, shape=(3, 32, 32)), r"shape is \(3, 32, 32\).*\(3, 16, 16\)"),
        (
            lambda: replace(CONDITIONAL, conditioning="projection"),
            "conditioning is 'projection'.*leave it 'planes'",
        ),
        (lambda: replace(CONDITIONAL, dropout=0.3), "dropout is 0.3.*leave it 0.0"),
        (
            lambda: AttentionGANConfig((3, 32, 32), 3, 8, (4, 8), "none", projected=PROJECTED),
            "the classifier of the critic sees images",
        ),
        (
            lambda: ProGANConfig((3, 32, 32), 8, 64, 8, projected=PROJECTED),
            "the classifier of the critic sees images",
        ),
        (
            lambda: StyleGAN2Config((3, 32, 32), 8, 64, 8, projected=PROJECTED),
            "the classifier of the critic sees images",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
