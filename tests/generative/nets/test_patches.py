"""Patch critic: published sizes, what a height depends on, that all patches are judged alike."""

import pytest
import torch

from generative.nets.patches import PatchCritic, patch_grid

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("width", "num_levels", "norm", "total"),
    [
        (16, 2, "batch", 42_961),
        (64, 2, "batch", 663_361),
        (64, 3, "batch", 2_765_633),
        (64, 3, "instance", 2_764_737),  # CycleGAN's: a bias in place of each pair of batch norm
    ],
)
def test_published_totals(width, num_levels, norm, total):
    with torch.device("meta"):
        critic = PatchCritic(3, width, num_levels, norm)
    assert sum(p.numel() for p in critic.parameters()) == total


@pytest.mark.parametrize(
    ("width", "num_levels", "side", "grid"), [(16, 2, 32, 6), (64, 2, 64, 14), (64, 3, 256, 30)]
)
def test_published_grids(width, num_levels, side, grid):
    with torch.device("meta"):
        heights = PatchCritic(3, width, num_levels)(torch.empty(2, 3, side, side))
    assert heights.shape == (2, grid, grid)
    assert patch_grid((side, side), num_levels) == (grid, grid)


@pytest.mark.parametrize(("width", "num_levels", "patch"), [(16, 2, 34), (64, 2, 34), (8, 3, 70)])
def test_patch_by_the_support_of_the_gradient(width, num_levels, patch):
    torch.manual_seed(0)
    critic = PatchCritic(1, width, num_levels).eval()
    x = torch.rand(1, 1, 128, 128, requires_grad=True)
    heights = critic(x)
    middle = heights.shape[1] // 2
    (slope,) = torch.autograd.grad(heights[0, middle, middle], x)
    rows, columns = (slope[0, 0] != 0).nonzero(as_tuple=True)
    assert int(rows.max() - rows.min()) + 1 == patch == critic.patch_side
    assert int(columns.max() - columns.min()) + 1 == patch


def test_heights_move_with_the_image_away_from_the_borders():
    torch.manual_seed(0)
    critic = PatchCritic(3, 8, 2).double().eval()
    x = torch.rand(1, 3, 96, 96, dtype=torch.float64)
    heights, moved = critic(x), critic(x.roll((4, 8), (2, 3)))
    inner = slice(8, -8)
    assert (moved[:, inner, inner] - heights.roll((1, 2), (1, 2))[:, inner, inner]).abs().max() < (
        1e-12
    )
    assert (moved[:, inner, inner] - heights[:, inner, inner]).abs().max() > 1e-3


def test_an_image_without_a_patch_is_refused():
    with pytest.raises(ValueError, match=r"16x11 leave no patch.*at least 12, or fewer levels"):
        PatchCritic(3, 8, 2)(torch.rand(1, 3, 16, 11))
    assert PatchCritic(3, 8, 2)(torch.rand(1, 3, 12, 16)).shape == (1, 1, 2)
