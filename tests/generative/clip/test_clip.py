"""CLIP against published totals, loops in NumPy, and the exact values of its loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generative.clip import (
    CLIPConfig,
    ConvImageConfig,
    TextEncoderConfig,
    clip_block,
    clip_vit,
    contrastive_loss,
    random_loss,
    recall,
    sigmoid_loss,
    target_entropy,
)
from generative.clip.networks import ConvImageEncoder, TextTower, ViTImageEncoder

torch.set_num_threads(1)
TINY = CLIPConfig(
    clip_vit((3, 16, 16), 8, 1, 16, 2), TextEncoderConfig(20, 8, 1, clip_block(16, 2)), 16
)


def make(config: CLIPConfig = TINY):
    torch.manual_seed(0)
    return config.build().eval()


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def published(patch: int, image: tuple[int, int, int], text: tuple[int, int], dim: int):
    """CLIP of 224x224 pixels with 77 tokens: layers, width and heads of images, of texts."""
    layers, width, heads = image
    return CLIPConfig(
        clip_vit((3, 224, 224), patch, layers, width, heads),
        TextEncoderConfig(49_408, 77, 12, clip_block(*text)),
        dim,
    )


@pytest.mark.parametrize(
    ("config", "total"),
    [
        (published(32, (12, 768, 12), (512, 8), 512), 151_277_313),
        (published(14, (24, 1024, 16), (768, 12), 768), 427_616_513),
    ],
)
def test_totals_of_the_publication(config: CLIPConfig, total: int):
    with torch.device("meta"):
        assert count(config.build()) == total


@pytest.mark.parametrize(
    ("image", "text", "dim", "totals"),
    [
        (clip_vit((3, 32, 32), 8, 2, 64, 2), TextEncoderConfig(), 64, (117_760, 113_920)),
        (
            clip_vit((3, 64, 64), 8, 6, 256, 4),
            TextEncoderConfig(4096, 32, 6, clip_block(256, 4)),
            256,
            (4_871_168, 5_861_376),
        ),
    ],
)
def test_totals_of_small_encoders(image, text, dim: int, totals: tuple[int, int]):
    with torch.device("meta"):
        assert (count(ViTImageEncoder(image, dim)), count(TextTower(text, dim))) == totals


# ---------------------------------------------------------------------------------------------
# Loss
# ---------------------------------------------------------------------------------------------


def looped(logits: np.ndarray, fits: np.ndarray, negatives: np.ndarray) -> tuple[float, float]:
    """Both directions, one row after the other."""
    to_text, to_image = [], []
    for row, own, wrong in zip(logits, fits, negatives, strict=True):
        every = np.exp(np.concatenate([row, wrong])).sum()
        to_text.append(-np.mean([math.log(math.exp(row[j]) / every) for j in np.flatnonzero(own)]))
    for column, own in zip(logits.T, fits.T, strict=True):
        every = np.exp(column).sum()
        nats = [math.log(math.exp(column[i]) / every) for i in np.flatnonzero(own)]
        to_image.append(-np.mean(nats))
    return float(np.mean(to_text)), float(np.mean(to_image))


def example(n: int = 6, k: int = 2):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, n, generator=generator, dtype=torch.float64)
    fits = (torch.rand(n, n, generator=generator) < 0.3) | torch.eye(n, dtype=torch.bool)
    negatives = torch.randn(n, k, generator=generator, dtype=torch.float64)
    negatives[2, 1] = -math.inf
    return logits, fits, negatives


def test_loss_is_that_of_a_loop():
    logits, fits, negatives = example()
    found = contrastive_loss(logits, fits, negatives)
    wanted = looped(logits.numpy(), fits.numpy(), negatives.numpy())
    assert found.image_to_text == pytest.approx(wanted[0])
    assert found.text_to_image == pytest.approx(wanted[1])
    assert found.loss == pytest.approx(sum(wanted) / 2)
    own = contrastive_loss(logits)
    labels = torch.arange(6)
    assert own.image_to_text == pytest.approx(float(F.cross_entropy(logits, labels)))
    assert own.text_to_image == pytest.approx(float(F.cross_entropy(logits.T, labels)))


def test_sigmoid_loss_is_that_of_independent_questions():
    logits, fits, negatives = example()
    every = torch.cat([logits, negatives], 1)
    right = torch.cat([fits, torch.zeros(6, 2, dtype=torch.bool)], 1)
    p = torch.sigmoid(every)
    wanted = -torch.where(right, p, 1 - p).log().sum(1).mean()
    torch.testing.assert_close(sigmoid_loss(logits, fits, negatives).loss, wanted)


@pytest.mark.parametrize("loss", [contrastive_loss, sigmoid_loss])
def test_missing_negatives_have_finite_gradients(loss):
    logits, fits, negatives = (x.clone() for x in example())
    negatives[:] = -math.inf
    logits.requires_grad_()
    negatives.requires_grad_()
    found = loss(logits, fits, negatives).loss
    found.backward()
    torch.testing.assert_close(found, loss(logits, fits).loss)
    assert logits.grad.isfinite().all()
    assert not negatives.grad.any()


@pytest.mark.parametrize(
    ("dim", "scale", "nats"), [(512, 14.3, 5.745), (128, 14.3, 6.342), (512, 1.0, 5.546)]
)
def test_loss_of_random_directions(dim: int, scale: float, nats: float):
    """It is not log n, unless the factor is small; here the mean over all ways to pair them."""
    assert random_loss(256, scale, dim) == pytest.approx(nats, abs=2e-3)
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(256, dim, generator=generator), dim=1) for _ in range(2))
    every = torch.ones(256, 256, dtype=torch.bool)
    assert contrastive_loss(scale * a @ b.T, every).loss == pytest.approx(nats, abs=0.02)


def test_loss_of_equal_embeddings_is_log_n():
    equal = F.normalize(torch.ones(50, 8, dtype=torch.float64), dim=1)
    assert contrastive_loss(100 * equal @ equal.T).loss == pytest.approx(math.log(50))


def test_the_floor_is_reached_where_all_that_fits_is_equal():
    logits, fits, _ = example()
    floor = target_entropy(fits)
    assert contrastive_loss(logits, fits).loss > floor
    assert contrastive_loss(1e3 * fits.double(), fits).loss == pytest.approx(float(floor))
    assert target_entropy(torch.eye(4, dtype=torch.bool)) == 0
    assert target_entropy(torch.ones(4, 4, dtype=torch.bool)) == pytest.approx(math.log(4))


def test_recall_counts_what_fits():
    similarity = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.2, 0.8], [0.0, 0.1, 0.7]])
    assert recall(similarity) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    fits = torch.eye(3, dtype=torch.bool)
    fits[1, 2] = True
    assert recall(similarity, fits) == (1.0, 1.0)


# ---------------------------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------------------------


def pairs(n: int = 4):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 16, 16, generator=generator)
    tokens = torch.tensor([[2, 4 + i, 9 - i, 3, 0, 0] for i in range(n)])
    return x, tokens


def test_embeddings_have_length_one_and_the_empty_caption_none():
    clip, (x, tokens) = make(), pairs()
    tokens[2] = 0
    with torch.no_grad():
        images, texts = clip.encode_image(x), clip.encode_text(tokens)
        similarity = clip.similarity(x, tokens)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    torch.testing.assert_close(similarity, images @ texts.T)


def test_probabilities_are_those_of_cosines_times_the_factor():
    clip, (x, tokens) = make(), pairs()
    with torch.no_grad():
        wanted = (clip.similarity(x, tokens) / 0.07).softmax(1)
        torch.testing.assert_close(clip.log_probs(x, tokens).exp(), wanted)
        assert torch.equal(clip.classify(x, tokens), wanted.argmax(1))
        clip.log_scale.fill_(10.0)
    assert clip.scale == 100.0


@pytest.mark.parametrize("objective", ["softmax", "sigmoid"])
def test_negatives_count_for_their_own_image_alone(objective):
    clip, (x, tokens) = make(replace(TINY, objective=objective)), pairs()
    negatives = tokens.roll(1, 0)[:, None].repeat(1, 2, 1)
    negatives[:, 1] = 0
    with torch.no_grad():
        logits = clip.logits(clip.encode_image(x), clip.encode_text(tokens))
        wrong = torch.full((4, 2), -math.inf)
        wrong[:, 0] = logits[torch.arange(4), torch.arange(4).roll(1)]
        measure = contrastive_loss if objective == "softmax" else sigmoid_loss
        torch.testing.assert_close(
            clip.loss(x, tokens, None, negatives).loss, measure(logits, None, wrong).loss
        )


def test_convolutions_know_where_things_are():
    """Attention over places with positions: a mirrored image has another embedding."""
    torch.manual_seed(0)
    encoder = ConvImageEncoder(ConvImageConfig((3, 16, 16), (8, 16), 2), 8)
    x, maps = torch.rand(2, 3, 16, 16), []
    with torch.no_grad():
        assert encoder(x, maps).shape == (2, 8)
        assert (encoder(x) - encoder(x.flip(3))).abs().max() > 1e-3
    assert maps[0].shape == (2, 2, 1, 17)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t: (x[:1], t[:1]), r"got 1 image; a contrast needs 2 pairs"),
        (lambda x, t: (x, t[:3]), r"got 4 images and 3 captions"),
        (lambda x, t: (x, t, torch.ones(4, 3, dtype=torch.bool)), r"\(4, 3\).*bool \(4, 4\)"),
        (lambda x, t: (x, t, None, t), r"\(4, 6\); 4 pairs need \(4, K, L\)"),
        (lambda x, t: (x * 2, t), r"pixels from"),
    ],
)
def test_errors_say_what_is_needed(change, message: str):
    with pytest.raises(ValueError, match=message):
        make().loss(*change(*pairs()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (3, 20, 16)}, r"height and width that 8 divides"),
        ({"channels": (32, 60, 96)}, r"multiples of 8"),
        ({"num_heads": 5}, r"heads that divide the last"),
    ],
)
def test_convolutions_ask_for_sizes_that_fit(settings, message: str):
    with pytest.raises(ValueError, match=message):
        ConvImageConfig(**settings)
