"""Vision Transformer: totals of publications, and what a permutation of patches may change."""

import pytest
import torch

from generative.nets.vit import PatchDecoder, ViT, ViTConfig, vit_block

torch.set_num_threads(1)
TINY = ViTConfig((3, 12, 8), 4, 2, vit_block(16, 2))


def test_totals_are_those_of_clips_image_encoder():
    """Without bias on patches, with class token and a norm before the blocks, and the projection of
    64 x 64 that follows it."""
    with torch.device("meta"):
        clip = ViT(ViTConfig((3, 32, 32), 8, 2, vit_block(64, 2), True, True, patch_bias=False))
    assert sum(p.numel() for p in clip.parameters()) + 64 * 64 == 117_760


def test_patches_with_their_positions_can_be_permuted():
    torch.manual_seed(0)
    vit, x = ViT(TINY).double(), torch.rand(2, 3, 12, 8, dtype=torch.float64)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)  # (B, C, T, 4, 4)
    mixed = patches[:, :, order].unflatten(2, (3, 2)).permute(0, 1, 2, 4, 3, 5)
    tokens = vit(x)
    assert not torch.allclose(vit(mixed.reshape(2, 3, 12, 8)), tokens[:, order])
    with torch.no_grad():
        vit.positions.copy_(vit.positions[order])
    torch.testing.assert_close(vit(mixed.reshape(2, 3, 12, 8)), tokens[:, order])


def test_patches_are_linear_maps_of_their_pixels():
    torch.manual_seed(0)
    vit, x = ViT(TINY), torch.rand(1, 3, 12, 8)
    found = vit.patches(x).flatten(2).transpose(1, 2)[0, 3]
    pixels = x[0, :, 4:8, 4:8].flatten()
    torch.testing.assert_close(found, vit.patches.weight.flatten(1) @ pixels + vit.patches.bias)


def test_a_class_token_stands_in_front():
    vit = ViT(ViTConfig((3, 12, 8), 4, 1, vit_block(16, 2), class_token=True))
    maps = []
    assert vit(torch.rand(2, 3, 12, 8), maps).shape == (2, 7, 16)
    assert maps[0].shape == (2, 2, 7, 7)
    torch.testing.assert_close(maps[0].sum(-1), torch.ones(2, 2, 7))


def test_decoded_patches_stand_where_they_belong():
    torch.manual_seed(0)
    decoder = PatchDecoder(TINY, 5)
    vectors = torch.randn(1, 6, 5)
    image = decoder(vectors)
    assert image.shape == (1, 3, 12, 8)
    tokens = decoder.tokens(vectors) + decoder.positions
    for block in decoder.blocks:
        tokens = block(tokens)
    pixels = decoder.last(decoder.norm(tokens))[0]
    for place, (row, column) in enumerate((r, c) for r in range(3) for c in range(2)):
        patch = image[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(patch, pixels[place].view(3, 4, 4))


def test_a_patch_has_to_divide_the_sides():
    with pytest.raises(ValueError, match=r"patch 5; give a patch that divides"):
        ViTConfig((3, 32, 32), 5)
