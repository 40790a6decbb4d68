"""V + M: frames in, dreams out, frames again."""

import numpy as np
import pytest
import torch

from generative.vae import ConvVAEConfig
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel

torch.set_num_threads(1)
FULL = {"reward_input": True, "predict_reward": True, "predict_end": True, "reward_scale": 3.0}


def small_world(**changes) -> WorldModel:
    torch.manual_seed(0)
    vision = ConvVAEConfig(4, (2, 3, 4, 5)).build()
    return WorldModel(vision, MDNRNN(MDNRNNConfig(4, 3, 12, 3, **changes))).eval()


def random_frames(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(n, 64, 64, 3), dtype=np.uint8)


def test_encodes_frames_as_v_does():
    world, frames = small_world(), random_frames(3)
    x = torch.from_numpy(frames.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    mu, logvar = world.vision.encode_mu_logvar(x)
    torch.testing.assert_close(world.encode(frames), mu)
    torch.testing.assert_close(world.encode(torch.from_numpy(frames)), mu)
    drawn = world.encode(frames, sample=True, generator=torch.Generator().manual_seed(1))
    eps = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, mu + (logvar / 2).exp() * eps)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_decodes_any_leading_shape(shape):
    world, z = small_world(), torch.randn(*shape, 4)
    frames = world.decode(z)
    assert frames.shape == (*shape, 64, 64, 3)
    assert frames.dtype == np.uint8
    images = world.vision.decode(z.reshape(-1, 4)).permute(0, 2, 3, 1).detach().numpy()
    assert np.abs(frames.reshape(-1, 64, 64, 3) - 255 * images).max() <= 0.501


@pytest.mark.parametrize("heads", [{}, {"predict_reward": True}, FULL])
def test_imagines_as_steps_do(heads):
    world = small_world(**heads)
    z, actions = torch.randn(2, 4), torch.rand(2, 5, 3)
    seeds = [torch.Generator().manual_seed(3) for _ in range(2)]
    imagined = world.imagine(z, actions, temperature=0.7, generator=seeds[0])
    state, previous = world.memory.initial_state(2), torch.zeros(2)
    for t in range(5):
        out, state = world.memory.step(z, actions[:, t], state, previous)
        z = out.mixture.sample(0.7, seeds[1])
        torch.testing.assert_close(imagined.z[:, t], z)
        if heads:
            previous = out.reward
            torch.testing.assert_close(imagined.reward[:, t], out.reward)
        if heads is FULL:
            expected = torch.sigmoid(out.end_logit)
            torch.testing.assert_close(imagined.end_probability[:, t], expected)
    assert (imagined.reward is None) == (not heads)
    assert (imagined.end_probability is None) == (heads is not FULL)


def test_imagines_on_from_a_state():
    world = small_world(**FULL)
    z, actions = torch.randn(2, 4), torch.rand(2, 6, 3)
    whole = world.imagine(z, actions, temperature=0)
    state, previous, before = world.memory.initial_state(2), torch.zeros(2), z
    for t in range(3):
        before, out, state = world.step(before, actions[:, t], state, previous, temperature=0)
        previous = out.reward
    rest = world.imagine(before, actions[:, 3:], state, previous, temperature=0)
    torch.testing.assert_close(rest.z, whole.z[:, 3:])
    torch.testing.assert_close(rest.reward, whole.reward[:, 3:])


def test_what_does_not_fit_is_explained():
    with pytest.raises(ValueError, match="V has z of 5 dimensions, M was trained with 4"):
        WorldModel(ConvVAEConfig(5, (2, 2, 2, 2)).build(), small_world().memory)
    with pytest.raises(ValueError, match=r"frames are torch\.float64; pass uint8"):
        small_world().encode(random_frames(1) / 255)
    with pytest.raises(ValueError, match=r"needs float \(B, 3, 64, 64\)"):
        small_world().encode(np.zeros((1, 96, 96, 3), np.uint8))


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 0), (torch.float16, 2e-3)])
def test_saved_and_loaded(tmp_path, dtype, tolerance):
    world = small_world(**FULL)
    world.save_pretrained(tmp_path / "model", dtype=dtype)
    again = WorldModel.from_pretrained(tmp_path / "model")
    for ours, theirs in zip(world.parameters(), again.parameters(), strict=True):
        assert theirs.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_actions_that_are_not_finite_are_named():
    world = small_world()
    z, state = torch.zeros(2, world.memory.config.latent_dim), world.memory.initial_state(2)
    action = torch.zeros(2, world.memory.config.action_dim)
    action[1, 0] = torch.nan
    previous = torch.zeros(2) if world.memory.config.reward_input else None
    with pytest.raises(ValueError, match=r"action\[1, 0\] is nan"):
        world.step(z, action, state, previous)
    with pytest.raises(ValueError, match=r"action\[1, 0\] is nan"):
        world.imagine(z, action[:, None])
