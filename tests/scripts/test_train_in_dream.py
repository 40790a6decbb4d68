"""train_in_dream.py from end to end, in a folder with spaces in its path."""

import json
import math
import re

import gymnasium
import imageio
import numpy as np
import pytest

import scripts.train_in_dream as script
from agents.evaluation import EVALUATION_SEEDS
from agents.world_model_agent import WorldModelAgent
from envs.dream import DreamEnv
from generative.training.cli import parse, start
from tests.commands import copy_run, imported, read_lines, run_script, snapshot
from tests.reliability.test_train_in_dream_killed import outcome
from worldmodels.configs import DreamConfig
from worldmodels.dreaming.settings import load_settings
from worldmodels.memory import TransformerMemory

SMOKE = script.PRESETS["smoke"]
STAGES = ("collect", "encode", "memory", "controller", "choose")


@pytest.fixture(scope="module")
def report(smoke_run):
    return json.loads((smoke_run / "report.json").read_text())


def rewards_and_frames(smoke_run):
    """(episodes' rewards, number of frames), read without the project's own reader."""
    rewards, frames = [], 0
    for path in sorted(smoke_run.glob("round-*/collect/episodes/*.npz")):
        with np.load(path) as episode:
            rewards.append(episode["rewards"])
            frames += len(episode["frames"])
    return rewards, frames


def test_every_stage_has_its_folder(smoke_run):
    assert " " in str(smoke_run)
    assert sorted(path.name for path in smoke_run.glob("round-*")) == ["round-00", "round-01"]
    for index in (0, 1):
        for stage in STAGES + ("vision",) * (index == 0):
            assert (smoke_run / f"round-{index:02d}" / stage / "result.json").exists(), stage
    assert not (smoke_run / "round-01" / "vision").exists()  # vision_rounds is 1
    assert (smoke_run / "result.json").exists()
    assert not [path for path in smoke_run.rglob("*") if ".tmp" in path.name]


def test_report_counts_what_was_used(smoke_run, report):
    rewards, frames = rewards_and_frames(smoke_run)
    assert len(rewards) == SMOKE.first.episodes + SMOKE.collect.episodes
    assert report["real_frames"] == frames

    chosen = [read_lines(smoke_run / "rounds.jsonl")[i]["candidates"] for i in (0, 1)]
    # Two searches; then also the controller of the round before.
    assert [len(candidates) for candidates in chosen] == [2, 3]
    final = json.loads((smoke_run / "final" / "result.json").read_text())
    driven = sum(len(c["real_scores"]) for candidates in chosen for c in candidates)
    driven += sum(len(scores) for scores in final["scores"])
    assert report["selection_episodes"] == driven == (2 + 3) * 1 + 5 * 1

    gradient, searches = SMOKE.controller.gradient, SMOKE.controller.searches
    checks = 1 + math.ceil(gradient.steps / gradient.check_every)
    dreams = gradient.steps * gradient.lanes + checks * gradient.check_dreams
    dreams += SMOKE.controller.test_dreams
    steps = SMOKE.rounds * searches * dreams * SMOKE.controller.dream.horizon
    assert report["dream_steps"] == steps

    stages = [json.loads(p.read_text())["seconds"] for p in smoke_run.glob("**/*.seconds")]
    assert len(stages) == SMOKE.rounds * len(STAGES) + SMOKE.vision_rounds + 1
    assert report["wall_seconds"] == pytest.approx(sum(stages))


