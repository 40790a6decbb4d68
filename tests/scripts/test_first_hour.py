"""What a newcomer types before anything is there: each answer names what is missing and how to get
it, at once."""

import subprocess
import sys

import pytest

from tests.commands import ROOT
from worldmodels.memory import load_memory
from worldmodels.sequences import EncodedRollouts
from worldmodels.vision import load_vision


@pytest.mark.parametrize(
    "script", ["evaluate", "render_dream", "play", "export_onnx", "export_page"]
)
def test_a_missing_agent_is_told_before_torch_is_loaded(script, tmp_path):
    code = (
        f"import sys; sys.argv[0] = '{script}.py'\n"
        f"from pathlib import Path; from scripts import {script} as script\n"
        f"args = type(next(iter(script.PRESETS.values())))(agent=Path({str(tmp_path)!r}))\n"
        "try:\n    script.main(args)\n"
        "except FileNotFoundError as error:\n    print(error, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "holds no agent (no agent.json); pass a folder that train_in_dream.py" in done.stdout
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize(
    ("load", "command"),
    [
        (EncodedRollouts.load, "worldmodels encode_rollouts"),
        (load_vision, "scripts/train_vae.py makes"),
        (load_memory, "scripts/train_mdnrnn.py makes"),
    ],
)
def test_the_command_that_makes_what_is_missing_is_named(load, command, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"nothing: no such folder.*{command}"):
        load(tmp_path / "nothing")
