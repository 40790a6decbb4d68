"""Types of numbers: every family computes in the type of its weights, and takes nothing else."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from generative.rlhf import RewardModel
from generative.text.bert import BERTClassifier
from generative.training.checks import check_dtype, placed, to_levels
from tests.dtypes import default_dtype
from tests.generative.families import FAMILIES
from tests.generative.test_families import (
    every_family,
    generator,
    having,
    learners_once,
    made,
    make,
    variants_nightly,
)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Examples for a model of this type; tokens are what they are."""
    return x.to(dtype) if x.is_floating_point() else x


def calls(name: str, model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Whatever takes examples, and draws the same each time."""

    def encode(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return model.encode(x)

    def loss(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return FAMILIES[name].loss(model, x)

    found = {"loss": loss}
    if "log_prob" in FAMILIES[name].verbs:
        found["log_prob"] = model.log_prob
    if "bound" in FAMILIES[name].verbs:
        found["bound"] = lambda x: model.bound(x, generator=generator(2))
    if "encode" in FAMILIES[name].verbs:
        found["encode"] = encode
    if "reconstruct" in FAMILIES[name].verbs:
        found["reconstruct"] = model.reconstruct
    return found


def outcome(name: str, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """All that a model says of examples, and what it draws."""
    found = {verb: call(x).detach() for verb, call in calls(name, model).items()}
    if "sample" in FAMILIES[name].verbs:
        found["sample"] = model.sample(3, generator=generator(1))
    if {"encode", "decode"} <= FAMILIES[name].verbs:
        found["decode"] = model.decode(found["encode"])
    return found


def trained(name: str, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The weights after a step."""
    torch.manual_seed(0)
    learner = FAMILIES[name].learner(copy.deepcopy(model).train(), 2)
    learner.update(FAMILIES[name].to_batch(x))
    return dict(getattr(learner, "kept", learner.model).state_dict())


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert torch.equal(found[key], value), key


@learners_once
def test_default_dtype_changes_nothing_for_a_loaded_model(name, tmp_path):
    """Also where it is loaded inside inference_mode: it is then used and trained as ever."""
    x = FAMILIES[name].examples(4)
    make(name).save_pretrained(tmp_path / "model")
    kind = type(FAMILIES[name].make())
    model = kind.from_pretrained(tmp_path / "model")
    with default_dtype(torch.float64):
        with torch.inference_mode():
            again = kind.from_pretrained(tmp_path / "model")
        found, weights = outcome(name, again, x), trained(name, again, x)
    assert not any(p.is_inference() for p in again.parameters())
    tensors = [dict([*m.named_parameters(), *m.named_buffers()]) for m in (again, model)]
    assert_equal(*tensors)
    assert_equal(found, outcome(name, model, x))
    assert_equal(weights, trained(name, model, x))


@learners_once
@pytest.mark.parametrize(
    # In every run `test_double_agrees_with_float` computes in float64.
    "dtype",
    [pytest.param(torch.float64, marks=pytest.mark.nightly), torch.bfloat16],
    ids=str,
)
def test_model_of_another_type_computes_in_it(name, dtype):
    model, x = make(name).to(dtype), cast(FAMILIES[name].examples(4), dtype)
    for verb, value in outcome(name, model, x).items():
        assert value.dtype in (dtype, torch.int64), verb
        assert value.isfinite().all(), verb
    for key, value in trained(name, model, x).items():
        assert value.dtype in (dtype, torch.int64), key
        assert value.isfinite().all(), key


@variants_nightly
def test_double_agrees_with_float(name):
    """The same numbers, but for roundings; draws are others, so only what has none is compared."""
    model, x = made(name), FAMILIES[name].examples(4)
    wide = copy.deepcopy(model).double()
    for verb in {"log_prob", "reconstruct"} & FAMILIES[name].verbs:
        ours, theirs = getattr(model, verb)(x), getattr(wide, verb)(cast(x, torch.float64))
        # Sums over an image or a path of the solver, of some hundred roundings of 6e-8.
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-4)


