"""V of any family: loaded by the name it was saved under, with a code that M and C can use."""

import copy
import json

import numpy as np
import pytest
import torch

from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.dream import DreamEnv
from generative.autoencoder import (
    ConvAutoencoderConfig,
    LinearAutoencoderConfig,
)
from generative.training.files import DamagedFileError, json_bytes, read_json, write_folder
from generative.vae import (
    ConvVAEConfig,
    ImageVAEConfig,
    LinearVAE,
    LinearVAEConfig,
    sample_gaussian,
)
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.dreaming.starts import STARTS_NAME, DreamStarts
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.sequences import EncodedRollouts, SequenceBatches
from worldmodels.vision import (
    FAMILIES,
    NO_NOISE,
    VectorVision,
    check_observations,
    encode_mu_logvar,
    load_vision,
    standardise,
)
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
D = 4
SHAPE = (3, 64, 64)
MAKE = {
    "ConvVAE": lambda: ConvVAEConfig(D, (2, 3, 4, 5)).build(),
    "ImageVAE": lambda: ImageVAEConfig(SHAPE, D, channels=(2, 3)).build(),
    "LinearVAE": lambda: LinearVAE(LinearVAEConfig(SHAPE, D)),
    "ConvAutoencoder": lambda: ConvAutoencoderConfig(SHAPE, D, (2, 3)).build(),
    "LinearAutoencoder": lambda: LinearAutoencoderConfig(SHAPE, D).build(),
}
DETERMINISTIC = ("ConvAutoencoder", "LinearAutoencoder")
every_family = pytest.mark.parametrize("name", MAKE)
deterministic = pytest.mark.parametrize("name", DETERMINISTIC)


def make(name: str):
    torch.manual_seed(0)
    return MAKE[name]().eval()


