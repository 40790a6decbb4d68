"""Command lines: presets, fields, --resume, and help that a person can read."""

import os
import pkgutil
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tyro

import generative
from generative.training.cli import parse, start
from generative.training.files import read_json
from generative.training.run import Run
from tests.commands import ROOT, imported
from tests.generative.training import small_script
from tests.generative.training.small_script import PRESETS, Args, Model


def words(line: str) -> Args:
    return parse(PRESETS, argv=line.split(), prog="train.py")


def refusal(line: str, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        words(line)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_presets_and_fields():
    assert words("") == PRESETS["paper"]
    assert words("smoke") == PRESETS["smoke"]
    assert words("quick --model.latent-dim 8 --where real --clip 0.5 --no-bf16") == replace(
        PRESETS["quick"], model=Model(8), where="real", clip=0.5, bf16=False
    )
    assert words("--model.channels 1 2 --clip None") == Args(model=Model(channels=(1, 2)))
    assert parse(PRESETS, "smoke", argv=[]) == PRESETS["smoke"]
    assert parse({"tiny": Args(steps=1), "big": Args()}, argv=[]).steps == 1


def test_typing_errors_get_a_suggestion(capsys):
    assert "there is no preset 'smok'; did you mean smoke?" in refusal("smok", capsys)
    assert "presets are paper, quick, smoke" in refusal("xyz", capsys)
    assert "--steps" in refusal("--step 3", capsys)
    assert "--model.latent-dim" in refusal("--model.latent-dims 3", capsys)
    assert "--resume needs the folder of a run" in refusal("--resume", capsys)


def test_help_does_without_torch_and_fits_80_columns():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", small_script.__file__, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80"},
    )
    text = done.stdout
    assert not {"torch", "gymnasium"} & imported(done)  # these take seconds
    assert max(map(len, text.splitlines())) <= 80
    assert "small_script.py [PRESET]" in text
    assert "Train V on recorded frames." in text
    assert "Optimiser steps, not epochs. (default: 100000)" in text
    lines = text.splitlines()
    assert "  paper  100,000 steps; used if none is named" in lines
    assert "  quick  3,000 steps; model.latent_dim 16, bf16 True" in lines
    (smoke,) = [line for line in lines if line.startswith("  smoke")]
    assert smoke.startswith("  smoke  50 steps; model.latent_dim 4, model.channels 1,1, ")
    assert smoke.endswith(" ...")
    assert "may then change: --log-every, --steps" in " ".join(text.split())


def test_help_of_a_preset_shows_its_values(capsys):
    with pytest.raises(SystemExit) as caught:
        words("quick --seed 3 --help")
    assert caught.value.code == 0
    assert "(default: 3000)" in capsys.readouterr().out


def test_command_line_modules_do_not_load_torch():
    configs = [
        f"generative.{package.name}.config"
        for package in pkgutil.iter_modules(generative.__path__)
        if (Path(generative.__path__[0]) / package.name / "config.py").exists()
    ]
    assert len(configs) >= 12
    modules = ", ".join(["generative.training.cli", "generative.training.run", *configs])
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


@pytest.fixture
def run_folder(tmp_path):
    args = replace(PRESETS["quick"], out=tmp_path / "run", seed=9, clip=0.5)
    Run.open(args, kind="train_vae").close()
    return args


def test_resume_reads_the_settings_back(run_folder):
    assert words(f"--resume {run_folder.out}") == run_folder
    assert words(f"--resume={run_folder.out} --steps 7") == replace(run_folder, steps=7)
    assert words(f"--log-every 3 --resume {run_folder.out} --seed 9").log_every == 3


def test_resume_of_a_moved_run_uses_its_new_place(run_folder, tmp_path):
    run_folder.out.rename(tmp_path / "moved")
    assert words(f"--resume {tmp_path / 'moved'}") == replace(run_folder, out=tmp_path / "moved")


def test_resume_says_what_it_refuses(run_folder, capsys):
    error = refusal(f"--resume {run_folder.out} --seed 1 --steps 7 --model.latent-dim 2", capsys)
    assert "seed: stays 9, not 1" in error
    assert "model.latent_dim: stays 16, not 2" in error
    assert "steps:" not in error
    assert "may change: log_every, steps" in error
    error = refusal(f"smoke --resume {run_folder.out}", capsys)
    assert "takes all settings from" in error
    assert "leave out 'smoke'" in error


def test_resume_of_what_is_no_run_of_this_command(run_folder, tmp_path, capsys):
    assert "is not a run: there is no config.json" in refusal(f"--resume {tmp_path}", capsys)
    (run_folder.out / "config.json").write_text(
        '{"format": 1, "kind": "train_gan", "settings": {"depth": 3}}'
    )
    error = refusal(f"--resume {run_folder.out}", capsys)
    assert "is a run of train_gan; its settings do not fit this command" in error
    assert "unknown: depth" in error
    (run_folder.out / "config.json").write_text("{")
    assert "is damaged" in refusal(f"--resume {run_folder.out}", capsys)


@dataclass(frozen=True)
class Evaluate:
    """Drive the stock track."""

    agent: tyro.conf.Positional[Path] = Path("pretrained/x")
    """Folder of the agent."""
    episodes: int = 100


def test_positional_folder_beside_presets():
    presets = {"paper": Evaluate(), "smoke": Evaluate(episodes=1)}
    assert parse(presets, argv=["runs/a", "--episodes", "3"]) == Evaluate(Path("runs/a"), 3)
    assert parse(presets, argv=["smoke", "runs/a"]) == Evaluate(Path("runs/a"), 1)
    assert parse(presets, argv=[]) == Evaluate()


