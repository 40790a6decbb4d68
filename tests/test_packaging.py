"""What is installed under which name, and what an import of ours loads."""

import ast
import configparser
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.commands import ROOT

PACKAGES = ("agents", "envs", "generative", "worldmodels")
HEAVY = ("ray", "stable_baselines3", "music21", "vizdoom", "cma", "onnx")


@pytest.mark.parametrize("name", PACKAGES)
def test_everyday_names_are_ours(name):
    """`agents` and `envs` are names that others use too."""
    found = importlib.import_module(name).__file__
    assert found, f"`import {name}` finds a folder without __init__.py that is not this project's"
    assert Path(found).parent == ROOT / name, (
        f"`import {name}` finds {found}, another project's package; uninstall that one, or put "
        "this project's folder before it on sys.path"
    )


def test_importing_the_packages_loads_nothing_heavy():
    code = f"import sys, {', '.join(PACKAGES)}\nprint(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


EXTRAS = (
    "ray", "stable_baselines3", "music21", "tensorboard", "imageio", "matplotlib", "sklearn",
    "vizdoom", "onnx", "onnxruntime", "onnxscript", "scipy", "pandas",
    "huggingface_hub", "minari", "h5py", "pyarrow",
)  # fmt: skip
"""Modules of the extras, and what comes with them only."""


def run_in_core(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run code as where no extra is installed."""
    hidden = f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n"
    return subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", hidden + code, *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_core_reuses_parts_and_trains_without_extras(tmp_path):
    done = run_in_core(
        f"import {', '.join(PACKAGES)}\n"
        "import torch\n"
        "from generative.mdn import MixtureDensityHead\n"
        "from worldmodels.memory import MDNRNN\n"
        "from worldmodels.world_model import WorldModel\n"
        "from agents.world_model_agent import WorldModelAgent\n"
        "agent = WorldModelAgent.from_pretrained('pretrained/carracing-dream')\n"
        "agent.world.decode(torch.zeros(1, agent.world.memory.config.latent_dim))\n"
        "import dataclasses, pathlib\n"
        "from scripts.train_gan import PRESETS, main\n"
        "main(dataclasses.replace(PRESETS['smoke'], out=pathlib.Path(sys.argv[1])))\n",
        tmp_path / "gan",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "gan" / "curves.png").is_file()


@pytest.mark.parametrize(
    ("verb", "words", "extra"),
    [
        ("train_ppo", [], "sb3"),
        pytest.param(
            "train_autoencoder", ["--data", "digits"], "digits", marks=pytest.mark.nightly
        ),
    ],
)
def test_what_needs_an_extra_says_which(verb, words, extra, tmp_path):
    done = run_in_core(
        "from generative.training.cli import start\n"
        f"from scripts.{verb} import DEFAULT_PRESET, PRESETS, main\n"
        "start(main, PRESETS, DEFAULT_PRESET)\n",
        *("smoke", *words, "--out", tmp_path),
    )
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "is not installed: pip install" in last
    assert last.endswith(f"(the extra {extra})")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_need_no_checkout(path):
    """A wheel has our packages under their names, and `scripts` under another."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert "scripts" not in {name.partition(".")[0] for name in named}


def test_make_install_brings_what_the_presets_read():
    """Digits and chorales lie in packages; what is asked for by name is pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [
        re.match(r"[\w-]+", line)[0]
        for lines in (project["dependencies"], *extras.values())
        for line in lines
    ]
    [everything] = extras["all"]
    for_users = extras.keys() - {"all", "test", "dev", "oracles", "bench", "docs"}
    assert set(re.search(r"\[(.*)\]", everything)[1].split(",")) == for_users
    assert {"digits", "music"} <= for_users
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert set(names) <= {project["name"], *pinned}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy: setuptools writes beside its source."""
    pytest.importorskip("setuptools", minversion="77", reason="the wheel is built with setuptools")
    base = tmp_path_factory.mktemp("wheel")
    source = base / "source"
    source.mkdir()
    for name in (*PACKAGES, "scripts"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", base, source]
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = base.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def shipped(wheel):
    """Names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_ships_only_our_packages(shipped):
    tops = {name.partition("/")[0] for name in shipped}
    tops = {name for name in tops if not name.endswith(".dist-info")}
    assert tops == set(PACKAGES)


def test_wheel_holds_every_module_and_the_pages(shipped):
    for package in PACKAGES:
        modules = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        stubs = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.pyi")}
        assert modules | stubs | {f"{package}/py.typed"} <= shipped
    pages = {"agents/play/page.html", "agents/play/alone.html"}
    assert pages | {"generative/pages/pictures/page.html"} <= shipped
    packed = {"emoji-32.webp", "emoji.tsv", "NOTICE", "APACHE-2.0.txt"}
    assert {f"generative/data/packed/{name}" for name in packed} <= shipped
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in shipped)


def test_console_command_of_the_wheel_lists_its_own_verbs(wheel, tmp_path):
    """As installed: the entry point, from a folder that is not the project's."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    [info] = tmp_path.glob("*.dist-info/entry_points.txt")
    settings = configparser.ConfigParser()
    settings.read(info)
    module, _, function = settings["console_scripts"]["worldmodels"].partition(":")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from {module} import {function}; sys.argv = ['worldmodels', '--help']\n"
        f"status = {function}(); import scripts; print(scripts.__file__); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for path in (ROOT / "scripts").glob("[!_]*.py"):
        assert f"\n  {path.stem} " in done.stdout
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(tmp_path)


def test_make_does_not_show_its_environment():
    lines = (ROOT / "Makefile").read_text().replace("\\\n", "").splitlines()
    recipes = [line for line in lines if line.startswith("\t")]
    assert recipes
    for line in recipes:
        assert line.startswith(("\t@", "\t$(INSTALL)")), line  # INSTALL begins with @


def test_python_versions_of_the_metadata_are_the_tested_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python :: 3." in c]
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    tested = re.search(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)[1]
    assert named == re.findall(r'"(.*?)"', tested)
    assert project["requires-python"] == f">={named[0]}"
