"""The commands of text-to-image models, beyond what smoke presets do."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from generative.codes.config import VQVAEConfig
from generative.diffusion import Diffusion, ScheduleConfig, scalings, signal_and_noise
from generative.known.captioned_scenes import CaptionedScenes
from generative.known.captions import WORDS, paraphrases
from generative.known.config import CaptionMix
from generative.known.scenes import EMPTY, draw, pairs, read
from generative.loading import load_model
from generative.nets.config import clip_block
from generative.text_to_image import (
    ConditionalDiTConfig,
    ConditionalUNetConfig,
    GLIDEConfig,
    ImageDecoder,
    ImageDecoderConfig,
    ImagenConfig,
    KLAutoencoderConfig,
    LatentDiffusionConfig,
    TextEncoderConfig,
    UpsamplerConfig,
    edges,
    shrink,
)
from generative.training.settings import from_json, to_json
from scripts import (
    explore,
    train_caption_reader,
    train_clip,
    train_controlnet,
    train_kl_autoencoder,
    train_latent_diffusion,
    train_text_to_image,
)
from scripts.certified.text_to_image import multiply_adds
from scripts.common.captions import load_pairs
from scripts.common.text_to_image import (
    detected,
    exact_denoiser,
    exact_of,
    exact_sampler,
    exact_sampler_of,
    scene_gaps,
    told_levels,
    upsampled,
    varied,
)
from scripts.explored import text_to_image as explored

torch.set_num_threads(1)

SCENE = (3, 24, 24)
TEXT = TextEncoderConfig(64, 24, 1, clip_block(8, 2), causal=False)
NETWORK = ConditionalUNetConfig(8, (1,), attention=(0,), head_dim=8, context_dim=8, vector_dim=8)
PATCHES = replace(NETWORK, patch=8)
SMOKE = replace(train_text_to_image.PRESETS["smoke"], steps=2, batch_size=4, log_every=1,
                picture_every=2, threads=1)  # fmt: skip
GLIDE = GLIDEConfig(SCENE, (), TEXT, PATCHES, ScheduleConfig(), "data", 2)
UPSAMPLER = UpsamplerConfig(
    SCENE, (), TEXT, replace(PATCHES, told_level=True), ScheduleConfig(), "data", 2, factor=4
)
LATENT = LatentDiffusionConfig(
    KLAutoencoderConfig(SCENE, 4, (1, 1, 1, 1), 1, channels=2), (), TEXT, NETWORK,
    ScheduleConfig(), "velocity", 2,
)  # fmt: skip


def loaded(folder) -> Any:
    """The model of a folder."""
    return load_model(folder)


def stand_in(model: object) -> Any:
    """What has no more of a model than is asked of it."""
    return model


def result(run) -> dict[str, float]:
    return json.loads((run / "result.json").read_text())


def looks(run, tmp_path, **settings) -> set[str]:
    """Names of the pictures that are drawn of a run."""
    few = explored.Settings(images=2, scales=(1.0, 2.0), steps=(1,), strengths=(0.5,), **settings)
    explore.main(explore.Args(run, pictures=tmp_path / "pictures", text_to_image=few))
    return {path.stem for path in (tmp_path / "pictures").glob("*.png")}


def test_an_upsampler_of_scenes(tmp_path):
    args = replace(SMOKE, model=UPSAMPLER, out=tmp_path / "run", noises=(0.0, 0.2), samples=3)
    train_text_to_image.main(args)
    found = result(tmp_path / "run")
    # Without noise the small cell tells all; with it, no sampler is right more often.
    assert found["possible_at_noise_0"] == pytest.approx(1, abs=1e-6)
    assert found["possible_at_noise_0.2"] < 0.9
    assert 0 <= found["right_at_noise_0.2"] <= 1
    assert {"seen", "prompts", "film"} <= looks(tmp_path / "run", tmp_path)


@pytest.mark.parametrize(("scenes", "missing"), [("train", 4), ("all", 0)])
def test_what_is_enlarged_are_objects_that_were_shown(scenes, missing):
    """A perfect upsampler, which knows the scene, is right about all; and the posterior too."""
    source: Any = load_pairs("scenes", Path(), (3, 24, 24), CaptionMix(), scenes=scenes)
    world = source.world
    shown = set(world.draw(2000, torch.Generator().manual_seed(1))[1].flatten().tolist())
    assert len(set(range(24)) - shown) == missing
    small = []

    class Perfect:
        device, factor = torch.device("cpu"), 4

        def sample(self, n, generator, low, noise):
            small.append(low)
            known = pairs()
            found = torch.cdist(low.flatten(1), shrink(draw(known), 4).flatten(1))
            return draw(known[found.argmin(1)])

    perfect: Any = Perfect()
    found = upsampled(perfect, world, [0.0], torch.Generator().manual_seed(2), 200)
    assert found == pytest.approx(
        {"right_at_noise_0": 1, "rejected_at_noise_0": 0, "possible_at_noise_0": 1}, abs=1e-6
    )
    enlarged = read(perfect.sample(200, None, small[0], 0.0)).cells
    assert set(enlarged.flatten().tolist()) == shown


def test_a_reader_says_captions_in_other_words(tmp_path):
    """Of emoji there are none, and their T5 only fills in; so did those of older runs."""
    both = {}
    for data, shape in (("scenes", (3, 24, 24)), ("emoji", (3, 32, 32))):
        args = replace(
            train_caption_reader.PRESETS["smoke"], out=tmp_path / data, data=data,
            image_shape=shape, max_images=20, steps=2, log_every=1, threads=1,
        )  # fmt: skip
        train_caption_reader.main(args)
        both[data] = {name.partition("_")[0] for name in result(args.out)}
    assert {"test", "rewording"} <= both["scenes"]
    assert "rewording" not in both["emoji"]
    looked = explore.PRESETS["smoke"]
    for data in both:
        pictures = explore.main(replace(looked, folder=tmp_path / data))
        assert {path.name for path in pictures.glob("*.png")} >= {"gaps.png", "closest.png"}
        found = json.loads((pictures / "explore.json").read_text())
        assert {len(words) for words in found["gaps"].values()} == {5}
        assert ("rewordings" in found) == (data == "scenes")
    prompts = ("a [MASK] disc left of [MASK] square", "a red disc")
    chosen = replace(looked.caption_reader, prompts=prompts)
    chosen = replace(looked, folder=tmp_path / "scenes", caption_reader=chosen)
    found = json.loads((explore.main(chosen) / "explore.json").read_text())
    first, second = found["gaps"]
    assert first == "a ____ disc left of ... square"
    assert second == f"a {found['gaps'][first][0][0]} disc left of ____ square"
    assert list(found["closest"]) == ["a red disc"]
    older = {name: x for name, x in to_json(args).items() if name != "reword"}
    assert from_json(train_caption_reader.Args, older).reword == 0
    wordings = paraphrases("a red square left of a blue disc")
    generator = torch.Generator().manual_seed(0)
    assert train_caption_reader.other(wordings, wordings[0], generator) == wordings[1]
    assert train_caption_reader.other(wordings[:1], wordings[0], generator) == wordings[0]


@pytest.mark.nightly
def test_latents_of_two_other_runs(tmp_path):
    of_codes = replace(
        train_kl_autoencoder.PRESETS["smoke"], data="scenes", model=LATENT.autoencoder, steps=2,
        out=tmp_path / "autoencoder", max_images=100, log_every=1, picture_every=2, threads=1,
    )  # fmt: skip
    train_kl_autoencoder.main(of_codes)
    assert 0 <= result(of_codes.out)["test_objects_read"] <= 1
    assert looks(of_codes.out, tmp_path / "codes") == {"reconstructions", "curves"}
    reader = replace(SMOKE, model=GLIDE, out=tmp_path / "reader", samples=2)
    train_text_to_image.main(reader)
    args = replace(
        SMOKE, model=LATENT, autoencoder=of_codes.out, reader=reader.out, samples=2,
        out=tmp_path / "run",
    )  # fmt: skip
    model = loaded(train_text_to_image.main(args))
    parts = {"autoencoder": loaded(of_codes.out), "text": loaded(reader.out).text}
    for name, part in parts.items():
        for key, weight in part.state_dict().items():
            assert torch.equal(model.state_dict()[f"{name}.{key}"], weight), key
    assert model.words == loaded(reader.out).words
    assert model.latent_std != 1
    assert result(args.out)["excess"] > 0  # the best estimate of latents is known too
    with pytest.raises(ValueError, match="reader holds a TextToImage; pass --autoencoder with"):
        train_text_to_image.main(replace(args, autoencoder=reader.out, out=tmp_path / "other"))
    with pytest.raises(ValueError, match="holds a KLAutoencoder; pass --reader with"):
        train_text_to_image.main(replace(args, reader=of_codes.out, out=tmp_path / "third"))


def test_latent_diffusion_trains_its_own_parts(tmp_path, monkeypatch):
    smoke = replace(train_latent_diffusion.PRESETS["smoke"], threads=1, out=tmp_path / "run")
    model = loaded(train_latent_diffusion.main(smoke))
    stages = {name: tmp_path / "run" / name for name in ("autoencoder", "clip", "diffusion")}
    parts = (
        (model.autoencoder, loaded(stages["autoencoder"])),
        (model.text, loaded(stages["clip"]).text.encoder),
        (model.diffusion, loaded(stages["diffusion"]).diffusion),
    )
    for own, part in parts:
        for key, weight in part.state_dict().items():  # saved in 16 bits
            assert torch.equal(own.state_dict()[key], weight.half().to(weight.dtype)), key
    found = result(tmp_path / "run")
    assert found["autoencoder_test_psnr"] == result(stages["autoencoder"])["test_psnr"]
    assert 0 <= found["found_real_val"] <= 1
    # Halves of one set are closer than sets of another kind, such as blots of an untrained model.
    assert found["distance_drawn"] > found["distance_train"] > 0
    assert model.sample(["red heart"], torch.Generator().manual_seed(0)).shape == (1, 3, 32, 32)

    def stop(args):
        raise AssertionError(args)

    # A finished run is left as it is, and one that was stopped goes on where it was.
    monkeypatch.setattr(train_clip, "main", stop)
    train_latent_diffusion.main(smoke)
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(AssertionError):
        train_latent_diffusion.main(smoke)
    codes = replace(smoke.model, autoencoder=VQVAEConfig((3, 32, 32)), network=replace(
        smoke.model.network, context_dim=16, vector_dim=16))  # fmt: skip
    with pytest.raises(ValueError, match="makes codes, and this command trains"):
        train_latent_diffusion.main(replace(smoke, model=codes, out=tmp_path / "codes"))


def test_imagen_reads_by_a_t5_that_has_seen_captions_alone(tmp_path):
    of_texts = replace(
        train_caption_reader.PRESETS["smoke"], out=tmp_path / "reader", steps=2, log_every=1,
        threads=1,
    )  # fmt: skip
    t5 = loaded(train_caption_reader.main(of_texts))
    assert result(of_texts.out)["test_loss"] > 0
    network = replace(
        NETWORK, patch=4, efficient=True, scale_skips=True, context_dim=16, vector_dim=16
    )
    imagen = ImagenConfig(SCENE, (), of_texts.model, network, ScheduleConfig(), "data", 2)
    args = replace(SMOKE, model=imagen, reader=of_texts.out, samples=2, out=tmp_path / "run")
    model = loaded(train_text_to_image.main(args))
    assert torch.equal(model.text.embedding.weight, t5.embedding.weight)
    tokens = model.tokens(["a red square"])
    there = tokens != 0
    torch.testing.assert_close(model.text(tokens).outputs[there], t5.encode(tokens)[there])
    assert "excess" in result(args.out)
    with pytest.raises(
        ValueError, match=r"holds a TextToImage; pass --reader.*train_caption_reader`$"
    ):
        train_text_to_image.main(replace(args, reader=args.out, out=tmp_path / "other"))


def test_a_decoder_of_the_embeddings_of_a_clip(tmp_path):
    smoke = train_clip.PRESETS["smoke"]
    smoke.model.build().save_pretrained(tmp_path / "clip" / "model")
    network = replace(PATCHES, vector_dim=8 + smoke.model.embed_dim)
    decoder = ImageDecoderConfig(
        SCENE, (), TEXT, network, ScheduleConfig(), "data", 2, embedding_dim=smoke.model.embed_dim
    )
    # Widths are those of the CLIP, whatever the decoder's settings have.
    wide = replace(decoder, embedding_dim=3, network=replace(PATCHES, vector_dim=11))
    args = replace(
        SMOKE, model=wide, clip=tmp_path / "clip", samples=3, out=tmp_path / "run"
    )  # fmt: skip
    model = loaded(train_text_to_image.main(args))
    assert replace(model.config, words=()) == decoder
    found = result(args.out)
    assert 0 <= found["scene_kept_at_scale_2"] <= found["objects_kept_at_scale_2"] <= 1
    large = replace(smoke.model.image, image_shape=(3, 32, 32))
    replace(smoke.model, image=large).build().save_pretrained(tmp_path / "large" / "model")
    with pytest.raises(ValueError, match=r"images \(3, 32, 32\), the decoder draws \(3, 24, 24\)"):
        train_text_to_image.main(replace(args, clip=tmp_path / "large", out=tmp_path / "other"))
    with pytest.raises(ValueError, match=r"holds a \w+; pass --clip with a run of train_clip"):
        train_text_to_image.main(replace(args, clip=args.out, out=tmp_path / "third"))
    with pytest.raises(ValueError, match="a decoder needs the run of a CLIP"):
        replace(SMOKE, model=decoder)


def test_a_decoder_is_explored_with_the_embeddings_of_its_clip(tmp_path, monkeypatch, capsys):
    smoke = train_clip.PRESETS["smoke"]
    clip = smoke.model.build()
    clip.save_pretrained(tmp_path / "clip" / "model")
    network = replace(PATCHES, vector_dim=8 + 64)
    decoder = ImageDecoderConfig(SCENE, (), TEXT, network, ScheduleConfig(), "data", 2)
    args = replace(SMOKE, model=decoder, clip=tmp_path / "clip", samples=2, out=tmp_path / "run")
    train_text_to_image.main(args)
    told = []
    whole = ImageDecoder.told

    def spy(self, tokens, embedding=None):
        told.append((tokens, embedding))
        return whole(self, tokens, embedding)

    monkeypatch.setattr(ImageDecoder, "told", spy)
    assert {"variations", "seen", "prompts"} <= looks(args.out, tmp_path)
    generator = torch.Generator().manual_seed(1)
    x, texts, _ = load_pairs("scenes", Path(), SCENE, CaptionMix(), "test").draw(2, generator)
    wanted = clip.eval().encode_image(x)
    # Variations without a caption, and samples with that of the embedded image.
    tokens, embedding = told[0]
    assert not tokens.any()
    torch.testing.assert_close(embedding, wanted[:1].expand(2, -1))
    model = loaded(args.out)
    of_texts = [
        (tokens, embedding) for tokens, embedding in told
        if embedding is not None and torch.equal(tokens, model.tokens([texts[1]] * 2))
    ]  # fmt: skip
    torch.testing.assert_close(of_texts[0][1], wanted[1:].expand(2, -1))
    # Where nothing tells its CLIP it is drawn by captions alone, and that is said.
    shutil.copytree(args.out / "model", tmp_path / "alone" / "decoder")
    few = explored.Settings(images=2, scales=(1.0,), steps=(1,), strengths=(0.5,))
    alone = explore.Args(tmp_path / "alone" / "decoder", pictures=tmp_path / "without",
                         data="scenes", text_to_image=few)  # fmt: skip
    capsys.readouterr()
    told.clear()
    explore.main(alone)
    assert "pass --text-to-image.clip with that run" in "".join(capsys.readouterr())
    assert not (tmp_path / "without" / "variations.png").exists()
    assert all(embedding is None for _, embedding in told)
    named = replace(few, clip=tmp_path / "clip")
    explore.main(replace(alone, pictures=tmp_path / "with", text_to_image=named))
    assert (tmp_path / "with" / "variations.png").exists()


@pytest.mark.parametrize("data", ["sprites", "scenes"])
def test_an_autoencoder_is_explored_without_captions(data, tmp_path):
    smoke = train_kl_autoencoder.PRESETS["smoke"]
    model = smoke.model if data == "sprites" else LATENT.autoencoder
    args = replace(smoke, data=data, model=model, steps=2, out=tmp_path / "run", threads=1)
    train_kl_autoencoder.main(replace(args, log_every=1, picture_every=2))
    assert looks(args.out, tmp_path) == {"reconstructions", "curves"}


def test_a_walk_goes_from_one_prompt_to_the_next(tmp_path):
    train_text_to_image.main(replace(SMOKE, model=GLIDE, out=tmp_path / "run", samples=2))
    assert "walk" in looks(tmp_path / "run", tmp_path, prompts=("a red square", "a blue disc"))


def test_variations_keep_objects_or_the_whole_scene():
    world, generator = CaptionedScenes(), torch.Generator().manual_seed(0)

    class Painter:
        """Draws the embedded scene, or its objects in other places."""

        device = torch.device("cpu")

        def __init__(self, turn):
            self.turn = turn

        def sample(self, n, generator, scale, cells):
            return draw(cells.roll(self.turn, 1))

    def seen(images):
        return {"cells": read(images).cells}

    for turn, same in ((0, 1.0), (1, 0.0)):
        found = varied(stand_in(Painter(turn)), world, seen, (1.0,), generator, 20)
        assert found["objects_kept_at_scale_1"] == 1
        assert found["scene_kept_at_scale_1"] == same
        assert found["rejected_at_scale_1"] == 0


def test_a_control_net_around_a_run(tmp_path):
    base = replace(SMOKE, model=GLIDE, out=tmp_path / "base", samples=2)
    stays = loaded(train_text_to_image.main(base))
    args = replace(
        train_controlnet.PRESETS["scenes"], base=base.out, out=tmp_path / "run", widths=(4, 4),
        steps=2, batch_size=4, samples=4, log_every=1, picture_every=2, threads=1,
    )  # fmt: skip
    model = loaded(train_controlnet.main(args))
    for key, weight in stays.diffusion.network.state_dict().items():
        assert torch.equal(model.state_dict()[f"diffusion.network.base.{key}"], weight), key
    found = result(args.out)
    assert 0 <= found["colours_followed"] <= found["edges_followed"] <= 1
    assert {"seen", "prompts"} <= looks(args.out, tmp_path)
    with pytest.raises(ValueError, match=r"got ControlNet|holds a ControlNet"):
        train_controlnet.main(replace(args, base=args.out, out=tmp_path / "other"))


def test_a_control_net_of_palettes_around_a_run(tmp_path):
    base = replace(SMOKE, model=GLIDE, out=tmp_path / "base", samples=2)
    train_text_to_image.main(base)
    args = replace(
        train_controlnet.PRESETS["scenes-palette"], base=base.out, out=tmp_path / "run",
        widths=(4, 4), steps=2, batch_size=4, samples=4, log_every=1, picture_every=2, threads=1,
    )  # fmt: skip
    model = loaded(train_controlnet.main(args))
    assert (model.hint, model.hint_shape) == ("palette", SCENE)
    found = result(args.out)
    assert 0 <= found["shapes_followed"] <= found["palette_followed"] <= 1
    assert found["palette_followed_without"] <= 1
    assert {"seen", "prompts"} <= looks(args.out, tmp_path)
    with pytest.raises(ValueError, match="block is 7, and images have sides of 24"):
        train_controlnet.main(replace(args, block=7, out=tmp_path / "other"))


def test_palettes_are_followed_where_colours_and_places_are_those_of_the_picture():
    world, generator = CaptionedScenes(), torch.Generator().manual_seed(0)

    class Painter:
        """Draws the right picture, or one whose objects have other shapes, or stand elsewhere."""

        device, hint = torch.device("cpu"), "palette"

        def __init__(self, shift, turn):
            self.shift, self.turn = shift, turn

        def seen(self, images):
            cells = read(images).cells
            shapes = (cells + 6 * self.shift) % EMPTY
            self.cells = torch.where(cells == EMPTY, cells, shapes).roll(self.turn, 1)
            return {"hint": images}

        def sample(self, texts, generator, scale, strength, hint):
            return draw(self.cells)

    for painter, palette, shapes in (((0, 0), 1.0, 1.0), ((1, 0), 1.0, 0.0), ((0, 1), 0.0, 0.0)):
        found = train_controlnet.followed(stand_in(Painter(*painter)), world, generator, 20, 1.0)
        assert found == {"palette_followed": palette, "shapes_followed": shapes}


def test_edges_are_followed_where_shapes_and_places_are_those_of_the_picture():
    world, generator = CaptionedScenes(), torch.Generator().manual_seed(0)

    class Painter:
        """Draws the right picture, or one whose colours are exchanged for others."""

        device, hint = torch.device("cpu"), "edges"

        def __init__(self, shift):
            self.shift = shift

        def seen(self, images):
            cells = read(images).cells
            colours = (cells % 6 + self.shift) % 6
            self.cells = torch.where(cells == EMPTY, cells, cells // 6 * 6 + colours)
            return {"hint": edges(images)}

        def sample(self, texts, generator, scale, strength, hint):
            return draw(self.cells)

    right = train_controlnet.followed(stand_in(Painter(0)), world, generator, 20, 1.0)
    assert right == {"edges_followed": 1.0, "colours_followed": 1.0}
    wrong = train_controlnet.followed(stand_in(Painter(1)), world, generator, 20, 1.0)
    assert wrong == {"edges_followed": 1.0, "colours_followed": 0.0}


def test_latent_diffusion_needs_both_runs_and_others_neither(tmp_path):
    with pytest.raises(ValueError, match="latent diffusion needs both"):
        replace(SMOKE, model=LATENT)
    with pytest.raises(ValueError, match="other models need neither"):
        replace(SMOKE, reader=tmp_path)


def test_the_exact_denoiser_has_no_excess():
    """In place of a model it is at distance 0 from itself, and its pictures fit their captions."""
    world = CaptionedScenes()
    given = exact_denoiser(world)

    class Exact:
        device, autoencoder = torch.device("cpu"), None

        def space(self, images):
            return 2 * images - 1

        def denoiser(self, texts, scale):
            return given([""] * texts if isinstance(texts, int) else texts)

    found = scene_gaps(stand_in(Exact()), world, torch.Generator().manual_seed(0), 8)
    assert found["excess"] == pytest.approx(0, abs=1e-9)
    assert all(found[f"told_at_{level}"] > 0 for level in (-5, -4, -3))

    class Blind(Exact):
        """A model that does not read has all that captions tell as its excess."""

        def denoiser(self, texts, scale):
            return given([""] * (texts if isinstance(texts, int) else len(texts)))

    blind = scene_gaps(stand_in(Blind()), world, torch.Generator().manual_seed(0), 8)
    assert blind["excess"] == pytest.approx(1)
    stations = [*torch.linspace(-8, 8, 12).tolist(), float("inf")]
    sample = exact_sampler(world, stations)
    generator = torch.Generator().manual_seed(0)
    seen = detected(lambda texts: sample(texts, 1.0, generator), world, generator, 10)
    assert seen.satisfied.share >= 0.9
    cells = world.scenes(["three red discs"] * 3, generator)
    perfect = detected(lambda texts: draw(world.scenes(texts, generator)), world, generator, 5)
    assert perfect.satisfied.share == 1
    assert cells.shape == (3, 9)


class Inverted(torch.nn.Module):
    """The network whose estimates by a prediction are those of a denoiser."""

    def __init__(self, denoise, prediction: str):
        super().__init__()
        self.denoise, self.prediction = denoise, prediction

    def forward(self, x, log_snr):
        signal, rate = (part.view(-1, 1, 1, 1) for part in signal_and_noise(log_snr))
        parts = [part.view(-1, 1, 1, 1) for part in scalings((-log_snr / 2).exp(), 0.5)]
        skip, out, into = parts[:3]
        x = {"flow": (signal + rate) * x, "edm": signal * x / into}.get(self.prediction, x)
        noise, data = self.denoise(x, log_snr)
        return {
            "noise": noise,
            "velocity": signal * noise - rate * data,
            "data": data,
            "flow": data - noise,
            "edm": (data - skip * x / signal) / out,
            "pixels": data,
        }[self.prediction]


@pytest.mark.parametrize("prediction", ["noise", "velocity", "data", "flow", "edm", "pixels"])
def test_the_exact_denoiser_has_no_excess_by_any_prediction(prediction):
    """Errors of all networks are told against the same floor."""
    world = CaptionedScenes()
    given, schedule = exact_denoiser(world), ScheduleConfig("rectified")

    class Exact:
        device, autoencoder = torch.device("cpu"), None

        def space(self, images):
            return 2 * images - 1

        def denoiser(self, texts, scale):
            exact = given([""] * texts if isinstance(texts, int) else texts)
            network = Inverted(exact, prediction)
            return Diffusion(network, SCENE, schedule, prediction, levels=256).denoise

    found = scene_gaps(stand_in(Exact()), world, torch.Generator().manual_seed(0), 8)
    # An estimate of the noise is divided by the signal, 0.05 at the lowest of the levels.
    assert found["excess"] == pytest.approx(0, abs=1e-6)


def test_presets_of_other_forms_differ_in_their_form_alone():
    """A DiT in place of the U-Net; and of it, path, output and loss of flow matching, or of EDM."""
    presets = train_text_to_image.PRESETS
    unet, dit = presets["scenes"], presets["scenes-dit"]
    network = dit.model.network
    assert isinstance(network, ConditionalDiTConfig)
    assert replace(dit, model=replace(dit.model, network=unet.model.network), out=unet.out) == unet
    # The noise of a patch has to fit beside what is read from it.
    assert network.dim > 3 * network.patch**2
    plain = {"out": dit.out, "model": dit.model, "loss": dit.loss}
    flow, edm = presets["scenes-flow"], presets["scenes-edm"]
    assert flow.model == replace(dit.model, prediction="flow", schedule=ScheduleConfig("rectified"))
    assert edm.model == replace(dit.model, prediction="edm")
    assert flow.loss == replace(dit.loss, weighting="flow")
    assert edm.loss == replace(dit.loss, weighting="edm")
    assert replace(flow, **plain) == replace(edm, **plain) == dit
    assert len({args.out for args in (unet, dit, flow, edm)}) == 4


def test_the_exact_denoiser_of_latents():
    """Of latents that are the pictures it is that of the pictures, and so is what it draws."""
    world = CaptionedScenes(
        CaptionMix(one=1, one_placed=1, two=0, two_placed=0, relation=0, count=0)
    )

    class Pictures:
        device, autoencoder, interval = torch.device("cpu"), torch.nn.Identity(), None
        diffusion = GLIDE.build().diffusion

        def space(self, images):
            return 2 * images - 1

        def images(self, x):
            return (x + 1) / 2

        def clipping(self):
            return None

    model, captions = stand_in(Pictures()), ["a red square", "", "a red square at the top"]
    x, level = torch.randn(3, *SCENE), torch.tensor([-4.0, -2.0, 0.0])
    found, expected = (
        given(captions)(x, level) for given in (exact_of(model, world), exact_denoiser(world))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    draws = exact_sampler_of(model, world)
    drawn = draws(captions[::2], 1.0, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, *SCENE)
    torch.testing.assert_close(
        drawn, draws(captions[::2], 1.0, torch.Generator().manual_seed(0)), rtol=0, atol=0
    )
    assert told_levels(model) != told_levels(GLIDE.build())


def test_multiply_adds_of_a_unet():
    """Those of a U-Net of half the width are less than half; its text alone is not counted."""
    wide = replace(GLIDE, words=WORDS)
    narrow = replace(wide, network=replace(wide.network, width=4, head_dim=4))
    counts = [multiply_adds(config.build()) for config in (wide, narrow)]
    assert 0 < counts[1] < counts[0] / 1.5


def test_a_model_whose_data_is_not_known(tmp_path):
    GLIDE.build().save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"no run tells its data; pass.*--data scenes"):
        explore.main(explore.Args(tmp_path / "model", pictures=tmp_path / "pictures"))
