"""Python on the pages runs as it stands; each command line is one that its command accepts."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from torch import nn

from generative.known.captions import WORDS
from generative.pixelcnn import GatedConfig, PixelCNNConfig
from generative.training.cli import parse
from tests.commands import ROOT
from tests.docs.test_links import PAGES
from tests.generative.families import FAMILIES
from tests.test_docstrings import read_small_models
from tests.tiny_dalle2 import tiny_dalle2

torch.set_num_threads(1)

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, kinds: tuple[str, ...]) -> list[str]:
    """The code blocks of a page that are of one of these languages."""
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind in kinds]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


Stub = Callable[[str], None]
Given = Callable[[Stub], dict[str, Any]]


# ---------------------------------------------------------------------------------------------
# Python: what the blocks leave to the reader, by page
# ---------------------------------------------------------------------------------------------


def given_reuse(stub: Stub) -> dict[str, Any]:
    """The block of a head belongs into a module, which has numbers to learn from."""
    stub("worldmodels.scoring:Scoring")
    stub("worldmodels.evolution:evolve")
    rows = 2
    return {
        "self": nn.Module(),
        "hidden_dim": 8,
        "features": torch.randn(3, 8),
        "target": torch.randn(3, 1),
        "score": lambda x, seed: 0.0,
        "start": np.zeros(5),
        "frame": np.zeros((64, 64, 3), np.uint8),
        "plans": torch.zeros(rows, 4, 3),
        "z0": torch.zeros(rows, 32),
        "h0": torch.zeros(rows, 256),
        "c0": torch.zeros(rows, 256),
        "action": torch.zeros(1, 3),
        "state": (torch.zeros(1, 256), torch.zeros(1, 256)),
    }


def given_cluster(stub: Stub) -> dict[str, Any]:
    stub("worldmodels.scoring:Scoring")
    stub("worldmodels.evolution:evolve")
    return {"episode": lambda candidate, seed: 0.0, "start": np.zeros(5)}


def given_ppo(stub: Stub) -> dict[str, Any]:
    stub("stable_baselines3:PPO")
    return {}


def given_agent(stub: Stub) -> dict[str, Any]:
    """An agent that a reader trained in another environment, here one that does nothing."""
    stub("agents.world_model_agent:WorldModelAgent")
    agent = importlib.import_module("agents.world_model_agent").WorldModelAgent
    agent.from_pretrained.return_value.predict.return_value = (0, None)
    return {}


def given_tokeniser(stub: Stub) -> dict[str, Any]:
    stub("generative.data.text:Tokeniser")
    tokeniser = importlib.import_module("generative.data.text").Tokeniser
    tokeniser.load.return_value.encode.return_value = [2, 3, 4]
    return {}


def of_classes(family: str, num_classes: int) -> nn.Module:
    """The tiny model of a family, for so many classes."""
    return replace(FAMILIES[family].make().config, num_classes=num_classes).build()


def digits_with_classes() -> nn.Module:
    network = GatedConfig(hidden_dim=8, num_layers=2, num_classes=10)
    return PixelCNNConfig((1, 8, 8), 5, 0, network).build()


def painter_of_scenes() -> nn.Module:
    """The tiny text-to-image model for 24x24 pixels, with the words of the micro-world."""
    tiny = FAMILIES["GLIDE"].make().config
    text = replace(tiny.text, vocab_size=4 + len(WORDS), max_len=24)
    return replace(tiny, image_shape=(3, 24, 24), words=WORDS, text=text).build()


def given_model(run: str, make: Callable[[], nn.Module]) -> Given:
    """A model that a reader trained in a run of this name."""

    def given(stub: Stub) -> dict[str, Any]:
        make().save_pretrained(Path("runs", run, "model"))
        return {}

    return given


def given_painters(stub: Stub) -> dict[str, Any]:
    """A text-to-image model of scenes, and a DALL.E 2 of the same."""
    tiny_dalle2().save_pretrained(Path("runs/dalle2/dalle2"))
    return given_model("text_to_image", painter_of_scenes)(stub)


def given_codes(stub: Stub) -> dict[str, Any]:
    """A model of images as codes, and a prior that was trained on its codes."""
    model, prior = FAMILIES["VQVAE"].make(), FAMILIES["PixelCNN of codes"].make().config
    replace(prior, grid=model.grid, num_codes=model.num_codes).build().save_pretrained(
        Path("runs/code_prior/model")
    )
    return given_model("vqvae", lambda: model)(stub)


def given_dialogues(stub: Stub) -> dict[str, Any]:
    """A GPT of dialogues and its words, as its run leaves them."""
    tokeniser = importlib.import_module("generative.known.dialogues").Dialogues().tokeniser
    config = replace(FAMILIES["GPT"].make().config, vocab_size=len(tokeniser), max_len=72)
    given = given_model("gpt-dialogues", lambda: type(FAMILIES["GPT"].make())(config))(stub)
    tokeniser.save(Path("runs/gpt-dialogues/vocabulary.json"))
    return given


def given_clip(stub: Stub) -> dict[str, Any]:
    """A CLIP, and the words that it knows."""
    FAMILIES["CLIP"].make().save_pretrained(Path("runs/clip/model"))
    tokeniser = importlib.import_module("generative.data.caption_tokens").CaptionTokeniser
    tokeniser(("a", "red", "square", "blue", "disc", "green", "cross"), 8).save(
        "runs/clip/vocabulary.json"
    )
    return {}


def given_writer(stub: Stub) -> dict[str, Any]:
    """A Parti of scenes, and the words that it knows."""
    from generative.known.captions import WORDS
    from scripts.train_text_to_codes import PRESETS

    kind = type(FAMILIES["Parti"].make())
    kind(PRESETS["smoke"].model).save_pretrained(Path("runs/text_to_codes/model"))
    tokeniser = importlib.import_module("generative.data.caption_tokens").CaptionTokeniser
    tokeniser(tuple(sorted(WORDS)), 24).save("runs/text_to_codes/vocabulary.json")
    return {}


GIVEN: dict[str, Given] = {
    "docs/any-environment.md": given_agent,
    "docs/cluster.md": given_cluster,
    "docs/reuse.md": given_reuse,
    "docs/stable-baselines.md": given_ppo,
    "docs/families/attention_gan.md": given_model("attention_gan", lambda: of_classes("BigGAN", 4)),
    "docs/families/clip.md": given_clip,
    "docs/families/codes.md": given_codes,
    "docs/families/diffusion.md": given_model("diffusion", FAMILIES["ImageDiffusion"].make),
    "docs/families/flow_matching.md": given_model(
        "flow_matching", FAMILIES["PointFlowMatching"].make
    ),
    "docs/families/gan.md": given_model("conditional_gan", lambda: of_classes("ConditionalGAN", 3)),
    "docs/families/in_context.md": given_dialogues,
    "docs/families/pixelcnn.md": given_model("pixelcnn", digits_with_classes),
    "docs/families/priors.md": given_model("prior", FAMILIES["DiffusionPrior"].make),
    "docs/families/recurrent_text.md": given_tokeniser,
    "docs/families/text_to_image.md": given_painters,
    "docs/families/text_to_codes.md": given_writer,
    "docs/families/transformers.md": given_tokeniser,
}
"""Pages whose code has names or models of the reader, or calls that take minutes. `stub` puts
what checks its arguments and does nothing in the place of "module:name"."""


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, ("python",))], ids=name_of)
def test_python_runs_as_written(page, tmp_path, monkeypatch):
    """The blocks of a page one after the other, as in a notebook."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    read_small_models(monkeypatch)

    def stub(place: str) -> None:
        module, _, attribute = place.partition(":")
        loaded = importlib.import_module(module)
        stands_in = create_autospec(getattr(loaded, attribute))
        monkeypatch.setattr(loaded, attribute, stands_in)

    code = blocks(page, ("python",))
    if any("TakeCover" in part for part in code):
        pytest.importorskip("vizdoom", reason="the extra `doom` is not installed")
    for place in re.findall(r"runs/[\w/-]+", "\n".join(code)):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    given = GIVEN.get(name_of(page))
    namespace = given(stub) if given else {}
    for i, part in enumerate(code):
        exec(compile(part, f"block {i + 1} of {name_of(page)}", "exec"), namespace)


