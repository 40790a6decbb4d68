"""A base and its upsamplers as one: what each sees is what the one before drew, with noise."""

from dataclasses import replace

import pytest
import torch

from generative.nets.config import ConditionalUNetConfig
from generative.text_to_image import (
    Cascade,
    GLIDEConfig,
    UpsamplerConfig,
    shrink,
)
from tests.tiny_text_to_image import SCHEDULE, TEXT, WORDS, shaken

torch.set_num_threads(1)

NETWORK = ConditionalUNetConfig(8, (1,), attention=(0,), head_dim=4, context_dim=8, vector_dim=8)
BASE = GLIDEConfig((3, 4, 4), WORDS, TEXT, NETWORK, SCHEDULE, steps=2)
FIRST = UpsamplerConfig(
    (3, 8, 8), WORDS, TEXT, replace(NETWORK, told_level=True), SCHEDULE, steps=2, most_noise=0.3
)
SECOND = replace(FIRST, image_shape=(3, 32, 32), factor=4)
TEXTS = ["red square", "blue disc"]


@pytest.fixture(scope="module")
def cascade():
    return Cascade(shaken(BASE), [shaken(FIRST), shaken(SECOND)])


def generator():
    return torch.Generator().manual_seed(3)


def test_every_stage_draws_what_comes_of_the_one_before(cascade):
    stages = cascade.stages(TEXTS, generator(), noise=0.2)
    assert [tuple(images.shape) for images in stages] == [
        (2, 3, 4, 4), (2, 3, 8, 8), (2, 3, 32, 32),
    ]  # fmt: skip
    # The same by hand, with the random numbers in the same order.
    random = generator()
    small = cascade.base.sample(TEXTS, random)
    assert torch.equal(stages[0], small)
    low = small + 0.2 * torch.randn(2, 3, 4, 4, generator=random)
    middle = cascade.upsamplers[0].sample(TEXTS, random, low=low, noise=0.2)
    assert torch.equal(stages[1], middle)
    low = middle + 0.2 * torch.randn(2, 3, 8, 8, generator=random)
    assert torch.equal(stages[2], cascade.upsamplers[1].sample(TEXTS, random, low=low, noise=0.2))
    assert torch.equal(cascade.sample(TEXTS, generator(), noise=0.2), stages[2])
    assert cascade.image_shape == (3, 32, 32)


def test_small_images_of_any_source_are_enlarged(cascade):
    random = generator()
    small = cascade.base.sample(TEXTS, random)
    stages = cascade.stages(TEXTS, generator(), noise=0.2)[1:]
    enlarged = cascade.enlarge(small, TEXTS, random, noise=0.2)
    for images, others in zip(enlarged, stages, strict=True):
        assert torch.equal(images, others)
    assert cascade.most_noises == [0.3, 0.3]
    with pytest.raises(ValueError, match=r"noise is 0\.4.*at most 0\.3"):
        cascade.enlarge(small, TEXTS, noise=0.4)
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\).*3, 4, 4"):
        cascade.enlarge(stages[0], TEXTS, noise=0.0)


def test_the_noise_is_told(cascade):
    """With the same numbers for the noise, only what is told differs."""
    low = torch.rand(1, 3, 4, 4, generator=generator())
    tokens = cascade.base.tokens(["red disc"])
    told = [cascade.upsamplers[0].told(tokens, low, noise).level for noise in (0.0, 0.1, 0.3)]
    assert told[0] > told[1] > told[2]
    assert float(told[1]) == pytest.approx(-2 * torch.tensor(0.1).log().item())


def test_a_cascade_is_saved_and_loaded(cascade, tmp_path):
    cascade.save_pretrained(tmp_path / "cascade")
    again = Cascade.from_pretrained(tmp_path / "cascade")
    drawn = [model.sample(TEXTS, generator()) for model in (cascade, again)]
    assert torch.equal(*drawn)
    with pytest.raises(FileNotFoundError):
        Cascade.from_pretrained(tmp_path / "nothing")


def test_what_does_not_fit_says_what_would():
    with pytest.raises(ValueError, match="a base and no upsampler; give at least one"):
        Cascade(shaken(BASE), [])
    with pytest.raises(ValueError, match=r"upsampler 1 takes images \(3, 8, 8\).*draws \(3, 4, 4"):
        Cascade(shaken(BASE), [shaken(SECOND)])
    fits = Cascade(shaken(BASE), [shaken(FIRST)])
    with pytest.raises(ValueError, match=r"noise is 0\.4.*at most 0\.3; give no more"):
        fits.sample(TEXTS, noise=0.4)


def test_a_perfect_upsampler_keeps_the_small_image():
    """Averages of what it draws are the small image, where its network only raises that."""

    class Raised(torch.nn.Module):
        def forward(self, x, log_snr, told):
            return told.image

    upsampler = shaken(replace(FIRST, prediction="data"))
    upsampler.diffusion.network = Raised()
    low = torch.rand(2, 3, 4, 4, generator=generator())
    drawn = upsampler.sample(TEXTS, generator(), low=low, scale=1.0)
    # Bilinear raising by 2 and averaging blurs each pixel by its neighbours with weights 1 and 6.
    inner = shrink(drawn, 2)[..., 1:3, 1:3]
    kernel = torch.tensor([1.0, 6.0, 1.0]) / 8
    padded = torch.nn.functional.conv2d(
        low.flatten(0, 1)[:, None], (kernel[:, None] * kernel)[None, None]
    )
    torch.testing.assert_close(inner.flatten(0, 1)[:, None], padded, atol=2e-2, rtol=0)
