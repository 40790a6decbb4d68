"""Image VAEs against the book's layer tables, enumeration, quadrature, and probabilistic PCA."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from generative.data.digits import load_digits
from generative.training.files import write_folder
from generative.vae import (
    VAE,
    GaussianHead,
    ImageVAEConfig,
    ImageVAELearner,
    ImageVAELossConfig,
    LinearVAE,
    LinearVAEConfig,
    StandardNormal,
    gaussian_log_prob,
    importance_bound,
    probabilistic_pca,
)
from scripts.train_image_vae import PRESETS

torch.set_num_threads(1)
TINY = ImageVAEConfig((1, 2, 2), latent_dim=1, channels=(), hidden_dim=8, num_hidden=1)


def tiny(config: ImageVAEConfig = TINY, seed: int = 0) -> VAE:
    """A VAE whose code matters, in float64."""
    torch.manual_seed(seed)
    model = config.build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(*modules: nn.Module, trainable: bool = True) -> int:
    tensors = [p for m in modules for p in m.parameters()]
    if not trainable:
        tensors += [b for m in modules for n, b in m.named_buffers() if "num_batches" not in n]
    return sum(t.numel() for t in tensors)


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------


def test_sizes_are_the_books():
    model = PRESETS["book"].model.build()
    assert count(model.encoder, model.posterior.to_mu, model.posterior.to_logvar) == 100_868
    assert count(model.decoder) == 246_273
    assert count(model) == 347_141


def test_sizes_for_faces_are_the_books():
    model = replace(PRESETS["celeba-book"].model, pixel_std=1.0).build()
    encoder = (model.encoder, model.posterior.to_mu, model.posterior.to_logvar)
    assert (count(*encoder, trainable=False), count(*encoder)) == (653_584, 652_560)
    assert (count(model.decoder, trainable=False), count(model.decoder)) == (700_803, 698_755)


def test_shapes_are_the_books():
    model, seen = PRESETS["celeba-book"].model.build(), []
    x = torch.zeros(2, 3, 32, 32)
    for layer in model.encoder:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            seen.append(tuple(x.shape[1:]))
    assert seen == [(128, 16, 16), (128, 8, 8), (128, 4, 4), (128, 2, 2)]
    assert x.shape == (2, 512)
    assert model.decode(torch.zeros(2, 200)).shape == (2, 3, 32, 32)


# ---------------------------------------------------------------------------------------------
# Likelihoods and bounds
# ---------------------------------------------------------------------------------------------


def all_images() -> torch.Tensor:
    """Every 2x2 image of black and white pixels, (16, 1, 2, 2)."""
    rows = list(itertools.product((0.0, 1.0), repeat=4))
    return torch.tensor(rows, dtype=torch.float64).unflatten(1, (1, 2, 2))


def exact_log_prob(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """log of the integral over a code of one dimension, by the midpoint rule."""
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    pixels = Independent(Bernoulli(logits=model.decode_logits(z)[:, None]), 3)
    log_joint = pixels.log_prob(x) + Normal(0.0, 1.0).log_prob(z)
    return log_joint.logsumexp(0) + math.log(18 / 4000)


def test_bound_reaches_the_integral_from_below():
    """And the probabilities of all images sum to one."""
    model, x = tiny(), all_images()
    with torch.no_grad():
        exact = exact_log_prob(model, x)
        assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-9)
        repeated = x.repeat(500, 1, 1, 1)
        means = [
            model.bound(repeated, k, generator()).unflatten(0, (500, 16)).mean(0)
            for k in (1, 5, 50)
        ]
        tight = model.bound(x, 50_000, generator())
    assert (means[0] < means[1]).all()
    assert (means[1] < means[2] + 1e-3).all()
    assert (means[2] < exact + 1e-3).all()
    assert (exact - means[0]).mean() > 0.05  # so there was something to gain
    torch.testing.assert_close(tight, exact, rtol=0, atol=0.02)


def test_bound_of_one_draw_is_the_negative_loss_on_average():
    model, x = tiny(), all_images()
    with torch.no_grad():
        draws = model.bound(x.repeat(4000, 1, 1, 1), generator=generator())
        losses = [model.loss(x, generator=generator(seed)).loss for seed in range(2000)]
    assert float(draws.mean()) == pytest.approx(-float(torch.stack(losses).mean()), abs=0.02)


def test_bound_of_grey_images_is_below_the_average_of_black_and_white_ones():
    """The exact average over all 16 images, each with its probability."""
    model, grey = tiny(), torch.tensor([[0.2, 0.9], [0.5, 0.7]], dtype=torch.float64)[None, None]
    x = all_images()
    with torch.no_grad():
        weights = (grey * x + (1 - grey) * (1 - x)).flatten(1).prod(1)
        average = (weights * exact_log_prob(model, x)).sum()
        for k in (1, 20):
            bound = model.bound(grey.repeat(2000, 1, 1, 1), k, generator()).mean()
            assert bound < average


def test_draws_in_parts_are_all_counted():
    """Many draws for many images are made a few at a time; each counts alike."""
    seen = []

    def log_weights(n):
        seen.append(n)
        return torch.full((n, 5000), float(len(seen))).log()

    bound = importance_bound(log_weights, 7, batch=5000)
    assert seen == [3, 3, 1]
    torch.testing.assert_close(bound.exp(), torch.full((5000,), (3 * 1 + 3 * 2 + 3) / 7))
    with pytest.raises(ValueError, match="num_draws is 0"):
        importance_bound(log_weights, 0, batch=1)


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_gaussian_likelihood_is_that_of_torch_distributions(std):
    model = tiny(replace(TINY, likelihood="gaussian", pixel_std=std))
    x, logits = torch.rand(2, 5, 1, 2, 2, dtype=torch.float64)
    deviation = std or (model.likelihood.logvar / 2).exp()
    expected = Independent(Normal(logits.sigmoid(), deviation), 3).log_prob(x)
    torch.testing.assert_close(model.log_likelihood(logits, x), expected)


def test_gaussian_log_prob_is_that_of_torch_distributions():
    x, mu, logvar = torch.randn(3, 40, 6, dtype=torch.float64)
    expected = Normal(mu, (logvar / 2).exp()).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, mu, logvar), expected)


# ---------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("recon", "weight"), [("bce", 500.0), ("mse", 2000.0)])
def test_the_books_loss_by_hand(recon, weight):
    model, x = tiny(), torch.rand(3, 1, 2, 2, dtype=torch.float64)
    losses = model.loss(x, ImageVAELossConfig(recon=recon, recon_weight=weight), generator(5))
    made = model.decode(model.encode(x, True, generator(5))).detach().numpy().flatten()
    a = x.numpy().flatten()
    per_pixel = {
        "bce": -(a * np.log(made) + (1 - a) * np.log(1 - made)),
        "mse": (a - made) ** 2,
    }[recon]
    mu, logvar = model.encode_mu_logvar(x)
    q = Normal(mu, (logvar / 2).exp())
    kl = kl_divergence(q, Normal(0.0, 1.0)).sum(1).mean()
    assert losses.recon.item() == pytest.approx(weight * per_pixel.mean())
    torch.testing.assert_close(losses.kl, kl)
    torch.testing.assert_close(losses.loss, losses.recon + kl)


def test_the_books_weight_of_means_is_a_weight_of_the_kl():
    """500 times a mean over P pixels + KL is 500 / P times (-log p(x | z) + P / 500 KL)."""
    model, x = tiny(), torch.rand(6, 1, 2, 2, dtype=torch.float64)
    book = model.loss(x, ImageVAELossConfig(recon="bce", recon_weight=500.0), generator()).loss
    sums = model.loss(x, ImageVAELossConfig(beta=4 / 500), generator()).loss
    torch.testing.assert_close(book, 500 / 4 * sums)


def test_free_bits_cost_nothing_and_push_nothing():
    config = replace(TINY, latent_dim=3)
    model, x = tiny(config), torch.rand(6, 1, 2, 2, dtype=torch.float64)
    plain = model.loss(x, ImageVAELossConfig(), generator())
    free = model.loss(x, ImageVAELossConfig(free_bits=1000.0), generator())
    torch.testing.assert_close(free.loss, plain.recon + 3000.0)
    torch.testing.assert_close(free.kl, plain.kl)
    gradients = torch.autograd.grad(free.loss, list(model.parameters()), retain_graph=True)
    expected = torch.autograd.grad(free.recon, list(model.parameters()))
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_loss_of_many_draws_is_the_bound():
    model, x = tiny(), all_images()
    losses = model.loss(x, ImageVAELossConfig(num_draws=7), generator(3))
    bound = model.bound(x, 7, generator(3))
    torch.testing.assert_close(losses.loss, -bound.mean())
    many = model.loss(x, ImageVAELossConfig(num_draws=20_000), generator(3))
    plain = model.loss(x, generator=generator(3))
    assert float(many.kl) == pytest.approx(plain.kl.item(), abs=0.02)


def test_mixture_prior_is_that_of_torch_distributions():
    model = tiny(replace(TINY, latent_dim=3, prior_components=4))
    prior, z = model.prior, torch.randn(2, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        reference = MixtureSameFamily(
            Categorical(logits=prior.logits),
            Independent(Normal(prior.mu, (prior.logvar / 2).exp()), 1),
        )
        torch.testing.assert_close(prior.log_prob(z), reference.log_prob(z))
        drawn = model.sample_codes(40_000, generator())
        error = 5 * reference.stddev / math.sqrt(40_000)
        assert ((drawn.mean(0) - reference.mean).abs() < error).all()
        torch.testing.assert_close(drawn.var(0), reference.variance, rtol=0.05, atol=0)


def test_bound_with_a_mixture_prior_reaches_the_integral():
    model, x = tiny(replace(TINY, prior_components=3)), all_images()
    z = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        # q as wide as p: where it is narrow or elsewhere, no number of draws would find all of p.
        for tensor in (model.posterior.to_logvar.weight, model.posterior.to_logvar.bias):
            tensor.zero_()
        for tensor in (model.prior.mu, model.prior.logvar, model.posterior.to_mu.weight):
            tensor.mul_(0.3)
        pixels = Independent(Bernoulli(logits=model.decode_logits(z)[:, None]), 3)
        log_joint = pixels.log_prob(x) + model.prior.log_prob(z)[:, None]
        exact = log_joint.logsumexp(0) + math.log(30 / 6000)
        tight = model.bound(x, 100_000, generator())
    assert float(exact.exp().sum()) == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(tight, exact, rtol=0, atol=0.03)
    with pytest.raises(ValueError, match="but p\\(z\\) a mixture"):
        model.loss(x, ImageVAELossConfig(free_bits=0.1))


def test_a_code_is_the_mean_unless_a_draw_is_asked_for():
    model, x = tiny(replace(TINY, latent_dim=3)), all_images()
    mu, logvar = model.encode_mu_logvar(x)
    state = torch.get_rng_state()
    assert torch.equal(model.encode(x), mu)
    assert torch.equal(torch.get_rng_state(), state)
    eps = torch.randn(mu.shape, generator=generator(4), dtype=mu.dtype)
    torch.testing.assert_close(
        model.encode(x, sample=True, generator=generator(4)), mu + (logvar / 2).exp() * eps
    )
    with pytest.raises(ValueError, match=r"generator is given.*sample=True"):
        model.encode(x, generator=generator(4))


class Counts(nn.Module):
    """A likelihood of another kind: Poisson counts of up to 10, seen as shares of 10."""

    def mean(self, out: torch.Tensor) -> torch.Tensor:
        return (out.exp() / 10).clamp(0, 1)

    def log_prob(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Poisson(out.exp()).log_prob((10 * x).round())


def test_a_vae_put_together_by_hand_works_everywhere(tmp_path):
    def by_hand() -> VAE:
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh())
        decoder = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 2, 2)))
        prior = StandardNormal(2)
        return VAE(encoder, GaussianHead(8, 2), decoder, Counts(), prior, (1, 2, 2))

    model, x = by_hand(), all_images().float()
    learner = ImageVAELearner(model, ImageVAELossConfig(lr=0.05, final_lr=0.01), steps=60)
    losses = [float(learner.update(x)["loss"]) for _ in range(60)]
    assert losses[-1] < losses[0] - 5
    kept = learner.kept
    bound, many = kept.bound(x, 1, generator(1)), kept.bound(x, 200, generator(1))
    assert float(many.mean()) > float(bound.mean())
    samples = kept.sample(5, generator(2))
    assert samples.shape == (5, 1, 2, 2)
    kept.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"a VAE that was put together by hand.*load_weights"):
        VAE.from_pretrained(tmp_path / "model")
    again = by_hand()
    again.load_weights(tmp_path / "model")
    assert torch.equal(again.sample(5, generator(2)), samples)


def test_folders_from_before_a_vae_had_distributions_are_loaded(tmp_path):
    config = ImageVAEConfig((1, 4, 4), 3, (2,), likelihood="gaussian", prior_components=2)
    model = config.build().eval()
    model.save_pretrained(tmp_path / "model")
    weights = {
        name.replace("posterior.", "").replace("likelihood.logvar", "pixel_logvar"): tensor
        for name, tensor in model.state_dict().items()
    }
    assert {"to_mu.weight", "to_logvar.bias", "pixel_logvar", "prior.mu"} <= set(weights)
    saved = (tmp_path / "model" / "config.json").read_bytes()
    write_folder(tmp_path / "older", {"config.json": saved, "model.safetensors": save(weights)})
    again = VAE.from_pretrained(tmp_path / "older")
    assert again.config == config
    assert torch.equal(again.sample(4, generator()), model.sample(4, generator()))


def test_warmup_lets_the_kl_in_slowly():
    torch.manual_seed(0)
    learner = ImageVAELearner(tiny(), ImageVAELossConfig(beta=2.0, warmup=4), steps=10)
    x = all_images()
    for step in range(6):
        losses = learner.update(x)
        beta = 2.0 * min(1.0, step / 4)
        torch.testing.assert_close(losses["loss"], losses["recon"] + beta * losses["kl"])


def test_learner_keeps_the_average_of_its_weights():
    plain, averaged = (
        ImageVAELearner(tiny(), ImageVAELossConfig(lr=0.01, ema=ema), steps=50)
        for ema in (0.0, 0.9)
    )
    for learner in (plain, averaged):
        for step in range(20):
            torch.manual_seed(step)
            learner.update(all_images())
    weights = [
        model.posterior.to_mu.weight
        for model in (plain.model, averaged.model, plain.kept, averaged.kept)
    ]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert not averaged.kept.training


# ---------------------------------------------------------------------------------------------
# The linear VAE
# ---------------------------------------------------------------------------------------------


def rows(n: int = 300, dim: int = 6) -> torch.Tensor:
    scales = torch.linspace(0.2, 0.03, dim, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator()).double()).Q
    x = 0.5 + (torch.randn(n, dim, generator=generator(1)).double() * scales) @ rotation
    return x.clamp(0, 1)


def test_probabilistic_pca_is_a_gaussian_of_that_likelihood():
    x = rows()
    found = probabilistic_pca(x, 2)
    covariance = found.weight @ found.weight.T + found.variance * torch.eye(6)
    log_prob = MultivariateNormal(found.mean, covariance).log_prob(x)
    assert float(log_prob.mean()) == pytest.approx(found.log_likelihood)
    for change in (0.99, 1.01):  # it is a maximum
        other = MultivariateNormal(found.mean, change * covariance).log_prob(x)
        assert float(other.mean()) < found.log_likelihood
    with pytest.raises(ValueError, match="nothing to noise"):
        probabilistic_pca(x[:3], 2)


@pytest.mark.parametrize("k", [8, 16])
def test_probabilistic_pca_is_sklearns(k):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs scikit-learn")
    x = load_digits().part("train", "val").as_tensor().flatten(1)
    reference = decomposition.PCA(k, svd_solver="full").fit(x.double().numpy())
    score = reference.score(x.double().numpy())
    # Its covariance is divided by N - 1, which costs it a little likelihood.
    ratio = len(x) / (len(x) - 1)
    score += 64 / 2 * (math.log(ratio) + 1 / ratio - 1)
    assert probabilistic_pca(x, k).log_likelihood == pytest.approx(score, abs=1e-9)
    assert score == pytest.approx({8: 14.382, 16: 24.122}[k], abs=1e-3)


def at_the_optimum(x: torch.Tensor, k: int) -> LinearVAE:
    """The linear VAE that is probabilistic PCA, with the exact posterior (Lucas et al. 2019)."""
    best = probabilistic_pca(x, k)
    model = LinearVAE(LinearVAEConfig((1, 1, x.shape[1]), k)).double()
    inverse = 1 / (best.weight.square().sum(0) + best.variance)  # columns are orthogonal
    with torch.no_grad():
        model.decoder.weight.copy_(best.weight)
        model.decoder.bias.copy_(best.mean)
        model.encoder.weight.copy_(inverse[:, None] * best.weight.T)
        model.encoder.bias.copy_(-model.encoder.weight @ best.mean)
        model.code_logvar.copy_((best.variance * inverse).log())
        model.pixel_logvar.fill_(math.log(best.variance))
    return model


def test_linear_vae_at_the_optimum_has_no_gap_and_no_gradient():
    x = rows()
    model, images = at_the_optimum(x, 2), x.unflatten(1, (1, 1, 6))
    best = probabilistic_pca(x, 2).log_likelihood
    losses = model.loss(images)
    losses.loss.backward()
    assert float(model.log_prob(images).mean().detach()) == pytest.approx(best)
    assert float(losses.loss.detach()) == pytest.approx(-best)
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() < 1e-9, name
    # With the exact posterior every weight is p(x), so each single draw is exact.
    torch.testing.assert_close(
        model.bound(images, 1, generator()), model.log_prob(images), rtol=0, atol=1e-9
    )


def test_linear_vae_reaches_probabilistic_pca():
    """By its ELBO alone, from random weights; no model of this kind can be higher."""
    x = rows()
    images = x.unflatten(1, (1, 1, 6))
    torch.manual_seed(0)
    model = LinearVAE(LinearVAEConfig((1, 1, 6), 2)).double()
    model.initialise(images)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=300, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = model.loss(images).loss
        loss.backward()
        return loss

    optimizer.step(closure)
    best = probabilistic_pca(x, 2).log_likelihood
    found = float(model.log_prob(images).mean().detach())
    assert best - 1e-3 < found < best + 1e-9


def test_linear_loss_is_the_expectation_of_the_bound():
    torch.manual_seed(0)
    model = LinearVAE(LinearVAEConfig((1, 1, 6), 2)).double()
    images = rows(20).unflatten(1, (1, 1, 6))
    with torch.no_grad():
        loss = model.loss(images).loss
        draws = model.bound(images.repeat(5000, 1, 1, 1), 1, generator())
        tight = model.bound(images, 20_000, generator())
        exact = model.log_prob(images)
    assert float(draws.mean()) == pytest.approx(-float(loss), abs=0.02)
    torch.testing.assert_close(tight, exact, rtol=0, atol=0.05)
    covariance = model.decoder.weight @ model.decoder.weight.T + model.pixel_logvar.exp() * (
        torch.eye(6, dtype=torch.float64)
    )
    full = MultivariateNormal(model.decoder.bias, covariance).log_prob(images.flatten(1))
    torch.testing.assert_close(exact, full.detach())


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageVAEConfig(latent_dim=0), "latent_dim is 0"),
        (lambda: ImageVAEConfig((1, 28, 28)), "that 8 divides"),
        (lambda: ImageVAEConfig(channels=(8, 0)), r"channels is \(8, 0\), and must be at least 1"),
        (lambda: ImageVAEConfig(dropout=1.0), "dropout is 1.0"),
        (lambda: ImageVAEConfig(pixel_std=-1.0, likelihood="gaussian"), "pixel_std is -1.0"),
        (lambda: ImageVAEConfig(pixel_std=0.1), "only a gaussian has one"),
        (lambda: ImageVAELossConfig(num_draws=0), "num_draws is 0"),
        (lambda: ImageVAELossConfig(beta=-1.0), "beta is -1.0"),
        (lambda: ImageVAELossConfig(num_draws=5, recon="bce"), "'bce'.*they need recon"),
        (lambda: ImageVAELossConfig(num_draws=5, free_bits=0.1), "and no free bits"),
        (lambda: LinearVAEConfig((1, 2, 2), 4), "give 1 to 3"),
        (lambda: tiny().decode(torch.zeros(2, 3)), r"codes of shape \(2, 3\).*\(B, 1\)"),
        (
            lambda: LinearVAE().loss(torch.zeros(1, 1, 8, 8), ImageVAELossConfig(num_draws=2)),
            "minimises the ELBO",
        ),
    ],
)
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