# ---------------------------------------------------------------------------------------------
# Command lines
# ---------------------------------------------------------------------------------------------

PYTHON = r"(?:\.venv/bin/)?python3? scripts/(\w+)\.py"
COMMAND = re.compile(rf"^\s*(?:{PYTHON}|(?:scripts/)?(\w+)\.py|worldmodels (\w+))((?: .*)?)$")
NAMED = re.compile(r"`([^`]+)`")


def shell_lines(page: Path) -> Iterator[str]:
    """Lines of the page's blocks for a shell, with its variables put in, without comments."""
    text = page.read_text("utf-8")
    indented = re.findall(r"^    (?:python|worldmodels) .*", BLOCK.sub("", text), re.M)
    variables: dict[str, str] = {}
    for line in ["", *"\n".join(blocks(page, ("", "sh", "bash"))).splitlines(), *indented]:
        line = re.sub(r"\s+#( .*)?$", "", line)
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        if assigned := re.fullmatch(r'(\w+)="(.*)"', line):
            variables[assigned[1]] = assigned[2]
        yield line


def command_lines() -> dict[str, tuple[str, str]]:
    """Script and arguments of each command line of the pages, by page and line.

    Those in blocks, and those in the text that have arguments.
    """
    found = {}
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue  # it tells of commands as they were
        blocks_out = BLOCK.sub("", page.read_text("utf-8")).replace("\n", " ")
        named = [line for line in NAMED.findall(blocks_out) if " " in line]
        starts = ("python", ".venv", "worldmodels", "$")
        shown = [line for line in shell_lines(page) if line.strip().startswith(starts)]
        for line in (*shown, *named):
            match = COMMAND.match(line)
            script = match and (match[1] or match[2] or match[3])
            if match and script and not script.isupper():
                found[f"{name_of(page)}: {line.strip()}"] = (script, match[4])
    return found


