"""The command of CLIP and its pictures, beyond what the smoke preset does."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.clip import (
    CLIPConfig,
    TextEncoderConfig,
    clip_block,
    clip_vit,
    contrastive_loss,
)
from generative.data.caption_tokens import CaptionTokeniser
from generative.data.captioned import caption_classes
from generative.data.image_set import ImageSet
from generative.known.bindings import exchanged
from generative.known.captioned_scenes import CaptionedScenes
from generative.known.captions import WORDS, fits
from generative.known.config import CaptionMix
from generative.known.scenes import read
from scripts import explore, train_clip
from scripts.common.captions import (
    TEMPLATES,
    VOCABULARY,
    ImagePairs,
    PairBatches,
    ScenePairs,
    class_label,
    fit_tokeniser,
    load_pairs,
)
from scripts.common.captions import _without_template as without_template
from scripts.common.clip import pair_scores, zero_shot

torch.set_num_threads(1)
SCENE = (3, 24, 24)


class SeededRun:
    device = "cpu"

    def seed_for(self, name: str, step: int) -> int:
        return step


def fill(folder) -> None:
    """Ten images with captions beside them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(10):
        pixels = rng.integers(256, size=(16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"a {'cat' if i % 2 else 'dog'} number {i}")


def tiny(shape=SCENE):
    torch.manual_seed(0)
    text = TextEncoderConfig(128, 24, 1, clip_block(8, 2))
    return CLIPConfig(clip_vit(shape, 8, 1, 8, 2), text, 8).build().eval()


def test_a_step_is_the_same_whenever_it_is_drawn_and_tells_what_fits():
    tokeniser = CaptionTokeniser.fit(WORDS)
    batch = PairBatches(ScenePairs(CaptionedScenes()), tokeniser, SeededRun(), 24, num_negatives=2)
    first, again, other = batch(3), batch(3), batch(4)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(first.tokens, other.tokens)
    cells, texts = read(first.images).cells, [tokeniser.decode(row) for row in first.tokens]
    told = 0
    for column, text in enumerate(texts):
        assert torch.equal(first.fits[:, column], fits(text, cells))
        known = exchanged(text)
        wrong = [tokeniser.decode(row) for row in first.negatives[column] if row.any()]
        assert len(wrong) <= min(2, len(known))
        told += len(wrong)
        assert set(wrong) <= set(known)
        assert not any(fits(other, cells[column : column + 1]).any() for other in wrong)
    assert told > 4


def test_partners_have_the_same_words_and_another_scene():
    pairs, generator = ScenePairs(CaptionedScenes()), torch.Generator().manual_seed(0)
    x, texts, fit = pairs.draw(64, generator, 3)
    cells = read(x).cells
    assert len(cells) == len(texts) == 64
    assert fit.diagonal().all()
    groups = [i for i, text in enumerate(texts) if len(exchanged(text)) == 3]
    assert len(groups) > 16
    several = 0
    for i in groups:
        beside = [j for j in range(64) if texts[j] in exchanged(texts[i])]
        several += len(beside) == 3
        assert not any(fit[i, j] or fit[j, i] for j in beside)
    assert several > 16


def test_captions_of_a_class_fit_all_its_images():
    pixels = np.zeros((4, 8, 8, 1), np.uint8)
    images = ImageSet(pixels, np.array([[0], [1], [0], [1]]), np.zeros(4, np.uint8))
    pairs = ImagePairs(caption_classes(images, ["a dress", "a coat"], TEMPLATES), without_template)
    x, texts, fit = pairs.draw(20, torch.Generator().manual_seed(0))
    assert x.shape == (20, 1, 8, 8)
    dress = torch.tensor(["dress" in text for text in texts])
    assert torch.equal(fit, dress[:, None] == dress)
    assert len(set(texts)) > 2
    assert pairs.negatives(texts[0]) == ()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("T-shirt/top", "a t-shirt or top"),
        ("trousers", "trousers"),
        ("ankle boot", "an ankle boot"),
    ],
)
def test_classes_get_an_article(name: str, label: str):
    assert class_label(name) == label
    assert all(without_template(template.format(label)) == label for template in TEMPLATES)


def test_scores_of_who_sees_everything(monkeypatch):
    """Embeddings that tell what fits give the floor, and every search finds it."""
    pairs, found = ScenePairs(CaptionedScenes(CaptionMix(0, 0, 1, 0, 0, 0))), {}

    class Exact:
        log_scale = torch.zeros(())

        def logits(self, images, captions):
            return 50.0 * found["fits"].float()

    class Source:
        def draw(self, n, generator):
            x, texts, found["fits"] = pairs.draw(n, generator)
            return x, texts, found["fits"]

    monkeypatch.setattr("scripts.common.clip.embed_images", lambda model, x: x)
    monkeypatch.setattr("scripts.common.clip.embed_captions", lambda model, t, texts: texts)
    scores = pair_scores(Exact(), None, Source(), torch.Generator().manual_seed(0), 16, 2)
    assert scores["loss"] == pytest.approx(scores["floor"], abs=1e-6)
    assert scores["recall_of_captions"] == scores["recall_of_images"] == 1.0


