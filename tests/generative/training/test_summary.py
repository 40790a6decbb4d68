"""The table of a model against the book's layer tables."""

import torch
from torch import nn

from generative.autoencoder import ConvAutoencoderConfig
from generative.classifier import CNNClassifierConfig
from generative.training.summary import summary

torch.set_num_threads(1)


def test_table_of_the_books_cnn():
    model = CNNClassifierConfig().build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = summary(model, torch.zeros(1, 3, 32, 32), "logits")
    convolutions = [(row.shape, row.trained) for row in table.layers if row.kind == "Conv2d"]
    assert convolutions == [
        ((32, 32, 32), 896), ((32, 16, 16), 9_248), ((64, 16, 16), 18_496), ((64, 8, 8), 36_928),
    ]  # fmt: skip
    norms = [row.trained + row.kept for row in table.layers if "Norm" in row.kind]
    assert norms == [128, 128, 256, 256, 512]
    assert (table.trained + table.kept, table.trained) == (592_554, 591_914)
    assert str(table).endswith("592,554 in all, 591,914 of them trained")
    assert "net.1   Conv2d       32x32x32      896" in str(table)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_only_what_is_passed_is_listed():
    table = summary(ConvAutoencoderConfig().build(), torch.zeros(2, 1, 32, 32), "encode")
    assert sum(row.trained for row in table.layers) == 96_770
    assert table.trained == 343_043
    assert table.layers[-1].shape == (2,)


def test_a_shared_layer_is_listed_twice_and_counted_once():
    layer = nn.Linear(3, 3)
    table = summary(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 3))
    assert [row.trained for row in table.layers] == [12, 0, 12]
    assert table.trained == 12
