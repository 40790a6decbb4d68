"""Write an agent as ONNX graphs, which run without torch.

python scripts/export_onnx.py pretrained/carracing-dream --into agent-onnx
python examples/drive_without_torch.py agent-onnx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from generative.training.cli import Input, start
from generative.training.ranges import Checked, Folder


@dataclass(frozen=True)
class Args(Checked):
    """Write an agent as ONNX graphs, which run without torch."""

    agent: tyro.conf.Positional[Annotated[Path, Input("train_in_dream.py", hub=True)]] = Path(
        "pretrained/carracing-dream"
    )
    """Folder of the agent, or its owner/name[@revision] on the hub."""
    into: Folder = Path("runs/agent-onnx")
    """Folder for the graphs: new, or one that this command wrote."""


PRESETS = {"default": Args(), "smoke": Args()}
DEFAULT_PRESET = "default"


def main(args: Args) -> Path:
    """Returns the folder of the graphs."""
    from agents.configs import find_agent

    path = find_agent(args.agent)  # torch takes seconds to import
    from agents.world_model_agent import WorldModelAgent
    from worldmodels.export import export_onnx

    agent = WorldModelAgent.from_pretrained(path)
    repeat = agent.config.action_repeat
    found = export_onnx(agent.world, agent.controller, args.into, action_repeat=repeat)
    for name, difference in found.items():
        print(f"{args.into / name}: at most {difference:.1e} from the model")
    return args.into


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
