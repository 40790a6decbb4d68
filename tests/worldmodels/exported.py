"""A tiny agent and its ONNX graphs, which take seconds to trace and so are made once."""

import json
from pathlib import Path

import torch
from torch import nn

from generative.vae import ConvVAEConfig
from tests.commands import once, shared_base
from worldmodels.configs import ControllerConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.memory import MDNRNN
from worldmodels.world_model import WorldModel

D, H = 4, 6
ACTION_REPEAT = 3


def tiny_agent() -> tuple[WorldModel, LinearController]:
    """V, M and C with weights that are the same each time."""
    torch.manual_seed(0)
    config = MDNRNNConfig(
        D, 3, H, 3, reward_input=True, predict_reward=True, predict_end=True, residual=True
    )
    world = WorldModel(ConvVAEConfig(D, (2, 3, 4, 5)).build(), MDNRNN(config)).eval()
    controller = LinearController(ControllerConfig(D, H, 3, "zhc"))
    nn.init.normal_(controller.linear.weight, 0, 2.0)
    return world, controller


def exported_agent(tmp_path_factory) -> tuple[Path, dict[str, float]]:
    """The folder of its graphs, not to be changed, and what `export_onnx` returned."""

    def make(folder: Path) -> None:
        from worldmodels.export import export_onnx

        folder.mkdir()
        differences = export_onnx(*tiny_agent(), folder / "agent", ACTION_REPEAT)
        (folder / "differences.json").write_text(json.dumps(differences))

    folder = once(shared_base(tmp_path_factory), "an exported agent", make)
    return folder / "agent", json.loads((folder / "differences.json").read_text())
