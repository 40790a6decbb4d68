"""The command of the priors of DALL.E 2 and its pictures, beyond what the smoke preset does."""

import json
from dataclasses import replace

import pytest
import torch

from generative.nets.config import gpt2_block
from generative.priors import AutoregressivePriorConfig, DiffusionPriorConfig
from scripts import explore, train_clip, train_prior
from scripts.common.priors import embedding_scores, load_embeddings

torch.set_num_threads(1)
BLOCK = gpt2_block(8, 2, dropout=0.0)
SMOKE = train_prior.PRESETS["smoke"]


def test_buckets_of_the_pair_from_their_command_to_their_pictures(tmp_path):
    model = AutoregressivePriorConfig(
        components=2, buckets=4, text_tokens=1, encoder_layers=1, decoder_layers=1, block=BLOCK,
        unit=False,
    )  # fmt: skip
    train_prior.main(replace(SMOKE, out=tmp_path / "run", model=model, steps=2))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_nll"] > result["floor"] > 0
    drawn = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "explore")
    )
    assert {path.stem for path in drawn.glob("*.png")} - {"curves"} == {"samples"}


def test_errors_of_a_diffusion_prior_are_beside_the_least(tmp_path):
    train_prior.main(replace(SMOKE, out=tmp_path / "run", steps=2))
    drawn = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "explore")
    )
    assert {path.stem for path in drawn.glob("*.png")} - {"curves"} == {"samples", "errors"}
    found = json.loads((drawn / "explore.json").read_text())
    for name in ("", "alone_"):
        for level in ("-6", "-3", "0", "2"):
            assert found[f"{name}mse_{level}"] > found[f"{name}floor_{level}"] > 0
    assert found["floor_-6"] == pytest.approx(0.2998, abs=2e-3)


@pytest.mark.parametrize("context", [pytest.param(0, marks=pytest.mark.nightly), 16])
def test_a_prior_of_the_embeddings_of_a_clip(context, tmp_path):
    train_clip.main(replace(train_clip.PRESETS["smoke"], out=tmp_path / "clip", steps=2))
    model = DiffusionPriorConfig(16, 16, context, 24, 1, BLOCK, steps=2)
    args = replace(
        SMOKE, out=tmp_path / "run", data="clip", clip=tmp_path / "clip", model=model, steps=2
    )
    train_prior.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert -1 <= result["cosine_of_text"] <= 1
    assert "floor_-6" not in result
    drawn = explore.main(
        replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "explore")
    )
    assert {path.stem for path in drawn.glob("*.png")} - {"curves"} == {"samples"}
    source = load_embeddings("clip", tmp_path / "clip", bool(context), "cpu")
    batch = source.draw(5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch.image.norm(dim=1), torch.ones(5))
    assert (batch.context is None) == (not context)
    if context:
        assert batch.context.shape == (5, 24, 16)
        assert not batch.context[~batch.mask].any()


def test_who_draws_the_posterior_cannot_be_told_from_the_truth():
    source = load_embeddings("gaussian-pair", None, False, "cpu")

    class Exact(torch.nn.Linear):
        def sample(self, text, context, mask, generator):
            return source.pair.posterior(text, generator)

    class Mean(Exact):
        def sample(self, text, context, mask, generator):
            return source.pair.posterior_mean(text)

    exact, mean = (
        embedding_scores(kind(1, 1), source, torch.Generator().manual_seed(1), 200)
        for kind in (Exact, Mean)
    )
    assert exact["energy_p"] > 0.05
    assert mean["energy_p"] < 0.05
    assert mean["cosine"] > exact["cosine"] > exact["cosine_unrelated"]


def test_a_clip_that_is_not_there_is_asked_for(tmp_path):
    args = replace(SMOKE, out=tmp_path / "run", data="clip", clip=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="pass --clip with a run of train_clip"):
        train_prior.main(args)
