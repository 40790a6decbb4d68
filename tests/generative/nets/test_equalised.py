"""Layers of the grown GANs, against loops, the grouped form and closed forms."""

import math

import pytest
import torch
from torch.nn import functional as F

from generative.nets.equalised import (
    EqualisedConv2d,
    EqualisedLinear,
    ModulatedConv2d,
    downsample,
    minibatch_std,
    modulated_conv2d,
    pixel_norm,
    upsample,
)

torch.set_num_threads(1)


def double(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("gain", "moment"), [(1.0, 1.0), (math.sqrt(2), 1.04)])
def test_layers_keep_the_second_moment_of_their_input(gain, moment):
    """Behind a leaky ReLU of slope 0.2 it is (1 + 0.04) / 2 * 2."""
    torch.manual_seed(0)
    linear = EqualisedLinear(300, 400, gain, lr_multiplier=0.01)
    conv = EqualisedConv2d(64, 128, 3, gain, padding=0)
    for y in (linear(torch.randn(500, 300)), conv(torch.randn(30, 64, 8, 8))):
        behind = F.leaky_relu(y, 0.2) if gain > 1 else y
        assert float(behind.square().mean().detach()) == pytest.approx(moment, rel=0.015)
    assert float(linear.weight.detach().std()) == pytest.approx(100, rel=0.01)
    assert float(conv.weight.detach().std()) == pytest.approx(1, rel=0.01)


def test_a_multiplier_moves_weights_and_bias_by_so_much_in_a_step_of_adam():
    moved = []
    for multiplier in (1.0, 0.01):
        torch.manual_seed(0)
        layer = EqualisedLinear(5, 5, bias=1.0, lr_multiplier=multiplier)
        x, before = torch.randn(7, 5), layer(torch.zeros(1, 5))
        assert torch.allclose(before, torch.ones(1, 5))
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
        layer(x).sum().backward()
        optimizer.step()
        moved.append(layer(torch.zeros(1, 5)) - before)
    assert torch.allclose(moved[1], 0.01 * moved[0], atol=1e-6)


def test_pixel_norm_gives_mean_square_one():
    x = 7 * double(3, 5, 4, 4)
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(3, 4, 4, dtype=x.dtype))


def test_minibatch_std_is_that_of_a_loop_over_groups():
    x, group = double(12, 3, 2, 2), 4
    found = minibatch_std(x, group)
    assert torch.equal(found[:, :3], x)
    for n in range(12):
        members = [x[m] for m in range(n % 3, 12, 3)]
        mean = sum(members) / group
        variance = sum((member - mean) ** 2 for member in members) / group
        expected = (variance + 1e-8).sqrt().mean()
        assert torch.allclose(found[n, 3], expected.expand(2, 2), rtol=0, atol=1e-15)


def test_minibatch_std_of_equal_examples_is_the_root_of_epsilon():
    x = double(1, 3, 2, 2).repeat(8, 1, 1, 1)
    assert torch.allclose(minibatch_std(x)[:, 3], torch.tensor(1e-4, dtype=x.dtype))
    assert minibatch_std(x[:0]).shape == (0, 4, 2, 2)


def test_minibatch_std_refuses_a_batch_that_groups_do_not_divide():
    with pytest.raises(ValueError, match=r"6 examples.*groups of 4.*multiple of 4.*std_group"):
        minibatch_std(torch.zeros(6, 3, 2, 2))


def filtered(x: torch.Tensor, gain: float) -> torch.Tensor:
    """[1, 3, 3, 1] on both axes by a loop over the 16 taps; a row and a column more than x."""
    taps = [1, 3, 3, 1]
    padded = F.pad(x, (2, 2, 2, 2))
    rows, columns = x.shape[2] + 1, x.shape[3] + 1
    out = torch.zeros(*x.shape[:2], rows, columns, dtype=x.dtype)
    for i in range(4):
        for j in range(4):
            out += gain * taps[i] * taps[j] / 64 * padded[:, :, i : i + rows, j : j + columns]
    return out


