"""What holds for the learner of every family: its rates, what decays, what it refuses to save."""

import copy
import math
import re

import pytest
import torch
from torch import nn

from generative.diffusion.config import DIFFUSION_BOOK, DiffusionLossConfig
from generative.energy.config import ENERGY_BOOK, EnergyLossConfig
from generative.gan import WGANLearner
from generative.gan.config import (
    GAN_BOOK,
    WGAN_BOOK,
    ConditionalGANConfig,
    GANLossConfig,
    WGANConfig,
    WGANLossConfig,
)
from generative.musegan.config import MUSEGAN_BOOK, MuseGANLossConfig
from generative.music.config import MusicTransformerConfig
from generative.music.transformer import MusicTransformer
from generative.nets.config import UNET_BOOK, UNetConfig
from generative.rbm import DBNLearner, DeepBeliefNetwork
from generative.rbm.config import DBNConfig, RBMLossConfig
from generative.text.bert import BERT, BERTClassifier, BERTClassifierConfig, BERTConfig, bert_block
from generative.text.config import TextLossConfig, gpt2_block, t5_block
from generative.text.gpt import GPT, GPTConfig
from generative.text.t5 import T5, T5Config
from generative.text.tokens import TextLearner
from generative.training.checkpoint import NonFiniteError, check_finite
from generative.training.moves import recorded
from generative.training.optimisation import Optimisation, parameter_groups
from generative.vae.config import IMAGE_VAE_BOOK, ImageVAELossConfig
from tests.generative.families import FAMILIES
from tests.generative.test_families import KINDS, every_family, learners_once, others_nightly

torch.set_num_threads(1)


def optimisations(value) -> list[Optimisation]:
    """All that a learner has, wherever it keeps them."""
    if isinstance(value, Optimisation):
        return [value]
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in optimisations(item)]
    if isinstance(value, dict):
        return optimisations(list(value.values()))
    if type(value).__name__.endswith("Learner"):
        return optimisations(list(vars(value).values()))
    return []


def rates(learner) -> list[float]:
    return [
        group["lr"]
        for one in optimisations(learner)
        for optimizer in one.optimizers
        for group in optimizer.param_groups
    ]