def images(n: int) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def random_frames(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    level = rng.integers(256, size=(*shape, 1, 1, 3))
    return (level + rng.integers(-40, 40, size=(*shape, 64, 64, 3))).clip(0, 255).astype(np.uint8)


def world(name: str) -> WorldModel:
    config = MDNRNNConfig(D, 3, 8, 2, predict_reward=True, predict_end=True)
    return WorldModel(make(name), MDNRNN(config)).eval()


def test_all_families_are_tried_here():
    assert MAKE.keys() | {"VectorVision"} == FAMILIES.keys()  # that one sees no frames


@every_family
def test_a_saved_model_is_loaded_as_what_it_is(name, tmp_path):
    model = make(name)
    model.save_pretrained(tmp_path / "v")
    state = torch.random.get_rng_state()
    vision = load_vision(str(tmp_path / "v"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(vision) is type(model)
    assert not vision.training
    with torch.no_grad():
        expected = encode_mu_logvar(model, images(3))
        found = encode_mu_logvar(vision, images(3))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert torch.equal(vision.decode(found[0]), model.decode(expected[0]))


@every_family
@torch.no_grad()
def test_mean_and_variance_are_the_familys_own(name):
    model, x = make(name), images(3)
    mu, logvar = encode_mu_logvar(model, x)
    assert mu.shape == logvar.shape == (3, D)
    draw = sample_gaussian(mu, logvar, torch.Generator().manual_seed(2))
    if name in DETERMINISTIC:
        assert torch.equal(mu, model.encode(x))
        assert torch.equal(draw, mu)
    else:
        expected = model.encode_mu_logvar(x)
        assert torch.equal(mu, expected[0])
        assert torch.equal(logvar, expected[1])
        assert torch.equal(mu, model.encode(x))
        again = model.encode(x, sample=True, generator=torch.Generator().manual_seed(2))
        assert torch.equal(draw, again)


def test_codes_without_noise_survive_half_precision_and_are_drawn_as_they_are():
    assert np.isfinite(np.float16(NO_NOISE))
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(12, D)).astype(np.float16)
    encoded = EncodedRollouts(
        mu,
        np.full((12, D), NO_NOISE, np.float16),
        np.zeros((12, 3), np.float32),
        np.zeros(12, np.float32),
        np.zeros(12, bool),
        np.array([0, 12]),
    )
    batches = SequenceBatches(encoded, batch_size=3, length=11, seed=0)
    for step in range(2):
        batch = batches(step)
        assert torch.equal(batch["z"], torch.from_numpy(mu[:-1]).float().expand(3, -1, -1))
        assert torch.equal(batch["next_z"], torch.from_numpy(mu[1:]).float().expand(3, -1, -1))


# ---------------------------------------------------------------------------------------------
# The scale of a code
# ---------------------------------------------------------------------------------------------


@deterministic
@torch.no_grad()
def test_standardised_codes_have_unit_scale_and_the_same_images(name):
    before, x = make(name), images(40)
    codes = before.encode(x)
    after = copy.deepcopy(before)
    standardise(after, codes)
    z = after.encode(x).numpy()
    expected = (codes.numpy() - codes.numpy().mean(0)) / codes.numpy().std(0)
    np.testing.assert_allclose(z, expected, atol=2e-3)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)
    torch.testing.assert_close(after.reconstruct(x), before.reconstruct(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_number_that_never_changes_is_not_blown_up():
    model, x = make("LinearAutoencoder"), images(20)
    into, _ = model.maps_beside_code()
    into.weight[1] = 0
    into.bias[1] = 3.0
    before = model.reconstruct(x)
    standardise(model, model.encode(x))
    z = model.encode(x)
    assert (z[:, 1] == 0).all()
    np.testing.assert_allclose(z.std(0, correction=0)[[0, 2, 3]], 1, atol=1e-3)
    torch.testing.assert_close(model.reconstruct(x), before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_standardised_twice_is_standardised_once():
    model, x = make("ConvAutoencoder"), images(20)
    standardise(model, model.encode(x))
    once = copy.deepcopy(model.state_dict())
    standardise(model, model.encode(x))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, once[key], rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# In a world model
# ---------------------------------------------------------------------------------------------


@every_family
def test_world_is_saved_and_loaded(name, tmp_path):
    ours, frames = world(name), random_frames(3)
    ours.save_pretrained(tmp_path / "world")
    again = WorldModel.from_pretrained(tmp_path / "world")
    assert again.vision.saved_name == name
    z = ours.encode(frames)
    assert torch.equal(again.encode(frames), z)
    assert np.array_equal(again.decode(z), ours.decode(z))
    assert ours.decode(z[:, None]).shape == (3, 1, 64, 64, 3)
    x = torch.from_numpy(frames.transpose(0, 3, 1, 2) / np.float32(255))
    torch.testing.assert_close(z, encode_mu_logvar(ours.vision, x)[0], rtol=1e-4, atol=1e-5)


@deterministic
def test_agent_drives_by_the_code_alone(name, tmp_path):
    """Where V has no posterior, a draw from it changes nothing."""
    controller = LinearController(ControllerConfig(D, 8))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    WorldModelAgent(world(name), controller, AgentConfig(2)).save_pretrained(tmp_path / "agent")
    frames = random_frames(6)
    driven = []
    for deterministic in (True, False):
        agent = WorldModelAgent.from_pretrained(tmp_path / "agent")
        state, actions = None, []
        for frame in frames:
            action, state = agent.predict(frame, state, deterministic=deterministic)
            actions.append(action)
        driven.append(np.stack(actions))
    assert np.array_equal(*driven)
    assert np.ptp(driven[0], axis=0).max() > 0.01


@deterministic
def test_dream_environment(name, tmp_path):
    world(name).save_pretrained(tmp_path / "model")
    moments = [torch.randn(5, D), torch.zeros(5, 8), torch.zeros(5, 8), torch.zeros(5)]
    DreamStarts(*moments).save(tmp_path / "model" / STARTS_NAME)
    seen = []
    for observation in ("zh", "frames"):
        env = DreamEnv(tmp_path / "model", horizon=3, observation=observation)
        seen.append(env.reset(seed=1)[0])
        assert env.step(env.action_space.sample())[4] == {}
    z = torch.from_numpy(seen[0][:D])
    assert np.array_equal(WorldModel.from_pretrained(tmp_path / "model").decode(z), seen[1])


# ---------------------------------------------------------------------------------------------
# What cannot be V
# ---------------------------------------------------------------------------------------------


def test_another_class_is_named_with_those_that_can_be_v(tmp_path):
    MDNRNN(MDNRNNConfig(D, 3, 8, 2)).save_pretrained(tmp_path / "m")
    message = (
        r"m holds an MDNRNN, which cannot be V; pass the folder of a ConvVAE, ImageVAE, LinearVAE, "
        r"ConvAutoencoder, LinearAutoencoder or VectorVision"
    )
    with pytest.raises(ValueError, match=message):
        load_vision(tmp_path / "m")


@pytest.mark.parametrize("name", ["os.system", "torch.nn.Linear", "__import__('os')"])
def test_a_name_in_a_file_is_looked_up_and_never_run(name, tmp_path):
    make("ConvVAE").save_pretrained(tmp_path / "v")
    config = {**read_json(tmp_path / "v" / "config.json"), "class": name}
    weights = (tmp_path / "v" / "model.safetensors").read_bytes()
    write_folder(tmp_path / "v", {"config.json": json_bytes(config), "model.safetensors": weights})
    with pytest.raises(ValueError, match="which cannot be V; pass the folder of a ConvVAE"):
        load_vision(tmp_path / "v")


@pytest.mark.parametrize("content", [[], {}, {"class": 3}])
def test_a_config_without_a_class_is_no_model(content, tmp_path):
    files = {"config.json": json_bytes(content), "model.safetensors": b""}
    write_folder(tmp_path / "v", files)
    with pytest.raises(DamagedFileError, match=r"config\.json: is not the config of a saved model"):
        load_vision(tmp_path / "v")


def test_a_changed_config_is_damaged_and_not_another_class(tmp_path):
    make("ConvVAE").save_pretrained(tmp_path / "v")
    path = tmp_path / "v" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "class": "ConvAutoencoder"}))
    with pytest.raises(DamagedFileError, match=r"v/config\.json"):
        load_vision(tmp_path / "v")


def test_folders_that_hold_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: no such folder; pass one with V"):
        load_vision(tmp_path / "nothing")
    make("ConvVAE").save_pretrained(tmp_path / "run" / "model")
    with pytest.raises(ValueError, match="run is the folder of a run; pass its model"):
        load_vision(tmp_path / "run")


def test_a_model_for_other_images_is_refused(tmp_path):
    small = ConvAutoencoderConfig((1, 32, 32), D, (2, 3)).build()
    small.save_pretrained(tmp_path / "small")
    message = r"the ConvAutoencoder of .*small is made for images of \(1, 32, 32\), V sees frames"
    with pytest.raises(ValueError, match=message + r" of \(3, 64, 64\)"):
        load_vision(tmp_path / "small")
    with pytest.raises(ValueError, match=r"this Autoencoder is made for images of \(1, 32, 3"):
        WorldModel(small, MDNRNN(MDNRNNConfig(D, 3, 8, 2)))


@every_family
def test_a_code_of_another_size_than_ms_is_refused(name):
    with pytest.raises(ValueError, match="V has z of 4 dimensions, M was trained with 5"):
        WorldModel(make(name), MDNRNN(MDNRNNConfig(5, 3, 8, 2)))


def test_vectors_are_standardised(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal([5.0, -3.0, 7.0], [0.01, 40.0, 0.0], size=(500, 3)).astype(np.float32)
    vision = VectorVision.of(torch.from_numpy(x))
    z = vision.encode(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(z[:, :2], (x - x.mean(0))[:, :2] / x.std(0)[:2], atol=2e-3)
    np.testing.assert_allclose(z[:, 2], 0, atol=1e-6)  # never changes: only its mean goes
    np.testing.assert_allclose(vision.decode(torch.from_numpy(z)), x, rtol=1e-5)
    mu, logvar = encode_mu_logvar(vision, torch.from_numpy(x))
    np.testing.assert_array_equal(mu, z)
    assert (logvar == NO_NOISE).all()
    vision.save_pretrained(tmp_path / "v")
    again = load_vision(tmp_path / "v")
    assert isinstance(again, VectorVision)
    np.testing.assert_array_equal(again.encode(torch.from_numpy(x)), z)


def test_a_world_of_vectors():
    vision = VectorVision.of(torch.randn(50, D) * 3 + 1)
    model = WorldModel(vision, MDNRNN(MDNRNNConfig(D, 3, 8, 2, predict_reward=True))).eval()
    x = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)
    z = model.encode(x)
    np.testing.assert_allclose(model.decode(z), x, atol=1e-5)
    assert model.decode(z.view(5, 1, D)).shape == (5, 1, D)


def test_observations_that_a_v_does_not_see_are_told():
    vision = VectorVision.of(torch.randn(50, 4))
    check_observations(vision, (4,), "CartPole-v1 shows")
    with pytest.raises(ValueError, match=r"the V of v sees vectors of \(4,\), LunarLander-v3 shows "
                       r"vectors of \(8,\)"):  # fmt: skip
        check_observations(vision, (8,), "LunarLander-v3 shows", "the V of v")
    with pytest.raises(ValueError, match=r"this ConvVAE sees frames of \(64, 64, 3\), CartPole"):
        check_observations(make("ConvVAE"), (4,), "CartPole-v1 shows")
