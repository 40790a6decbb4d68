"""Weights as other programs write them, in small; for the tests of what reads them.

`json_folder` is one of hardmaru/WorldModelsExperiments, `experiment_folder` one of
ctallec/world-models. The modules here are that program's, built again.
"""

import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

D, H, K, A = 4, 6, 3, 3
CHANNELS = 2, 3, 4, 5


def integers(rng, *shape, scale=0.3):
    return np.round(rng.normal(size=shape) * scale * 10_000).astype(int)


def vae_arrays(rng):
    c1, c2, c3, c4 = CHANNELS
    kernels = [
        (4, 4, 3, c1), (4, 4, c1, c2), (4, 4, c2, c3), (4, 4, c3, c4),
        (4 * c4, D), (4 * c4, D), (D, 4 * c4),
        (5, 5, c3, 4 * c4), (5, 5, c2, c3), (6, 6, c1, c2), (6, 6, 3, c1),
    ]  # fmt: skip
    biases = [c1, c2, c3, c4, D, D, 4 * c4, c3, c2, c1, 3]
    arrays = []
    for kernel, bias in zip(kernels, biases, strict=True):
        arrays += [integers(rng, *kernel), integers(rng, bias)]
    return arrays


def rnn_arrays(rng, doom):
    actions = 1 if doom else 3
    inputs, outputs = D + actions + doom, 3 * K * D + doom
    cell = [integers(rng, inputs + H, 4 * H), integers(rng, 4 * H)]
    out = [integers(rng, H, outputs), integers(rng, outputs)]
    return cell + out if doom else out + cell


def write(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([np.asarray(a).tolist() for a in arrays], indent=0))
    return path


def json_folder(root, doom=False):
    rng = np.random.default_rng(3)
    place = ("tf_models", "tf_models") if doom else ("vae", "rnn")
    write(root / place[0] / "vae.json", vae_arrays(rng))
    write(root / place[1] / "rnn.json", rnn_arrays(rng, doom))
    n = D + 2 * H if doom else 3 * (D + H + 1)
    best = root / "log" / f"{'doomrnn' if doom else 'carracing'}.cma.16.64.best.json"
    best.parent.mkdir()
    best.write_text(json.dumps([np.round(rng.normal(size=n) * 0.5, 4).tolist(), 906.1]))
    return root


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        for i, (a, b) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
            setattr(self, f"conv{i + 1}", nn.Conv2d(a, b, 4, stride=2))
        self.fc_mu = nn.Linear(4 * CHANNELS[-1], D)
        self.fc_logsigma = nn.Linear(4 * CHANNELS[-1], D)

    def forward(self, x):
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(conv(x))
        x = x.flatten(1)
        return self.fc_mu(x), self.fc_logsigma(x)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        code, (c1, c2, c3, _) = 4 * CHANNELS[-1], CHANNELS
        self.fc1 = nn.Linear(D, code)
        self.deconv1 = nn.ConvTranspose2d(code, c3, 5, stride=2)
        self.deconv2 = nn.ConvTranspose2d(c3, c2, 5, stride=2)
        self.deconv3 = nn.ConvTranspose2d(c2, c1, 6, stride=2)
        self.deconv4 = nn.ConvTranspose2d(c1, 3, 6, stride=2)

    def forward(self, z):
        x = F.relu(self.fc1(z))[:, :, None, None]
        for deconv in (self.deconv1, self.deconv2, self.deconv3):
            x = F.relu(deconv(x))
        return torch.sigmoid(self.deconv4(x))


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()


class MDRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(D + A, H)
        self.gmm_linear = nn.Linear(H, (2 * D + 1) * K + 2)

    def forward(self, actions, latents):
        """(T, B, ...) -> mu, sigma (T, B, K, D), log pi (T, B, K), reward, end, h (T, B, ...)."""
        outs, _ = self.rnn(torch.cat([actions, latents], -1))
        out = self.gmm_linear(outs)
        mu = out[..., : K * D].unflatten(-1, (K, D))
        sigma = out[..., K * D : 2 * K * D].unflatten(-1, (K, D)).exp()
        log_pi = F.log_softmax(out[..., 2 * K * D : 2 * K * D + K], -1)
        return mu, sigma, log_pi, out[..., -2], out[..., -1], outs


class Controller(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(D + H, A)


def save(path, module, legacy=False, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"epoch": 3, "state_dict": module.state_dict(), **more}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def experiment_folder(root, legacy=False):
    """Writes the three files; returns the modules."""
    torch.manual_seed(0)
    vae, mdrnn, controller = VAE(), MDRNN(), Controller()
    for parameter in [*vae.parameters(), *mdrnn.parameters()]:
        nn.init.normal_(parameter, 0, 0.3)
    loss, optimizer = 41.5, torch.optim.Adam(vae.parameters())
    sum(p.square().sum() for p in vae.parameters()).backward()
    optimizer.step()
    save(root / "vae/best.tar", vae, legacy, precision=loss, optimizer=optimizer.state_dict())
    save(root / "mdrnn/best.tar", mdrnn, legacy, precision=loss)
    save(root / "ctrl/best.tar", controller, legacy, reward=np.float64(860.0))
    return vae, mdrnn, controller
