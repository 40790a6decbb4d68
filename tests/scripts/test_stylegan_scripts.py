"""The commands of the grown GANs, beyond what their smoke presets do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.known.sprites import sprites
from generative.stylegan import ProGANConfig, StyleGAN2Config, StyleGANConfig
from scripts import explore, train_progan, train_stylegan, train_stylegan2
from scripts.certified import Settings
from scripts.certified import stylegan as certified
from scripts.explored import stylegan as explored

torch.set_num_threads(1)

SIZES = ((3, 32, 32), 8, 128, 8)
TINY = {
    "progan": (ProGANConfig(*SIZES), train_progan),
    "stylegan": (StyleGANConfig(*SIZES, style_dim=6, mapping_layers=2), train_stylegan),
    "stylegan2": (StyleGAN2Config(*SIZES, style_dim=6, mapping_layers=2), train_stylegan2),
}
STYLES = {"styles-coarse", "styles-middle", "styles-fine", "noise", "truncation"}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind == "stylegan2" else pytest.mark.nightly)
        for kind in TINY  # StyleGAN2 has every picture that the others have
    ],
)
def test_exploring_a_run(kind, tmp_path):
    config, script = TINY[kind]
    run = tmp_path / "run"
    script.main(replace(script.PRESETS["smoke"], out=run, model=config))
    folder = explore.main(replace(explore.PRESETS["smoke"], folder=run))
    found = json.loads((folder / "explore.json").read_text())
    assert all(np.isfinite(value) for value in found.values())
    pictures = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
    names = {"samples", "interpolation", "nearest", "growth", "reduced", "curves"}
    extra = STYLES if kind != "progan" else set()
    assert set(pictures) == names | extra | ({"contributions"} if kind == "stylegan2" else set())
    assert pictures["samples"].shape == (658, 658, 3)
    assert pictures["interpolation"].shape == (130, 658, 3)
    height, width, _ = pictures["growth"].shape
    assert height == 2 * 66 - 2
    assert width > 526  # with the steps
    if extra:
        assert pictures["styles-coarse"].shape == (7 * 66 - 2, 9 * 66 - 2, 3)
        assert pictures["noise"].shape == (6 * 66 - 2, 526, 3)
        assert {"peak_4", "peak_8", "peak_16", "peak_32"} <= set(found)
        assert 1 / 32**2 <= found["peak_32"] <= 1


@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_groups_of_layers_are_all_layers_once(side):
    with torch.device("meta"):
        gan = StyleGAN2Config((3, side, side), 8, 256, 8, style_dim=6).build()
    groups = explored.layer_groups(gan)
    layers = [i for group in groups.values() for i in group]
    assert layers == list(range(gan.generator.num_layers))
    assert groups["coarse"] == [0, 1, 2, 3]
    assert (groups.get("middle", []) == []) == (side == 16)


def test_fused_images_have_the_styles_of_their_row_and_column():
    gan = TINY["stylegan2"][0].build().eval()
    rows, columns = (gan.styles(torch.randn(n, 8)) for n in (2, 3))
    with torch.no_grad():
        matrix = explored.fused(gan, rows, columns, [0, 1]).unflatten(0, (3, 4))
        mixed = torch.cat([columns[2:, :2], rows[1:, 2:]], 1)
        torch.testing.assert_close(matrix[2, 3], gan.synthesise(mixed)[0])
        torch.testing.assert_close(matrix[0, 1:], gan.synthesise(columns))
        torch.testing.assert_close(matrix[1:, 0], gan.synthesise(rows))


def test_noise_is_left_out_of_each_side_in_turn():
    gan = TINY["stylegan"][0].build().eval()
    sides = gan.styled.noise_sides
    rows = explored.noise_on_and_off(gan, gan.draw_noise(5), 2)
    there = [[s for s, part in zip(sides, row, strict=True) if part is not None] for row in rows]
    assert there[0] == sides
    assert there[1] == []
    assert there[2:] == [[s for s in sides if s != without] for without in (4, 8, 16, 32)]
    assert all(len(part) == 2 for part in rows[0])


def test_reduced_images_are_means_of_blocks():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = explored.reduced(images)  # two rows, sides 4 and 8, each pixel 8 times
    assert picture.shape == (2 * 66 - 2, 2 * 66 - 2, 3)
    block = images[1, :, 2:4, 4:6].mean((1, 2)).mul(255).round()
    assert picture[20, 66 + 40].tolist() == block.byte().tolist()


def test_a_peak_is_the_share_of_the_largest_pixel():
    gan = TINY["stylegan2"][0].build().eval()

    class Droplet(torch.nn.Module):
        """An even map with one pixel of as much energy as all others together."""

        def forward(self, h, w, noise):
            out = torch.ones(len(w), 8, 4, 4)
            out[:, :, 1, 2] = 15**0.5
            return out

    gan.generator.layers[0] = Droplet()
    assert explored.peaks(gan, gan.styles(torch.randn(3, 8)))["peak_4"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 13}, r"steps is 13; 7 phases of 16 images in batches of 8 need 14"),
        ({"batch_size": 6}, r"batch_size is 6.*std_group 4.*multiple"),
    ],
)
def test_trainings_that_would_end_badly_are_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        replace(train_progan.PRESETS["smoke"], **change)


class Drawer:
    """Draws sprites by their factors, which are linear in z and not in w, the fifth root of z."""

    shape = (3, 32, 32)

    def __init__(self):
        self.everything = sprites()
        self.counts = torch.tensor([4, 6, 8, 8, 3])

    def double(self):
        return self

    float = double

    def draw_z(self, n, generator):
        return torch.rand(n, 5, generator=generator) * 2 - 1

    def styles(self, z):
        return (z.sign() * z.abs() ** 0.2)[:, None]

    def synthesise(self, w):
        place = ((w[:, 0].sign() * w[:, 0].abs() ** 5 + 1) / 2).clamp(0, 0.999999)
        factors = (place * self.counts).long()
        rows = np.ravel_multi_index(tuple(factors.T.numpy()), (4, 6, 8, 8, 3))
        return self.everything.as_tensor(rows, "cpu")

    def sample(self, n, generator):
        return self.synthesise(self.styles(self.draw_z(n, generator)))


def test_measures_of_a_generator_that_draws_sprites(tmp_path):
    drawer, settings = Drawer(), Settings(tmp_path, smoke=True)
    found = certified.measure(drawer, settings)
    assert (found.invalid, found.fragments) == (0, 0)
    assert found.unreached == pytest.approx(1 - 120 / 4608, abs=0.002)
    in_z, in_w = certified.linearity(drawer, settings)
    assert 0 < in_w < in_z < 1


def test_path_length_of_a_linear_generator(tmp_path):
    """Images A w move by |A (b - a)| on the whole way between a and b."""

    class Linear(Drawer):
        def styles(self, z):
            return z[:, None]

        def synthesise(self, w):
            return (w[:, 0] @ matrix).reshape(-1, 3, 32, 32)

    torch.manual_seed(0)
    matrix, settings = torch.randn(5, 3072).double(), Settings(tmp_path, smoke=True)
    found = certified.path_length(Linear(), settings, "w")
    ends = Linear().draw_z(80, torch.Generator().manual_seed(1)).double()
    expected = ((ends[40:] - ends[:40]) @ matrix).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-6)
