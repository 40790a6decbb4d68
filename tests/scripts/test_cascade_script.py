"""Cascades from runs: what is saved, drawn and judged, and what does not fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generative.diffusion import ScheduleConfig
from generative.known.captioned_scenes import CaptionedScenes
from generative.known.captions import WORDS
from generative.known.config import CaptionMix
from generative.known.scene_scores import wilson
from generative.known.scenes import EMPTY, draw
from generative.nets.config import ConditionalUNetConfig, clip_block
from generative.text_to_image import (
    Cascade,
    GLIDEConfig,
    TextEncoderConfig,
    Upsampler,
    UpsamplerConfig,
    shrink,
)
from scripts import draw_cascade, explore, train_text_to_image
from scripts.common.captions import load_pairs
from scripts.common.small_scenes import read_small, small_accuracy
from scripts.explored import text_to_image as explored

torch.set_num_threads(1)

TEXT = TextEncoderConfig(64, 24, 1, clip_block(8, 2), causal=False)
NETWORK = ConditionalUNetConfig(
    8, (1,), attention=(0,), head_dim=8, context_dim=8, vector_dim=8, patch=2
)
SMALL = GLIDEConfig((3, 6, 6), (), TEXT, NETWORK, ScheduleConfig(), "data", 2)
LARGE = UpsamplerConfig(
    (3, 24, 24), (), TEXT, replace(NETWORK, patch=8, told_level=True), ScheduleConfig(), "data", 2,
    factor=4, most_noise=0.2,
)  # fmt: skip
SMOKE = replace(train_text_to_image.PRESETS["smoke"], steps=1, batch_size=2, samples=2, log_every=1,
                picture_every=1, threads=1)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """A base of small scenes, and an upsampler."""
    folder = tmp_path_factory.mktemp("runs")
    for name, model in (("base", SMALL), ("upsampler", LARGE)):
        train_text_to_image.main(replace(SMOKE, model=model, noises=(0.1,), out=folder / name))
    return folder / "base", folder / "upsampler"


def args_of(runs, out, **changes) -> draw_cascade.Args:
    base, upsampler = runs
    return replace(
        draw_cascade.PRESETS["smoke"], base=base, upsamplers=(upsampler,), out=out, threads=1,
        **changes,
    )  # fmt: skip


def test_a_cascade_is_saved_drawn_and_judged(runs, tmp_path):
    args = args_of(
        runs, tmp_path / "run", noises=(0.0, 0.1), report=tmp_path / "report.json",
        picture=tmp_path / "picture.png",
    )  # fmt: skip
    folder = draw_cascade.main(args)
    cascade = Cascade.from_pretrained(folder)
    known = draw_cascade.load_cascade(args.base, args.upsamplers)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    drawn = [
        model.sample(["a red square"], generator)
        for model, generator in zip((cascade, known), generators, strict=True)
    ]
    assert torch.equal(*drawn)
    found = json.loads((args.out / "result.json").read_text())
    for what in ("satisfied", "rejected"):
        for of in ("by_base", "at_noise_0", "at_noise_0.1", "at_noise_0_of_real"):
            share = found[f"{what}_{of}"]
            expected = wilson(round(2 * share), 2)
            assert (found[f"{what}_{of}_low"], found[f"{what}_{of}_high"]) == expected[1:]
    reported = json.loads((tmp_path / "report.json").read_text())["run"]["result"]
    assert reported.items() <= found.items()
    picture = np.asarray(Image.open(tmp_path / "picture.png"))
    # Two captions below each other; the small image and one for each of two noises side by side.
    assert picture.shape[0] > 2 * 96
    assert picture.shape[1] > 3 * 96
    # Once more, the finished run gives its picture out again.
    again = replace(args, picture=tmp_path / "again.png")
    assert draw_cascade.main(again) == folder
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "picture.png").read_bytes()


def test_the_presets_fit_each_other():
    presets = train_text_to_image.PRESETS
    base, upsampler = (presets[name].model.build() for name in ("scenes-small", "upsampler"))
    assert isinstance(upsampler, Upsampler)
    cascade = Cascade(base, [upsampler])
    assert cascade.image_shape == draw_cascade.SCENE
    assert max(draw_cascade.PRESETS["scenes"].noises) <= cascade.most_noises[0]
    assert draw_cascade.PRESETS["scenes"].base == presets["scenes-small"].out


def test_prompts_are_drawn_of_any_data(runs, tmp_path):
    base = tmp_path / "base"
    replace(SMALL, words=WORDS).build().save_pretrained(base / "model")
    settings = {"format": 1, "kind": "train_text_to_image", "settings": {"data": "folder"}}
    (base / "config.json").write_text(json.dumps(settings))
    args = args_of((base, runs[1]), tmp_path / "run")
    with pytest.raises(ValueError, match=r"not trained on scenes.*pass --prompts"):
        draw_cascade.main(args)
    draw_cascade.main(replace(args, prompts=("a red square",), out=tmp_path / "other"))
    found = json.loads((tmp_path / "other" / "result.json").read_text())
    assert not any("satisfied" in name for name in found)
    assert (tmp_path / "other" / draw_cascade.PICTURE_NAME).exists()


def test_an_ideal_cascade_is_always_right():
    """A base of the right small scenes, and an upsampler that reads them or black ones."""
    world, generator = CaptionedScenes(), torch.Generator().manual_seed(0)

    class Base:
        device = torch.device("cpu")

        def sample(self, texts, generator, scale):
            return shrink(draw(world.scenes(texts, generator)), 4)

    class Ideal:
        base = Base()

        def enlarge(self, low, texts, generator, scale, noise):
            cells = read_small(low)[0].cells
            return [draw(cells if noise < 0.1 else torch.full_like(cells, EMPTY))]

    args = draw_cascade.Args(samples=20, noises=(0.0, 0.1))
    stand_in: Any = Ideal()
    found = draw_cascade.judged(stand_in, world, args, generator)
    for name in ("by_base", "at_noise_0", "at_noise_0_of_real"):
        assert (found[f"satisfied_{name}"], found[f"rejected_{name}"]) == (1, 0)
    assert (found["satisfied_at_noise_0.1"], found["rejected_at_noise_0.1"]) == (0, 0)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_small_scenes_are_read_without_error(factor):
    world, generator = CaptionedScenes(), torch.Generator().manual_seed(0)
    texts, cells = world.draw(100, generator)
    small = shrink(draw(cells), factor)
    reading, apart = read_small(small)
    assert torch.equal(reading.cells, cells)
    assert float(reading.residual.max()) < 1e-6
    # Below `apart` no cell is read wrongly, whatever its error is.
    error = torch.randn(small.shape, generator=generator)
    side = small.shape[-1] // 3
    tiles = error.unflatten(3, (3, side)).unflatten(2, (3, side))
    size = tiles.square().mean((1, 3, 5), keepdim=True).sqrt()
    error = (tiles / size).flatten(4, 5).flatten(2, 3)
    assert torch.equal(read_small(small + 0.99 * apart * error)[0].cells, cells)
    right = small_accuracy(small + 0.4 * apart * error, texts)
    assert (right.satisfied.share, right.rejected.share) == (1, 0)
    assert small_accuracy(small + 0.6 * apart * error, texts).rejected.share == 1
    assert small_accuracy(small.flip(0), texts).satisfied.share < 0.2


def test_pairs_of_small_scenes_are_shrunk_ones():
    shapes = (3, 24, 24), (3, 6, 6)
    whole, small = (load_pairs("scenes", Path(), shape, CaptionMix()) for shape in shapes)
    assert small.image_shape == (3, 6, 6)
    (x, texts, fits), (y, same, agree) = (
        pairs.draw(5, torch.Generator().manual_seed(1)) for pairs in (whole, small)
    )
    assert texts == same
    assert torch.equal(fits, agree)
    assert torch.equal(y, torch.nn.functional.avg_pool2d(x, 4))
    with pytest.raises(ValueError, match=r"scenes has images \(3, 24, 24\)"):
        load_pairs("scenes", Path(), (3, 6, 6), CaptionMix(), small=False)


def test_small_scenes_are_explored(runs, tmp_path):
    few = explored.Settings(images=2, scales=(1.0,), steps=(1,), strengths=(0.5,))
    explore.main(explore.Args(runs[0], pictures=tmp_path, text_to_image=few))
    assert (tmp_path / "prompts.png").exists()


@pytest.mark.parametrize(
    ("which", "changes", "message"),
    [
        ((1, 1), {}, r"holds a Upsampler, which draws no image.*--base"),
        ((0, 0), {}, "holds a GLIDE, which enlarges no image; pass --upsamplers"),
        ((0, 1), {"noises": (0.1, 0.3)}, r"up to 0\.3, and .* at most 0\.2; pass --noises"),
    ],
)
def test_runs_that_cannot_be_a_cascade(runs, tmp_path, which, changes, message):
    chosen = tuple(runs[i] for i in which)
    with pytest.raises(ValueError, match=message):
        draw_cascade.main(args_of(chosen, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "model").exists()


def test_sides_that_do_not_fit(runs, tmp_path):
    base, upsampler = runs
    args = replace(args_of(runs, tmp_path / "run"), upsamplers=(upsampler, upsampler))
    with pytest.raises(ValueError, match=r"upsampler 2 takes images \(3, 6, 6\).*draws \(3, 24, 2"):
        draw_cascade.main(args)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        draw_cascade.main(args_of((tmp_path / "nowhere", upsampler), tmp_path / "other"))
    assert not base.samefile(upsampler)
