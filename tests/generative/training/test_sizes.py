"""Networks that are built for their sizes alone."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from generative.training.sizes import SizesAlone


def test_tensors_keep_the_numbers_that_they_have():
    x = torch.zeros(2, 3)
    with SizesAlone():
        assert nn.init.normal_(x) is x
        assert nn.init.kaiming_uniform_(tensor=x) is x
        assert x.normal_() is x.uniform_() is x
    assert not x.any()


def build() -> nn.Module:
    layers = nn.Embedding(7, 5), nn.Linear(5, 3), nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3)
    return nn.Sequential(*map(spectral_norm, layers), nn.LSTM(2, 4), nn.BatchNorm2d(6))


def test_sizes_are_those_of_the_network_itself():
    with torch.device("meta"), SizesAlone():
        empty = build()
    sizes, whole = empty.state_dict(), build().state_dict()
    assert list(sizes) == list(whole)
    for name, tensor in sizes.items():
        assert tensor.is_meta
        assert (tensor.shape, tensor.dtype) == (whole[name].shape, whole[name].dtype), name
    assert empty[1].weight.shape == (3, 5)
