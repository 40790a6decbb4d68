"""The console command, and the help of every script."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import scripts.__main__ as console
from tests.commands import imported, run_script

VERBS = [path.stem for path in Path(console.__file__).parent.glob("[!_]*.py")]
HEAVY = {"torch", "numba", "ray", "stable_baselines3", "matplotlib", "scipy", "cma", "imageio"}
"""What takes long to import; help must not wait for it."""


def test_help_lists_every_verb_at_once_and_without_torch():
    code = (
        "import sys; from scripts.__main__ import main\n"
        "main(['--help']); print({'torch', 'tyro', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.endswith("set()\n")
    assert max(map(len, result.stdout.splitlines())) <= 80
    for verb in VERBS:
        assert f"\n  {verb} " in result.stdout


def test_typing_errors_get_a_suggestion(capsys):
    assert console.main(["train_vea"]) == 2
    assert "no verb 'train_vea'; did you mean train_vae?" in capsys.readouterr().err
    assert console.main([]) == 2
    assert "usage: worldmodels VERB" in capsys.readouterr().out


@pytest.fixture
def nothing_is_missing(monkeypatch):
    """Folders that a command reads count as there."""
    monkeypatch.setattr("generative.training.cli._check_inputs", lambda args: None)


@pytest.mark.parametrize("verb", ["train_vae", "train-vae"])
def test_verb_gets_its_arguments(monkeypatch, nothing_is_missing, verb):
    import scripts.train_vae as script

    seen = []
    monkeypatch.setattr(script, "main", seen.append)
    assert console.main([verb, "smoke", "--steps", "3"]) == 0
    assert [(args.steps, args.batch_size) for args in seen] == [
        (3, script.PRESETS["smoke"].batch_size)
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_verb_without_a_preset_is_the_script_without_a_preset(
    monkeypatch, nothing_is_missing, verb
):
    script = importlib.import_module(f"scripts.{verb}")
    seen = []
    monkeypatch.setattr(script, "main", seen.append)
    assert console.main([verb]) == 0
    default = getattr(script, "DEFAULT_PRESET", "paper")
    assert seen == [script.PRESETS[default]]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_script(verb):
    done = run_script(verb, "--help", modules=True)
    assert done.returncode == 0
    assert not HEAVY & imported(done)
    assert max(map(len, done.stdout.splitlines())) <= 80
    _, _, presets = done.stdout.partition("Presets (the first word):\n")
    for name in importlib.import_module(f"scripts.{verb}").PRESETS:
        assert f"\n  {name} " in "\n" + presets
    script = importlib.import_module(f"scripts.{verb}")
    assert ("--resume RUN" in done.stdout) == hasattr(script.PRESETS["smoke"], "out")
