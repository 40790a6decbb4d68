"""Classifiers against the book's layer tables, scikit-learn's logistic regression, and loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from generative.classifier import (
    ClassifierLearner,
    ClassifierLossConfig,
    CNNClassifierConfig,
    MLPClassifierConfig,
    ViTClassifierConfig,
    classifier_loss,
    confusion_matrix,
    random_mirror,
    random_shift,
)
from generative.data.digits import load_digits
from generative.nets.config import vit_block
from generative.training.sizes import SizesAlone
from scripts.train_classifier import PRESETS

torch.set_num_threads(1)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def layer_counts(model: nn.Module) -> list[int]:
    layers = [m for m in model.modules() if not list(m.children()) and count(m)]
    return [count(layer) for layer in layers]


def test_sizes_of_the_mlp_are_the_books():
    model = MLPClassifierConfig().build()
    assert layer_counts(model) == [614_600, 30_150, 1_510]
    assert count(model) == 646_260


def test_size_of_the_vision_transformer_is_the_publications():
    """ViT-B/16 on 224x224 with 1,000 classes, as torchvision's `vit_b_16` counts it."""
    with torch.device("meta"), SizesAlone():
        model = ViTClassifierConfig((3, 224, 224), 1000, 16, 12, vit_block(768, 12)).build()
    assert count(model) == 86_567_656


def test_vision_transformer_knows_the_order_of_patches_by_their_positions_alone():
    torch.manual_seed(0)
    model = ViTClassifierConfig((1, 8, 8), 5, 4, 2, vit_block(16, 2)).build().double().eval()
    x, order = torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.tensor([2, 0, 3, 1])
    before = model.logits(x)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(3, 4, 4, 4)[:, order]
    moved = patches.reshape(3, 2, 2, 4, 4).transpose(2, 3).reshape(3, 1, 8, 8)
    assert not torch.allclose(model.logits(moved), before)
    positions = model.net[0].positions
    with torch.no_grad():  # the first is that of the class token
        positions[1:] = positions[1:][order].clone()
    assert torch.allclose(model.logits(moved), before, rtol=0, atol=1e-12)
    assert model.features(x).shape == (3, 16)
    assert torch.allclose(model.net[2](model.features(moved)), before, rtol=0, atol=1e-12)


def test_a_patch_that_does_not_divide_the_sides_is_refused():
    with pytest.raises(ValueError, match=r"patch 5; give a patch that divides"):
        ViTClassifierConfig((1, 8, 8), patch=5)


def test_sizes_of_the_cnn_are_the_books():
    """The book counts the averages of a batch normalisation too: four numbers a channel."""
    model = CNNClassifierConfig().build()
    trained = [896, 64, 9_248, 64, 18_496, 128, 36_928, 128, 524_416, 256, 1_290]
    assert layer_counts(model) == trained
    averages = [b for name, b in model.named_buffers() if "running" in name]
    assert sum(b.numel() for b in averages) == 640
    assert count(model) == 591_914
    assert count(model) + 640 == 592_554


def test_sizes_of_the_linear_cnn_are_the_books():
    model = PRESETS["book-linear-cnn"].cnn.build()
    assert layer_counts(model) == [490, 1_820, 12_810]
    x, step = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    base = model.net(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(
        model.net(x + step) - base, model.net(x) + model.net(step) - 2 * base
    )


def test_shapes_of_the_cnn_are_the_books():
    model, x, seen = CNNClassifierConfig().build(), torch.zeros(2, 3, 32, 32), []
    for layer in model.net:
        x = layer(x)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            seen.append(tuple(x.shape[1:]))
    assert seen == [(32, 32, 32), (32, 16, 16), (64, 16, 16), (64, 8, 8), (128,), (10,)]


def test_constants_are_those_of_the_books_framework():
    model = CNNClassifierConfig().build()
    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.3}
    learner = ClassifierLearner(model, ClassifierLossConfig(), 1)
    group = learner.optimisation.optimizers[0].param_groups[0]
    assert (group["lr"], group["eps"], group["weight_decay"]) == (5e-4, 1e-7, 0.0)
    for layer in (model.net[1], model.net[-1]):  # Glorot: uniform with variance 2 / (in + out)
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        limit = math.sqrt(6 / (fan_in + fan_out))
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert not layer.bias.any()


def test_loss_and_accuracy_by_a_loop():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    scores = logits.numpy()
    expected = [
        -math.log(np.exp(s[c]) / np.exp(s).sum()) for s, c in zip(scores, labels, strict=True)
    ]
    right = [s.argmax() == c for s, c in zip(scores, labels.tolist(), strict=True)]
    losses = classifier_loss(logits, labels)
    assert float(losses.loss) == pytest.approx(np.mean(expected))
    assert float(losses.accuracy) == pytest.approx(np.mean(right))


def test_probabilities_sum_to_one_and_the_largest_wins():
    model = CNNClassifierConfig((1, 8, 8), 3, (4,), (3,), (2,), 8).build().eval()
    x = torch.rand(5, 1, 8, 8)
    log_probs = model.log_probs(x)
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(5))
    assert model.classify(x).tolist() == log_probs.argmax(1).tolist()
    labels = torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(model.loss(x, labels).loss, -log_probs[range(5), labels].mean())


