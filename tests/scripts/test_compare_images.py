"""Every family on the same images: the budget, the distance, the table, and what is refused."""

import json
import math
import types
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generative.classifier import Classifier, CNNClassifierConfig
from generative.codes import CodeTransformerConfig, PriorConfig
from generative.data.digits import load_digits
from generative.data.image_set import fit_images
from generative.nets.config import gpt2_block
from scripts import compare_images, train_classifier
from scripts.compare_images import FAMILIES, MARKS, SHAPE, Args, Distances, Entry, Judge

torch.set_num_threads(1)


@pytest.mark.parametrize("trials", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_two_families_on_digits(tmp_path, capsys, monkeypatch, trials):
    """Every night with trials of both families; what a trial finds is tested below."""
    if not trials:
        monkeypatch.setattr(compare_images, "step_seconds", lambda entry, args, work: 0.1)
    docs = tmp_path / "docs"
    docs.mkdir()
    page = docs / "families.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    args = replace(compare_images.PRESETS["smoke"], out=tmp_path / "run", docs=docs)
    found = json.loads(compare_images.main(args).read_text())
    assert list(found["families"]) == ["VAE", "GAN"]
    for row in found["families"].values():
        assert row["steps"] >= 2
        assert row["samples"] == 20
        assert np.isfinite([*row["distances"].values(), *row["floors"].values()]).all()
    images = fit_images(load_digits(), SHAPE)
    classifier = Classifier.from_pretrained(tmp_path / "run" / "classifier" / "model")
    judge = Judge(classifier, images)
    floors = judge.floor(20)._asdict()
    assert floors == pytest.approx(found["families"]["GAN"]["floors"], rel=1e-6)
    assert floors == pytest.approx(found["floors"], rel=1e-6)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert compare_images.table(found) in text
    assert compare_images.table(found) in capsys.readouterr().out
    picture = np.asarray(Image.open(docs / "images" / "families" / "images.png"))
    height, width, _ = picture.shape
    assert height == 3 * 66 - 2
    assert width > 10 * 66 - 2  # with the names of the families
    assert not (tmp_path / "run" / "trial").exists()
    # Measured once: a second call reads what was found.
    again = json.loads(compare_images.main(args).read_text())
    assert again == found


def test_distance_is_none_of_the_training_images_and_large_of_noise():
    torch.manual_seed(0)
    config = CNNClassifierConfig(SHAPE, 10, (4, 8), (5, 3), (2, 2), hidden_dim=6)
    images = fit_images(load_digits(), SHAPE)
    judge, noise = Judge(config.build(), images), torch.rand(300, *SHAPE)
    assert judge.distances(images.part("train").as_tensor()).frechet == pytest.approx(0, abs=1e-8)
    floor = judge.floor(10**6)
    assert judge.floor(len(images.part("test"))) == floor
    far = judge.distances(noise)
    assert 0 < floor.frechet < far.frechet / 10
    assert abs(floor.kernel) < far.kernel / 10
    # With fewer training images it knows the same moments, and about the same kernel distance.
    fewer = Judge(judge.classifier, images, most=200).distances(noise)
    assert fewer.frechet == far.frechet
    assert fewer.kernel == pytest.approx(far.kernel, rel=0.1)
    assert fewer.kernel != far.kernel


def only_a_gan(folder: Path, monkeypatch) -> Args:
    """Settings of a comparison without a trial of steps; the page that it fills is made."""
    monkeypatch.setattr(compare_images, "step_seconds", lambda entry, args, work: 0.1)
    (folder / "families.md").write_text(f"{MARKS[0]}\n{MARKS[1]}\n")
    return replace(
        compare_images.PRESETS["smoke"], out=folder / "run", docs=folder, samples=5, only=("GAN",)
    )


def test_time_of_a_training_is_kept_if_drawing_its_samples_fails(tmp_path, monkeypatch):
    args = only_a_gan(tmp_path, monkeypatch)

    def fails(*given):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(compare_images, "draw", fails)
        with pytest.raises(RuntimeError, match="killed"):
            compare_images.main(args)
    kept = json.loads((tmp_path / "run" / "GAN-steps.json").read_text())
    row = json.loads(compare_images.main(args).read_text())["families"]["GAN"]
    assert row["cpu_seconds"] == kept["cpu_seconds"] > 0


@pytest.mark.parametrize(("step", "longest"), [(0.5, 21), (0.01, 321), (0.001, 5121)])
def test_a_step_costs_the_difference_of_two_trainings(tmp_path, monkeypatch, step, longest):
    """With a clock that the first training moves by 9 seconds, each other one by 3, each step by
    its own; quick steps have longer trials, until they take a twentieth of a minute."""
    clock, trained = [0.0], []

    @dataclass(frozen=True)
    class Settings:
        out: Path = Path()
        data: str = ""
        data_dir: Path = Path()
        steps: int = 0
        log_every: int = 0
        picture_every: int = 0
        threads: int = 0
        seed: int = 0

    def main(settings):
        assert not settings.out.exists()  # every training begins anew
        settings.out.mkdir()
        assert settings.picture_every % settings.log_every == 0
        clock[0] += (3 if trained else 9) + settings.steps * step
        trained.append(settings.steps)

    monkeypatch.setattr(compare_images.time, "process_time", lambda: clock[0])
    entry = Entry(types.SimpleNamespace(main=main, PRESETS={"fashion": Settings()}))
    seconds = compare_images.step_seconds(entry, Args(minutes=1.0), tmp_path)
    assert seconds == pytest.approx(step)
    assert trained[:2] == [1, 1]
    assert trained[-1] == longest
    assert not (tmp_path / "trial").exists()


def test_without_a_sampler_test_images_go_there_and_back(tmp_path):
    model = FAMILIES["autoencoder"].settings.model.build().eval()
    test = fit_images(load_digits(), SHAPE).part("test")
    model.save_pretrained(tmp_path / "model")
    x = compare_images.draw(tmp_path, 5, test, 0)
    with torch.no_grad():
        expected = model.reconstruct(test.thin(5).as_tensor())
    assert torch.equal(x, expected.clamp(0, 1))


@pytest.mark.parametrize(("seconds", "expected"), [(0, 100), (25, 300), (math.inf, 350)])
def test_a_slow_sampler_draws_less_and_at_least_once(tmp_path, monkeypatch, seconds, expected):
    clock, asked = [0.0], []

    class Slow:
        def sample(self, n, generator):
            clock[0] += 10
            asked.append(n)
            return torch.rand(n, *SHAPE, generator=generator)

    monkeypatch.setattr("generative.loading.load_model", lambda folder: Slow())
    monkeypatch.setattr(compare_images.time, "process_time", lambda: clock[0])
    test = fit_images(load_digits(), SHAPE).part("test")
    x = compare_images.draw(tmp_path, 350, test, 0, seconds)
    assert len(x) == sum(asked) == expected
    assert max(asked) == 100


def test_a_prior_draws_by_the_model_of_its_codes(tmp_path):
    torch.manual_seed(0)
    autoencoder = FAMILIES["VQ-VAE"].settings.model.build().eval()
    prior = PriorConfig(
        autoencoder.grid, autoencoder.num_codes, CodeTransformerConfig(1, gpt2_block(8, 2))
    ).build()
    autoencoder.save_pretrained(tmp_path / "autoencoder")
    prior.save_pretrained(tmp_path / "model")
    test = fit_images(load_digits(), SHAPE).part("test")
    x = compare_images.draw(tmp_path, 3, test, 5)
    codes = prior.eval().sample(3, torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = autoencoder.decode(codes).clamp(0, 1)
    assert x.shape == (3, *SHAPE)
    assert torch.equal(x, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_makes_images_of_the_shape(name):
    entry = FAMILIES[name]
    settings = entry.settings
    if entry.codes:
        assert entry.codes in FAMILIES
    else:
        model = settings.image if hasattr(settings, "image") else settings.model
        assert SHAPE in vars(model).values()
    for steps in (1, 21, 70):  # also those of a trial
        changed = compare_images.settings_of(entry, Args(), Path("runs/all"), name, steps)
        assert (changed.data, changed.steps) == ("fashion-mnist", steps)
    assert changed.picture_every == 50
    assert changed.out == Path("runs/all") / name
    if entry.codes:
        assert changed.codes == Path("runs/all") / entry.codes


def test_table_names_what_was_not_sampled():
    row = {
        "steps": 1200, "cpu_seconds": 301.4, "parameters": 12345, "samples": 500,
        "distances": {"frechet": 7.125, "kernel": 0.0625}, "reconstructed": True,
        "floors": {"frechet": 0.5, "kernel": -0.0001}, "bits_per_dim": 1.5,
    }  # fmt: skip
    found = {
        "families": {"autoencoder": row}, "seed": 2, "minutes": 5.0, "classifier_accuracy": 0.9312,
        "test_images": 2000, "floors": {"frechet": 0.25, "kernel": 0.001},
    }  # fmt: skip
    text = compare_images.table(found)
    lines = text.splitlines()
    assert "| 1 | test images | | | | | 2,000 | | 0.25 | 0.001 |" in lines
    row = "| 2 | autoencoder | 12,345 | 1,200 | 301 | 1.500 | reconstructed | 7.12 | 0.50 | 0.062 |"
    assert row in lines
    assert "right about 93.12% of the test images" in text


@pytest.mark.parametrize(("lost", "measured"), [(2, True), (4, False)])
def test_samples_that_are_not_finite_are_counted_and_left_out(
    tmp_path, monkeypatch, lost, measured
):
    """A distance needs two samples; the picture shows the others black."""
    args = only_a_gan(tmp_path, monkeypatch)
    drawn = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    drawn[5 - lost :, :, 3] = math.nan
    monkeypatch.setattr(compare_images, "draw", lambda *given: drawn)
    asked = []
    far = Distances(3.0, 0.5)
    monkeypatch.setattr(Judge, "distances", lambda self, x: asked.append(x) or far)
    monkeypatch.setattr(Judge, "floor", lambda self, n: Distances(2.0, 0.0))
    row = json.loads(compare_images.main(args).read_text())["families"]["GAN"]
    assert (row["samples"], row["not_finite"]) == (5, lost)
    assert row["distances"] == (far._asdict() if measured else None)
    assert any(torch.equal(x, drawn[: 5 - lost]) for x in asked) == measured
    last = "3.00 | 2.00 | 0.500 |" if measured else " | 2.00 |  |"
    text = (tmp_path / "families.md").read_text()
    assert f"| 5, {lost} of them not finite | {last}" in text


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"only is \('VEA',\).*autoencoder, VAE"):
        Args(only=("VEA",))
    with pytest.raises(ValueError, match="a prior needs the codes of VQ-VAE: add it"):
        Args(only=("VAE", "VQ-VAE with PixelCNN"))
    with pytest.raises(ValueError, match="the classifier is mlp"):
        Args(classifier=replace(train_classifier.PRESETS["fashion"], network="mlp"))
    with pytest.raises(ValueError, match=r"cnn of \(3, 32, 32\)"):
        Args(classifier=train_classifier.Args())
