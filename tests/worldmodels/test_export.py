"""ONNX graphs against the models they were made of, in onnxruntime."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from generative.vae import ConvVAEConfig
from worldmodels.configs import (
    ActionHead,
    ControllerConfig,
    DreamConfig,
    MDNRNNConfig,
    TransformerMemoryConfig,
)
from worldmodels.controller import LinearController
from worldmodels.dreaming.noise import dropout_mask
from worldmodels.dreaming.step import DreamState, draw_noise, dream_step
from worldmodels.memory import MDNRNN, TransformerMemory
from worldmodels.world_model import WorldModel

REASON = "the extra `onnx` is not installed"
pytest.importorskip("onnx", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)
onnxruntime = pytest.importorskip("onnxruntime", reason=REASON)

from tests.worldmodels.exported import (  # noqa: E402
    ACTION_REPEAT,
    D,
    H,
    exported_agent,
    tiny_agent,
)
from worldmodels import export  # noqa: E402

torch.set_num_threads(1)


def world_with(memory):
    torch.manual_seed(0)
    return WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), memory).eval()


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return *tiny_agent(), *exported_agent(tmp_path_factory)


def test_graphs_say_what_the_models_say(exported):
    """On inputs that were not traced, in batches of sizes that were not."""
    world, controller, folder, differences = exported
    assert set(differences) == {p.name for p in folder.glob("*.onnx")}
    assert max(differences.values()) < 1e-5
    rng = np.random.default_rng(0)
    for n in (1, 7):
        frames = rng.integers(0, 256, (n, 64, 64, 3), np.uint8)
        z = session(folder / "encoder.onnx").run(None, {"frames": frames})[0]
        np.testing.assert_allclose(z, world.encode(frames), atol=1e-5)
        images = session(folder / "decoder.onnx").run(["images"], {"z": z})[0]
        pixels = np.round(images.clip(0, 1) * 255).transpose(0, 2, 3, 1)
        assert np.abs(pixels - world.decode(torch.from_numpy(z)).astype(int)).max() <= 1
        action = rng.uniform(-1, 1, (n, 3)).astype(np.float32)
        h, c = rng.normal(size=(2, n, H)).astype(np.float32)
        paid = rng.normal(size=n).astype(np.float32)
        inputs = {"z": z, "action": action, "prev_reward": paid, "h": h, "c": c}
        memory = session(folder / "memory.onnx")
        names = [output.name for output in memory.get_outputs()]
        got = dict(zip(names, memory.run(None, inputs), strict=True))
        with torch.no_grad():
            out, state = world.memory.step(
                *map(torch.tensor, (z, action)),
                (torch.tensor(h), torch.tensor(c)),
                torch.tensor(paid),
            )
            acted = controller.act(*(torch.from_numpy(x) for x in (z, h, c)))
        expected = {
            **out.mixture._asdict(), "reward": out.reward, "end_logit": out.end_logit,
            "next_h": state[0], "next_c": state[1],
        }  # fmt: skip
        assert list(expected) == names
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)
        drive = session(folder / "controller.onnx")
        np.testing.assert_allclose(drive.run(None, {"z": z, "h": h, "c": c})[0], acted, atol=1e-5)


def test_sizes_are_written_beside_them(exported):
    about = json.loads((exported[2] / "agent.json").read_text())
    assert (about["latent_dim"], about["hidden_dim"], about["state_dim"]) == (D, H, H)
    assert about["action_repeat"] == ACTION_REPEAT
    assert about["action"]["kind"] == "car_racing"
    assert about["reward_input"]


def test_a_transformer_is_stepped_by_its_graph():
    """A whole episode, beyond its context, with the state handed on."""
    torch.manual_seed(0)
    memory = TransformerMemory(
        TransformerMemoryConfig(
            D,
            3,
            H,
            2,
            num_layers=2,
            num_heads=2,
            head_dim=4,
            ff_dim=8,
            context=4,
            reward_input=True,
        )
    ).eval()
    world = world_with(memory)
    graph = export.graphs(world, None)["memory.onnx"]
    step = onnxruntime.InferenceSession(export._trace(graph))
    z, action, paid = torch.randn(1, 9, D), torch.rand(1, 9, 3), torch.randn(1, 9)
    with torch.no_grad():
        expected = memory(z, action, None, paid)[0].mixture.mu
    h, c = (x.numpy() for x in memory.initial_state(1))
    for t in range(9):
        inputs = {"z": z[:, t], "action": action[:, t], "prev_reward": paid[:, t]}
        given = {name: x.numpy() for name, x in inputs.items()}
        *_, mu, _, h, c = step.run(None, {**given, "h": h, "c": c})
        np.testing.assert_allclose(mu, expected[:, t], atol=1e-5)


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.nightly), 1.3])
def test_a_dreamed_step_is_in_its_graph(temperature):
    """Many steps of seven lanes, two of them not a number: clip, pace cap, mask, ends, horizon."""
    torch.manual_seed(0)
    memory = MDNRNN(MDNRNNConfig(D, 3, H, 3, predict_reward=True, predict_end=True, dropout=0.5))
    memory.eval()
    config = DreamConfig(9, temperature, reward_clip=(-1, 0.3), pace_cap=0.1, pace_window=4)
    graph = export.dream_graph(memory, config)
    step = onnxruntime.InferenceSession(export._trace(graph))
    generator = torch.Generator().manual_seed(1)
    mask = dropout_mask(7, H, 0.5, generator, memory.kind)
    z, h, c = (torch.randn(7, size, generator=generator) for size in (D, H, H))
    z[2, 0], h[4, 1] = torch.nan, torch.nan
    state = DreamState.at(z, h, c, torch.zeros(7), mask)
    given = {name: x.numpy() for name, x in state._asdict().items()}
    for t in range(9):
        action = torch.rand(7, 3, generator=generator)
        noise = draw_noise(memory, 7, generator, ends=True)
        with torch.no_grad():
            state, outcome = dream_step(memory, state, action, noise, config)
        drawn = {
            "gumbel": temperature * noise.world.gumbel,
            "eps": math.sqrt(temperature) * noise.world.eps,
            "uniform": noise.end,
            "action": action,
        }
        got = step.run(None, {**given, **{name: x.numpy() for name, x in drawn.items()}})
        got = dict(zip(graph.outputs, got, strict=True))
        for name, value in state._replace(mask=None)._asdict().items():
            if value is not None:
                given[name] = got[f"next_{name}"]
                np.testing.assert_allclose(given[name], value, atol=1e-5, err_msg=f"{name}, {t}")
        for name in ("paid", "p_end", "ended", "truncated"):
            np.testing.assert_allclose(got[name], getattr(outcome, name), atol=1e-5, err_msg=name)
    assert (outcome.ended | outcome.truncated).all()  # at the horizon
    assert state.alive.isnan().tolist() == [row in (2, 4) for row in range(7)]


def test_what_differs_is_not_written(exported, tmp_path, monkeypatch):
    world, _, _, _ = exported
    monkeypatch.setattr(export, "_trace", lambda graph: b"")
    monkeypatch.setattr(export, "_difference", lambda graph, data: 0.1)
    with pytest.raises(ValueError, match=r"encoder\.onnx differs from its model by 0\.1"):
        export.export_onnx(world, None, tmp_path / "agent")
    monkeypatch.setattr(export, "_difference", lambda graph, data: float("nan"))
    with pytest.raises(ValueError, match="nothing was written"):
        export.export_onnx(world, None, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize(
    "action",
    [
        ActionHead("box", low=(-2.0, 0.0), high=(2.0, 1.0)),
        ActionHead("discrete", num=2),
        pytest.param(ActionHead("raw", num=2), marks=pytest.mark.nightly),  # outputs as they are
    ],
)
def test_every_action_head_is_in_its_graph(action):
    controller = LinearController(ControllerConfig(D, H, 2, "zh", action))
    nn.init.normal_(controller.linear.weight)
    z, h = torch.randn(2, D), torch.randn(2, H)
    graph = export.Graph(
        export._Controller(controller), {"z": z, "h": h, "c": torch.zeros(2, H)}, ("action",)
    )
    assert export._difference(graph, export._trace(graph)) < 1e-5
