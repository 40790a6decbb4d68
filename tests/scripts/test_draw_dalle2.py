"""DALL.E 2 of three runs: presets that fit each other, columns, variations, and their shares."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from generative.known.captioned_scenes import CaptionedScenes
from generative.known.scene_scores import wilson
from generative.known.scenes import draw
from generative.nets.config import gpt2_block
from generative.text_to_image import DallE2
from generative.text_to_image.dalle2 import Columns
from scripts import draw_dalle2, train_clip, train_prior, train_text_to_image
from scripts.common.text_to_image import kept, load_dalle2
from tests.commands import run_script

torch.set_num_threads(1)

PRIOR = train_prior.PRESETS
FEW: dict[str, Any] = {"steps": 1, "log_every": 1, "threads": 1}


def trained_clip(folder, preset="scenes", **changed):
    args = replace(train_clip.PRESETS[preset], **FEW, batch_size=8, out=folder, **changed)
    train_clip.main(args)
    return folder


def trained_prior(folder, clip, preset="clip", **changed):
    few = {"batch_size": 8, "samples": 4, "fit_on": 64, **FEW, **changed}
    train_prior.main(replace(PRIOR[preset], **few, clip=clip, out=folder))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The real presets after each other, as the pages name them, for one step each."""
    folder = tmp_path_factory.mktemp("runs")
    clip = trained_clip(folder / "clip")
    decoder = replace(
        train_text_to_image.PRESETS["decoder"], **FEW, batch_size=4, samples=2, picture_every=1,
        scales=(1.0,), clip=clip, out=folder / "decoder",
    )  # fmt: skip
    train_text_to_image.main(decoder)
    return clip, trained_prior(folder / "prior", clip), decoder.out


def test_the_presets_make_one_system(runs):
    clip, prior, decoder = runs
    model = load_dalle2(None, prior, decoder)
    width = train_clip.PRESETS["scenes"].model.embed_dim
    assert model.decoder.embedding_dim == model.prior.embed_dim == width
    assert model.sample(["a red square"], steps=1).shape == (1, 3, 24, 24)
    # A preset needs no other widths than its own.
    assert model.prior.config == PRIOR["clip"].model
    preset = train_text_to_image.PRESETS["decoder"].model
    assert replace(model.decoder.config, words=()) == preset
    for name, weight in load_dalle2(clip, prior, decoder).clip.state_dict().items():
        assert torch.equal(model.clip.state_dict()[name], weight)


def test_priors_take_the_widths_of_their_clip(tmp_path):
    clip = trained_clip(tmp_path / "clip", "smoke")
    small = replace(PRIOR["clip-buckets"].model, components=3, buckets=4)
    for name, model in (("clip", PRIOR["clip"].model), ("clip-buckets", small)):
        folder = trained_prior(tmp_path / f"prior-{name}", clip, name, model=model)
        config = json.loads((folder / "model" / "config.json").read_text())["config"]
        assert [config[key] for key in ("embed_dim", "text_dim", "context_dim")] == [16, 16, 16]
    # Widths that somebody chose are not replaced.
    chosen = replace(PRIOR["clip"].model, embed_dim=48)
    wanted = "--model.embed-dim 16 --model.text-dim 16 --model.context-dim 16"
    with pytest.raises(ValueError, match=f"captions of 64 and tokens of 64; give {wanted}"):
        trained_prior(tmp_path / "other", clip, model=chosen)
    with pytest.raises(ValueError, match=r"give --model\.components 16 or less"):
        trained_prior(
            tmp_path / "third", clip, model=replace(PRIOR["clip-buckets"].model, components=20)
        )
    fits = replace(
        PRIOR["clip"].model, embed_dim=16, text_dim=16, context_dim=0, num_layers=1,
        block=gpt2_block(8, 2, dropout=0.0),
    )  # fmt: skip
    trained_prior(tmp_path / "fits", clip, model=fits)


