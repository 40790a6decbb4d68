"""Perceptual distance: by hand with cosines, fixed network, gradients to the images."""

import torch
from torch import nn
from torch.nn import functional as F

from generative.classifier import Classifier, CNNClassifierConfig
from generative.nets.perceptual import PerceptualDistance

torch.set_num_threads(1)

SMALL = CNNClassifierConfig(
    (3, 16, 16), channels=(4, 6, 8), kernels=(3, 3, 3), strides=(1, 2, 2), hidden_dim=5
)


def classifier() -> Classifier:
    torch.manual_seed(0)
    return SMALL.build()


def test_maps_and_features_are_those_that_the_logits_are_made_of():
    model, x = classifier().eval(), torch.rand(2, 3, 16, 16)
    maps = model.feature_maps(x)
    assert [tuple(f.shape[1:]) for f in maps] == [(4, 16, 16), (6, 8, 8), (8, 4, 4)]
    flatten = next(i for i, layer in enumerate(model.net) if isinstance(layer, nn.Flatten))
    assert torch.equal(model.net[flatten:](maps[-1]), model.logits(x))
    assert model.features(x).shape == (2, 5)
    assert torch.equal(model.net[-1](model.features(x)), model.logits(x))


def test_distance_is_twice_one_minus_the_cosine():
    model, x, y = classifier().eval(), torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    found = PerceptualDistance(model)(x, y)
    by_hand = [
        (2 - 2 * F.cosine_similarity(f, g, 1)).mean((1, 2))
        for f, g in zip(model.feature_maps(x), model.feature_maps(y), strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(by_hand).mean(0))
    assert torch.equal(PerceptualDistance(model)(x, x), torch.zeros(4))


def test_network_is_a_fixed_copy_and_gradients_reach_the_images():
    model = classifier().train()
    distance = PerceptualDistance(model).train()
    before = {name: value.clone() for name, value in distance.state_dict().items()}
    x, y = torch.rand(3, 3, 16, 16, requires_grad=True), torch.rand(3, 3, 16, 16)
    first = distance(x, y)
    first.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all()
    assert not any(p.requires_grad for p in distance.parameters())
    for name, value in distance.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(distance(x, y), first)
    assert all(p.requires_grad for p in model.parameters())


def test_a_blur_is_farther_than_its_error_of_pixels_tells():
    """A blurred and a brighter image with the same squared error: the blur is farther."""
    model = classifier().eval()
    torch.manual_seed(1)
    x = 0.2 + 0.5 * (torch.rand(8, 3, 16, 16) > 0.5).float()
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    brighter = x + (blurred - x).square().mean((1, 2, 3), keepdim=True).sqrt()
    assert brighter.max() < 1
    distance = PerceptualDistance(model)
    assert (distance(blurred, x) > distance(brighter, x)).all()
