"""train_in_dream.py for other environments, and what is said of Vs and spaces that do not fit."""

import json
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch

import scripts.train_in_dream as script
from agents.evaluation import EVALUATION_SEEDS, random_scores
from agents.world_model_agent import WorldModelAgent
from envs.dream import DreamEnv
from envs.task import Task
from generative.training.cli import parse
from scripts import collect_rollouts, encode_rollouts, standardise_vectors, train_vae
from tests.commands import run_script
from tests.reliability.test_train_in_dream_killed import outcome
from worldmodels.rollouts import Episode, RolloutStore
from worldmodels.vision import load_vision

SMOKE = script.PRESETS["smoke-vector"]


@pytest.fixture(scope="module")
def pole_run(tmp_path_factory):
    """A finished run of smoke-vector; do not change it."""
    out = tmp_path_factory.mktemp("a pole") / "run"
    done = run_script("train_in_dream", "smoke-vector", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "2 episodes of CartPole-v1" in done.stdout
    return out


def test_the_agent_plays_the_stock_environment_to_its_score(pole_run):
    report = json.loads((pole_run / "report.json").read_text())
    agent = WorldModelAgent.from_pretrained(pole_run / "agent")
    assert agent.task == Task.of("CartPole-v1")
    env = gymnasium.make("CartPole-v1")
    for track in report["tracks"]:
        obs, _ = env.reset(seed=track["seed"])
        state, score, over = None, 0.0, False
        while not over:
            action, state = agent.predict(obs, state)
            obs, reward, terminated, truncated, _ = env.step(action)
            score, over = score + float(reward), terminated or truncated
        assert score == track["score"]
    assert report["env_id"] == "CartPole-v1"
    assert [t["seed"] for t in report["tracks"]] == list(EVALUATION_SEEDS[:2])
    random = random_scores("CartPole-v1", None, EVALUATION_SEEDS[:2])
    assert report["random_mean"] == np.mean(random)


def test_v_has_the_scale_of_what_was_recorded(pole_run):
    frames = []
    for path in sorted(pole_run.glob("round-00/collect/episodes/*.npz")):
        with np.load(path) as episode:
            frames.append(episode["frames"])
            assert episode["frames"].dtype == np.float32
            assert set(np.unique(episode["actions"])) <= {0, 1}
            assert (episode["actions"].sum(1) == 1).all()
            assert (episode["rewards"] == 1).all()  # CartPole's, every step
            assert not episode["terminated"][:-1].any()
    vision = load_vision(pole_run / "round-00" / "vision" / "model")
    frames = np.concatenate(frames)
    np.testing.assert_allclose(vision.mean, frames.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(vision.std, frames.std(0), rtol=1e-4)


def test_the_report_says_nothing_of_cars(pole_run):
    page = (pole_run / "report.html").read_text()
    page = page.partition("</style>")[2].partition("Small print")[0]
    for word in ("track", " lap", "A car", "1,000 steps", "<video"):
        assert word not in page, word
    assert "Random actions score" in page
    report = json.loads((pole_run / "report.json").read_text())
    # A dream's return as it is, not at the pace of CarRacing's 1,000 steps.
    winner = json.loads((pole_run / "final" / "result.json").read_text())
    candidates = report["rounds"][winner["round"]]["candidates"]
    dreamed = next(c["dream_return"] for c in candidates if c["name"] == winner["name"])
    assert report["dream_mean"] == pytest.approx(dreamed)


def test_the_dream_of_the_agent_is_an_environment(pole_run):
    env = DreamEnv(pole_run / "agent")
    assert env.action_space == gymnasium.spaces.Discrete(2)
    env.reset(seed=1)
    assert np.isfinite(env.step(env.action_space.sample())[0]).all()


def test_a_finished_run_goes_on_with_more_rounds(pole_run, tmp_path):
    longer = tmp_path / "longer"
    for words in (("smoke-vector", "--rounds", 1, "--out"), ("--rounds", 2, "--resume")):
        done = run_script("train_in_dream", *words, longer)
        assert done.returncode == 0, done.stderr
        rounds = json.loads((longer / "report.json").read_text())["rounds"]
        assert len(rounds) == words[words.index("--rounds") + 1]
    assert outcome(longer) == outcome(pole_run)


def test_settings_follow_from_the_environment():
    common = {"workers": 3, "threads": 2, "seed": 7}
    quick = replace(script.PRESETS["quick"], **common)
    assert script.settings_for(quick) == quick
    pole = replace(quick, env="CartPole-v1")
    assert script.settings_for(pole) == replace(script.PRESETS["cartpole"], **common)
    other = replace(quick, env="Acrobot-v1")
    expected = replace(script.PRESETS["vector"], env="Acrobot-v1", **common)
    assert script.settings_for(other) == expected
    assert script.settings_for(expected) == expected  # so that the same command goes on
    image = replace(script.PRESETS["image"], env="CarRacing-v3")
    assert script.settings_for(image) == image
    changed = replace(pole, rounds=2)
    assert script.settings_for(changed) == changed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("image", "--env", "CartPole-v1"), r"CartPole-v1 shows vectors of \(4,\), and this V is"),
        (("smoke-vector", "--env", "CarRacing-v3"), r"shows images of \(96, 96, 3\)"),
        (("vector", "--env", "Blackjack-v1"), "Blackjack-v1 has the observations Tuple"),
        (("quick", "--env", "Nothing-v0"), "Nothing-v0 cannot be made"),
        (("quick", "--env", "CartPole-v1", "--rounds", "2"), "begin with the preset vector"),
        (("vector", "--env", "CartPole-v1", "--env-kwargs", "{"), "which is no JSON"),
        (("vector", "--env", "CartPole-v1", "--pace", "0.5"), "a share of CarRacing's lap"),
    ],
)
def test_what_does_not_fit_the_environment_is_told(tmp_path, words, message):
    args = parse(script.PRESETS, argv=[*words, "--out", str(tmp_path / "run")])
    with pytest.raises(ValueError, match=message):
        script.main(args)
    assert not (tmp_path / "run").exists()


