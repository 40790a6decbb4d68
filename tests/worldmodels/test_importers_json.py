"""The original program's JSON weights, against its forward passes written again in NumPy."""

import json
import os

import numpy as np
import pytest
import torch

from generative.training.files import DamagedFileError
from tests.worldmodels.foreign_weights import CHANNELS, D, H, K, integers, json_folder, write
from worldmodels.configs import ActionHead, ControllerConfig, DreamConfig, MDNRNNConfig
from worldmodels.controller import LinearController
from worldmodels.dreaming.rollout import Dream
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.importers import ForeignWeightsError, read_json_weights
from worldmodels.importers.json_weights import read_controller, read_rnn, read_vae
from worldmodels.memory import MDNRNN

torch.set_num_threads(1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --------------------------------------------------------------------------------------------
# Files as the program writes them
# --------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, request):
    """A folder of the repository: carracing, or doomrnn."""
    return json_folder(tmp_path / request.param, doom=request.param == "doomrnn")


cars = pytest.mark.parametrize("folder", ["carracing"], indirect=True)
doom = pytest.mark.parametrize("folder", ["doomrnn"], indirect=True)
both = pytest.mark.parametrize("folder", ["carracing", "doomrnn"], indirect=True)


def load(folder, name):
    (path,) = folder.rglob(name)
    return json.loads(path.read_text())


# --------------------------------------------------------------------------------------------
# The program's forward passes
# --------------------------------------------------------------------------------------------


class OriginalVAE:
    def __init__(self, arrays):
        self.layers = [
            (np.array(k) / 10_000, np.array(b) / 10_000)
            for k, b in zip(arrays[::2], arrays[1::2], strict=True)
        ]

    def encode(self, x):
        """(N, 64, 64, 3) -> mu, log variance."""
        for kernel, bias in self.layers[:4]:
            n = (x.shape[1] - 4) // 2 + 1
            out = np.zeros((len(x), n, n, kernel.shape[3]))
            for i in range(n):
                for j in range(n):
                    patch = x[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
                    out[:, i, j] = np.tensordot(patch, kernel, 3) + bias
            x = np.maximum(out, 0)
        flat = x.reshape(len(x), -1)
        return tuple(flat @ kernel + bias for kernel, bias in self.layers[4:6])

    def decode(self, z):
        kernel, bias = self.layers[6]
        x = (z @ kernel + bias).reshape(len(z), 1, 1, -1)
        for layer, (kernel, bias) in enumerate(self.layers[7:]):
            size, n = kernel.shape[0], x.shape[1]
            out = np.zeros((len(x), 2 * (n - 1) + size, 2 * (n - 1) + size, kernel.shape[2])) + bias
            for i in range(n):
                for j in range(n):  # the kernel has height, width, out, in
                    spread = np.einsum("bc,hwoc->bhwo", x[:, i, j], kernel)
                    out[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += spread
            x = sigmoid(out) if layer == 3 else np.maximum(out, 0)
        return x


class OriginalRNN:
    """One step at a time; Doom is told whether it is an episode's first."""

    def __init__(self, arrays, doom):
        arrays = [np.array(a) / 10_000 for a in arrays]
        self.kernel, self.bias, self.out_w, self.out_b = arrays if doom else arrays[2:] + arrays[:2]
        self.doom = doom

    def step(self, z, a, state, restart):
        h, c = state
        if self.doom and restart:
            h, c = h * 0, c * 0
        flag = [np.full((len(z), 1), float(restart))] if self.doom else []
        i, j, f, o = np.split(np.hstack([z, a, *flag, h]) @ self.kernel + self.bias, 4, 1)
        c = c * sigmoid(f + 1.0) + sigmoid(i) * np.tanh(j)
        h = np.tanh(c) * sigmoid(o)
        out = h @ self.out_w + self.out_b
        end = None
        if self.doom:
            end, out = out[:, 0], out[:, 1:]
        logmix, mean, logstd = np.split(out.reshape(-1, 3 * K), 3, 1)
        logmix = logmix - np.log(np.exp(logmix).sum(1, keepdims=True))
        return (h, c), [x.reshape(-1, D, K) for x in (logmix, mean, logstd)], end


def original_action(params, z, h, c, doom):
    params = np.array(params)
    if doom:
        return np.tanh(np.concatenate([z, c, h], 1) @ params.reshape(-1, 1))
    action = np.tanh(np.hstack([z, h]) @ params[3:].reshape(-1, 3) + params[:3])
    action[:, 1] = (action[:, 1] + 1) / 2
    action[:, 2] = np.clip(action[:, 2], 0, 1)
    return action


@both
def test_v_sees_and_draws_the_same(folder):
    vision = read_json_weights(folder).world.vision
    original, rng = OriginalVAE(load(folder, "vae.json")), np.random.default_rng(0)
    frames = rng.uniform(size=(2, 64, 64, 3))
    mu, logvar = original.encode(frames)
    with torch.no_grad():
        ours = vision.encode_mu_logvar(torch.from_numpy(frames).float().permute(0, 3, 1, 2))
        np.testing.assert_allclose(ours[0], mu, atol=1e-4 * np.abs(mu).max())
        np.testing.assert_allclose(ours[1], logvar, atol=1e-4 * np.abs(logvar).max())
        z = rng.normal(size=(2, D))
        images = vision.decode(torch.from_numpy(z).float()).permute(0, 2, 3, 1)
        np.testing.assert_allclose(images, original.decode(z), atol=1e-5)
    assert vision.config.channels == CHANNELS


@both
def test_m_and_c_go_through_an_episode_the_same(folder):
    is_doom = folder.name == "doomrnn"
    world, controller, files = read_json_weights(folder)
    memory, original = world.memory, OriginalRNN(load(folder, "rnn.json"), is_doom)
    params = load(folder, "*.best.json")[0]
    assert [f.name for f in files][:2] == ["vae.json", "rnn.json"]
    rng, state, theirs = np.random.default_rng(1), memory.initial_state(2), np.zeros((2, 2, H))
    for t in range(6):
        z = rng.normal(size=(2, D))
        seen = torch.from_numpy(z).float()
        action = original_action(params, z, *theirs, is_doom)
        with torch.no_grad():
            ours = controller.act(seen, *state)
            np.testing.assert_allclose(ours, action, atol=1e-5)
            theirs, (logmix, mean, logstd), end = original.step(z, action, theirs, t == 0)
            out, state = memory.step(seen, ours, state)
        np.testing.assert_allclose(out.mixture.log_pi, logmix, atol=1e-5)
        np.testing.assert_allclose(out.mixture.mu, mean, atol=1e-5)
        np.testing.assert_allclose(out.mixture.log_std, logstd, atol=1e-5)
        np.testing.assert_allclose(state[0][:, :H], theirs[0], atol=1e-5)
        np.testing.assert_allclose(state[1][:, :H], theirs[1], atol=1e-5)
        if is_doom:
            np.testing.assert_allclose(out.end_logit, end, atol=1e-5)
            assert out.reward.tolist() == pytest.approx([1, 1])
    assert controller.config.action == (
        ActionHead("box", low=(-1.0,), high=(1.0,)) if is_doom else ActionHead()
    )
    whole = torch.randn(1, 5, D), torch.rand(1, 5, memory.config.action_dim)
    torch.testing.assert_close(memory(*whole)[0].h, memory(*whole, memory.initial_state(1))[0].h)


@doom
def test_the_flag_is_off_in_the_middle_of_an_episode(folder):
    """Read in two parts, the second is no new episode."""
    memory = read_json_weights(folder).world.memory
    z, a = torch.randn(1, 7, D), torch.rand(1, 7, 1)
    whole, _ = memory.read(z, a, None, None)
    first, state = memory.read(z[:, :3], a[:, :3], None, None)
    second, _ = memory.read(z[:, 3:], a[:, 3:], state, None)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


@doom
def test_doom_is_dreamed(folder):
    """Also by the compiled kernels, and after the weights were kept in half precision."""
    world, controller, _ = read_json_weights(folder)
    dream = Dream(world.memory, controller.config, DreamConfig(horizon=20, temperature=1.15))
    n = 64
    starts = DreamStarts(torch.randn(n, D), *world.memory.initial_state(n), torch.zeros(n))
    vector = controller.to_vector()[None]
    slow = dream.rollout(vector, starts, torch.Generator().manual_seed(1))
    fast = dream.evaluate(vector, starts, seed=1)
    torch.testing.assert_close(fast.returns, slow.returns)
    assert torch.equal(slow.returns, slow.lengths)  # 1 for every decision
    assert slow.lengths.min() < 20


def test_paper_sizes_are_those_of_the_paper(tmp_path):
    rng = np.random.default_rng(0)
    rnn = write(
        tmp_path / "rnn.json",
        [integers(rng, *s) for s in ((256, 480), (480,), (291, 1024), (1024,))],
    )
    memory = read_rnn(rnn, 32)
    assert memory.config == MDNRNNConfig()
    best = tmp_path / "best.json"
    best.write_text(json.dumps([[0.1] * 867, 900.5]))
    assert read_controller(best, memory.config).config == ControllerConfig()
    rnn = write(
        tmp_path / "doom.json",
        [integers(rng, *s) for s in ((578, 2048), (2048,), (512, 961), (961,))],
    )
    config = read_rnn(rnn, 64).config
    assert (config.hidden_dim, config.action_dim, config.num_mixtures) == (513, 1, 5)
    best.write_text(json.dumps([[0.1] * 1088, 1092.1]))
    assert read_controller(best, config).config.features == "zhc"
    best.write_text(json.dumps([0.1] * (64 + 512)))  # a bare list, and h alone
    assert read_controller(best, config).config.features == "zh"


# --------------------------------------------------------------------------------------------
# Files that are something else
# --------------------------------------------------------------------------------------------


def broken(folder, name, change):
    (path,) = folder.rglob(name)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))
    return path


WIDE = np.zeros((3, 3, 3, 2)).tolist()
WRONG = [
    ("vae.json", lambda c: c[:-1], r"vae\.json: holds 21 arrays, needed are 22"),
    ("vae.json", lambda c: {"a": 1}, r"vae\.json: holds no list"),
    ("vae.json", lambda c: [c[0], [1], *c[2:]], r"conv1/bias has shape \(1,\), needed is \(2,\)"),
    ("vae.json", lambda c: [WIDE, *c[1:]], r"kernel has shape \(3, 3, 3, 2\), needed is \(4, 4, 3"),
    ("vae.json", lambda c: [*c[:13], ["x"], *c[14:]], "dec_fc/bias is not an array of finite"),
    ("vae.json", lambda c: [*c[:13], [[1], [1, 2]], *c[14:]], "dec_fc/bias is not an array of"),
    ("vae.json", lambda c: [*c[:13], [float("nan")] * 20, *c[14:]], "dec_fc/bias is not an"),
    ("rnn.json", lambda c: c + c[-2:], "holds 6 arrays, needed are 4"),
    ("rnn.json", lambda c: [*c[:2], c[2][:-1], c[3]], "M takes 2 actions; controllers"),
    ("rnn.json", lambda c: [*c[:2], c[2][:-3], c[3]], "10 inputs|4 inputs and 36 outputs do not"),
    ("rnn.json", lambda c: [c[0], c[1][:-1], *c[2:]], r"output_b has shape \(35,\), needed is"),
    ("rnn.json", lambda c: [*c[:2], WIDE[0], c[3]], "arrays 0 and 2 have shapes"),
    (
        "*.best.json",
        lambda c: [c[0][:-1], c[1]],
        r"shape \(32,\), needed is one list of 15 \(z\) or",
    ),
    ("*.best.json", lambda c: [["a"], 1], "controller is not an array of finite numbers"),
]


@cars
@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_what_does_not_fit_is_named(folder, name, change, message):
    broken(folder, name, change)
    with pytest.raises(ForeignWeightsError, match=message):
        read_json_weights(folder)


@cars
def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no vae\.json: looked for vae\.json, vae/"):
        read_json_weights(tmp_path)
    (path,) = folder.rglob("vae.json")
    whole = path.read_text()
    path.write_text(whole[:-40])
    with pytest.raises(DamagedFileError, match=r"vae\.json: is damaged, not JSON"):
        read_vae(path)
    path.unlink()
    os.symlink("/dev/zero", path)
    with pytest.raises(DamagedFileError, match="is a link"):
        read_vae(path)
    path.unlink()
    path.write_text(whole)
    wrong = LinearController().config.latent_dim
    with pytest.raises(ForeignWeightsError, match="do not fit a z of 32 dimensions"):
        read_rnn(next(folder.rglob("rnn.json")), wrong)
    for best in folder.rglob("*.best.json"):
        best.unlink()
    world, controller, files = read_json_weights(folder)
    assert controller is None
    assert len(files) == 2
    assert isinstance(world.memory, MDNRNN)