def test_no_critic_beats_the_exact_one():
    """In the mean over batches, for the published loss: not one that tells only what fits, nor one
    that is too sure or not sure enough."""
    world, generator = CaptionedScenes(), torch.Generator().manual_seed(0)
    sums = dict.fromkeys(("exact", "fits", "sure", "unsure"), 0.0)
    for _ in range(30):
        texts, cells = world.draw(40, generator)
        exact = world.pointwise(texts, cells).T
        critics = {"exact": exact, "fits": exact.exp().gt(0).double().log()}
        critics |= {"sure": 2 * exact, "unsure": exact / 2}
        for name, logits in critics.items():
            sums[name] += float(contrastive_loss(logits).loss) / 30
    best = sums.pop("exact")
    assert best > 0
    assert all(value > best for value in sums.values())


def test_zero_shot_takes_labels_and_a_template_of_the_user():
    model, tokeniser = tiny(), CaptionTokeniser.fit(WORDS)
    x = torch.rand(6, *SCENE, generator=torch.Generator().manual_seed(0))
    tokens = tokeniser.encode(["one red disc", "one blue disc"])
    with torch.no_grad():
        best = model.classify(x, tokens)
    names = ("red disc", "blue disc")
    assert zero_shot(model, tokeniser, x, best, names, "one {}") == 1.0
    assert zero_shot(model, tokeniser, x, 1 - best, names, "one {}") == 0.0


def test_exploring_scenes_and_a_folder_of_ones_own(tmp_path):
    """Every picture is there; a folder has no classes but those of the user."""
    folder = tmp_path / "photos"
    fill(folder)
    args = replace(
        train_clip.PRESETS["smoke"], out=tmp_path / "run", data="folder", data_dir=folder,
        model=tiny((3, 16, 16)).config, partners=0, negatives=0, steps=2,
    )  # fmt: skip
    train_clip.main(args)
    assert (tmp_path / "run" / VOCABULARY).is_file()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["floor"] >= 0
    assert "object_at_place" not in result
    smoke = explore.PRESETS["smoke"]
    drawn = explore.main(
        replace(
            smoke, folder=tmp_path / "run", pictures=tmp_path / "explore",
            clip=replace(smoke.clip, labels=("a cat", "a dog"), template="a photo of {}"),
        )
    )  # fmt: skip
    names = {path.stem for path in drawn.glob("*.png")}
    assert names - {"curves"} == {"similarity", "search", "captions", "zero_shot"}


@pytest.mark.nightly
def test_exploring_scenes_compares_with_a_classifier_of_labels(tmp_path):
    train_clip.main(replace(train_clip.PRESETS["smoke"], out=tmp_path / "run", steps=2))
    drawn = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "explore")
    )
    names = {path.stem for path in drawn.glob("*.png")}
    assert names - {"curves"} == {"similarity", "search", "captions", "zero_shot", "robustness"}
    found = json.loads((drawn / "explore.json").read_text())
    kinds = ("as_trained", "shifted", "noisy", "darker", "blurred")
    assert {f"{who}_{kind}" for who in ("zero_shot", "classifier") for kind in kinds} <= set(found)
    assert found["object_at_place_of_words"] == pytest.approx(0.3675)


def test_a_model_alone_does_not_know_its_words(tmp_path):
    tiny().save_pretrained(tmp_path / "model")
    args = replace(explore.PRESETS["smoke"], folder=tmp_path / "model", data="scenes")
    with pytest.raises(ValueError, match="pass the folder of the run of train_clip"):
        explore.main(args)


def test_data_of_another_shape_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"scenes has images \(3, 26, 26\).*\(3, 27, 27\)"):
        load_pairs("scenes", tmp_path, (3, 27, 27), CaptionMix())


def test_what_signs_say_is_spelled_and_nothing_else():
    """Of a reader with room for the letters."""
    without = load_pairs("scenes", Path(), (3, 24, 24), CaptionMix())
    signs = load_pairs("scenes", Path(), (3, 24, 24), CaptionMix(sign=1.0))
    emoji = load_pairs("emoji", Path("data"), (3, 32, 32), CaptionMix(sign=1.0))
    assert not fit_tokeniser(without, 24, 64).spelled
    assert not fit_tokeniser(emoji, 24, 4096).spelled
    with pytest.raises(ValueError, match=r"77 tokens.* vectors for 76; give its vocab-size 77"):
        fit_tokeniser(signs, 24, 76)
    spelled = fit_tokeniser(signs, 24, 77)
    assert len(spelled) == 77
    for caption in ("a sign that says duck", "4 white squares"):
        assert spelled.decode(spelled.encode([caption])[0]) == caption


def test_one_pair_is_no_batch():
    with pytest.raises(ValueError, match="batch_size is 1; a contrast needs 2 pairs"):
        train_clip.Args(batch_size=1)


def test_emoji_mean_their_name():
    pairs = load_pairs("emoji", Path("data"), (3, 32, 32), CaptionMix())
    _, texts, fit = pairs.draw(300, torch.Generator().manual_seed(0))
    names = [text.split(",")[0] for text in texts]
    assert any("," in text for text in texts)
    equal = torch.tensor([[one == two for two in names] for one in names])
    assert torch.equal(fit, equal)
    assert equal.sum() > 300
    test = load_pairs("emoji", Path("data"), (3, 32, 32), CaptionMix(), "test")
    assert not {text for texts in test.images.captions for text in texts} & set(texts)