COMMANDS = command_lines()


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_accepted(line, monkeypatch):
    """By the parser of the command; words in capitals, such as RUN, stand for what a reader has."""
    monkeypatch.chdir(ROOT)
    script, rest = COMMANDS[line]
    loaded = importlib.import_module(f"scripts.{script}")
    # A capital letter alone is a number.
    words = ["1" if re.fullmatch("[A-Z]", word) else word for word in shlex.split(rest)]
    if words and words[0] in ("PRESET", "NAME"):
        words[0] = next(iter(loaded.PRESETS))
    if "--resume" in words:  # reads the settings of a run, which is not there
        at = words.index("--resume")
        words[at : at + 2] = []
        words = [word for word in words if word != "--trust"]
    parse(loaded.PRESETS, getattr(loaded, "DEFAULT_PRESET", None), argv=words, prog=script)


def test_make_and_pip_lines_name_what_is_there():
    """Targets of the Makefile, extras of pyproject.toml, and no package that no index has."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for page in PAGES:
        text = page.read_text("utf-8")
        code = "\n".join([*blocks(page, ("", "sh", "bash")), *NAMED.findall(BLOCK.sub("", text))])
        for target in re.findall(r"^\s*make ([a-z-]+)", code, re.M):
            assert target in targets, f"{name_of(page)}: make {target}"
        for installed in re.findall(r"pip install ([^\n#]*)", code):
            assert project["name"] not in installed, f"{name_of(page)}: pip install {installed}"
            for extras in re.findall(r"\.\[([\w,-]+)\]", installed):
                assert set(extras.split(",")) <= set(project["optional-dependencies"]), installed
