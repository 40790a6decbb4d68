"""The console command, and the help of every script."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import get_args

import pytest

import scripts.__main__ as console
from generative.known.points import PointData
from generative.training import cli
from generative.training.needs import NEEDS, what_is_needed
from scripts.common.images import ImageData
from scripts.common.music import RollData, StreamData, VoiceData
from scripts.common.text import TextData
from tests.commands import ROOT, once, run_python, shared_base

VERBS = [path.stem for path in Path(console.__file__).parent.glob("[!_]*.py")]
SOME = {"download_data", "explore", "train_gpt", "train_in_dream", "train_vae"}
some_verbs = pytest.mark.parametrize(
    "verb", [pytest.param(v, marks=() if v in SOME else pytest.mark.nightly) for v in VERBS]
)
"""A command of each kind in every test run, the others every night: their words are read by one
function, and the help and the default preset of each are looked at in every run."""
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


def test_every_verb_is_in_one_group():
    grouped = [verb for group in console.GROUPS.values() for verb in group]
    assert sorted(grouped) == sorted(VERBS)
    assert "others:" not in console.usage(console.find_verbs())
    for line in console.START_HERE.splitlines()[1:]:
        assert line.split()[1] in VERBS


def test_version(capsys):
    assert console.main(["--version"]) == 0
    assert re.fullmatch(r"worldmodels \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "word", ["--help", "--version", pytest.param("info", marks=pytest.mark.nightly)]
)
def test_a_reader_who_leaves(word):
    line = f"{shlex.quote(sys.executable)} -m scripts {word} | sleep 0"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (141, "")


def test_info_has_what_a_report_needs(capsys):
    assert console.main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["cores"] >= 1
    assert "onnx" in found["extras"]
    assert isinstance(found["bf16_cpu"], bool)
    assert console.main(["info"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    for word in (found["cpu"], "bfloat16", "gpu", "numpy", "extra doom"):
        assert word in text


def default_of(verb: str):
    """A command, and the settings that it has if no preset is named."""
    script = importlib.import_module(f"scripts.{verb}")
    name = getattr(script, "DEFAULT_PRESET", "paper")
    return script, script.PRESETS[name]


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"download_data"}))
def test_the_default_preset_needs_no_download(verb):
    """Its data are made or installed; what else it reads is committed or made by a command."""
    _, args = default_of(verb)
    for field in ("data", "env"):
        assert not what_is_needed(getattr(args, field, None) or "")
    for name, script, path in cli._inputs(args):
        committed = "pretrained" in path.parts
        made = any(f"{other}.py" in script.script for other in VERBS) or verb.startswith("import_")
        assert committed or made, name


@pytest.mark.parametrize("data", [ImageData, PointData, TextData, RollData, StreamData, VoiceData])
def test_what_every_data_set_needs_is_known(data):
    assert set(get_args(data)) <= set(NEEDS)


def test_presets_say_what_they_take_and_need(capsys):
    for verb, line in (
        ("train_gpt", "  reviews     2,000 steps; used if none is named"),
        ("train_gpt", "  characters  2,000 steps; needs a text file of yours; data text, ..."),
        ("train_energy", "28,080 steps; needs a download (download_data); "),
        ("train_vae", "100,000 steps; needs collect_rollouts first; used if none is named"),
        ("train_in_dream", "  doom                  needs vizdoom (the extra doom); "),
    ):
        with pytest.raises(SystemExit) as caught:
            console.main([verb, "--help"])
        assert caught.value.code == 0
        assert line in capsys.readouterr().out


@some_verbs
def test_what_does_not_fit_or_is_missing_is_told_in_words(verb, monkeypatch, tmp_path, capsys):
    """Before the command does anything, in an empty folder."""
    script, args = default_of(verb)
    monkeypatch.setattr(script, "main", lambda args: pytest.fail("the command has begun"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        console.main([verb, "--no-such-option", "3"])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "no-such-option" in told
    assert "Traceback" not in told
    if any(not path.exists() for _, _, path in cli._inputs(args)):
        with pytest.raises(SystemExit) as caught:
            console.main([verb])
        assert caught.value.code == 1
        told = capsys.readouterr().err
        assert told.startswith(f"worldmodels {verb}: ")
        assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


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


@some_verbs
def test_verb_without_a_preset_is_the_script_without_a_preset(
    monkeypatch, nothing_is_missing, verb
):
    script = importlib.import_module(f"scripts.{verb}")
    seen = []
    monkeypatch.setattr(script, "main", seen.append)
    assert console.main([verb]) == 0
    default = getattr(script, "DEFAULT_PRESET", "paper")
    assert seen == [script.PRESETS[default]]


HELPS = """
import contextlib, io, json, os, runpy, sys
folder, files = sys.argv[1], sys.argv[2:]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    sys.argv = [files[0], "--help"]
    runpy.run_path(files[0], run_name="__main__")  # loads what all of them load
for file in files:
    if os.fork() == 0:
        out = os.path.join(folder, os.path.basename(file))
        sys.stdout, sys.argv = open(out + ".txt", "w"), [file, "--help"]
        try:
            runpy.run_path(file, run_name="__main__")
        except SystemExit as stop:
            sys.stdout.close()
            with open(out + ".json", "w") as found:
                json.dump([stop.code, list(sys.modules)], found)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def helps(tmp_path_factory) -> Path:
    """A folder with the help of every script, and [status, modules loaded]; from one process."""

    def make(folder):
        folder.mkdir()
        done = run_python(
            "-c", HELPS, folder, *(ROOT / "scripts" / f"{v}.py" for v in VERBS), cold=True
        )
        assert done.returncode == 0, done.stderr

    return once(shared_base(tmp_path_factory), "helps", make)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_script(verb, helps):
    text = (helps / f"{verb}.py.txt").read_text()
    status, modules = json.loads((helps / f"{verb}.py.json").read_text())
    assert status == 0
    assert not HEAVY & set(modules)
    assert max(map(len, text.splitlines())) <= 80
    _, _, presets = text.partition("Presets (the first word):\n")
    for name in importlib.import_module(f"scripts.{verb}").PRESETS:
        assert f"\n  {name} " in "\n" + presets
    script = importlib.import_module(f"scripts.{verb}")
    preset = next(iter(script.PRESETS.values()))
    assert ("--resume RUN" in text) == hasattr(preset, "out")