def test_without_hidden_layers_it_is_logistic_regression():
    """Both are the same convex problem, so both reach its one optimum."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="fits the other one")
    digits = load_digits()
    x, labels = digits.as_tensor(slice(300)).double(), torch.from_numpy(digits.factors[:300, 0])
    penalty = 1e-2
    torch.manual_seed(0)
    model = MLPClassifierConfig((1, 8, 8), 10, ()).build().double()
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=1000,
        tolerance_grad=1e-9,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = model.loss(x, labels).loss + penalty / 2 * model.net[1].weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    theirs = linear_model.LogisticRegression(C=1 / (300 * penalty), tol=1e-10, max_iter=5000)
    theirs.fit(x.flatten(1).numpy(), labels.numpy())
    expected = theirs.predict_log_proba(x.flatten(1).numpy())
    np.testing.assert_allclose(model.log_probs(x).detach().numpy(), expected, atol=1e-4)


def test_shifted_images_by_a_loop():
    x = torch.rand(50, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    shifted = random_shift(x, 1, torch.Generator().manual_seed(1))
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    found = set()
    for image, moved in zip(padded, shifted, strict=True):
        places = [(r, c) for r in range(3) for c in range(3)
                  if torch.equal(image[:, r : r + 4, c : c + 5], moved)]  # fmt: skip
        assert len(places) == 1
        found.add(places[0])
    assert len(found) == 9


def test_mirrored_images_are_as_they_were_or_turned_round_each_by_itself():
    x = torch.rand(200, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    turned = 0
    for image, now in zip(x, random_mirror(x, torch.Generator().manual_seed(1)), strict=True):
        as_it_was = torch.equal(now, image)
        assert as_it_was != torch.equal(now, image[..., [4, 3, 2, 1, 0]])
        turned += not as_it_was
    assert 70 < turned < 130  # 4 deviations of 200 coins


def test_noise_of_training_images_has_every_deviation_up_to_the_largest(monkeypatch):
    """Of each image one of its own; images that are classified, and labels, have none."""
    model = MLPClassifierConfig((1, 40, 40), 3, ()).build()
    seen = []
    model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x, labels = torch.full((500, 1, 40, 40), 0.5), torch.zeros(500, dtype=torch.int64)
    torch.manual_seed(0)
    ClassifierLearner(model, ClassifierLossConfig(noise=0.3), 10).update((x, labels))
    deviations = (seen[0] - x).flatten(1).std(1)
    even = torch.linspace(0, 0.3, 500)
    assert float((deviations.sort().values - even).abs().max()) < 0.03  # Kolmogorov's bound, 1 %
    assert float((seen[0] - x).mean().abs()) < 1e-3
    ClassifierLearner(model, ClassifierLossConfig(), 10).update((x, labels))
    model.classify(x)
    assert torch.equal(seen[1], x)
    assert torch.equal(seen[2], x)
    with pytest.raises(ValueError, match="scale them first"):
        ClassifierLearner(model, ClassifierLossConfig(noise=0.3), 10).update((x + 1, labels))


@pytest.mark.parametrize(
    ("config", "moved"),
    [
        (CNNClassifierConfig((1, 8, 8), 3, (4, 5, 6), (3,) * 3, (2, 1, 2), 7),
         [(5, 4, 3, 3), (6, 5, 3, 3), (7, 24)]),
        (MLPClassifierConfig((1, 2, 2), 3, (5, 6)), [(6, 5)]),
    ],
)  # fmt: skip
def test_muon_moves_what_stands_between_the_first_and_the_last_layer(config, moved):
    """Adam's first step moves every number that has a gradient by the learning rate."""
    torch.manual_seed(0)
    model = config.build()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = ClassifierLossConfig(optimizer="muon", lr=1e-2)
    x, labels = torch.rand(6, *config.image_shape), torch.tensor([0, 1, 2] * 2)
    ClassifierLearner(model, loss, 1).update((x, labels))
    otherwise = []
    for name, p in model.named_parameters():
        steps = (p - before[name]).detach().abs()
        if p.dim() > 1 and not ((steps < 1e-6) | ((steps - 1e-2).abs() < 1e-4)).all():
            otherwise.append(tuple(p.shape))
    assert otherwise == moved


def test_confusion_matrix_by_a_loop():
    labels, predicted = torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 2, 2, 2, 0])
    expected = np.zeros((3, 3), int)
    for a, b in zip(labels.tolist(), predicted.tolist(), strict=True):
        expected[a, b] += 1
    np.testing.assert_array_equal(confusion_matrix(labels, predicted, 3).numpy(), expected)


def test_dropout_and_batch_statistics_are_for_training_only():
    model = CNNClassifierConfig((1, 8, 8), 3, (4,), (3,), (2,), 8).build().eval()
    x = torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(model.logits(x)[:2], model.logits(x[:2]))
    before = model.net[2].running_mean.clone()
    ClassifierLearner(model, ClassifierLossConfig(), 1).update((x, torch.tensor([0, 1, 2] * 2)))
    assert model.training
    assert not torch.equal(model.net[2].running_mean, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPClassifierConfig(num_classes=1), "num_classes is 1, and must be at least 2"),
        (lambda: MLPClassifierConfig(hidden_dims=(0,)), r"hidden_dims is \(0,\)"),
        (lambda: CNNClassifierConfig((3, 0, 4)), r"image_shape is \(3, 0, 4\)"),
        (lambda: CNNClassifierConfig(strides=(1, 2)), "of each for every convolution"),
        (lambda: CNNClassifierConfig(dropout=1.0), "dropout is 1.0, and must be"),
        (lambda: CNNClassifierConfig(norm_momentum=0.0), "norm_momentum is 0.0, and must be"),
        (lambda: ClassifierLossConfig(shift=-1), "shift is -1"),
        (lambda: classifier_loss(torch.zeros(2, 3), torch.zeros(2)), "float32; 2 examples need"),
        (lambda: classifier_loss(torch.zeros(1, 3), torch.tensor([3])), "from 3 to 3; .* 0 to 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_explained(make, message):
    with pytest.raises(ValueError, match=message):
        make()