def updated(name: str, steps: int, length: int):
    """A learner made for so many steps, after some."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    learner = family.learner(family.make(), length)
    batch = family.to_batch(family.examples(4))
    for step in range(steps):
        torch.manual_seed(step)
        learner.update(batch)
    return learner


@others_nightly(KINDS, without="DeepBeliefNetwork")
def test_rates_end_and_those_of_a_longer_run_begin_where_they_are_in_it(name):
    """A learner of 2 steps has the last rates for ever; taken over by one of 8, it has those that
    8 steps have there."""
    short = updated(name, 2, 2)
    end = rates(short)
    assert end
    family = FAMILIES[name]
    longer = family.learner(family.make(), 8)
    longer.load_state_dict(copy.deepcopy(short.state_dict()))
    assert rates(longer) == rates(updated(name, 2, 8))
    batch = family.to_batch(family.examples(4))
    for _ in range(2):
        short.update(batch)
        assert rates(short) == end


@every_family
def test_no_bias_norm_scale_or_logit_decays(name):
    learner = updated(name, 0, 2)
    for one in optimisations(learner):
        norms = {
            id(parameter)
            for layer in one.model.modules()
            if "Norm" in type(layer).__name__
            for parameter in layer.parameters(recurse=False)
        }
        names = {id(parameter): path for path, parameter in one.model.named_parameters()}
        learnt = {id(parameter) for parameter in one.model.parameters() if parameter.requires_grad}
        moved = [p for o in one.optimizers for g in o.param_groups for p in g["params"]]
        # A learner may leave out what it has frozen.
        assert learnt <= {id(p) for p in moved} <= set(names)
        assert len(moved) == len({id(p) for p in moved})
        for group in parameter_groups(one.model, 0.1):
            for parameter in group["params"] if group["weight_decay"] else ():
                path = names[id(parameter)]
                assert parameter.dim() > 1, path
                assert id(parameter) not in norms, path
                assert path.rpartition(".")[2].startswith("weight"), path
                assert "bias" not in path
        for optimizer in one.optimizers:
            for group in optimizer.param_groups:
                if group["weight_decay"]:
                    assert all(p.dim() > 1 and id(p) not in norms for p in group["params"])


@learners_once
def test_weights_that_are_not_finite_are_not_saved(name):
    learner = updated(name, 1, 2)
    check_finite(learner.state_dict(), "training", 1, 5)
    parameter = list(learner.model.parameters())[-1]
    with torch.no_grad():
        parameter.view(-1)[0] = math.nan
    (last,) = [n for n, p in learner.model.named_parameters() if p is parameter]
    name = re.escape(last.rpartition(".")[2])
    words = rf"{name} is not finite after step 7, seed 5.*checkpoints stay\."
    with pytest.raises(NonFiniteError, match=words):
        check_finite(learner.state_dict(), "training", 7, 5)


@learners_once
def test_a_gradient_that_is_not_finite_is_told_in_the_step_that_has_it(name):
    """Its loss is finite, and of the step before all is."""
    learner = updated(name, 0, 4)
    batch = FAMILIES[name].to_batch(FAMILIES[name].examples(4))
    with recorded() as moves:
        learner.update(batch)
    assert moves
    assert all(move.name and math.isfinite(move.size) for move in moves)
    assert {move.name for move in moves} <= {one.name for one in optimisations(learner)}
    before = len(moves)
    used = [p for one in optimisations(learner) for p in one.model.parameters() if p.requires_grad]
    for parameter in used:
        parameter.register_hook(lambda g: g * math.nan)
    with recorded() as moves:
        learner.update(batch)
    bad = moves[0]
    assert math.isnan(bad.size)
    assert bad.loss is not None
    assert math.isfinite(bad.loss)
    assert len(moves) <= before + 1


def test_a_move_is_recorded_only_for_who_asks():
    model = nn.Linear(3, 2)
    moved = Optimisation(model, torch.optim.SGD(model.parameters(), lr=0.1), 5, name="line")
    with recorded() as moves:
        moved.step(model(torch.ones(4, 3)).square().mean())
    sizes = [p.grad.norm() for p in model.parameters()]
    assert [move.name for move in moves] == ["line"]
    torch.testing.assert_close(moves[0].size, sizes[0] + sizes[1])
    moved.step(model(torch.ones(4, 3)).square().mean())
    assert len(moves) == 1


# ---------------------------------------------------------------------------------------------
# First weights
# ---------------------------------------------------------------------------------------------

DIM, LAYERS = 64, 8
WORDS = (tuple(f"w{i}" for i in range(60)), ("0.5", "1.0"))
TRANSFORMERS = {
    "GPT-2": lambda: GPT(
        GPTConfig(200, 100, LAYERS, gpt2_block(DIM, 4), tied=False, init="normal")
    ),
    "BERT": lambda: BERT(BERTConfig(200, 100, LAYERS, bert_block(DIM, 4))),
    "BERTClassifier": lambda: BERTClassifier(
        BERTClassifierConfig(BERTConfig(200, 100, LAYERS, bert_block(DIM, 4)), 40)
    ),
    "MusicTransformer": lambda: MusicTransformer(
        MusicTransformerConfig(
            streams=WORDS, embed_dim=DIM // 2, num_layers=LAYERS, block=gpt2_block(DIM, 4)
        )
    ),
    "T5": lambda: T5(T5Config(200, 8, LAYERS, t5_block(DIM, 4))),
}


def claimed(name: str, path: str) -> float:
    """The deviation that is claimed for a matrix (docstrings of `init_weights` and T5)."""
    added = path.endswith((".out.weight", "feed_forward.3.weight"))
    if name == "T5":
        if path.startswith("embedding"):
            return 1.0
        last = path.split(".")[-2]
        fans = {"query": DIM * DIM // 4, "3": 4 * DIM}
        return fans.get(last, DIM) ** -0.5
    residual = name not in ("BERT", "BERTClassifier") and added
    return 0.02 / math.sqrt(2 * LAYERS) if residual else 0.02


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_first_weights_have_the_deviation_that_is_claimed(name):
    torch.manual_seed(0)
    model = TRANSFORMERS[name]()
    checked = 0
    for path, parameter in model.named_parameters():
        if parameter.dim() > 1:
            n = parameter.numel()
            assert float(parameter.detach().std()) == pytest.approx(
                claimed(name, path), rel=5 / math.sqrt(2 * n)
            ), path
            checked += 1
    assert checked > 4 * LAYERS


# ---------------------------------------------------------------------------------------------
# Muon, averages, defaults
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GPT", "GPT-2", "BERT", "BERTClassifier", "T5", "RewardModel"])
def test_muon_moves_matrices_of_blocks_only(name):
    model = FAMILIES[name].make()
    learner = TextLearner(model, TextLossConfig(optimizer="muon"), 2, model.loss)
    adam, muon = learner.optimisation.optimizers
    inside = {
        path
        for path, parameter in model.named_parameters()
        if re.search(r"(blocks|encoder|decoder)\.\d+\.", path) and parameter.dim() > 1
    }
    names = {id(parameter): path for path, parameter in model.named_parameters()}
    assert {names[id(p)] for p in muon.param_groups[0]["params"]} == inside
    assert len(names) == len(inside) + sum(len(g["params"]) for g in adam.param_groups)


def test_muon_is_refused_where_it_would_move_nothing():
    model = FAMILIES["LSTM of texts"].make()
    with pytest.raises(ValueError, match=r"RecurrentText has no hidden matrices.*'adam'"):
        TextLearner(model, TextLossConfig(optimizer="muon"), 2)


def test_layers_of_a_deep_belief_network_stand_on_what_is_kept():
    torch.manual_seed(0)
    network = DeepBeliefNetwork(DBNConfig((6,), (5, 4, 3)))
    learner = DBNLearner(network, RBMLossConfig(lr=0.5, final_lr=0.5, ema=0.9), 12)
    x = torch.bernoulli(torch.full((8, 6), 0.4))
    for step in range(12):
        learner.update(x)
        for below in learner.learners[: step // 4]:
            for last, kept in zip(below.model.parameters(), below.kept.parameters(), strict=True):
                assert torch.equal(last, kept)
    top = learner.learners[2]
    assert not torch.equal(top.model.weight, top.kept.weight)


def test_defaults_are_as_published_and_the_books_stand_beside_them():
    for config in (WGANLossConfig(), MuseGANLossConfig()):
        assert (config.alpha, config.norm_eps > 0) == ("uniform", True)
    assert WGANConfig().dropout == ConditionalGANConfig().dropout == 0
    assert (WGAN_BOOK.alpha, WGAN_BOOK.norm_eps) == ("normal", 0)
    assert MuseGANLossConfig().penalty_norm == "piece"
    book = (MUSEGAN_BOOK.alpha, MUSEGAN_BOOK.norm_eps, MUSEGAN_BOOK.penalty_norm)
    assert book == ("normal", 0, "track")
    assert (GANLossConfig().noise_direction, GAN_BOOK.noise_direction) == ("inward", "outward")
    assert (DiffusionLossConfig().error, DIFFUSION_BOOK.error) == ("squared", "absolute")
    assert (UNetConfig().norm, UNET_BOOK.norm) == ("group", "batch")
    assert (EnergyLossConfig().beta1, ENERGY_BOOK.beta1) == (0.0, 0.9)
    assert (ImageVAELossConfig().recon, IMAGE_VAE_BOOK.recon) == ("likelihood", "bce")


def batch_norms(generator: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)]


def own_statistics(generator: nn.Module, z: torch.Tensor) -> nn.Module:
    """A copy whose batch statistics are those of this noise."""
    generator = copy.deepcopy(generator).train()
    for layer in batch_norms(generator):
        layer.reset_running_stats()
        layer.momentum = None
    with torch.no_grad():
        generator(z)
    return generator


@pytest.mark.parametrize(
    ("steps", "ema", "share"),
    [(60, 0.95, 0.75), pytest.param(150, 0.98, 0.25, marks=pytest.mark.nightly)],
)
def test_kept_generator_has_batch_statistics_of_its_own(steps, ema, share):
    """Nearer to what its weights give on fresh noise than those of the last weights are."""
    torch.manual_seed(0)
    model = WGANConfig((1, 8, 8), latent_dim=4, widths=(8, 8)).build()
    loss = WGANLossConfig(lr=5e-3, critic_lr=5e-3, beta1=0.0, ema=ema)
    learner = WGANLearner(model, loss, steps)
    x = torch.zeros(32, 1, 8, 8)
    x[:16, :, :4], x[16:, :, :, 4:] = 0.9, 0.6
    for _ in range(steps):
        learner.update(x)
    kept = learner.kept.generator
    right = batch_norms(own_statistics(kept, torch.randn(4000, 4)))

    def distance(generator: nn.Module) -> float:
        """Of means in deviations, and of deviations by their logarithms; mean square."""
        squares = [
            torch.cat(
                [
                    (found.running_mean - own.running_mean).square() / own.running_var,
                    (found.running_var / own.running_var).log().square() / 4,
                ]
            )
            for found, own in zip(batch_norms(generator), right, strict=True)
        ]
        return float(torch.cat(squares).mean())

    assert distance(kept) < share * distance(model.generator)
