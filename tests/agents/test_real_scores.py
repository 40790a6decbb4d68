"""Scores on real tracks: against a loop written out, and the same for any number of workers."""

import os

import gymnasium
import numpy as np
import pytest
import torch

from agents.collect import NotFiniteError
from agents.real_scores import RealTracks
from agents.world_model_agent import AgentConfig, WorldModelAgent
from generative.training.parallel import ParallelConfig
from generative.vae import ConvVAE
from generative.vae.config import ConvVAEConfig
from tests.commands import children
from worldmodels.configs import ControllerConfig, EvaluationConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.memory import MDNRNN
from worldmodels.scoring import Scoring
from worldmodels.world_model import WorldModel

SEEDS = [5, 17]
STEPS = 120
SHORT = {"env_kwargs": {"max_episode_steps": STEPS}}
SIZES = ControllerConfig(latent_dim=4, hidden_dim=6)

pytestmark = pytest.mark.usefixtures("warm_workers")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("V and M")
    torch.manual_seed(0)
    vision = ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)).build()
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


def scores_of(tracks, candidates, parallel=None):
    with Scoring(tracks, parallel=parallel) as evaluation:
        return evaluation.scores(candidates, np.tile(SEEDS, (len(candidates), 1)))


def test_scores_are_those_of_a_loop_written_out(models, candidates, expected):
    tracks = RealTracks(*models, action_repeat=3, **SHORT)
    found = scores_of(tracks, candidates)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # Whatever was driven before: nothing stays from one episode to the next.
    assert tracks(candidates[1], SEEDS[1]) == (found[1, 1], STEPS)
    assert len(np.unique(found)) > 2


def test_workers_give_the_same_scores_bit_by_bit(models, candidates):
    tracks = RealTracks(*models, action_repeat=3, **SHORT)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = scores_of(tracks, candidates)
    finally:
        torch.set_num_threads(before)
    before = children(os.getpid())
    found = scores_of(tracks, candidates, ParallelConfig("processes", 2))
    np.testing.assert_array_equal(found, alone)
    assert children(os.getpid()) == before


def test_action_repeat_counts(models, candidates, expected):
    assert (scores_of(RealTracks(*models, action_repeat=1, **SHORT), candidates) != expected).any()


def test_controllers_of_other_features(models):
    """C that sees c too, as in Doom, has more parameters."""
    config = ControllerConfig(latent_dim=4, hidden_dim=6, features="zhc")
    vector = np.random.default_rng(0).normal(size=config.num_parameters)
    found = RealTracks(*models, 3, controller=config, **SHORT)(vector, SEEDS[0])
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
    assert found.scores == pytest.approx(score)
    with pytest.raises(ValueError, match="candidates"):
        RealTracks(*models, 3, **SHORT)(vector, SEEDS[0])


def test_a_score_that_is_not_finite_is_told(models, candidates):
    broken = candidates.copy()
    broken[1, 0] = np.nan
    tracks = RealTracks(*models, 3, **SHORT)
    with pytest.raises(NotFiniteError, match=r"seed 5: action at step 0 is not finite"):
        scores_of(tracks, broken)
    # As the last of its generation, if that is asked for.
    config = EvaluationConfig(2, on_nan="worst")
    with Scoring(tracks, config, seed_of=lambda g, i, j: SEEDS[j]) as evaluation:
        found, plain = evaluation(broken, 0), scores_of(tracks, candidates).mean(1)
    assert found[1] < min(plain[0], plain[2])
    np.testing.assert_array_equal(found[[0, 2]], plain[[0, 2]])


def test_V_of_another_M_is_told_before_any_worker_starts(models, tmp_path):
    ConvVAEConfig(latent_dim=8, channels=(2, 2, 4, 4)).build().save_pretrained(tmp_path / "v8")
    with pytest.raises(ValueError, match=r"v8 holds a V with z of 8 .* trained with 4; pass the V"):
        RealTracks(tmp_path / "v8", models[1], action_repeat=1)