def recorded(folder, frames: np.ndarray, env_id: str) -> RolloutStore:
    steps = len(frames) - 1
    store = RolloutStore(folder)
    store.append(
        Episode(
            frames,
            np.zeros((steps, 1), np.float32),
            np.ones(steps, np.float32),
            np.zeros(steps, bool),
            {"env_id": env_id},
        )
    )
    store.close()
    return store


def test_a_v_of_another_environment_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(9, 64, 64, 3), dtype=np.uint8)
    for name, frames, env_id in (
        ("four", rng.normal(size=(9, 4)).astype(np.float32), "Four-v0"),
        ("other four", rng.normal(size=(9, 4)).astype(np.float32), "Other-v0"),
        ("three", rng.normal(size=(9, 3)).astype(np.float32), "Three-v0"),
        ("images", images, "Pictures-v0"),
        ("small", images[:, :32, :32], "Pictures-v0"),
    ):
        recorded(tmp_path / name, frames, env_id)

    def encode(rollouts: str, vision) -> None:
        words = ("--rollouts", str(tmp_path / rollouts), "--vision", str(vision))
        args = parse(encode_rollouts.PRESETS, argv=["smoke", "--out", str(tmp_path / "z"), *words])
        encode_rollouts.main(args)

    def smoke(script, rollouts: str):
        words = ["smoke", "--rollouts", str(tmp_path / rollouts), "--out", str(tmp_path / "v")]
        return script.main(parse(script.PRESETS, argv=words))

    with pytest.raises(ValueError, match=r"images holds frames of \(64, 64, 3\), and this V is"):
        smoke(standardise_vectors, "images")
    with pytest.raises(ValueError, match=r"small holds frames of \(32, 32, 3\), this V is trained"):
        smoke(train_vae, "small")
    with pytest.raises(ValueError, match=r"four holds vectors of \(4,\), this V is trained on fra"):
        smoke(train_vae, "four")
    vision = smoke(standardise_vectors, "four")
    with pytest.raises(ValueError, match=r"v/model sees vectors of \(4,\), .*three holds vectors"):
        encode("three", vision)
    with pytest.raises(ValueError, match=r"sees vectors of \(4,\), .*images holds frames of \(64"):
        encode("images", vision)
    with pytest.raises(ValueError, match=r"was trained on Four-v0, .*other four holds episodes"):
        encode("other four", vision)
    assert not (tmp_path / "z").exists()
    encode("four", vision)


def test_a_discrete_car_is_recorded_as_one_hot_actions(tmp_path):
    words = ["smoke", "--out", str(tmp_path / "r"), "--env", "WorldModels/CarRacing64-v0"]
    words += ["--env-kwargs", '{"continuous": false}', "--episodes", "1", "--anywhere", "0"]
    folder = collect_rollouts.main(parse(collect_rollouts.PRESETS, argv=words))
    [episode] = RolloutStore(folder)
    assert episode.actions.shape == (12, 5)
    assert (episode.actions.sum(1) == 1).all()
    env = gymnasium.make("WorldModels/CarRacing64-v0", continuous=False)
    obs, _ = env.reset(seed=episode.info["seed"])
    np.testing.assert_array_equal(episode.frames[0], obs)
    for action in episode.actions[0].argmax() * np.ones(3, int):  # held for three steps
        obs = env.step(int(action))[0]
    np.testing.assert_array_equal(episode.frames[1], obs)


torch.set_num_threads(1)
