"""Diagonal LSTM against the recursion it stands for, pixel by pixel."""

import pytest
import torch

from generative.pixelcnn import DiagonalLSTM, PixelCNNConfig, RecurrentConfig
from generative.pixelcnn.recurrent import skew, unskew

torch.set_num_threads(1)


@pytest.mark.parametrize(("h", "w"), [(3, 4), (4, 3), (1, 5), (5, 1)])
def test_columns_of_a_skewed_map_are_its_diagonals(h, w):
    x = torch.arange(1.0, 1 + 2 * h * w).view(1, 2, h, w)
    skewed = skew(x)
    assert skewed.shape == (1, 2, h, w + h - 1)
    for t in range(w + h - 1):
        for i in range(h):
            there = x[:, :, i, t - i] if 0 <= t - i < w else torch.zeros(1, 2)
            assert torch.equal(skewed[:, :, i, t], there)
    assert torch.equal(unskew(skewed, w), x)


def test_against_a_loop_over_pixels():
    torch.manual_seed(0)
    lstm, x = DiagonalLSTM(3).double(), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    inputs = lstm.inputs(x)
    above, own = lstm.states.weight.unbind(2)
    none = torch.zeros(2, 3, dtype=torch.float64)
    h, c = {}, {}
    for i in range(4):
        for j in range(5):
            wide = inputs[:, :, i, j] + lstm.states.bias
            wide = wide + h.get((i - 1, j), none) @ above.T + h.get((i, j - 1), none) @ own.T
            write, forget, read, new = wide.chunk(4, 1)
            c[i, j] = forget.sigmoid() * c.get((i, j - 1), none) + write.sigmoid() * new.tanh()
            h[i, j] = read.sigmoid() * c[i, j].tanh()
    found = lstm(x)
    for (i, j), state in h.items():
        torch.testing.assert_close(found[:, :, i, j], state)


def test_forget_gates_begin_open_and_an_even_kernel_is_refused():
    network = PixelCNNConfig((1, 4, 4), 4, network=RecurrentConfig(8, 1, 3)).build().network
    bias = network.layers[0].left.states.bias
    assert bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16
    with pytest.raises(ValueError, match="first_kernel is 4; a kernel needs an odd side"):
        RecurrentConfig(first_kernel=4)


@pytest.mark.parametrize(("c", "first_kernel"), [(1, 3), (3, 5)])
def test_a_row_by_itself_is_that_of_the_whole_map(c, first_kernel):
    """Whatever stands behind the pixel in its row, and below."""
    torch.manual_seed(0)
    config = PixelCNNConfig((c, 4, 5), 4, network=RecurrentConfig(6, 2, first_kernel))
    network, x = config.build().network.double().eval(), torch.rand(2, c, 4, 5).double()
    whole = network(x)
    for i in range(4):
        unknown = x.clone()
        unknown[:, :, i + 1 :] = 0.3
        at = network.row(unknown, i)
        for j in range(5):
            unknown[:, :, i] = torch.where(torch.arange(5) > j, 0.7, x[:, :, i])
            torch.testing.assert_close(at(j), whole[:, :, i, j])
