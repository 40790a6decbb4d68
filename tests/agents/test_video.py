"""Films: the drive they show, the dreams that run in it, the files."""

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image

from agents.evaluation import run_episode
from agents.video import (
    Decision,
    LoneDream,
    dream_on,
    drive,
    drive_and_dream,
    poster,
    write_gif,
    write_video,
)
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.car_racing import resize_frames
from generative.vae import ConvVAEConfig
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel

FAST = "WorldModels/FastCarRacing-v0"


def tiny_agent():
    torch.manual_seed(1)
    world = WorldModel(
        ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)).build(),
        MDNRNN(MDNRNNConfig(latent_dim=4, hidden_dim=8, reward_input=True, predict_reward=True)),
    )
    controller = LinearController(ControllerConfig(latent_dim=4, hidden_dim=8))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    return WorldModelAgent(world, controller, AgentConfig(action_repeat=3))


def test_drive_is_the_evaluated_drive_and_shows_what_the_agent_saw():
    agent = tiny_agent()
    env = gymnasium.make(FAST, max_episode_steps=31)
    told = []
    steps = list(drive(agent, env, 3, max_steps=100, told=told.append))
    assert [step.index for step in steps] == list(range(31))
    assert [step.index for step in steps if step.is_new] == list(range(0, 31, 3))
    obs, _ = env.reset(seed=3)
    total = 0.0
    for step in steps:
        assert step.score == pytest.approx(total)
        if step.is_new:
            assert np.array_equal(step.decision.seen, resize_frames(obs))
            d = step.decision
            by_hand = agent.controller.act(d.z, d.h, d.c)[0].detach().numpy()
            assert np.array_equal(by_hand, d.action)
        obs, reward, *_ = env.step(step.decision.action)
        total += reward
    assert told == [run_episode(agent, env, 3)]
    assert told[0].score == pytest.approx(total)
    env.close()


def test_film_wakes_and_dreams_in_turn():
    agent = tiny_agent()
    purple, blue = (176, 124, 255), (70, 170, 220)  # the frame around the right picture
    frames = drive_and_dream(
        agent, 3, env_id=FAST, max_steps=120, awake_seconds=0.3, dream_seconds=0.6
    )
    asleep = []
    for frame in frames:
        corner = tuple(frame[54, 700])
        assert corner in (purple, blue)
        asleep.append(corner == purple)
    assert len(asleep) == 60
    # Awake for 8 + 5 decisions of 3 steps, with the opening; then 0 to 10 decisions of dreaming;
    # 5 awake, and asleep again. A frame shows every second step.
    expected = [(step // 3) in range(13, 24) or (step // 3) >= 29 for step in range(0, 120, 2)]
    assert asleep == expected


def test_poster_needs_a_future():
    agent = tiny_agent()
    with pytest.raises(ValueError, match=r"drive on track 3 has 4 decisions; a poster needs 34"):
        poster(agent, 3, env_id=FAST, max_steps=12)
    assert poster(agent, 3, env_id=FAST, max_steps=12, seconds=(0.06, 0.12, 0.18)).size[0] > 1200


def decisions(agent, count):
    rng = np.random.default_rng(0)
    world = agent.world
    h, c = world.memory.initial_state(1)
    for _ in range(count):
        seen = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        action = np.array([0.1, 0.5, 0.0], np.float32)
        yield Decision(seen, world.encode(seen[None]), h, c, torch.zeros(1), action)


def test_a_lone_dream_under_given_actions_is_the_batched_dream():
    agent = tiny_agent()
    (start,) = decisions(agent, 1)
    actions = np.random.default_rng(1).uniform(0, 1, (1, 6, 3)).astype(np.float32)
    batched = dream_on(agent, [start], actions, 1.0, seed=3)
    dream = LoneDream(agent, start, 1.0, seed=3)
    for t in range(6):
        assert torch.equal(dream.z, batched[:, t])
        dream.step(actions[0, t])
    assert dream.age == 6
    alone = LoneDream(agent, start, 0.0, seed=3)
    by_hand = agent.controller.act(start.z, start.h, start.c)[0].detach().numpy()
    told = LoneDream(agent, start, 0.0, seed=3)
    alone.step()
    told.step(by_hand)
    assert torch.equal(alone.z, told.z)


@pytest.mark.parametrize("name", ["film.gif", "film.webp"])
def test_animation(tmp_path, name):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (9, 20, 40, 3), dtype=np.uint8)
    write_gif(tmp_path / name, frames, fps=25, width=20)
    with Image.open(tmp_path / name) as film:
        film.seek(1)
        film.load()
        assert (film.n_frames, film.size, film.info["duration"]) == (5, (20, 10), 80)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_film_that_fails_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((32, 32, 3), np.uint8)
        raise RuntimeError("the drive ended badly")

    with pytest.raises(RuntimeError, match="badly"):
        write_video(tmp_path / "film.mp4", frames())
    with pytest.raises(OSError, match=r"film\.mp4: 0 of 0 frames"):
        write_video(tmp_path / "film.mp4", [])
    assert list(tmp_path.iterdir()) == []
