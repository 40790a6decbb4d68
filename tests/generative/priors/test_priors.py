"""Priors of DALL.E 2 against published totals, exact posteriors and brute force."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from generative.diffusion.config import ScheduleConfig
from generative.known.gaussian_pair import GaussianPair
from generative.known.two_samples import energy_test
from generative.nets.config import gpt2_block
from generative.priors import (
    AutoregressivePriorConfig,
    DiffusionPriorConfig,
    PriorBatch,
    PriorLearner,
    PriorLossConfig,
)
from generative.priors.common import Given, closest, drop
from generative.priors.diffusion import DiffusionPrior
from generative.priors.networks import BucketTransformer, PriorTransformer

torch.set_num_threads(1)
PAIR = GaussianPair()
BLOCK = gpt2_block(16, 2, dropout=0.0)
DIFFUSION = DiffusionPriorConfig(4, 4, 5, 6, 1, BLOCK)
BUCKETS = AutoregressivePriorConfig(4, 4, 5, 6, 3, 3, 2, 1, 1, BLOCK)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blocks(network: nn.Module, *names: str) -> int:
    return sum(p.numel() for name in names for p in getattr(network, name).parameters())


def test_totals_of_the_blocks():
    block = gpt2_block(256, 4, dropout=0.0)
    with torch.device("meta"):
        diffusion = PriorTransformer(DiffusionPriorConfig(num_layers=6, block=block))
        buckets = BucketTransformer(
            AutoregressivePriorConfig(encoder_layers=3, decoder_layers=6, block=block)
        )
    assert blocks(diffusion, "blocks") == 4_738_560
    assert blocks(buckets, "encoder", "decoder") == 8_689_920


# ---------------------------------------------------------------------------------------------
# Diffusion
# ---------------------------------------------------------------------------------------------


class Exact(nn.Module):
    """What a perfect network of either output tells about the Gaussian pair."""

    def __init__(self, prediction: str):
        super().__init__()
        self.prediction, self.prior = prediction, None

    def forward(self, x, log_snr, text, context, mask):
        clean = PAIR.denoise(x, log_snr, text)
        if self.prediction == "clean":
            return clean
        of_clean, of_noisy = self.prior._posterior(log_snr)
        return of_clean * clean + of_noisy * x


def exact(prediction: str, num_betas: int = 100) -> DiffusionPrior:
    schedule = ScheduleConfig("cosine-betas", num_betas=num_betas)
    prior = DiffusionPrior(Exact(prediction), 16, 16, schedule, prediction, unit=False)
    object.__setattr__(prior.network, "prior", prior)
    return prior.double()


def test_the_step_before_tells_the_same_as_the_clean_embedding():
    y, _ = PAIR.draw(8, generator())
    found = [
        exact(prediction).sample(y.double(), steps=100, eta=1.0, generator=generator(1))
        for prediction in ("clean", "previous")
    ]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_are_draws_of_the_exact_posterior(eta: float):
    y = PAIR.draw(1, generator())[0].repeat(400, 1)
    found = exact("clean").sample(y.double(), steps=100, eta=eta, generator=generator(1))
    test = energy_test(found.float(), PAIR.posterior(y, generator(2)), 199)
    assert test.p_value > 0.01
    other = PAIR.posterior(PAIR.draw(2, generator(3))[0][1:].repeat(400, 1), generator(4))
    assert energy_test(found.float(), other, 199).p_value < 0.01


def test_weights_of_the_velocity_are_those_of_its_error():
    """The velocity s eps - r x and its estimate differ by the clean ones' difference over r."""
    prior, (y, z) = exact("clean"), PAIR.draw(40_000, generator())
    found = prior.loss(z.double(), y.double(), generator=generator(1), weighting="velocity").loss
    table = prior._table
    rate_squared = (1 - table.sigmoid()).clamp_min(1 / 20)
    least = torch.tensor([PAIR.denoising_mse(level) for level in table.tolist()])
    assert found == pytest.approx(float((least / rate_squared).mean()), rel=0.06)


