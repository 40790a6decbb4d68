"""VAE-GAN: what each network learns from, and the VAE that is left without a critic."""

import copy
from dataclasses import replace

import pytest
import torch

from generative.classifier import CNNClassifierConfig
from generative.gan.config import ProjectedCriticConfig
from generative.vae import ImageVAEConfig, ImageVAELearner, ImageVAELossConfig
from generative.vae_gan import VAEGAN, VAEGANConfig, VAEGANLearner, VAEGANLossConfig

torch.set_num_threads(1)
TINY = VAEGANConfig((1, 8, 8), 3, (4, 8), critic_widths=(4, 8))
SEEING = VAEGANConfig(
    (1, 8, 8), 3, (4, 8),
    projected=ProjectedCriticConfig(CNNClassifierConfig((1, 8, 8), 3, (4,), (3,), (2,), 8), 4, 4),
)  # fmt: skip
"""With a critic that looks through a classifier."""


def images() -> torch.Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def learner(config: VAEGANConfig = TINY, **settings) -> VAEGANLearner:
    torch.manual_seed(0)
    return VAEGANLearner(config.build(), VAEGANLossConfig(lr_end=1.0, **settings), 10)


def gradients(one: VAEGANLearner) -> dict[str, list[torch.Tensor]]:
    """Those of the first step, by network."""
    torch.manual_seed(1)
    one.update(images())
    return {
        name: [p.grad.clone() for p in part.model.parameters()] for name, part in one.parts.items()
    }


def test_without_a_critic_it_is_the_vae():
    """The same weights after steps of the same optimiser, but for how it rounds."""
    one = learner(
        features=0.0, pixels=1.0, adversarial=0.0, beta1=0.9, beta2=0.999, lr=1e-3, gamma=1.0
    )
    torch.manual_seed(0)
    vae = ImageVAEConfig((1, 8, 8), 3, (4, 8)).build()
    other = ImageVAELearner(vae, ImageVAELossConfig(lr=1e-3, final_lr=1e-3), 10)
    for step in range(3):
        for each in (one, other):
            torch.manual_seed(step)
            each.update(images())
    ours = dict(one.model.named_parameters())
    for name, weight in vae.named_parameters():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-6)


def test_the_game_does_not_reach_the_encoder_and_does_reach_the_decoder():
    with_game, without = gradients(learner()), gradients(learner(adversarial=0.0))
    for a, b in zip(with_game["encoder"], without["encoder"], strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(with_game["decoder"], without["decoder"], strict=True)
    )


def test_gamma_weighs_reconstruction_for_the_decoder_only():
    one, three = gradients(learner(adversarial=0.0)), gradients(learner(adversarial=0.0, gamma=3.0))
    for a, b in zip(one["encoder"], three["encoder"], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one["decoder"], three["decoder"], strict=True):
        torch.testing.assert_close(3 * a, b)


@pytest.mark.parametrize("config", [TINY, SEEING], ids=["convolutions", "projected"])
@pytest.mark.parametrize("objective", ["bce", "hinge", "relativistic"])
def test_decoder_and_critic_pull_heights_of_what_is_made_apart(objective, config):
    """The sign that the paper's algorithm has: a step of the decoder raises them against images, a
    step of the critic lowers them."""
    for name, expected in (("decoder", 1), ("critic", -1)):
        quiet = {"features": 0.0, "r1": 0.0, "r2": 0.0}
        one = learner(config, objective=objective, lr=1e-3, critic_lr=1e-3, **quiet)
        model, x = one.model, images()
        for other in {"encoder", "decoder", "critic"} - {name}:
            one.parts[other].move = lambda: None  # type: ignore[method-assign]
        z = torch.randn(200, 3, generator=torch.Generator().manual_seed(2))

        def lead(model: VAEGAN = model, x=x, z=z) -> float:
            return float((model.heights(model.decode(z)).mean() - model.heights(x).mean()).detach())

        before = lead()
        for step in range(5):
            torch.manual_seed(step)
            one.update(x)
        assert (lead() - before) * expected > 0


def test_a_projected_critic_moves_its_heads_and_not_its_features(tmp_path):
    one = learner(SEEING, objective="hinge", r1=0.0, r2=0.0)
    before = {name: p.clone() for name, p in one.model.critic.named_parameters()}
    one.update(images())
    moved = {n for n, p in one.model.critic.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all(name.startswith("heads.") for name in moved)
    one.model.eval().save_pretrained(tmp_path)
    again, x = VAEGAN.from_pretrained(tmp_path), images()
    assert again.heights(x).shape == (6,)
    assert torch.equal(again.heights(x), one.model.critic(2 * x - 1).mean(1))


@pytest.mark.parametrize("config", [TINY, SEEING], ids=["convolutions", "projected"])
def test_features_are_compared_as_a_gaussian_of_deviation_one(config):
    one = learner(config, r1=0.0, r2=0.0)
    model, x = one.model, images()
    torch.manual_seed(1)
    mu, logvar = model.encode_mu_logvar(x)
    z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
    critic = copy.deepcopy(model.critic)  # spectral norms move with every use
    seen, told = (critic.features(2 * part - 1).flatten(1) for part in (x, model.decode(z)))
    nll = -torch.distributions.Normal(told, 1.0).log_prob(seen)
    least = -torch.distributions.Normal(told, 1.0).log_prob(told)
    expected = float((nll - least).sum(1).mean().detach())
    torch.manual_seed(1)
    assert float(one.update(x)["features"]) == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_built_is_told():
    with pytest.raises(ValueError, match=r"prior_components is 4.*give 1"):
        VAEGANConfig(prior_components=4)
    with pytest.raises(ValueError, match="4 convolutions of stride 2 need"):
        VAEGANConfig((1, 8, 8), channels=(4,), critic_widths=(4, 4, 4, 4))
    with pytest.raises(ValueError, match="give both one shape"):
        replace(SEEING, image_shape=(1, 16, 16))  # its classifier sees 8x8
    replace(SEEING, critic_widths=(4, 4, 4, 4)).build()  # which it has no use for
