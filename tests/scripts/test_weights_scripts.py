"""import_weights.py and export_onnx.py: from other programs' folders to a drive."""

import json
from unittest.mock import create_autospec

import gymnasium
import numpy as np
import pytest
import torch

from agents.world_model_agent import WorldModelAgent
from generative.training.files import DamagedFileError
from scripts import evaluate, export_onnx, import_weights
from tests.commands import run_script
from tests.worldmodels.foreign_weights import experiment_folder, json_folder
from worldmodels import export
from worldmodels.importers import ForeignWeightsError, read_checkpoints, read_json_weights
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)


def snapshot(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", ["json", "checkpoints"])
def test_imported_agents_are_evaluated(form, tmp_path):
    source, agent = tmp_path / "source", tmp_path / "agent"
    if form == "json":
        json_folder(source)
    else:
        experiment_folder(source)
    assert import_weights.main(import_weights.Args(source, agent)) == agent
    assert not list(tmp_path.glob(".*.tmp"))
    evaluation = evaluate.main(evaluate.Args(agent, episodes=1, workers=0, fast=True, max_steps=12))
    assert np.isfinite(evaluation.mean)
    # The actions are C's own of what V and M make of the frames.
    imported = read_json_weights(source) if form == "json" else read_checkpoints(source)
    loaded = WorldModelAgent.from_pretrained(agent)
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    first, state = loaded.predict(frames, None, True)
    z, (h, c) = imported.world.encode(frames), imported.world.memory.initial_state(2)
    with torch.no_grad():
        expected = imported.controller.act(z, h, c)
        np.testing.assert_allclose(first, expected, atol=1e-5)
        _, (h, c) = imported.world.memory.step(z, expected, (h, c))
        second = imported.controller.act(z, h, c)
    np.testing.assert_allclose(loaded.predict(frames, state)[0], second, atol=1e-5)
    import_weights.main(import_weights.Args(source, agent))  # once more, in its place


def test_doom_is_for_its_own_game(tmp_path):
    json_folder(tmp_path / "doom", doom=True)
    import_weights.main(import_weights.Args(tmp_path / "doom", tmp_path / "agent"))
    agent = WorldModelAgent.from_pretrained(tmp_path / "agent")
    assert agent.task.env_id == "WorldModels/TakeCover64-v0"
    action, _ = agent.predict(np.zeros((64, 64, 3), np.uint8), None, True)
    assert gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32).contains(action)


def test_nothing_is_half_written(tmp_path):
    source, agent = tmp_path / "source", tmp_path / "agent"
    json_folder(source)
    import_weights.main(import_weights.Args(source, agent))
    before = snapshot(agent)
    rnn = source / "rnn" / "rnn.json"
    content = json.loads(rnn.read_text())
    rnn.write_text(json.dumps(content[:-1]))
    with pytest.raises(ForeignWeightsError, match="holds 3 arrays"):
        import_weights.main(import_weights.Args(source, agent))
    rnn.write_text("[[")
    done = run_script("import_weights", source, "--into", agent)
    assert done.returncode == 1
    assert "rnn.json: is damaged, not JSON" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(DamagedFileError):
        import_weights.main(import_weights.Args(source, tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert snapshot(agent) == before
    rnn.write_text(json.dumps(content))
    (agent / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes\.txt\)"):
        import_weights.main(import_weights.Args(source, agent))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        import_weights.main(import_weights.Args(tmp_path / "nothing"))
    for best in source.rglob("*.best.json"):
        best.unlink()
    import_weights.main(import_weights.Args(source, tmp_path / "world"))
    assert WorldModel.from_pretrained(tmp_path / "world").memory.config.latent_dim == 4
    assert not (tmp_path / "world" / "agent.json").exists()


def test_an_agent_is_handed_to_the_export(tmp_path, capsys, monkeypatch):
    """tests/worldmodels/test_export.py looks at the graphs."""
    experiment_folder(tmp_path / "source")
    import_weights.main(import_weights.Args(tmp_path / "source", tmp_path / "agent"))
    handed = create_autospec(export.export_onnx, return_value={"memory.onnx": 1.5e-7})
    monkeypatch.setattr(export, "export_onnx", handed)
    folder = export_onnx.main(export_onnx.Args(tmp_path / "agent", tmp_path / "onnx"))
    agent = WorldModelAgent.from_pretrained(tmp_path / "agent")
    world, controller, into = handed.call_args.args
    assert into == folder == tmp_path / "onnx"
    assert (world.vision.config, controller.config) == (
        agent.world.vision.config,
        agent.controller.config,
    )
    assert handed.call_args.kwargs == {"action_repeat": agent.config.action_repeat}
    assert f"{folder / 'memory.onnx'}: at most 1.5e-07 from the" in capsys.readouterr().out


@pytest.mark.nightly
def test_an_agent_is_exported(tmp_path, capsys):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra `onnx` is not installed")
    experiment_folder(tmp_path / "source")
    import_weights.main(import_weights.Args(tmp_path / "source", tmp_path / "agent"))
    folder = export_onnx.main(export_onnx.Args(tmp_path / "agent", tmp_path / "onnx"))
    names = {"encoder.onnx", "decoder.onnx", "memory.onnx", "controller.onnx"}
    assert names | {"agent.json", "manifest.json"} == {p.name for p in folder.iterdir()}
    assert "from the model" in capsys.readouterr().out
    assert json.loads((folder / "agent.json").read_text())["action"]["kind"] == "raw"
