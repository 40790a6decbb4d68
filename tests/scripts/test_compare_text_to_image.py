"""Text-to-image models on the same prompts: shares are those of a detector applied by hand."""

import json
from dataclasses import replace

import pytest
import torch

from generative.diffusion import ScheduleConfig
from generative.known.config import CaptionMix
from generative.known.prompts import PROMPTS
from generative.known.scene_scores import satisfied
from generative.nets.config import clip_block
from generative.text_to_image import ConditionalUNetConfig, GLIDEConfig, TextEncoderConfig
from scripts import compare_text_to_image, train_text_to_codes, train_text_to_image
from scripts.compare_text_to_image import EXACT, Args, find_system, find_systems, told
from tests.commands import run_script

torch.set_num_threads(1)

TEXT = TextEncoderConfig(64, 24, 1, clip_block(8, 2), causal=False)
NETWORK = ConditionalUNetConfig(
    8, (1,), attention=(0,), head_dim=8, context_dim=8, vector_dim=8, patch=8
)
GLIDE = GLIDEConfig((3, 24, 24), (), TEXT, NETWORK, ScheduleConfig(), "data", 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A diffusion model and one that writes codes, both hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    drawn = replace(
        train_text_to_image.PRESETS["smoke"], model=GLIDE, steps=1, batch_size=4, samples=1,
        log_every=1, picture_every=1, threads=1, out=folder / "glide",
    )  # fmt: skip
    train_text_to_image.main(drawn)
    written = replace(train_text_to_codes.PRESETS["smoke"], threads=1, out=folder / "dalle")
    train_text_to_codes.main(written)
    return drawn.out, written.out


@pytest.fixture(scope="module")
def spells(tmp_path_factory):
    """One that was hardly trained, on signs too."""
    folder = tmp_path_factory.mktemp("signs")
    smoke = train_text_to_codes.PRESETS["smoke"]
    text = replace(smoke.model.text, vocab_size=96)
    args = replace(
        smoke, mix=CaptionMix(sign=2.0), model=replace(smoke.model, text=text, num_codes=51),
        threads=1, out=folder / "parti",
    )  # fmt: skip
    train_text_to_codes.main(args)
    return args.out


def test_only_who_learned_signs_is_asked_for_them(runs, spells, tmp_path, capsys):
    out = tmp_path / "run"
    args = Args(out=out, runs=(runs[1], spells), exact=False, samples=1)
    found = json.loads(compare_text_to_image.main(args).read_text())["systems"]
    assert "spelling" not in found["dalle"]["categories"]
    assert found["dalle"]["categories"]["all"]["pictures"] == 50
    assert found["parti"]["categories"]["spelling"]["pictures"] == 10
    assert found["parti"]["categories"]["all"]["pictures"] == 60
    told = capsys.readouterr()
    rows = {line.split(" |")[0]: line.split(" | ") for line in told.out.splitlines()}
    assert rows["| dalle"][6] == "-"
    assert rows["| parti"][6].startswith("0%")
    assert rows["| system"][6] == "spelling"
    assert "[UNK]" not in told.err


class Place:
    device = torch.device("cpu")


def test_every_system_stands_in_the_table_with_its_own_pictures(runs, tmp_path):
    names = [str(path) for path in runs]
    done = run_script(
        "compare_text_to_image", "smoke", "--out", tmp_path / "run", "--results",
        tmp_path / "results", "--runs", *names,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results" / "text_to_image.json").read_text())["systems"]
    assert list(found) == [EXACT, "glide", "dalle"]
    args = Args(runs=runs, samples=1)
    for system in find_systems(args, Place):
        signs = system.name == EXACT
        prompts = [p.caption for p in PROMPTS if signs or p.category != "spelling"]
        parts = [system.sample(prompts[i : i + 64]) for i in range(0, len(prompts), 64)]
        hits = satisfied(torch.cat(parts), prompts)
        total = found[system.name]["categories"]["all"]
        assert total["satisfied"][0] == pytest.approx(float(hits.float().mean()))
        assert total["pictures"] == len(prompts) == (60 if signs else 50)
        for i, caption in enumerate(prompts):
            assert total["right"][caption] == int(hits[i])
        assert f"| {system.name} |" in done.stdout
    # Who knows all pictures draws what is asked for; who was hardly trained draws nothing.
    assert found[EXACT]["categories"]["all"]["satisfied"][0] > 0.9
    assert found["glide"]["categories"]["all"]["rejected"][0] == 1
    assert (tmp_path / "results" / "text_to_image.png").stat().st_size > 5000


def test_a_score_as_json_keeps_interval_and_hits():
    from generative.known.prompts import judge
    from generative.known.scenes import draw

    empty = draw(torch.full((1, 9), 24))
    scores = told(judge(lambda texts: empty.expand(len(texts), -1, -1, -1), PROMPTS[:10], 2))
    assert scores["counting"] == {**scores["all"]}
    assert scores["all"]["satisfied"][0] == 0
    assert scores["all"]["satisfied"][2] == pytest.approx(0.1611, abs=1e-3)  # 0 of 20, Wilson


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="nothing to compare"):
        Args(exact=False)
    with pytest.raises(ValueError, match="same name, run, run"):
        Args(runs=(tmp_path / "a" / "run", tmp_path / "b" / "run"))
    smoke = train_text_to_image.PRESETS["smoke"].model
    replace(smoke, image_shape=(3, 32, 32), words=("red",)).build().save_pretrained(
        tmp_path / "large"
    )
    with pytest.raises(ValueError, match=r"draws pictures \(3, 32, 32\)"):
        find_system(tmp_path / "large", Args(), Place)
    from generative.vae import VAE, ImageVAEConfig

    vae = ImageVAEConfig().build()
    assert isinstance(vae, VAE)
    vae.save_pretrained(tmp_path / "vae")
    with pytest.raises(ValueError, match=r"holds a .*VAE, which draws no picture of a text"):
        find_system(tmp_path / "vae", Args(), Place)
    assert compare_text_to_image.PRESETS["smoke"].samples == 1