def zeros_between(x: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
    out[:, :, ::2, ::2] = x
    return out


def test_up_and_down_are_the_filter_with_zeros_between_and_with_every_second_pixel():
    x = double(2, 3, 6, 4)
    assert torch.allclose(upsample(x), filtered(zeros_between(x), 4.0)[:, :, :-1, :-1])
    assert torch.allclose(downsample(x), filtered(x, 1.0)[:, :, 1::2, 1::2])
    inside = upsample(torch.ones(1, 1, 4, 4))[:, :, 1:-1, 1:-1]
    assert torch.equal(inside, torch.ones(1, 1, 6, 6))


def test_convolution_that_halves_is_the_convolution_then_the_filter():
    torch.manual_seed(0)
    conv = EqualisedConv2d(3, 5, 3, down=True).double()
    x = double(2, 3, 8, 8)
    whole = F.conv2d(F.pad(x, (2, 2, 2, 2)), conv.weight * conv.scale)  # (B, 5, 10, 10)
    expected = filtered(whole, 1.0)[:, :, 2:-1:2, 2:-1:2]
    assert conv(x).shape == (2, 5, 4, 4)
    assert torch.allclose(conv(x), expected)


def grouped(x, weight, style, demodulate=True):
    """The published form: weights of each example, in one convolution with a group for each."""
    n, c = style.shape
    own = weight[None] * style[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, n * c, *x.shape[2:])
    y = F.conv2d(x, own.flatten(0, 1), padding=weight.shape[-1] // 2, groups=n)
    return y.reshape(n, -1, *y.shape[2:])


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_the_grouped_form_and_a_loop(demodulate):
    x, weight, style = double(4, 3, 5, 5), double(6, 3, 3, 3, seed=1), double(4, 3, seed=2)
    found = modulated_conv2d(x, weight, style, demodulate)
    # Ten roundings of the largest numbers.
    atol = 2e-15 * max(1.0, float(found.abs().max()))
    assert torch.allclose(found, grouped(x, weight, style, demodulate), rtol=0, atol=atol)
    for n in range(4):
        own = weight * style[n, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        one = F.conv2d(x[n : n + 1], own, padding=1)
        assert torch.allclose(found[n : n + 1], one, rtol=0, atol=atol)


def test_modulated_convolution_that_doubles_is_upsampling_and_then_the_convolution():
    """Inside; at the border the one sees zeros, and the other what the filter leaves there."""
    x, weight, style = double(2, 3, 6, 6), double(4, 3, 3, 3, seed=1), double(2, 3, seed=2)
    found = modulated_conv2d(x, weight, style, up=True)
    expected = modulated_conv2d(upsample(x), weight.flip((2, 3)), style)
    assert found.shape == (2, 4, 12, 12)
    assert torch.allclose(found[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


def test_demodulated_output_knows_nothing_of_the_size_of_the_style():
    """But for epsilon: of squares n of the weights, 37 times the style gives sqrt((n + eps) / (n +
    eps / 37^2)) times the output."""
    x, weight, style = double(4, 3, 5, 5), double(6, 3, 3, 3, seed=1), double(4, 3, seed=2)
    exact = [modulated_conv2d(x, weight, scale * style, eps=0.0) for scale in (1, 37)]
    assert torch.allclose(*exact, rtol=0, atol=2e-15)
    one, other = (modulated_conv2d(x, weight, scale * style) for scale in (1, 37))
    squares = (weight * style[:, None, :, None, None]).square().sum((2, 3, 4))
    ratio = ((squares + 1e-8) / (squares + 1e-8 / 37**2)).sqrt()
    assert torch.allclose(other, one * ratio[:, :, None, None], rtol=0, atol=1e-14)
    # Of layers as wide as they are in a generator epsilon is next to nothing.
    x, weight, style = double(4, 64, 5, 5), double(6, 64, 3, 3, seed=1), double(4, 64, seed=2)
    one, other = (modulated_conv2d(x, weight, scale * style) for scale in (1, 37))
    assert torch.allclose(one, other, rtol=0, atol=5e-10)


def test_demodulated_output_has_deviation_one_whatever_the_style():
    x, weight = double(2000, 8, 5, 5), double(6, 8, 3, 3, seed=1)
    style = double(1, 8, seed=2).exp().expand(2000, 8)
    inside = modulated_conv2d(x, weight, style)[:, :, 1:-1, 1:-1]
    assert torch.allclose(inside.std((0, 2, 3)), torch.ones(6, dtype=x.dtype), rtol=0, atol=0.01)


@pytest.mark.parametrize("up", [False, True])
def test_second_derivatives_of_a_modulated_convolution(up):
    torch.manual_seed(0)
    layer = ModulatedConv2d(2, 3, 3, style_dim=2, up=up).double()
    x, w = double(2, 2, 4, 4).requires_grad_(), double(2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x, w), nondet_tol=1e-12)


def test_styles_begin_at_one():
    layer = ModulatedConv2d(4, 3, 1, style_dim=5, demodulate=False)
    assert torch.equal(layer.affine(torch.zeros(2, 5)), torch.ones(2, 4))