def test_report_scores(smoke_run, report):
    scores = [track["score"] for track in report["tracks"]]
    assert report["episodes"] == len(scores) == SMOKE.test_episodes
    assert report["real_mean"] == pytest.approx(np.mean(scores))
    assert report["real_std"] == pytest.approx(np.std(scores))
    assert report["action_repeat"] == SMOKE.action_repeat
    final = json.loads((smoke_run / "final" / "result.json").read_text())
    assert len(final["scores"]) == SMOKE.final_agents
    best = int(np.argmax(np.mean(final["scores"], axis=1)))
    assert (final["round"], final["name"]) == (final["rounds"][best], final["names"][best])
    winner = read_lines(smoke_run / "rounds.jsonl")[final["round"]]
    imagined = next(c["dream_return"] for c in winner["candidates"] if c["name"] == final["name"])
    # A dream of 5 decisions of 3 steps, at the pace of 1,000 steps.
    assert report["dream_mean"] == pytest.approx(imagined * 1000 / 15)
    assert [row["index"] for row in report["rounds"]] == [0, 1]
    assert math.isfinite(report["rounds"][0]["vae_recon"])
    assert report["rounds"][1]["vae_recon"] is None
    assert report["args"]["seed"] == 1
    assert report["versions"]["packages"]["gymnasium"]


def test_the_best_candidate_is_the_agent_of_its_round(smoke_run):
    for index, record in enumerate(read_lines(smoke_run / "rounds.jsonl")):
        means = [np.mean(c["real_scores"]) for c in record["candidates"]]
        assert [c["chosen"] for c in record["candidates"]].index(True) == int(np.argmax(means))
        name = record["candidates"][int(np.argmax(means))]["name"].replace(" ", "-")
        choose = smoke_run / f"round-{index:02d}" / "choose"
        for part in ("vision", "memory", "controller"):
            chosen, candidate = (
                (choose / who / part / "model.safetensors").read_bytes() for who in ("agent", name)
            )
            assert chosen == candidate


def test_agent_drives_the_stock_game_to_its_reported_score(smoke_run, report):
    agent = WorldModelAgent.from_pretrained(smoke_run / "agent")
    assert agent.config.action_repeat == SMOKE.action_repeat
    env = gymnasium.make("CarRacing-v3", max_episode_steps=SMOKE.episode_steps)
    obs, _ = env.reset(seed=EVALUATION_SEEDS[0])
    state, score, over, actions = None, 0.0, False, []
    while not over:
        action, state = agent.predict(obs, state)
        obs, reward, terminated, truncated, _ = env.step(action)
        actions.append(action)
        score += reward
        over = terminated or truncated
    env.close()
    assert score == pytest.approx(report["tracks"][0]["score"])
    assert len(actions) == SMOKE.episode_steps
    held = np.array(actions).reshape(-1, SMOKE.action_repeat, 3)
    assert (held == held[:, :1]).all()


def test_report_page_needs_no_network(smoke_run):
    page = (smoke_run / "report.html").read_text()
    loaded = re.findall(r"""(?:src|href|data|poster|action)\s*=\s*["']?([^"'\s>]+)""", page)
    loaded += re.findall(r"""url\(\s*["']?([^"')]+)""", page)
    loaded += re.findall(r"""@import\s+["']([^"']+)""", page)
    for address in loaded:
        if not address.startswith(("data:", "#")):
            assert not re.match(r"[a-z]+:|//", address), address[:80]
            assert (smoke_run / address).exists(), address[:80]
    assert "<script src" not in page
    assert "<video" in page
    frames = imageio.mimread(smoke_run / "videos" / "drive-and-dream.mp4", memtest=False)
    assert len(frames) >= SMOKE.film_steps // 2
    assert frames[0].std() > 10


def test_a_second_call_does_nothing(smoke_run):
    before = snapshot(smoke_run, times=True)
    done = run_script("train_in_dream", "smoke", "--out", smoke_run, modules=True)
    assert done.returncode == 0, done.stderr
    assert "tracks of the stock game" in done.stdout
    assert "report.html" in done.stdout
    assert "torch" not in imported(done)
    assert snapshot(smoke_run, times=True) == before


