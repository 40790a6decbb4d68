"""evaluate.py and render_dream.py by command line, on an agent with random weights."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import imageio
import numpy as np
import pytest
import torch
from PIL import Image

from agents.evaluation import (
    EpisodeScore,
    Evaluation,
    TrainingFacts,
    evaluate_many,
    run_episode,
)
from agents.loading import load_car
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.task import Task, game_name
from generative.training.settings import to_json
from generative.vae import ConvVAEConfig
from scripts.evaluate import PRESETS, describe, main
from tests.commands import imported, run_script
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    torch.manual_seed(1)
    world = WorldModel(
        ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)).build(),
        MDNRNN(MDNRNNConfig(latent_dim=4, hidden_dim=8, reward_input=True, predict_reward=True)),
    )
    controller = LinearController(ControllerConfig(latent_dim=4, hidden_dim=8))
    folder = tmp_path_factory.mktemp("an agent")
    WorldModelAgent(world, controller, AgentConfig(action_repeat=3)).save_pretrained(folder)
    TrainingFacts(12_345, 40, 678_900, 901.0, seed=2).save(folder)
    return folder


@pytest.mark.parametrize("verb", ["evaluate", "render_dream"])
def test_help_does_without_torch(verb):
    done = run_script(verb, "--help", modules=True)
    assert done.returncode == 0
    assert not {"torch", "gymnasium"} & imported(done)
    assert "smoke" in done.stdout


def test_evaluate(agent, tmp_path):
    done = run_script("evaluate", "smoke", agent, "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 + len(str(agent))
    for words in ("held for 3 steps", "12,345 real frames", "678,900", "40 real episodes", "torch"):
        assert words in done.stdout
    data = json.loads((tmp_path / "scores.json").read_text())
    assert (data["episodes"], data["action_repeat"]) == (2, 3)
    assert [t["seed"] for t in data["tracks"]] == [1_000_000, 1_000_001]
    scores = [t["score"] for t in data["tracks"]]
    assert data["real_mean"] == pytest.approx(np.mean(scores))
    assert data["training"]["dream_steps"] == 678_900
    assert data["versions"]["packages"]["gymnasium"]


@pytest.fixture
def another_game(agent, tmp_path):
    """A copy of the agent whose task.json says that it plays something else."""

    def make(**task) -> Path:
        folder = shutil.copytree(agent, tmp_path / "a stranger's agent", dirs_exist_ok=True)
        (folder / "task.json").write_text(json.dumps({**to_json(Task()), **task}))
        return folder

    return make


def test_what_differs_from_the_stock_game_is_said(another_game, tmp_path):
    kwargs = {"lap_complete_percent": 0.001, "max_episode_steps": 20}
    folder, file = another_game(env_kwargs=kwargs), tmp_path / "scores.json"
    done = run_script("evaluate", folder, "--episodes", 1, "--workers", 0, "--json", file)
    assert done.returncode == 0, done.stderr
    game = "CarRacing-v3 with lap_complete_percent=0.001, max_episode_steps=20"
    assert f"not the stock game: {game}" in done.stdout.splitlines()
    assert f"game {game}, seeds" in " ".join(done.stdout.split())
    data = json.loads(file.read_text())
    assert (data["game"], data["env_kwargs"]) == (game, kwargs)
    assert Evaluation.from_json(data).game == game
    old = {name: data[name] for name in data if name not in ("game", "env_kwargs")}
    assert Evaluation.from_json(old).game == "CarRacing-v3"


def test_a_stock_game_is_called_by_its_name():
    assert game_name("CarRacing-v3", {}) == "CarRacing-v3"
    assert game_name("CarRacing-v3", {"max_episode_steps": 1000}) == "CarRacing-v3"
    assert game_name("CarRacing-v3", {"max_episode_steps": None}) == "CarRacing-v3"
    assert game_name("CartPole-v1", {"max_episode_steps": -1}).endswith("with max_episode_steps=-1")
    assert game_name("m:Nothing-v0", {"a": "b"}) == "m:Nothing-v0 with a='b'"
    assert len(game_name("CarRacing-v3", {"x": "y" * 10_000})) < 100


MODULE = "open({!r}, 'w').close()\nimport gymnasium\ngymnasium.register('Mine-v0', {!r})\n"


@pytest.mark.parametrize(
    "env_id", ["stranger:Mine-v0", "a.b.stranger:Mine-v0", "stranger:", ":x:y"]
)
def test_no_module_is_imported_because_a_task_names_it(another_game, monkeypatch, env_id):
    folder = another_game(env_id=env_id)
    ran = folder / "it ran"
    for package in ("", "a", "a/b"):
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "__init__.py").touch()
        (folder / package / "stranger.py").write_text(MODULE.format(str(ran), "x:Y"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(".")
    for load in (
        lambda: main(replace(PRESETS["smoke"], agent=folder, fast=False)),
        lambda: WorldModelAgent.from_pretrained(folder),
        lambda: evaluate_many([folder], [1]),
        lambda: Task.load(folder),
    ):
        with pytest.raises(ValueError, match=r"task\.json: names the environment .*--trust"):
            load()
    load_car(folder)  # makes no environment of it
    assert not ran.exists()
    if env_id == "stranger:Mine-v0":
        with pytest.raises(ValueError, match=r"Mine-v0 .*cannot be made"):
            main(replace(PRESETS["smoke"], agent=folder, fast=False, trust=True))
        assert ran.exists()
        gymnasium.registry.pop("Mine-v0")
        Task.load(folder)  # imported by now
        sys.modules.pop("stranger")


@pytest.mark.parametrize(
    "task",
    [
        {"env_id": "Nothing-v0"},
        {"env_id": ""},
        {"env_id": "CarRacing-v3", "env_kwargs": {"no_such": 1}},
        {"env_id": "CarRacing-v3", "env_kwargs": {"disable_env_checker": False}},
        {"env_id": "CarRacing-v3", "env_kwargs": {"max_episode_steps": -7}},
        {"env_id": "CarRacing-v3", "env_kwargs": {"id": "CartPole-v1"}},
    ],
)
def test_a_game_that_cannot_be_made_is_told_in_a_line(another_game, task):
    agent = another_game(**task)
    with pytest.raises(ValueError, match="cannot be made: "):
        main(replace(PRESETS["smoke"], agent=agent, fast=False, max_steps=None))


def test_a_wrong_folder_is_named():
    with pytest.raises(FileNotFoundError, match="no/such/agent holds no agent"):
        main(replace(PRESETS["smoke"], agent=Path("no/such/agent")))


def test_table_of_a_hundred_tracks_fits_80_columns():
    scores = np.linspace(-90, 935, 100)
    tracks = [
        EpisodeScore(1_000_000 + i, float(s), 1000, 0.5, s > 900) for i, s in enumerate(scores)
    ]
    versions = {"python": "3.11.7", "packages": {"torch": "2.13.0+cu129", "numpy": "2.4.6"}}
    text = describe(Path("agent"), Evaluation("CarRacing-v3", 1, tracks), None, versions)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "held for 1 step\n" in text
    assert text.count("*") == 1 + sum(track.lap_finished for track in tracks)
    bars = [line for line in lines if " to " in line and "#" in line]
    assert sum(int(line.split()[-1]) for line in bars) == 100
    assert "not known" in text


def test_render_dream(agent, tmp_path):
    film, picture = tmp_path / "a film.mp4", tmp_path / "poster.png"
    done = run_script(
        "render_dream", "smoke", agent, "--out", film, "--poster", picture,
        "--seconds", 2.2, "--actions", "real",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    env = gymnasium.make("WorldModels/FastCarRacing-v0", max_episode_steps=110)
    drive = run_episode(load_car(agent), env, 1_000_000)
    line = f"track 1000000: {drive.score:.0f} points, {drive.tiles:.0%} of the lap in 2.2 s"
    assert line in done.stdout
    frames = imageio.mimread(film, memtest=False)
    assert [frame.shape for frame in frames] == [(640, 1264, 3)] * 55
    # The picture of the game changes from frame to frame.
    assert np.abs(frames[40].astype(int) - frames[54])[60:400, 30:600].mean() > 1
    assert Image.open(picture).size[0] > 1200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a film.mp4", "poster.png"]