def test_an_error_of_ours_is_told_in_its_own_words(tmp_path, capsys):
    def main(args: Args) -> None:
        read_json(tmp_path / "lost.json")

    with pytest.raises(SystemExit) as caught:
        start(main, PRESETS, argv=[], prog="train.py")
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith("train.py: ")
    assert "lost.json" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("module", ["scripts.train", "elsewhere"])
def test_a_fault_in_a_program_keeps_its_traceback(module):
    scope = {"__name__": module}
    exec("def main(args): int('not a number')", scope)
    with pytest.raises(ValueError, match="invalid literal"):
        start(scope["main"], PRESETS, argv=[])
    exec("def main(args): raise ValueError('of another project')", scope)
    expected = SystemExit if module == "scripts.train" else ValueError
    with pytest.raises(expected):
        start(scope["main"], PRESETS, argv=[])


def test_a_run_that_names_a_module_is_resumed_on_trust_only(tmp_path, capsys):
    """Its folder may be a stranger's; what is typed is not."""

    @dataclass(frozen=True)
    class Args:
        out: Path = Path("runs/x")
        env: str = ""

    presets = {"one": Args()}
    args = parse(presets, argv=["--out", str(tmp_path / "r"), "--env", "no.such.package:Mine-v0"])
    Run.open(args, kind="x").close()
    with pytest.raises(SystemExit) as caught:
        parse(presets, argv=["--resume", str(tmp_path / "r")])
    assert caught.value.code == 2
    assert (
        "r/config.json: names the environment 'no.such.package:Mine-v0'" in capsys.readouterr().err
    )
    assert parse(presets, argv=["--resume", str(tmp_path / "r"), "--trust"]) == args
    with pytest.raises(SystemExit):
        parse(presets, argv=["--trust"])


STORY = """
import sys, time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from generative.training.cli import Input, start
from generative.training.progress import progress


@dataclass(frozen=True)
class Args:
    out: Path = Path("somewhere")
    what: str = "talk"
    source: Annotated[Path, Input("make_it.py")] = Path("/")


def main(args):
    print("ready", flush=True)
    if args.what == "talk":
        for i in progress(range(3000), "talking"):
            print("word", i)
    elif args.what == "wait":
        time.sleep(60)
    elif args.what == "import":
        import onnxscript.no_such_part
    elif args.what == "fault":
        import no_such_package_of_anybody
    elif args.what == "write":
        args.out.mkdir(parents=True)
    elif args.what == "write twice":
        open("/", "w")
    elif args.what == "descriptors":
        args.out.write_text(" ".join(str(f.fileno()) for f in (open("/"+"etc/hostname"),)))
        print("nobody", "hears", file=sys.stderr)


if __name__ == "__main__":
    start(main, {"only": Args()})
"""


@pytest.fixture
def story(tmp_path):
    """Runs the script above through a shell; `{}` in the line stands for it."""
    (tmp_path / "story.py").write_text(STORY)
    program = shlex.join([sys.executable, str(tmp_path / "story.py")])

    def run(line: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace("{}", program)],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


def test_a_reader_that_leaves_ends_the_command_quietly(story):
    done = story("{} | head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (141, "ready\n", "")
    done = story("{} 2>&1 | head -n 1")
    assert (done.returncode, done.stdout) == (141, "ready\n")
    done = story("{} --help | sleep 0")
    assert (done.returncode, done.stderr) == (141, "")


def test_without_standard_streams_a_command_runs(story, tmp_path):
    done = story("{} --what descriptors --out told <&- >&- 2>&-")
    assert done.returncode == 0
    assert int((tmp_path / "told").read_text()) > 2  # a file that is opened is not the terminal
    assert story("{} >&-").returncode == 0


def test_ctrl_c_before_the_first_step_is_one_line():
    process = subprocess.Popen(
        [sys.executable, "-c", STORY, "--what", "wait"], env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert told.split("\n") == ["", "-c: stopped (SIGINT)", ""]


@pytest.mark.parametrize(
    ("folder", "status", "told"),
    [("scripts", 130, "\nstopped (SIGINT)\n"), ("elsewhere", -signal.SIGINT, "Traceback")],
)
def test_ctrl_c_while_a_command_imports(folder, status, told):
    """A command of ours says a line; whoever imports this project keeps what Python does."""
    code = (
        "import os, signal, sys\n"
        f"sys.modules['__main__'].__file__ = {str(ROOT / folder / 'x.py')!r}\n"
        "import generative\n"  # the first thing that a command imports
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status
    assert done.stderr.startswith(told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "--what import",
            'onnxscript is not installed: pip install "onnxscript>=0.5" (the extra onnx)',
        ),
        ("--what write --out /proc/nowhere/at-all", "/proc/nowhere: No such file or directory"),
        ("--what write --out story.py/below", "story.py/below: Not a directory"),
        ("--what 'write twice'", "/: Is a directory"),
        (
            "--source nothing",
            "nothing: no such folder; make it with `worldmodels make_it`, or pass another as "
            "--source",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line(story, words, told):
    done = story("{} " + words)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("story.py: ")
    assert told in done.stderr


def test_a_package_that_nobody_asks_for_is_a_fault(story):
    done = story("{} --what fault")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_inputs_of_a_finished_run_may_be_gone(story, tmp_path):
    (tmp_path / "somewhere").mkdir()
    (tmp_path / "somewhere" / "result.json").write_text("{}")
    assert story("{} --source nothing").returncode == 0