def test_only_errors_of_clean_embeddings_have_the_weights_of_the_velocity():
    velocity = PriorLossConfig(weighting="velocity")
    previous = DiffusionPriorConfig(4, 4, block=BLOCK, prediction="previous").build()
    for prior, told in ((previous, "'previous'"), (BUCKETS.build(), "'buckets'")):
        with pytest.raises(ValueError, match=rf"weighting is 'velocity'.*{told}"):
            PriorLearner(prior, velocity, 1)
    with pytest.raises(ValueError, match="give weighting 'clean'"):
        previous.loss(torch.ones(2, 4), torch.ones(2, 4), weighting="velocity")
    clean = DiffusionPriorConfig(4, 4, block=BLOCK).build()
    logged = PriorLearner(clean, velocity, 1).update(PriorBatch(torch.ones(8, 4), torch.ones(8, 4)))
    assert math.isfinite(logged["loss"])


@pytest.mark.parametrize("prediction", ["clean", "previous"])
def test_loss_of_a_perfect_network(prediction: str):
    """The mean over steps of the least error; of "previous" that of one step's posterior."""
    prior, (y, z) = exact(prediction), PAIR.draw(20_000, generator())
    found = prior.loss(z.double(), y.double(), generator=generator(1)).loss
    table = prior._table
    least = torch.tensor([PAIR.denoising_mse(level) for level in table.tolist()])
    if prediction == "previous":
        a_t, a_s = table.sigmoid(), prior._previous(torch.arange(100)).sigmoid()
        variance = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
        of_clean, _ = prior._posterior(table)
        least = variance + of_clean[:, 0].square() * least
    assert found == pytest.approx(float(least.mean()), rel=0.06)


def test_guidance_goes_away_from_no_caption():
    prior, text = DIFFUSION.build().eval(), torch.randn(3, 4, generator=generator())
    x, log_snr = torch.randn(3, 4, generator=generator(1)), torch.zeros(3)
    given = Given(text)
    with torch.no_grad():
        plain, empty = (prior.denoise(x, log_snr, t) for t in (text, torch.zeros(3, 4)))
        for scale in (0.0, 1.0, 3.0):
            _, data = prior._guided(given, scale)(x, log_snr)
            torch.testing.assert_close(data, empty + scale * (plain - empty))


@pytest.mark.parametrize("config", [DIFFUSION, BUCKETS])
def test_padding_of_captions_has_no_influence(config):
    torch.manual_seed(0)
    prior, text = config.build().eval().double(), torch.randn(2, 4, generator=generator()).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(5)  # so that captions matter
    context = torch.randn(2, 6, 5, generator=generator(1)).double()
    mask = torch.tensor([[True] * 3 + [False] * 3, [False] * 6])
    other = torch.where(mask[..., None], context, 7.0)
    found = [prior.sample(text, c, mask, generator=generator(2)) for c in (context, other)]
    assert torch.equal(*found)
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[0].norm(dim=1), torch.ones(2).double())
    without = prior.sample(text, context, generator=generator(2))
    assert not torch.equal(without, found[0])


# ---------------------------------------------------------------------------------------------
# Buckets
# ---------------------------------------------------------------------------------------------


def fitted():
    torch.manual_seed(0)
    prior = replace(BUCKETS, context_dim=0, unit=False).build().eval()
    z = torch.randn(3000, 4, generator=generator()) * torch.tensor([0.5, 3.0, 1.0, 2.0]) + 1
    prior.fit(z)
    return prior, z


def test_components_fall_in_variance_and_buckets_are_equally_full():
    prior, z = fitted()
    parts = prior.project(z)
    variances = parts.var(0)
    assert (variances[:-1] > variances[1:]).all()
    torch.testing.assert_close(prior.directions.T @ prior.directions, torch.eye(3))
    torch.testing.assert_close(prior.directions.abs().argmax(0), torch.tensor([1, 3, 2]))
    counts = torch.stack([(prior.encode(z) == i).sum(0) for i in range(3)])
    assert (counts == 1000).all()
    again = prior.decode(prior.encode(z))
    for code in range(3):
        rows = prior.encode(z)[:, 0] == code
        torch.testing.assert_close(prior.project(again[rows])[0, 0], parts[rows, 0].mean())
    assert torch.equal(prior.encode(again), prior.encode(z))


def test_probabilities_of_all_codes_sum_to_one():
    prior, _ = fitted()
    codes = torch.tensor(list(product(range(3), repeat=3)))
    text = torch.randn(1, 4, generator=generator()).expand(27, -1)
    with torch.no_grad():
        log_p = prior.code_log_prob(codes, text)
    assert log_p.exp().sum() == pytest.approx(1)
    drawn = prior.encode(prior.sample(text[:1].expand(4000, -1), generator=generator(1)))
    index = drawn @ torch.tensor([9, 3, 1])
    frequency = torch.bincount(index, minlength=27) / 4000
    error = (log_p.exp() * (1 - log_p.exp()) / 4000).sqrt()
    assert ((frequency - log_p.exp()).abs() < 5 * error).all()