def test_workers_may_change_in_a_finished_run(smoke_run, tmp_path):
    copy = copy_run(smoke_run, tmp_path / "a copy")
    before = snapshot(copy, times=True)
    done = run_script("train_in_dream", "--resume", copy, "--workers", 1)
    assert done.returncode == 0, done.stderr
    after = snapshot(copy, times=True)
    assert {name for name in after if after[name] != before[name]} == {"config.json"}
    settings = json.loads((copy / "config.json").read_text())["settings"]
    assert settings["workers"] == 1
    assert settings["out"] == str(copy)


@pytest.mark.nightly
def test_a_finished_run_goes_on_with_more_rounds(smoke_run, tmp_path):
    """In every run that of CartPole does, in test_any_environment.py."""
    longer = tmp_path / "longer"
    for words in (("smoke", "--rounds", 1, "--out"), ("--rounds", 2, "--resume")):
        done = run_script("train_in_dream", *words, longer)
        assert done.returncode == 0, done.stderr
        assert "tracks of the stock game" in done.stdout
        rounds = json.loads((longer / "report.json").read_text())["rounds"]
        assert len(rounds) == words[words.index("--rounds") + 1]
    assert outcome(longer) == outcome(smoke_run)


def test_the_dream_is_kept_beside_the_agent(smoke_run, report):
    """With the clip and the cap that the rounds worked out, which the settings do not say."""
    dream = load_settings(smoke_run / "agent")
    final = json.loads((smoke_run / "final" / "result.json").read_text())
    stage = smoke_run / f"round-{final['round']:02d}" / "controller" / "result.json"
    clip = tuple(json.loads(stage.read_text())["reward_clip"])
    assert dream == DreamConfig(horizon=5, reward_clip=clip, pace_cap=0.9 * 3)
    assert report["dream"]["pace_cap"] == pytest.approx(2.7)
    assert report["dream"]["reward_clip"] == list(clip)
    assert report["args"]["controller"]["dream"]["pace_cap"] is None
    assert "Dream of the chosen controller" in (smoke_run / "report.html").read_text()
    assert DreamEnv(smoke_run / "agent")._lanes.config == dream


def test_m_can_be_a_transformer(tmp_path, capsys):
    """CartPole in the dream of a Transformer, by the command line."""
    out = tmp_path / "run"
    start(script.main, script.PRESETS, argv=["smoke-transformer", "--out", str(out)], prog="train")
    assert "episodes of CartPole-v1" in capsys.readouterr().out
    agent = WorldModelAgent.from_pretrained(out / "agent")
    assert isinstance(agent.world.memory, TransformerMemory)
    assert agent.world.memory.config.latent_dim == 4
    dream = DreamEnv(out / "agent", horizon=3)
    dream.reset(seed=0)
    assert [dream.step(0)[3] for _ in range(3)][-1] or dream._lanes.state.alive[0] == 0
    # Its settings are those of its script.
    args = parse(
        script.PRESETS,
        argv=["quick-transformer", "--memory.model.context", "16", "--out", str(tmp_path / "no")],
    )
    assert (args.memory.model.context, args.memory.steps) == (16, 800)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--controller.where", "real"), "Unrecognized options: --controller.where"),
        (("--vision.seed", "3"), "Unrecognized options: --vision.seed"),
        (("--memory.model.latent-dim", "64"), "here it follows from V: leave it out"),
        (("--memory.model.action-dim", "2"), "here it follows from the actions"),
        (("--controller.dream.reward-clip", "-1", "9"), "it follows from --controller.reward-q"),
        (("--memory.model.no-predict-reward",), "memory.model.predict_reward"),
        (("--controller.dream.pace-cap", "3"), "here it follows from --pace: set that"),
        (("--rounds", "0"), "rounds is 0, and must be at least 1"),
        (("--test-episodes", "101"), "test_episodes is 101, and must be"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        parse(script.PRESETS, argv=["smoke", "--out", str(tmp_path / "run"), *words])
    assert caught.value.code == 2
    told = " ".join(re.sub("[│╭╮╰╯─|+]", " ", capsys.readouterr().err).split())
    assert message in told
    assert not (tmp_path / "run").exists()
