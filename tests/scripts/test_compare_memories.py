"""train_transformer_memory.py and compare_memories.py with their smoke presets."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from scripts import collect_rollouts, compare_memories, encode_rollouts, train_transformer_memory
from worldmodels.memory import load_memory
from worldmodels.memory.transformer import TransformerMemory
from worldmodels.sequences import EncodedRollouts

VISION = Path("pretrained/carracing-dream/vision")


def test_both_memories_are_compared_and_nothing_is_done_twice(tmp_path, capsys):
    smoke = replace(
        compare_memories.PRESETS["smoke"], out=tmp_path / "run", results=tmp_path / "results"
    )
    report = compare_memories.main(smoke)
    found = json.loads(report.read_text())
    assert set(found["memories"]) == {"lstm", "transformer", "committed"}
    for (one,) in found["memories"].values():
        assert {len(curve) for curve in one["errors"].values()} == {smoke.horizon}
        assert np.isfinite(one["nll"])
        assert one["dream"]["moments"] > 0
        assert one["step_decisions_per_second"] > 0
    # What z staying as it is costs, and what was really paid, are facts of the data.
    facts = [
        (m[0]["errors"]["still"], m[0]["dream"]["real_return"]) for m in found["memories"].values()
    ]
    assert facts[0] == facts[1] == facts[2]
    train = EncodedRollouts.load(tmp_path / "run" / "encoded-train" / "data")
    assert found["train_decisions"] == train.lengths.sum()
    assert (tmp_path / "results" / "compare.json").read_bytes() == report.read_bytes()
    assert (tmp_path / "results" / "compare.png").read_bytes()[1:4] == b"PNG"
    before = capsys.readouterr().out.splitlines()[-12:]
    assert compare_memories.main(smoke) == report
    assert capsys.readouterr().out.splitlines()[-12:] == before


def test_a_transformer_is_trained_and_goes_on(tmp_path):
    episodes = collect_rollouts.main(
        replace(collect_rollouts.PRESETS["smoke"], out=tmp_path / "rollouts")
    )
    data = encode_rollouts.main(
        encode_rollouts.Args(tmp_path / "encoded", (episodes,), VISION, device="cpu")
    )
    smoke = train_transformer_memory.PRESETS["smoke"]
    smoke = replace(
        smoke, out=tmp_path / "m", encoded=(data,), model=replace(smoke.model, latent_dim=32)
    )
    folder = train_transformer_memory.main(smoke)
    memory = load_memory(folder)
    assert isinstance(memory, TransformerMemory)
    assert memory.config == smoke.model
    again = train_transformer_memory.main(replace(smoke, out=tmp_path / "n", start_from=folder))
    assert load_memory(again).config == smoke.model