def test_a_cache_changes_no_logit():
    prior, z = fitted()
    codes, text = prior.encode(z[:5]), torch.randn(5, 4, generator=generator())
    from generative.nets.transformer import BlockCache

    caches = [BlockCache() for _ in prior.network.decoder]
    with torch.no_grad():
        memory = prior.network.encode(text)
        whole = prior.network.decode(codes, memory)
        for k in range(3):
            step = prior.network.decode(codes[:, :k], memory, caches)
            torch.testing.assert_close(step[:, 0], whole[:, k])


def test_exact_nats_of_an_independent_text_are_log_buckets():
    """Without noise left to tell, equally probable buckets cost ln B each."""
    prior, (y, z) = fitted()[0], PAIR.draw(6000, generator())
    prior = AutoregressivePriorConfig(16, 16, components=4, buckets=8, unit=False).build()
    prior.fit(z)
    nats = PAIR.code_nats(y, prior.encode(z), prior.mean, prior.directions, prior.borders).mean()
    assert nats < 4 * math.log(8)
    counts = torch.stack([torch.bincount(c, minlength=8) for c in prior.encode(z).T])
    assert (counts == 750).all()


# ---------------------------------------------------------------------------------------------
# Both
# ---------------------------------------------------------------------------------------------


def test_of_several_draws_the_closest_is_kept():
    images = torch.tensor([[1.0, 0], [0, 1], [0, -1], [1, 1]])
    text = torch.tensor([[0.0, 2], [1, 0]])
    assert torch.equal(closest(images, text), torch.tensor([[0.0, 1], [1, 1]]))
    assert torch.equal(closest(images[:2], text), images[:2])


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("config", [DIFFUSION, BUCKETS])
def test_of_no_captions_there_are_no_embeddings(config, draws: int):
    assert config.build().sample(torch.zeros(0, 4), draws=draws).shape == (0, 4)


def test_captions_are_left_out_whole():
    text, context = torch.ones(2, 4), torch.ones(2, 3, 5)
    found = drop(Given(text, context), torch.tensor([True, False]))
    assert not found.text[0].any()
    assert not found.context[0].any()
    assert found.mask.tolist() == [[False] * 3, [True] * 3]
    assert torch.equal(found.text[1], text[1])


def test_a_learner_leaves_some_captions_out():
    prior = replace(DIFFUSION, context_dim=0).build()
    seen = []
    prior.loss = lambda image, text, context, mask: (
        seen.append(text.clone()),
        type(prior).loss(prior, image, text, context, mask),
    )[1]
    torch.manual_seed(0)
    learner = PriorLearner(prior, PriorLossConfig(drop_text=0.5), 1)
    learner.update(PriorBatch(torch.ones(400, 4), torch.ones(400, 4)))
    assert 140 < int((seen[0].sum(1) == 0).sum()) < 260


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda p: p.sample(torch.ones(2, 3)), r"caption embeddings.*\(2, 3\)"),
        (lambda p: p.loss(torch.ones(2, 3), torch.ones(2, 4)), r"image embeddings.*\(2, 3\)"),
    ],
)
@pytest.mark.parametrize("config", [DIFFUSION, BUCKETS])
def test_errors_say_what_is_needed(config, act, message: str):
    with pytest.raises(ValueError, match=message):
        act(config.build())


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="no table of betas; give cosine-betas"):
        DiffusionPriorConfig(schedule=ScheduleConfig())
    with pytest.raises(ValueError, match="steps is 64, and the schedule has 20 betas"):
        DiffusionPriorConfig(schedule=ScheduleConfig("cosine-betas", num_betas=20))
    with pytest.raises(ValueError, match="components is 20, and an embedding has 16"):
        AutoregressivePriorConfig(components=20)
    prior = replace(DIFFUSION, text_dim=3).build()
    with pytest.raises(ValueError, match=r"draws is 2.*give draws=1"):
        prior.sample(torch.ones(1, 3), draws=2)
    with pytest.raises(ValueError, match="got 2 embeddings for 3 buckets"):
        BUCKETS.build().fit(torch.ones(2, 4))
