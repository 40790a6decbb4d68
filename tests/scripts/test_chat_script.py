"""Talking to a GPT by command line."""

import sys
from dataclasses import replace

import pytest
import torch

from generative.text.config import BlockConfig, GPTConfig
from scripts import chat, train_gpt
from tests.commands import run_script

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    smoke = replace(train_gpt.PRESETS["smoke"], data="dialogues", length=18, prompt="user",
        model=GPTConfig(30, 18, 1, BlockConfig(16, 2, 8, 32)), steps=2, sample_every=5)  # fmt: skip
    folder = tmp_path_factory.mktemp("chat") / "run"
    train_gpt.main(replace(smoke, out=folder))
    return folder


def test_lines_that_are_read_are_answered(run, monkeypatch, capsys):
    lines = ["my hat is red .\n", "\n", "/undo\n", "/forget\n", "/x\n", "user\n", "my zzz ?\n"]
    lines += ["my hat is red .\n"]
    monkeypatch.setattr(sys, "stdin", lines)
    answers = chat.main(replace(chat.PRESETS["terminal"], folder=run))
    assert len(answers) == 3
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:3] == ["(0 turns)", "(a new conversation)"]
    assert shown[3].startswith("(there is no /x;")
    assert "say something" in shown[4]
    assert "unknown: zzz" in shown[5]
    assert shown[6].startswith(answers[2])


def test_by_command_line(run):
    words = ("--say", *["my hat is red ."] * 3)
    done = run_script("chat", run, *words)
    assert done.returncode == 0, done.stderr
    assert "(without the first 1 turns" in done.stdout
    done = run_script("chat", run / "nothing")
    assert done.returncode == 1
    assert "worldmodels train_gpt dialogues" in done.stderr
    assert "Traceback" not in done.stderr