def test_model_made_under_another_default_is_of_one_type():
    for name in FAMILIES:
        with default_dtype(torch.float64):
            tensors = [
                *FAMILIES[name].make().state_dict().values(),
                *FAMILIES[name].make().buffers(),
            ]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}, name


@every_family
def test_examples_of_another_type_are_refused_by_name(name):
    model, x = made(name), FAMILIES[name].examples(4)
    entries = calls(name, model)
    if name != "ConvVAE":  # whose learner takes uint8 frames
        learner = FAMILIES[name].learner(make(name).train(), 2)
        entries["update"] = lambda x: learner.update(FAMILIES[name].to_batch(x))
    for dtype in (torch.float64, torch.int64 if x.is_floating_point() else torch.int32, torch.bool):
        for call in entries.values():
            with pytest.raises(ValueError, match=str(dtype)) as caught:
                call(x.to(dtype))
            caught.match(type(model).__name__)


def test_learner_of_frames_refuses_another_type():
    learner = FAMILIES["ConvVAE"].learner(make("ConvVAE").train(), 2)
    with pytest.raises(ValueError, match=r"frames are torch\.float32; pass uint8"):
        learner.update(torch.zeros(2, 64, 64, 3))


@having("encode", "decode")
def test_codes_of_another_type_are_refused_by_name(name):
    model = made(name)
    z = model.encode(FAMILIES[name].examples(4))
    mend = r"pass x\.float\(\)" if z.is_floating_point() else "needs int64"
    with pytest.raises(ValueError, match=f"float64.*{type(model).__name__}.*{mend}"):
        model.decode(z.double())


@variants_nightly
def test_empty_batches_give_empty_results(name):
    model, x = made(name), FAMILIES[name].examples(4)
    for verb, call in calls(name, model).items():
        if verb != "loss":
            found, whole = call(x[:0]), call(x)
            assert found.shape == (0, *whole.shape[1:]), verb
            assert found.dtype == whole.dtype, verb
    if "sample" in FAMILIES[name].verbs:
        assert model.sample(0).shape == x[:0].shape
    if {"encode", "decode"} <= FAMILIES[name].verbs:
        assert model.decode(model.encode(x)[:0]).shape == x[:0].shape


@every_family
def test_loss_of_nothing_is_refused(name):
    family, model = FAMILIES[name], made(name)
    nothing, words = family.examples(4)[:0], f"batch of 0 .*{type(model).__name__}"
    learner = family.learner(make(name).train(), 2)
    before = copy.deepcopy(learner.model.state_dict())
    with pytest.raises(ValueError, match=words):
        learner.update(family.to_batch(nothing))
    assert_equal(dict(learner.model.state_dict()), dict(before))
    if "loss" in FAMILIES[name].verbs:
        batch = family.to_batch(nothing)
        with pytest.raises(ValueError, match=words):
            model.loss(*batch) if isinstance(batch, tuple) else model.loss(nothing)


# ---------------------------------------------------------------------------------------------
# Neighbours that no verb of the families names
# ---------------------------------------------------------------------------------------------

