"""The console command."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import scripts.__main__ as command

VERBS = [path.stem for path in Path(command.__file__).parent.glob("[!_]*.py")]


def test_help_lists_every_verb_at_once_and_without_torch():
    code = (
        "import sys; from scripts.__main__ import main\n"
        "main(['--help']); print({'torch', 'tyro', 'numpy'} & set(sys.modules))"
    )
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert time.monotonic() - began < 1.0
    assert result.stdout.endswith("set()\n")
    assert max(map(len, result.stdout.splitlines())) <= 80
    for verb in VERBS:
        assert f"\n  {verb} " in result.stdout


def test_typing_errors_get_a_suggestion(capsys):
    assert command.main(["train_vea"]) == 2
    assert "no verb 'train_vea'; did you mean train_vae?" in capsys.readouterr().err
    assert command.main([]) == 2
    assert "usage: worldmodels VERB" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["train_vae", "train-vae"])
def test_verb_gets_its_arguments(monkeypatch, verb):
    import scripts.train_vae as script

    seen = []
    monkeypatch.setattr(script, "main", seen.append)
    assert command.main([verb, "smoke", "--steps", "3"]) == 0
    assert [(args.steps, args.batch_size) for args in seen] == [
        (3, script.PRESETS["smoke"].batch_size)
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_script_takes_less_than_a_second(verb):
    seconds = []
    for _ in range(3):  # a busy machine gets more than one try
        began = time.monotonic()
        result = subprocess.run(
            [sys.executable, f"scripts/{verb}.py", "--help"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(command.__file__).parents[1],
        )
        seconds.append(time.monotonic() - began)
        if seconds[-1] < 1.0:
            break
    assert min(seconds) < 1.0
    assert "usage:" in result.stdout
