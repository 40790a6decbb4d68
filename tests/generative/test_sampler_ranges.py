"""Every sampler refuses numbers that it can not follow, before it draws or computes anything."""

import inspect
import math
import re

import numpy as np
import pytest
import torch

from generative.diffusion import (
    Guidance,
    ImageDiffusionConfig,
    PointDiffusionConfig,
    Schedule,
    UNetConfig,
    clip_data,
    ddim_noise,
    denoising_path,
    guided,
    ode_flow,
    ode_log_prob,
    variational_gap,
)
from generative.energy import langevin, langevin_path, mala
from generative.flow.ffjord import FFJORDConfig
from generative.known.densities import TwoMoons, checkerboard
from generative.known.two_samples import energy_test
from generative.mdn import Mixture
from generative.sampling import sample_logits, shape_logits
from generative.score_matching import annealed_langevin, annealed_langevin_path
from generative.solvers import equal_steps
from generative.text.tokens import generate
from generative.training.checks import checked
from generative.training.ranges import Count, NonNegative, Probability
from generative.vae import importance_bound
from tests.generative.families import FAMILIES

torch.set_num_threads(1)
NAN, INF = math.nan, math.inf
COUNT = (0, -1, 2.5, 3.0, NAN, "3", True)
COUNT_OR_ZERO = COUNT[1:]
PROBABILITY = (-0.1, 1.1, NAN, INF, "0.5")
QUANTILE = (0.0, *PROBABILITY)
POSITIVE = (0.0, -1.0, NAN, INF)
NON_NEGATIVE = POSITIVE[1:]
FINITE = (NAN, INF, -INF)
X = torch.zeros(2, 2)


def untouched(*_args, **_kwargs):
    raise AssertionError("a sampler computed before it looked at its arguments")


def points(**options):
    return PointDiffusionConfig(hidden_dim=4, num_hidden=1).build().sample(**{"n": 2, **options})


def images():
    return ImageDiffusionConfig((1, 4, 4), UNetConfig((4, 8), depth=1), levels=3).build()


def flow():
    return FFJORDConfig(hidden_dim=4, num_hidden=1).build()


def walk(sampler, **options):
    return sampler(untouched, X, **{"steps": 1, "step_size": 0.1, **options})


