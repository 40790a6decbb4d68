"""The commands of the grown GANs, beyond what their smoke presets do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.known.sprites import sprites
from generative.stylegan import ProGANConfig, StyleGAN2Config, StyleGANConfig
from generative.training.pictures import image_grid
from scripts import explore, train_progan, train_stylegan, train_stylegan2
from scripts.certified import Settings
from scripts.certified import stylegan as certified
from scripts.explored import stylegan as explored
from scripts.explored.common import Subject

torch.set_num_threads(1)

SIZES = ((3, 32, 32), 8, 128, 8)
TINY = {
    "progan": (ProGANConfig(*SIZES), train_progan),
    "stylegan": (StyleGANConfig(*SIZES, style_dim=6, mapping_layers=2), train_stylegan),
    "stylegan2": (StyleGAN2Config(*SIZES, style_dim=6, mapping_layers=2), train_stylegan2),
}
STYLES = {"styles-coarse", "styles-middle", "styles-fine", "noise", "truncation", "droplets"}


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
        layers = len(config.build().styled.noise_sides)
        heights = {"styles-coarse": 7, "noise": 2 + layers, "truncation": 5, "reduced": 4}
        for name, rows in heights.items():
            height, width, _ = pictures[name].shape
            assert height == rows * 66 - 2
            # With labels.
            assert width > (9 if name == "styles-coarse" else 8) * 66 - 2
        assert {"peak_4", "peak_8", "peak_16", "peak_32"} <= set(found)
        assert 1 / 32**2 <= found["peak_32"] <= found["largest_peak_32"] <= 1


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


@pytest.mark.parametrize("kind", ["stylegan", "stylegan2"])
def test_noise_is_left_out_of_each_layer_in_turn(kind):
    gan = TINY[kind][0].build().eval()
    found = explored.noise_on_and_off(gan, gan.draw_noise(5), 2)
    there = [[part is not None for part in maps] for maps in found.values()]
    layers = len(gan.styled.noise_sides)
    assert there[0] == [True] * layers
    assert there[1] == [False] * layers
    assert there[2:] == [[i != without for i in range(layers)] for without in range(layers)]
    assert all(len(part) == 2 for part in found["all noise"])
    first = ["4x4, first", "4x4, second"] if kind == "stylegan" else ["4x4"]
    assert [name.removeprefix("without ") for name in found][2 : 2 + len(first)] == first
    assert list(found)[-1] == "without 32x32, second"


def test_reduced_images_are_means_of_blocks():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = explored.reduced(images)  # two rows, sides 4 and 8, each pixel 8 times
    margin = picture.shape[1] - (2 * 66 - 2)
    assert margin > 0  # the sides' names
    assert len(picture) == 2 * 66 - 2
    block = images[1, :, 2:4, 4:6].mean((1, 2)).mul(255).round()
    assert picture[20, margin + 66 + 40].tolist() == block.byte().tolist()


def test_a_peak_is_the_share_of_the_largest_pixel():
    gan = TINY["stylegan2"][0].build().eval()

    class Droplet(torch.nn.Module):
        """An even map with one pixel of as much energy as all others together."""

        def forward(self, h, w, noise):
            out = torch.ones(len(w), 8, 4, 4)
            out[:, :, 1, 2] = 15**0.5
            return out

    gan.generator.layers[0] = Droplet()
    found = explored.peaks(gan, gan.styles(torch.randn(3, 8)))
    assert found[4].mean == found[4].largest == pytest.approx(0.5)
    assert divmod(int(found[4].map.argmax()), 4) == (1, 2)
    assert {side: peak.map.shape for side, peak in found.items()} == {
        side: (side, side) for side in (4, 8, 16, 32)
    }


def test_the_map_with_the_largest_peak_is_kept():
    """Of all maps, images and layers, by going through every one of them."""
    torch.manual_seed(2)
    gan = TINY["stylegan"][0].build().eval()
    w, kept = gan.styles(torch.randn(3, 8)), {}

    def keep(_layer, _given, out):
        for one in out.flatten(0, 1):
            kept.setdefault(len(one), []).append(one)

    for layer in gan.generator.layers:
        layer.register_forward_hook(keep)
    found = explored.peaks(gan, w)
    for side, maps in kept.items():
        shares = [float(one.square().max() / one.square().sum()) for one in maps]
        assert found[side].largest == pytest.approx(max(shares))
        assert found[side].mean == pytest.approx(np.mean(shares))
        assert torch.equal(found[side].map, maps[int(np.argmax(shares))])


def saved(kind, folder):
    torch.manual_seed(1)
    TINY[kind][0].build().save_pretrained(folder)
    return folder


def test_droplets_of_two_gans_stand_beside_each_other(tmp_path):
    args = replace(
        explore.PRESETS["smoke"],
        folder=saved("stylegan2", tmp_path / "second"),
        pictures=tmp_path / "explore",
        data="sprites",
    )
    beside = replace(args.stylegan, beside=saved("stylegan", tmp_path / "first"))
    explore.main(replace(args, stylegan=beside))
    found = json.loads((tmp_path / "explore" / "explore.json").read_text())
    size = Image.open(tmp_path / "explore" / "droplets.png").size
    explore.main(replace(args, folder=tmp_path / "first"))
    alone = json.loads((tmp_path / "explore" / "explore.json").read_text())
    for side in (4, 8, 16, 32):
        assert 1 / side**2 <= found[f"beside_peak_{side}"] <= found[f"beside_largest_peak_{side}"]
        assert found[f"peak_{side}"] != alone[f"peak_{side}"] != found[f"beside_peak_{side}"]
    assert Image.open(tmp_path / "explore" / "droplets.png").size[1] < size[1]  # a row less


@pytest.mark.parametrize(("first", "second"), [("stylegan", "progan"), ("progan", "stylegan")])
def test_maps_are_compared_only_of_gans_with_styles(first, second, tmp_path):
    args = replace(
        explore.PRESETS["smoke"],
        folder=saved(first, tmp_path / first),
        pictures=tmp_path / "explore",
        data="sprites",
        stylegan=explored.Settings(beside=saved(second, tmp_path / second)),
    )
    with pytest.raises(ValueError, match=r"progan holds a ProGAN, .*no styles.*pass runs of train"):
        explore.main(args)
    assert not (tmp_path / "explore").exists()


def test_growth_shows_pictures_of_all_sides_with_their_stages(tmp_path):
    """Beyond a side of 64 pictures of small sides are smaller than the last, and are enlarged."""
    gan = ProGANConfig((3, 128, 128), 8, 128, 8).build()
    rows = {4: 16, 64: 1, 128: 1}
    for number, (side, scale) in enumerate(rows.items()):
        images = torch.zeros(64, 3, side, side)
        images[1, number] = 1
        path = tmp_path / "images" / f"samples-{8 * number + 4:06d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image_grid(images, 8, scale)).save(path)
    settings = {"loss": {"phase_images": 16}, "batch_size": 10}
    subject = Subject(
        gan, tmp_path, tmp_path, settings, "folder", tmp_path, tmp_path, "cpu", seed=1
    )
    picture = explored.growth(subject)
    assert len(picture) == 3 * 130 - 2
    margin = picture.shape[1] - (8 * 130 - 2)
    for number in range(3):
        row = picture[130 * number : 130 * number + 128, margin:]
        assert (row[:, 130:258] == [255 * (number == i) for i in range(3)]).all()
        assert (row[:, :128] == 0).all()
    # 40 images of phases of 16: half of the third phase, which trains side 8.
    assert explored.stage_label(subject, 4) == "step 4: 8x8"
    assert explored.stage_label(subject, 2) == "step 2: 8x8, alpha 0.25"
    assert explored.stage_label(subject, 1200) == "step 1,200: 128x128"
    assert explored.stage_label(replace(subject, settings={}), 1200) == "step 1,200"


def test_recall_of_even_draws_is_what_draws_of_known_images_reach():
    known = sprites().thin(300)
    rows = np.random.default_rng(0).integers(len(known), size=400)
    found = explored.reached(known.as_tensor(rows), known)
    assert found["precision"] == 1
    assert found["recall"] == len(set(rows)) / len(known)
    assert found["recall_of_even_draws"] == pytest.approx(found["recall"], abs=0.05)


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


def test_stylegan2_is_not_asked_to_grow():
    smoke = train_stylegan2.PRESETS["smoke"]
    with pytest.raises(ValueError, match=r"loss\.phase_images is 16.*does not grow: give 0"):
        replace(smoke, loss=replace(smoke.loss, phase_images=16))
