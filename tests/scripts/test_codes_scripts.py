"""The commands of VQ-VAE, VQ-GAN, VAE-GAN and priors of codes, beyond what smoke presets do."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.codes import (
    VQVAE,
    CodeTransformerConfig,
    FSQConfig,
    PatchCriticConfig,
    PriorConfig,
    QuantiserConfig,
    ViTVQGANConfig,
    VQGANConfig,
    VQVAEConfig,
)
from generative.known import scenes
from generative.known.sprites import sprites
from generative.nets.config import gpt2_block, vit_block
from generative.pixelcnn.config import GatedConfig
from generative.training.cli import parse
from generative.training.sizes import SizesAlone
from scripts import explore, train_code_prior, train_vqgan, train_vqvae
from scripts.common.codes import (
    all_codes,
    collapse,
    entropy_of,
    reconstruction_scores,
    sample_scores,
)
from scripts.common.images import load_images
from scripts.explored import codes as explored

torch.set_num_threads(1)
SCENE = (3, 24, 24)
SPRITE = (3, 32, 32)
TINY = {
    "sprites": lambda: VQVAEConfig(SPRITE, (4, 4, 4), 4, 1, QuantiserConfig(8, 4)),
    "VQVAE": lambda: VQVAEConfig(SCENE, (4, 4, 4), 4, 1, QuantiserConfig(8, 4)),
    "VQGAN": lambda: VQGANConfig(
        SCENE, 4, (1, 1), 1, (), QuantiserConfig(8, 4), PatchCriticConfig(4, 1)
    ),
    "ViTVQGAN": lambda: ViTVQGANConfig(
        SCENE, 8, 1, vit_block(8, 2), QuantiserConfig(8, 4, "cosine"), PatchCriticConfig(4, 1)
    ),
}


def saved(name: str, folder) -> None:
    torch.manual_seed(0)
    TINY[name]().build().save_pretrained(folder)


def pictures(folder) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


@pytest.mark.parametrize("name", ["VQVAE", "VQGAN", "ViTVQGAN"])
def test_exploring_codes(name, tmp_path):
    saved(name, tmp_path / "model")
    args = replace(
        explore.PRESETS["smoke"], folder=tmp_path / "model", pictures=tmp_path / "explore",
        data="scenes",
    )  # fmt: skip
    folder = explore.main(args)
    found = json.loads((folder / "explore.json").read_text())
    assert found["test_codes"] == 8
    assert 1 <= found["test_codes_used"] <= 8
    names = {"reconstructions", "code_maps", "uniform", "usage", "edits"}
    names |= {"VQGAN": {"patch_scores"}, "ViTVQGAN": {"patch_scores", "attention"}}.get(name, set())
    found = pictures(folder)
    assert set(found) == names
    rows_of = {"reconstructions": 2, "code_maps": 3, "uniform": 2, "patch_scores": 4}
    for name, rows in rows_of.items():
        if name in names:
            height, width, _ = found[name].shape
            assert height == rows * 50 - 2
            assert width > 2 * 50 - 2  # with labels


@pytest.mark.parametrize(
    "kind", [pytest.param("pixelcnn", marks=pytest.mark.nightly), "transformer"]
)
def test_a_prior_of_classes_from_its_command_to_its_pictures(kind, tmp_path):
    saved("sprites", tmp_path / "vqvae")
    network = {
        "pixelcnn": GatedConfig(hidden_dim=4, num_layers=1, embed_dim=4, num_classes=4),
        "transformer": CodeTransformerConfig(1, gpt2_block(8, 2), num_classes=4),
    }[kind]
    args = replace(
        train_code_prior.PRESETS["smoke"], out=tmp_path / "run", codes=tmp_path / "vqvae",
        data="sprites", network=network, label=("shape",), steps=2,
    )  # fmt: skip
    train_code_prior.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_nll"] > result["floor"] > 0
    assert result["uniform_valid"] <= 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert config["data"] == "sprites"
    folder = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "explore")
    )
    found = pictures(folder)
    larger = {"larger"} if kind == "transformer" else set()
    assert set(found) - {"curves"} == {"priors", "completion", "classes", *larger}
    for name, rows in {"priors": 3, "completion": 4, "classes": 4}.items():
        height, width, _ = found[name].shape
        assert height == rows * 66 - 2
        assert width > 2 * 66 - 2  # with labels


def test_a_begun_prior_goes_on_without_the_run_whose_codes_it_learns(tmp_path):
    saved("sprites", tmp_path / "vqvae")
    args = replace(
        train_code_prior.PRESETS["smoke"], out=tmp_path / "run", codes=tmp_path / "vqvae",
        data="sprites", steps=2,
    )  # fmt: skip
    train_code_prior.main(args)
    (tmp_path / "vqvae").rename(tmp_path / "elsewhere")
    model = train_code_prior.main(args)
    assert model == tmp_path / "run" / "model"


def test_what_a_prior_lacks_is_told(tmp_path):
    smoke = replace(train_code_prior.PRESETS["smoke"], out=tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="--codes with a run of `worldmodels train_vqvae "):
        train_code_prior.main(replace(smoke, codes=tmp_path / "nothing"))
    saved("VQVAE", tmp_path / "vqvae")
    with pytest.raises(ValueError, match=r"no run tells the data of .*vqvae; pass --data"):
        train_code_prior.main(replace(smoke, codes=tmp_path / "vqvae"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"label is \('shape',\) and num_classes 0"):
        replace(smoke, label=("shape",))


def test_a_critic_has_its_own_command():
    judged = VQVAEConfig(critic=PatchCriticConfig(4))
    with pytest.raises(ValueError, match="the model has a critic, which train_vqgan trains"):
        replace(train_vqvae.PRESETS["smoke"], model=judged)
    with pytest.raises(ValueError, match="the model has no critic; give it a PatchCriticConfig"):
        replace(train_vqgan.PRESETS["smoke"], model=VQVAEConfig())
    assert judged.build().critic is not None


def test_a_collapsed_list_is_told_with_what_to_set():
    def model(quantiser):
        return VQVAEConfig(SCENE, (4, 4, 4), 4, 1, quantiser).build()

    never = model(QuantiserConfig(64, 4, revive=0))
    said = collapse(never, 3)
    assert "collapsed: 3 of 64 are in use" in said
    assert "--model.quantiser.revive 20" in said
    told = collapse(model(QuantiserConfig(64, 4)), 3)
    for name in ("scenes-fsq", "sprites-fsq"):
        assert name in told
        assert name in train_vqvae.PRESETS
    assert "--model.quantiser.levels" in told
    assert "revive (it is 50)" in collapse(model(QuantiserConfig(64, 4, revive=50)), 6)
    assert collapse(never, 7) == ""
    assert collapse(model(FSQConfig((8, 8))), 1) == ""


@pytest.mark.parametrize(
    ("script", "name"),
    [(train_vqvae, "scenes-fsq"), (train_vqvae, "sprites-fsq"), (train_vqgan, "sprites-fsq")],
)
def test_codes_without_a_list_are_chosen_by_preset_and_flag(script, name):
    """The networks of the preset with a list, and as many codes, or nearly."""
    args, listed = (script.PRESETS[n] for n in (name, name.removesuffix("-fsq")))
    assert replace(args.model, quantiser=listed.model.quantiser) == listed.model
    codes, rows = args.model.quantiser.num_codes, listed.model.quantiser.num_codes
    assert 0.97 * rows < codes <= rows
    words = [name, "--model.quantiser.levels", "5", "4"]
    chosen = parse(script.PRESETS, script.DEFAULT_PRESET, argv=words)
    assert chosen.model.quantiser == FSQConfig((5, 4))


def test_codes_without_a_list_are_trained(tmp_path):
    args = replace(
        train_vqvae.PRESETS["sprites-fsq"], out=tmp_path / "run", max_images=60, steps=4,
        log_every=2, picture_every=4, batch_size=8,
        model=VQVAEConfig((3, 32, 32), (4, 8), 4, 1, FSQConfig((5, 5))),
    )  # fmt: skip
    model = VQVAE.from_pretrained(train_vqvae.main(args))
    assert model.num_codes == 25
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_codes"] == 25
    assert 1 <= result["test_codes_used"] <= 25
    assert math.isfinite(result["test_mse"])


@pytest.mark.parametrize("name", ["smoke-conv", "smoke-resnet"])
def test_each_network_of_a_vqgan_has_a_smoke_preset(name, tmp_path):
    args = replace(train_vqgan.PRESETS[name], out=tmp_path / "run", max_images=60, steps=4)
    args = replace(args, log_every=2, picture_every=4)
    model = VQVAE.from_pretrained(train_vqgan.main(args))
    assert model.config == args.model


def test_totals_of_the_presets_for_faces():
    """Of encoders and decoders, with the 1x1 convolutions beside the quantiser."""
    for name, totals in {
        "celeba": (6_704_576 + 131_584 // 2, 9_625_475 + 131_584 // 2),
        "celeba-vit": (4_813_088, 4_813_248),
    }.items():
        with torch.device("meta"), SizesAlone():
            model = train_vqgan.PRESETS[name].model.build()
        found = (sum(p.numel() for p in m.parameters()) for m in (model.encoder, model.decoder))
        assert tuple(found) == totals


@pytest.mark.parametrize(
    ("name", "millions", "levels"),
    [("paper", 72, [(128, 128), (128, 128), (128, 256), (256, 256), (256, 512)]),
     ("paper-vit", 172, [])],
)  # fmt: skip
def test_totals_of_the_published_codes(name, millions, levels):
    """In millions as published; and those of residual convolutions or Transformers by hand."""
    with torch.device("meta"), SizesAlone():
        model = train_vqgan.PRESETS[name].model.build()
    encoder, decoder, codes = (
        sum(p.numel() for p in part.parameters())
        for part in (model.encoder, model.decoder, model.quantiser)
    )
    assert round((encoder + decoder + codes) / 1e6) == millions
    if not levels:
        block = 12 * 768**2 + 13 * 768
        ends = 2 * 768 + 768 * 8 * 8 * 3 + 1024 * 768 + 768 * 32
        assert encoder == pytest.approx(12 * block + ends, rel=1e-4)
        return

    def conv(a, b, side=3):
        return side * side * a * b + b

    def residual(a, b):
        return 2 * a + conv(a, b) + 2 * b + conv(b, b) + (conv(a, b, 1) if a != b else 0)

    attention = 2 * 512 + 4 * conv(512, 512, 1)
    expected = conv(3, 128) + sum(residual(a, b) + residual(b, b) for a, b in levels)
    expected += sum(conv(b, b) for _, b in levels[:-1]) + 2 * attention
    expected += 2 * residual(512, 512) + attention + 2 * 512 + conv(512, 256) + conv(256, 256, 1)
    assert encoder == expected


@pytest.mark.parametrize(
    ("name", "codes", "published"),
    [("paper", (16, 16, 1024), 801e6), ("paper-vit", (32, 32, 8192), 650e6),
     ("paper-vit-large", (32, 32, 8192), 1.7e9)],
)  # fmt: skip
def test_totals_of_the_published_priors(name, codes, published):
    """Within 9 % of what is stated, that of faces within a thousandth; and by hand."""
    *grid, num = codes
    network = train_code_prior.PRESETS[name].network
    with torch.device("meta"), SizesAlone():
        prior = PriorConfig(tuple(grid), num, network).build()
    found = sum(p.numel() for p in prior.parameters())
    layers, dim = network.num_layers, network.block.dim
    by_hand = layers * (12 * dim**2 + 13 * dim) + (2 * num + grid[0] * grid[1]) * dim
    assert found == pytest.approx(by_hand, rel=1e-4)
    assert found == pytest.approx(published, rel=1e-3 if name == "paper" else 0.09)


def test_entropy_of_grids():
    grids = torch.arange(8).view(8, 1, 1)
    assert entropy_of(grids) == pytest.approx(math.log(8))
    grids[0] = grids[1]
    assert entropy_of(grids) == pytest.approx(math.log(8) - 2 * math.log(2) / 8)


def test_scenes_are_valid_with_two_objects_only():
    """In a set of images a black border of 4 makes 32x32 of them."""
    two, one = scenes.pairs()[::997], scenes.one_object()[::11]
    for border in (0, 4):
        assert sample_scores(scenes.draw(two, border), "scenes") == {"valid": 1.0}
        assert sample_scores(scenes.draw(one, border), "scenes") == {"valid": 0.0}
    everything = sprites()
    found = sample_scores(everything.thin(48).as_tensor(), "sprites")
    assert found == {"valid": 1.0, "reached": pytest.approx(48 / 4608)}
    assert sample_scores(torch.zeros(2, 1, 8, 8), "digits") == {}


@pytest.mark.parametrize("data", ["scenes", "sprites"])
def test_scores_of_a_model_that_gives_back_every_image(data, tmp_path):
    shape = (3, 32, 32)
    images = load_images(data, tmp_path, shape, max_images=60)
    known = images.as_tensor()

    class Copies(torch.nn.Module):
        num_codes = 60

        def encode(self, x):
            return torch.cdist(x.flatten(1), known.flatten(1)).argmin(1)[:, None, None]

        def decode(self, codes):
            return known[codes.flatten()]

    model = Copies()
    model.weight = torch.nn.Parameter(torch.zeros(1))
    found = reconstruction_scores(model, images, data)
    assert found["gradient_energy"] == pytest.approx(1)
    assert found["mse"] < 1e-9
    assert (found["codes_used"], found["codes"]) == (60, 60)
    assert found["perplexity"] == pytest.approx(60)
    assert found["objects_read" if data == "scenes" else "sprites_kept"] == found["valid"] == 1
    assert torch.equal(all_codes(model, images)[:, 0, 0], torch.arange(60))


def test_each_code_has_a_colour_of_its_own():
    maps = explored.code_maps(torch.arange(64).view(1, 8, 8), 64, (3, 8, 8))
    colours = maps[0].flatten(1).t()
    assert len(colours.mul(255).round().unique(dim=0)) == 64