TOKENS = torch.zeros(1, 2, dtype=torch.int64)
PIXELS = torch.zeros(1, 1, 4, 4)
TEXT_OPTIONS = {"temperature": NON_NEGATIVE, "top_k": COUNT_OR_ZERO, "top_p": QUANTILE}
SAMPLERS = {
    "PointDiffusion.sample": (
        points, {"n": COUNT_OR_ZERO, "steps": COUNT, "eta": PROBABILITY, "quantile": QUANTILE}
    ),
    "ImageDiffusion.sample": (
        lambda **o: images().sample(**{"n": 1, **o}),
        {"n": COUNT_OR_ZERO, "steps": COUNT, "eta": PROBABILITY, "quantile": QUANTILE},
    ),
    "ImageDiffusion.decode": (
        lambda **o: images().decode(PIXELS, **o), {"steps": COUNT, "eta": PROBABILITY}
    ),
    "ImageDiffusion.encode": (lambda **o: images().encode(PIXELS, **o), {"steps": COUNT}),
    "ImageDiffusion.bound": (lambda **o: images().bound(PIXELS, **o), {"num_draws": COUNT}),
    "Schedule.steps": (lambda **o: Schedule().steps(**o), {"num": COUNT}),
    "denoising_path": (
        lambda **o: denoising_path(untouched, X, [0.0, INF], **o), {"eta": PROBABILITY}
    ),
    "ddim_noise": (lambda **o: ddim_noise(0.0, 1.0, **o), {"eta": PROBABILITY}),
    "clip_data": (lambda **o: clip_data(X, 0.0, 1.0, **o), {"quantile": QUANTILE}),
    "ode_flow": (lambda **o: ode_flow(untouched, X, 0.0, 1.0, **o), {"num_steps": COUNT}),
    "ode_log_prob": (lambda **o: ode_log_prob(untouched, X, 0.0, 1.0, **o), {"num_steps": COUNT}),
    "variational_gap": (
        lambda **o: variational_gap(untouched, X, 1.0, 0.0, **o), {"num_draws": COUNT}
    ),
    "annealed_langevin": (
        lambda **o: walk(annealed_langevin, levels=torch.ones(1), **o),
        {"steps": COUNT, "step_size": POSITIVE},
    ),
    "annealed_langevin_path": (
        lambda **o: walk(annealed_langevin_path, levels=torch.ones(1), **o),
        {"steps": COUNT, "step_size": POSITIVE},
    ),
    "langevin": (
        lambda **o: walk(langevin, **o),
        {"steps": COUNT, "step_size": POSITIVE, "noise": NON_NEGATIVE, "clip": NON_NEGATIVE},
    ),
    "langevin_path": (
        lambda **o: walk(langevin_path, **o),
        {"steps": COUNT, "step_size": POSITIVE, "noise": NON_NEGATIVE, "clip": NON_NEGATIVE},
    ),
    "mala": (lambda **o: walk(mala, **o), {"steps": COUNT, "step_size": POSITIVE}),
    "FFJORD.trajectory": (lambda **o: flow().trajectory(X, **o), {"num_times": COUNT}),
    "FFJORD.log_prob_at": (lambda **o: flow().log_prob_at(X, **o), {"t": PROBABILITY}),
    "FlowMatching.sample": (
        lambda **o: FAMILIES["PointFlowMatching"].make().sample(**{"n": 1, **o}),
        {"n": COUNT_OR_ZERO, "steps": COUNT},
    ),
    "FlowMatching.path": (
        lambda **o: FAMILIES["PointFlowMatching"].make().path(X, **o), {"steps": COUNT}
    ),
    "MeanFlow.sample": (
        lambda **o: FAMILIES["PointMeanFlow"].make().sample(**{"n": 1, **o}),
        {"n": COUNT_OR_ZERO, "steps": COUNT},
    ),
    "MeanFlow.path": (
        lambda **o: FAMILIES["PointMeanFlow"].make().path(X, **o), {"steps": COUNT}
    ),
    "MeanFlow.decode": (
        lambda **o: FAMILIES["PointMeanFlow"].make().decode(X, **o), {"steps": COUNT}
    ),
    "equal_steps": (lambda **o: equal_steps(0.0, 1.0, **o), {"num_steps": COUNT}),
    "shape_logits": (lambda **o: shape_logits(torch.zeros(1, 5), **o), TEXT_OPTIONS),
    "sample_logits": (lambda **o: sample_logits(torch.zeros(1, 5), **o), TEXT_OPTIONS),
    "generate": (
        lambda **o: generate(untouched, TOKENS, **{"num_tokens": 1, **o}),
        {"num_tokens": COUNT_OR_ZERO, **TEXT_OPTIONS},
    ),
    "T5.generate": (
        lambda **o: FAMILIES["T5"].make().generate(TOKENS, **{"num_tokens": 1, **o}),
        {"num_tokens": COUNT_OR_ZERO, **TEXT_OPTIONS},
    ),
    "PixelCNN.complete": (
        lambda **o: FAMILIES["PixelCNN"].make().complete(PIXELS, **{"rows": 1, **o}),
        {"rows": COUNT_OR_ZERO, "temperature": NON_NEGATIVE},
    ),
    "RBM.estimate_log_partition": (
        lambda **o: FAMILIES["RBM"].make().estimate_log_partition(**o),
        {"num_temperatures": COUNT, "num_chains": COUNT},
    ),
    "MuseGAN.go_on": (
        lambda **o: FAMILIES["MuseGAN"].make().go_on(X, **o), {"num_bars": COUNT}
    ),
    "DALLE.sample": (
        lambda **o: FAMILIES["DALLE"].make().sample(TOKENS, **o),
        {"temperature": NON_NEGATIVE, "top_k": COUNT_OR_ZERO},
    ),
    "Parti.sample": (
        lambda **o: FAMILIES["Parti"].make().sample(TOKENS, **o),
        {"temperature": NON_NEGATIVE, "top_k": COUNT_OR_ZERO, "guidance": NON_NEGATIVE},
    ),
    "MUSE.sample": (
        lambda **o: FAMILIES["MUSE"].make().sample(TOKENS, **o),
        {"temperature": NON_NEGATIVE, "steps": COUNT, "noise": NON_NEGATIVE,
         "guidance": NON_NEGATIVE},
    ),
    "Guidance": (lambda **o: Guidance(None, **o), {"scale": FINITE}),
    "guided": (lambda **o: guided(untouched, untouched, **o), {"scale": FINITE}),
    "TextToImage.path": (
        lambda **o: FAMILIES["GLIDE"].make().path(1, **o), {"scale": FINITE}
    ),
    "importance_bound": (
        lambda **o: importance_bound(untouched, batch=1, **o), {"num_draws": COUNT}
    ),
    "Mixture.sample": (
        lambda **o: Mixture(*torch.zeros(3, 1, 2, 3)).sample(**o), {"temperature": NON_NEGATIVE}
    ),
    "TwoMoons.sample": (lambda **o: TwoMoons().sample(**o), {"n": COUNT_OR_ZERO}),
    "Boxes.sample": (lambda **o: checkerboard().sample(**o), {"n": COUNT_OR_ZERO}),
    "energy_test": (lambda **o: energy_test(X, X, **o), {"permutations": COUNT}),
}  # fmt: skip
OPTIONS = {
    **TEXT_OPTIONS, "steps": COUNT, "eta": PROBABILITY, "length": COUNT, "scale": FINITE,
}  # fmt: skip
"""Those of `sample` that some families have."""