def test_columns_variations_and_shares_of_the_command(runs, tmp_path):
    _, prior, decoder = runs
    report = tmp_path / "report.json"
    done = run_script(
        "draw_dalle2", "smoke", "--out", tmp_path / "run", "--prior", prior, "--decoder", decoder,
        "--report", report, "--edit", "a red square", "a blue square",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = {path.stem.rpartition("-")[0] for path in (tmp_path / "run" / "images").iterdir()}
    assert images == {"columns", "variations", "interpolation", "edit"}
    found = json.loads(report.read_text())["run"]["result"]
    assert list(found["columns"]) == ["caption", "text", "prior", "image"]
    assert found["columns"]["prior"]["rejected"] == list(wilson(4, 4))  # nothing was learned
    assert "| the prior's embedding | 0.0% (0.0% to" in done.stdout
    # The run's own folder draws again what the three runs drew.
    again = draw_dalle2.main(
        replace(draw_dalle2.PRESETS["smoke"], out=tmp_path / "again", system=tmp_path / "run")
    )
    picture = "images/interpolation-000000.png"
    assert (again / picture).read_bytes() == (tmp_path / "run" / picture).read_bytes()
    assert isinstance(DallE2.from_pretrained(again / "dalle2"), DallE2)


class Painter:
    """Draws the right scene with a prior, none without, and moves variations by a cell."""

    decoder = SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, world):
        self.world = world

    def columns(self, texts, random, draws, steps, scale):
        right = draw(self.world.scenes(texts, random))
        return Columns(torch.full_like(right, 0.5), draw(torch.full((len(texts), 9), 24)), right)

    def variations(self, images, num, random, texts=None, steps=None, scale=None):
        return images.roll(8, 2)[:, None] if texts is None else images[:, None]


def test_shares_of_a_perfect_system_and_of_blots():
    world: Any = CaptionedScenes()
    args = draw_dalle2.Args(samples=120)
    model: Any = Painter(world)
    found = draw_dalle2.scene_shares(args, model, world, torch.Generator().manual_seed(0))
    columns = found["columns"]
    assert columns["caption"]["satisfied"] == list(wilson(0, 120))
    assert columns["caption"]["rejected"] == list(wilson(120, 120))
    assert columns["text"]["rejected"][0] == 0  # an empty scene is one, of no caption
    assert columns["text"]["satisfied"][0] == 0
    for name in ("prior", "image"):
        assert columns[name]["satisfied"] == list(wilson(120, 120))
    assert found["variations"]["objects_kept"] == list(wilson(120, 120))
    assert found["variations"]["scene_kept"][0] == 0
    assert found["variations"]["rejected"][0] == 0
    assert found["pictures"] == 120
    assert "the prior's embedding | 100.0% (96.9% to 100.0%)" in draw_dalle2.describe(
        {"prior": "", **found}
    )
    assert draw_dalle2.describe({"prior": "DiffusionPrior"}) == "drawn with the DiffusionPrior"


def test_what_variations_keep():
    cells = torch.full((1, 9), 24)
    cells[0, 0], cells[0, 4] = 3, 7
    moved, changed = cells.roll(1, 1), cells.clone()
    changed[0, 0] = 4
    for other, objects, scene in ((cells, 1, 1), (moved, 1, 0), (changed, 0, 0)):
        found = {name: int(rows) for name, rows in kept(draw(other), cells).items()}
        assert found == {"objects_kept": objects, "scene_kept": scene, "rejected": 0}


def test_runs_that_do_not_belong_together_are_refused(runs, tmp_path):
    clip, prior, decoder = runs
    with pytest.raises(ValueError, match=r"clip holds a CLIP; pass --decoder with a run of"):
        load_dalle2(None, prior, clip)
    with pytest.raises(ValueError, match=r"decoder holds a ImageDecoder; pass --prior with a run"):
        load_dalle2(None, decoder, decoder)
    with pytest.raises(FileNotFoundError, match="pass --clip with that run"):
        load_dalle2(None, prior / "model", decoder / "model")
    strange = tmp_path / "prior"
    shutil.copytree(prior, strange)
    config = json.loads((strange / "config.json").read_text())
    config["settings"]["clip"] = str(tmp_path / "other")
    (strange / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="train both with the same --clip"):
        load_dalle2(None, strange, decoder)
    with pytest.raises(ValueError, match="give the caption before and the one after"):
        draw_dalle2.Args(edit=("a red square",))
