"""Model cards: written from reports, and those of the committed agents are up to date."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from agents.cards import card, write_card
from agents.loading import load_agent
from agents.world_model_agent import WorldModelAgent
from generative.training.files import read_json
from generative.training.run import Run, read_result
from generative.vae import ConvVAE, ConvVAEConfig
from scripts import card as script
from scripts import train_text_to_image
from tests.commands import ROOT, snapshot
from worldmodels.loading import load_model

COMMITTED = {
    "carracing-dream": (
        "standard-seed1-11-rounds/report.json",
        "It scores below 800 on 5 of the 100 tracks, 524 to 708.",
        "worldmodels train_in_dream standard --rounds 11",
    ),
    "carracing-ppo-dream": (
        "ppo/dream-seed1/evaluation.json",
        "It sees by V and M of `carracing-dream`. It scores below 500 on 12 of the 100 tracks, 130 "
        "to 470.",
        "worldmodels train_ppo dream",
    ),
    "doom-take-cover": (
        "doom/evaluation.json",
        "It was trained while settings were being found: the preset doom, from nothing, gave an "
        "agent of 753 +/- 474.",
        "worldmodels train_in_dream doom",
    ),
}
"""Report, limits and command of each committed agent."""


MODELS = {
    "emoji": (
        "It repeats the pictures of its training, blurred; of names that it never saw it draws "
        "what is called alike.",
        "worldmodels train_latent_diffusion emoji --out pretrained/emoji",
    )
}
"""Limits and command of each committed model."""


@dataclass(frozen=True)
class Settings:
    out: Path
    data: str = "a | b"
    seed: int = 4


def small() -> ConvVAE:
    return ConvVAEConfig(latent_dim=2, channels=(2, 2, 2, 2)).build()


def head(text: str) -> dict:
    """The YAML head of a card."""
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])


def test_every_committed_agent_has_a_card():
    assert {*COMMITTED, *MODELS} == {path.name for path in (ROOT / "pretrained").iterdir()}


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_cards_are_what_their_reports_say(name, monkeypatch):
    """`worldmodels card pretrained/NAME --report ... --limits ... --commands ...` writes them."""
    monkeypatch.chdir(ROOT)
    report, limit, command = COMMITTED[name]
    folder, report = Path("pretrained") / name, Path("docs/results") / report
    text = card(folder, report, (limit,), (command,))
    assert (folder / "README.md").read_text() == text
    data = read_json(report)
    [result] = head(text)["model-index"][0]["results"]
    value = f"{data['real_mean']:.2f} +/- {data['real_std']:.2f}"
    assert result["metrics"][0]["value"] == value
    assert result["dataset"]["name"] == data["env_id"]
    assert f"{data['episodes']}, seeds 1,000,000 to 1,000,099" in text
    assert f"torch {data['versions']['packages']['torch']}" in text


@pytest.mark.parametrize("name", MODELS)
def test_cards_of_committed_models_are_what_their_runs_say(name, monkeypatch):
    """`worldmodels card pretrained/NAME --limits ... --commands ...` writes them."""
    monkeypatch.chdir(ROOT)
    limit, command = MODELS[name]
    folder = Path("pretrained") / name
    text = (folder / "README.md").read_text()
    assert text == card(folder, None, (limit,), (command,))
    for figure, value in read_result(folder).items():
        assert f"| {figure} | {value:.6g} |" in text
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    load_model(folder)


def test_a_card_changes_nothing_that_is_loaded(tmp_path):
    agent = Path(shutil.copytree(ROOT / "pretrained" / "carracing-dream", tmp_path / "agent"))
    (agent / "README.md").unlink()
    before = snapshot(agent)
    assert write_card(agent) == agent / "README.md"
    after = snapshot(agent)
    assert after.pop("README.md")
    assert after == before
    WorldModelAgent.from_pretrained(agent)


def test_the_card_of_a_run_has_its_figures_settings_and_command(tmp_path):
    with Run.open(Settings(tmp_path / "vae"), kind="train_vae") as run:
        small().save_pretrained(run.path / "model")
        run.finish({"recon": 12.5, "steps": 3, "note": "text"})
    text = write_card(run.path, limits=("It was stopped early.",)).read_text()
    for line in (
        "| recon | 12.5 |", "| steps | 3 |", "| seed | `4` |", '| data | `"a \\| b"` |',
        "| latent_dim | `2` |", f"worldmodels train_vae --resume {run.path}",
        "- It was stopped early.", "This is a ConvVAE of worldmodels-toolkit.",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert head(text)["library_name"] == "worldmodels-toolkit"
    assert run.done
    load_model(run.path)


def test_a_model_without_a_run_has_a_card_too(tmp_path):
    small().save_pretrained(tmp_path / "v")
    text = card(tmp_path / "v")
    assert "| latent_dim | `2` |" in text
    assert "## Figures" not in text


def test_a_card_counts_the_entries_of_a_long_list(tmp_path):
    words = tuple(f"word-{i}" for i in range(33))
    smoke = train_text_to_image.PRESETS["smoke"].model
    replace(smoke, words=words).build().save_pretrained(tmp_path / "m")
    assert "| words | 33 entries |" in card(tmp_path / "m")
    replace(smoke, words=words[:2]).build().save_pretrained(tmp_path / "n")
    assert '| words | `["word-0", "word-1"]` |' in card(tmp_path / "n")


def test_what_has_no_card_says_why(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no agent and no model"):
        card(tmp_path)
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"real_mean": 3}))
    with pytest.raises(ValueError, match=r"is no report of an agent .*evaluate AGENT --json"):
        card(ROOT / "pretrained" / "carracing-dream", report)


@pytest.mark.parametrize("name", ["carracing-dream", "carracing-ppo-dream"])
def test_an_agent_goes_to_the_hub_whole_and_comes_back(name, hub, tmp_path, capsys):
    for other in COMMITTED:
        shutil.copytree(ROOT / "pretrained" / other, tmp_path / "mine" / other)
    folder = tmp_path / "mine" / name
    script.main(script.Args(folder, push=f"ann/{name}"))
    assert f"{hub.url}/ann/{name}/commit/" in capsys.readouterr().out
    files = hub.files(f"ann/{name}")
    assert files["README.md"] == (folder / "README.md").read_bytes()
    assert {"vision/model.safetensors", "memory/model.safetensors"} <= set(files)
    came, went = load_agent(f"ann/{name}"), load_agent(folder)
    frames = torch.randint(256, (3, 96, 96, 3), dtype=torch.uint8).numpy()
    states = [None, None]
    for frame in frames:
        actions = []
        for i, agent in enumerate((came, went)):
            action, states[i] = agent.predict(frame, states[i])
            actions.append(action.tolist())
        assert actions[0] == actions[1]


def test_a_damaged_agent_is_not_pushed(hub, tmp_path):
    agent = Path(shutil.copytree(ROOT / "pretrained" / "carracing-dream", tmp_path / "agent"))
    path = agent / "controller" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match="its content has changed"):
        script.main(script.Args(agent, push="ann/given"))
    assert "ann/given" not in hub.names