@pytest.mark.parametrize("name", SAMPLERS)
def test_numbers_out_of_range_are_refused_by_name(name):
    call, wrong = SAMPLERS[name]
    for argument, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=rf"^{argument} is {re.escape(repr(value))}[,;]"):
                call(**{argument: value})


@pytest.mark.parametrize("name", [n for n in FAMILIES if "sample" in FAMILIES[n].verbs])
def test_every_family_refuses_what_it_can_not_draw(name):
    torch.manual_seed(0)
    sample = FAMILIES[name].make().eval().sample
    parameters = inspect.signature(sample).parameters
    number = "n" if "n" in parameters else "texts"  # a number of images that are told nothing
    wrong = {number: COUNT_OR_ZERO} | {n: v for n, v in OPTIONS.items() if n in parameters}
    if "options" in parameters:  # texts
        wrong |= TEXT_OPTIONS
    for argument, values in wrong.items():
        for value in values:
            with pytest.raises(ValueError, match=f"^{argument} is "):
                sample(**{number: 1, argument: value})


def test_each_stream_of_music_needs_its_temperature():
    model = FAMILIES["MusicTransformer"].make().eval()
    with pytest.raises(ValueError, match="got 3 temperatures; this model has 2 streams"):
        model.sample(1, temperature=(1.0, 0.5, 0.2))
    with pytest.raises(ValueError, match="temperature is -1"):
        model.sample(1, temperature=(1.0, -1.0))


def test_annotations_are_read_in_all_their_forms():
    @checked
    def draw(n: Count, heat: NonNegative | torch.Tensor = 1.0, share: Probability | None = None):
        return n, heat, share

    heat = torch.ones(2)
    assert draw(np.int64(2), heat)[1] is heat
    assert draw(1, 0, share=None) == (1, 0, None)
    with pytest.raises(ValueError, match=r"n is 2\.0, and must be an integer, at least 1"):
        draw(2.0)
    with pytest.raises(ValueError, match="heat is None, and must be at least 0 and finite"):
        draw(1, None)
    with pytest.raises(ValueError, match=r"share is 1\.5, and must be at least 0 and at most 1"):
        draw(1, share=1.5)
