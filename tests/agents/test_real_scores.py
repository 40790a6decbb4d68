"""Scores on real tracks: against a loop written out, and the same for any number of workers."""

import os
import signal

import gymnasium
import numpy as np
import pytest
import torch

from agents.real_scores import RealScores
from agents.world_model_agent import AgentConfig, WorldModelAgent
from generative.configs.vae import ConvVAEConfig
from generative.vae import ConvVAE
from tests.commands import children
from worldmodels.collect import EpisodeError
from worldmodels.configs import ControllerConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.memory import MDNRNN
from worldmodels.parallel import WorkerDiedError
from worldmodels.world_model import WorldModel

SEEDS = [5, 17]
STEPS = 120
SHORT = {"env_kwargs": {"max_episode_steps": STEPS}}
SIZES = ControllerConfig(latent_dim=4, hidden_dim=6)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("V and M")
    torch.manual_seed(0)
    vision = ConvVAE(ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)))
    for parameter in vision.parameters():
        parameter.data *= 3  # or frames would look alike, and all actions be alike
    vision.save_pretrained(folder / "v")
    MDNRNN(MDNRNNConfig(latent_dim=4, hidden_dim=6)).save_pretrained(folder / "m")
    return folder / "v", folder / "m"


@pytest.fixture(scope="module")
def candidates():
    return np.random.default_rng(1).normal(scale=0.3, size=(3, SIZES.num_parameters))


@pytest.fixture(scope="module")
def expected(models, candidates):
    """Every candidate on every track, by hand: an action is held for 3 steps."""
    world = WorldModel(ConvVAE.from_pretrained(models[0]), MDNRNN.from_pretrained(models[1]))
    scores = np.zeros((len(candidates), len(SEEDS)))
    env = gymnasium.make("WorldModels/CarRacing64-v0", max_episode_steps=STEPS)
    for i, vector in enumerate(candidates):
        controller = LinearController(SIZES).load_vector(torch.from_numpy(vector).float())
        for j, seed in enumerate(SEEDS):
            obs, _ = env.reset(seed=seed)
            h, c = world.memory.initial_state(1)
            over = False
            while not over:
                z = world.encode(obs[None])
                with torch.no_grad():
                    action = controller.act(z, h, c)
                    _, (h, c) = world.memory.step(z, action, (h, c))
                for _ in range(3):
                    obs, reward, terminated, truncated, _ = env.step(action[0].numpy())
                    scores[i, j] += reward
                    over = terminated or truncated
                    if over:
                        break
    env.close()
    return scores


def test_scores_are_those_of_a_loop_written_out(models, candidates, expected):
    with RealScores(*models, action_repeat=3, **SHORT) as scores:
        found = scores(candidates, SEEDS)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        # Whatever was driven before: nothing stays from one episode to the next.
        np.testing.assert_array_equal(scores(candidates[1:2], SEEDS[1:]), found[1:2, 1:])
    assert len(np.unique(found)) > 2


def test_workers_give_the_same_scores_bit_by_bit(models, candidates):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with RealScores(*models, action_repeat=3, **SHORT) as scores:
            alone = scores(candidates, SEEDS)
    finally:
        torch.set_num_threads(before)
    before = children(os.getpid())
    with RealScores(*models, action_repeat=3, workers=2, **SHORT) as scores:
        np.testing.assert_array_equal(scores(candidates, SEEDS), alone)
        # A second generation finds the workers ready; one is then killed.
        np.testing.assert_array_equal(scores(candidates[::-1], SEEDS), alone[::-1])
        victim = min(children(os.getpid()) - before)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=r"exit code -9"):
            scores(candidates, SEEDS)
    assert children(os.getpid()) == before


def test_action_repeat_counts(models, candidates, expected):
    with RealScores(*models, action_repeat=1, **SHORT) as scores:
        assert (scores(candidates, SEEDS) != expected).any()


def test_controllers_of_other_features(models):
    """C that sees c too, as in Doom, has more parameters."""
    config = ControllerConfig(latent_dim=4, hidden_dim=6, features="zhc")
    vector = np.random.default_rng(0).normal(size=config.num_parameters)
    with RealScores(*models, 3, controller=config, **SHORT) as scores:
        found = scores(vector[None], SEEDS)
    agent = WorldModelAgent(
        WorldModel(ConvVAE.from_pretrained(models[0]), MDNRNN.from_pretrained(models[1])),
        LinearController(config).load_vector(torch.from_numpy(vector).float()),
        AgentConfig(3),
    )
    env = gymnasium.make("WorldModels/CarRacing64-v0", max_episode_steps=STEPS)
    obs, _ = env.reset(seed=SEEDS[0])
    state, score = None, 0.0
    for _ in range(STEPS):
        action, state = agent.predict(obs, state)
        obs, reward, *_ = env.step(action)
        score += reward
    env.close()
    assert found[0, 0] == pytest.approx(score)
    with RealScores(*models, 3, **SHORT) as scores, pytest.raises(ValueError, match="candidates"):
        scores(vector[None], SEEDS)


def test_a_score_that_is_not_finite_is_told(models, candidates):
    broken = candidates.copy()
    broken[1, 0] = np.nan
    told = pytest.raises(EpisodeError, match=r"seed 5: action at step 0 is not finite")
    with RealScores(*models, 3, **SHORT) as scores, told:
        scores(broken, SEEDS)


def test_V_of_another_M_is_told_before_any_worker_starts(models, tmp_path):
    ConvVAE(ConvVAEConfig(latent_dim=8, channels=(2, 2, 4, 4))).save_pretrained(tmp_path / "v8")
    before = children(os.getpid())
    with pytest.raises(ValueError, match=r"v8 holds a V with z of 8 .* trained with 4; pass the V"):
        RealScores(tmp_path / "v8", models[1], action_repeat=1, workers=2)
    assert children(os.getpid()) == before