WIDE = torch.float64
NEIGHBOURS = {
    "GAN": lambda m, x: m.generate(torch.zeros(2, m.config.latent_dim, dtype=WIDE)),
    "WGAN": lambda m, x: m.generate(torch.zeros(2, m.config.latent_dim, dtype=WIDE)),
    "ConditionalGAN": lambda m, x: m.generate(
        torch.zeros(2, m.config.latent_dim, dtype=WIDE), torch.zeros(2, dtype=torch.int64)
    ),
    "MuseGAN": lambda m, x: m.generate(
        type(m.draw_noise(2))(*(t.double() for t in m.draw_noise(2)))
    ),
    "ScoreNetwork": lambda m, x: m.score(x.double(), 0.5),
    "image ScoreNetwork": lambda m, x: m.denoise(x.double(), 0.5),
    "PointDiffusion": lambda m, x: m.denoise(x.double(), torch.zeros(len(x))),
    "ImageDiffusion": lambda m, x: m.denoise(x.double(), torch.zeros(len(x))),
    "FFJORD": lambda m, x: m.trajectory(x.double()),
    "RealNVP": lambda m, x: m.initialise(x.double()),
    "Glow": lambda m, x: m.initialise(x.double()),
    "RBM": lambda m, x: m.energy(x.flatten(1).double(), torch.zeros(len(x), 12, dtype=WIDE)),
    "BoltzmannMachine": lambda m, x: m.energy(torch.zeros(2, 9, dtype=WIDE)),
    "PixelCNN": lambda m, x: m.pixel_params(x.double()),
    "PointEnergy": lambda m, x: m.energy(x.double()),
    "GPT": lambda m, x: m.read_out(m.features(x).double()),
    "BERT": lambda m, x: m.read_out(torch.zeros(2, 16, dtype=WIDE)),
    "T5": lambda m, x: m.logits(x, m.encode(x).double(), x),
    "MusicRNN, GRU": lambda m, x: m.sample(len(x), length=8, beginning=x.double()),
    "ConvVAE": lambda m, x: m(x.double()),
    "CNNClassifier": lambda m, x: m.classify(x.double()),
    "LinearVAE": lambda m, x: m.initialise(x.double()),
    "LinearAutoencoder": lambda m, x: m.initialise(x.double()),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_other_entries_refuse_another_type_by_name(name):
    model = make(name)
    with pytest.raises(ValueError, match=f"float64; {type(model).__name__} computes in float32"):
        NEIGHBOURS[name](model, FAMILIES[name].examples(4))


@pytest.mark.parametrize(
    "name", ["MLPClassifier", "CNNClassifier", "ViTClassifier", "BERTClassifier"]
)
@pytest.mark.parametrize("wrong", [torch.int32, torch.float32, torch.bool], ids=str)
def test_labels_of_another_type_are_refused(name, wrong):
    model = make(name)
    with pytest.raises(ValueError, match=rf"labels \(4,\) of {wrong}.*int64"):
        model.loss(FAMILIES[name].examples(4), torch.ones(4).to(wrong))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_head_on_a_model_has_its_type(dtype):
    assert placed(BERTClassifier.of(make("BERT").to(dtype), 3))["dtype"] == dtype
    reward = RewardModel.of(make("GPT").to(dtype))
    assert {p.dtype for p in reward.parameters()} == {dtype}


def test_what_to_do_is_said():
    model = nn.Linear(2, 2).bfloat16()
    with pytest.raises(ValueError, match=r"pass x.bfloat16\(\), or model.float\(\)"):
        check_dtype(torch.zeros(2), "points", model)
    with pytest.raises(ValueError, match=r"complex64; Linear computes in bfloat16 .*bfloat16\(\)$"):
        check_dtype(torch.zeros(2, dtype=torch.complex64), "points", model)


def test_network_without_weights_takes_any_type():
    x = torch.zeros(2, dtype=torch.float64)
    assert check_dtype(x, "points", nn.Identity()) is x


def test_autocast_casts_halves_by_itself():
    model, x = nn.Linear(2, 2), torch.zeros(2)
    with torch.autocast("cpu", torch.bfloat16):
        check_dtype(x.bfloat16(), "points", model)
        with pytest.raises(ValueError, match="float64"):
            check_dtype(x.double(), "points", model)
    with pytest.raises(ValueError, match="bfloat16"):
        check_dtype(x.bfloat16(), "points", model)


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_levels_in_every_type(levels, dtype):
    level = torch.arange(levels)
    assert torch.equal(to_levels((level / (levels - 1)).to(dtype), levels).long(), level)
