"""Training and exploring image VAEs, beyond what the smoke preset of training does."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.known.sprites import sprites
from generative.training.cli import parse
from generative.vae import VAE, LinearVAE
from generative.vae.config import ImageVAEConfig, ImageVAELossConfig, LinearVAEConfig
from scripts import explore, train_image_vae
from scripts.explored import vae as explored
from scripts.explored.vae import attribute_vector, default_attributes, has_attribute

torch.set_num_threads(1)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def plane_model(tmp_path_factory):
    """A tiny VAE with a code of two numbers, for 3x32x32."""
    folder = tmp_path_factory.mktemp("models") / "plane"
    torch.manual_seed(0)
    ImageVAEConfig((3, 32, 32), latent_dim=2, channels=(4, 8)).build().save_pretrained(folder)
    return folder


def test_digits_in_black_and_white_are_scored_by_two_bounds(tmp_path):
    args = replace(
        train_image_vae.PRESETS["digits"],
        out=tmp_path / "run",
        model=ImageVAEConfig((1, 8, 8), 2, channels=(), hidden_dim=8, prior_components=2),
        loss=ImageVAELossConfig(num_draws=3),
        steps=30,
        batch_size=16,
        log_every=30,
        score_draws=20,
        score_images=150,
    )
    model = VAE.from_pretrained(train_image_vae.main(args))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    # No better than 64 log 2 nats by throwing coins, and more draws are not worse.
    assert 15 < result["test_nats"] < result["test_elbo_nats"] < 64 * np.log(2) + 1
    assert result["test_recon"] + result["test_kl"] == pytest.approx(
        result["test_elbo_nats"], abs=1.5
    )
    assert model.config == args.model
    picture = read(tmp_path / "run" / "images" / "reconstructions-000030.png")
    assert picture.shape[0] == 2 * 64 + 2


def test_threshold_makes_two_levels():
    images = train_image_vae.black_and_white(sprites()[:50], 100)
    np.testing.assert_array_equal(images.images == 1, sprites().images[:50] >= 100)
    assert images.levels == 2
    assert set(np.unique(images.as_tensor().numpy())) == {0.0, 1.0}


@pytest.mark.parametrize("preset", train_image_vae.PRESETS)
def test_every_preset_makes_a_model_that_learns(preset):
    """One step on random images of its shape, with its loss."""
    from generative.vae import ImageVAELearner

    args = train_image_vae.PRESETS[preset]
    torch.manual_seed(0)
    learner = ImageVAELearner(args.model.build(), args.loss, args.steps)
    values = learner.update(torch.rand(4, *args.model.image_shape))
    assert all(value.isfinite() for value in values.values())


def test_explore_draws_everything(tmp_path, plane_model):
    out = tmp_path / "pictures"
    smoke = explore.PRESETS["smoke"]
    explore.main(replace(smoke, folder=plane_model, pictures=out, data="sprites"))
    names = {path.stem for path in out.glob("*.png")}
    always = {"attributes", "histograms", "morphs", "reconstructions", "samples"}
    assert names == always | {"decoded-plane", "plane"}
    assert read(out / "samples.png").shape == (3 * 64 + 2 * 2, 10 * 64 + 9 * 2, 3)
    assert read(out / "attributes.png").shape == (2 * 64 + 2, 9 * 64 + 8 * 2, 3)
    assert read(out / "morphs.png").shape == (64, 11 * 64 + 10 * 2, 3)
    found = json.loads((out / "explore.json").read_text())
    assert found["images"] == 200
    assert set(found["edits"]) == {"colour=0", "size=2"}
    assert all(0 <= share <= 1 for edit in found["edits"].values() for share in edit.values())


def test_explore_of_images_without_factors(tmp_path, plane_model):
    """There is nothing to add or take away then; the other pictures are made."""
    for i in range(20):
        Image.fromarray(np.full((32, 32, 3), 10 * i, np.uint8)).save(tmp_path / f"{i}.png")
    pictures = tmp_path / "pictures"
    args = explore.Args(
        plane_model, pictures, data="folder", data_dir=tmp_path, vae=explored.Settings(morphs=2)
    )
    explore.main(args)
    names = {path.stem for path in pictures.glob("*.png")}
    assert "attributes" not in names
    assert {"morphs", "plane", "histograms"} <= names
    assert read(pictures / "morphs.png").shape[0] == 64  # two images to test with, one pair


@pytest.mark.nightly
def test_a_linear_vae_and_one_of_a_world_model_are_explored_too(tmp_path):
    """Of the committed V no data are at hand: it shows samples."""
    torch.manual_seed(0)
    LinearVAE(LinearVAEConfig((1, 8, 8), 2)).save_pretrained(tmp_path / "linear")
    few = explore.Args(vae=explored.Settings(max_images=200, morphs=1))
    explore.main(
        replace(few, folder=tmp_path / "linear", pictures=tmp_path / "pictures", data="digits")
    )
    assert (tmp_path / "pictures" / "plane.png").exists()
    vision = "pretrained/carracing-dream/vision"
    explore.main(explore.Args(Path(vision), tmp_path / "dreamt"))
    assert [path.name for path in (tmp_path / "dreamt").iterdir()] == ["samples.png"]
    assert read(tmp_path / "dreamt" / "samples.png").shape == (3 * 64 + 4, 10 * 64 + 18, 3)
    (tmp_path / "images").mkdir()
    for i in range(20):
        image = Image.fromarray(np.full((64, 64, 3), 10 * i, np.uint8))
        image.save(tmp_path / "images" / f"{i}.png")
    args = replace(few, folder=Path(vision), pictures=tmp_path / "frames")
    explore.main(replace(args, data="folder", data_dir=tmp_path / "images"))
    names = {path.stem for path in (tmp_path / "frames").glob("*.png")}
    assert names == {"reconstructions", "samples", "morphs", "histograms"}


def test_morphs_begin_and_end_with_the_images(plane_model):
    model, images = VAE.from_pretrained(plane_model), sprites()[:4]
    with torch.no_grad():
        (row, _) = explored.morph_rows(model, images, 2)
        ends = images.as_tensor(slice(2))
        assert torch.equal(row[[0, -1]], ends)
        torch.testing.assert_close(row[[1, -2]], model.reconstruct(ends))
        middle = model.encode_mu_logvar(ends)[0].mean(0, keepdim=True)
        torch.testing.assert_close(row[len(row) // 2][None], model.decode(middle))


def test_attribute_vector_is_a_difference_of_means():
    images = sprites()
    codes = torch.from_numpy(images.factors).float()  # a code that is the factors themselves
    vector = attribute_vector(codes, images, "size=2")
    # Sizes 0, 1, 2: mean 2 with the attribute, mean 1/2 without; nothing else changes.
    torch.testing.assert_close(vector, torch.tensor([0.0, 0.0, 0.0, 0.0, 1.5]))
    assert default_attributes(images) == ("shape=3", "colour=5", "x=7", "y=7", "size=2")
    assert has_attribute(images, "size").sum() == len(images) / 3  # size=1


def test_edits_of_a_perfect_model_are_perfect(monkeypatch):
    """A stand-in whose code is the sprite's factors and whose decoder draws them."""
    images = sprites()
    table = images.as_tensor()
    strides = torch.tensor([6 * 8 * 8 * 3, 8 * 8 * 3, 8 * 3, 3, 1])

    class Perfect:
        def decode(self, z):
            return table[(z.round().long() * strides).sum(1)]

    factors = images.factors
    monkeypatch.setattr(
        explored,
        "encode_all",
        lambda model, some: (torch.from_numpy(some.factors).float(), None),
    )
    red_and_green = images[(factors[:, 1] <= 1) & (factors[:, 0] == 0)]
    direction = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    found = explored.edited_sprites(Perfect(), red_and_green, "colour=1", direction)
    assert found == {"reached": 1.0, "others_kept": 1.0, "start": 1.0}


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("hat", "no factor 'hat'; shape, colour, x, y, size"),
        ("size=big", "value 'big'"),
        ("size=7", "0 of 4608 images have 'size=7'.*values 0 to 2"),
    ],
)
def test_attributes_that_are_not_there(attribute, message):
    with pytest.raises(ValueError, match=message):
        has_attribute(sprites(), attribute)


def test_explore_by_command_line_takes_attributes():
    words = ["runs/vae", "--vae.attributes", "colour=1", "shape=0", "--vae.reach", "2"]
    args = parse(explore.PRESETS, explore.DEFAULT_PRESET, argv=words)
    assert args.folder == Path("runs/vae")
    assert args.vae == explored.Settings(attributes=("colour=1", "shape=0"), reach=2.0)
    with pytest.raises(ValueError, match="morphs is 0"):
        replace(args.vae, morphs=0)
