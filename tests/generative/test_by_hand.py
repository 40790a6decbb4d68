"""Models around networks of somebody else: they are trained, saved and read back like others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generative.autoencoder import Autoencoder, AutoencoderLearner, AutoencoderLossConfig
from generative.classifier import Classifier, ClassifierLearner, ClassifierLossConfig
from generative.flow import FFJORD, FFJORDLearner, FlowLossConfig
from generative.musegan import MuseGAN, MuseGANLearner, MuseGANLossConfig
from generative.vae import ConvVAE, ConvVAEConfig, GaussianHead, VAELearner, VAELossConfig

torch.set_num_threads(1)


class Shear(nn.Module):
    """dz/dt = W z."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.1, 0.5], [0.0, -0.2]]))

    def forward(self, t: Tensor, z: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return z @ self.weight.T, directions @ self.weight.T


class Tracks(nn.Module):
    """Rolls of the melody noise alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2 * 16 * 12)

    def forward(self, noise: Any, given: Tensor | None) -> Tensor:
        return self.layer(noise.melody).tanh().unflatten(2, (2, 16, 12))


class Height(nn.Module):
    """A linear critic."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2 * 2 * 16 * 12, 1)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        return self.layer(x.flatten(1))[:, 0]


def autoencoder() -> Autoencoder:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return Autoencoder(encoder, nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4))),
                       (1, 4, 4), 3)  # fmt: skip


def frames_vae() -> ConvVAE:
    encoder = nn.Sequential(nn.AvgPool2d(16), nn.Flatten())
    decoder = nn.Sequential(
        nn.Linear(3, 48), nn.Unflatten(1, (3, 4, 4)), nn.Upsample(scale_factor=16)
    )
    return ConvVAE(encoder, GaussianHead(48, 3), decoder, 3)


@dataclass(frozen=True)
class Case:
    """How a model is put together, what it is trained on, and what trains it."""

    make: Callable[[], Any]
    batch: Any
    learner: Callable[[Any], Any]
    result: Callable[[Any], Tensor]
    """Something that depends on the weights."""


POINTS, IMAGES = torch.tensor([[0.5, -1.0], [1.0, 2.0]]), torch.rand(4, 1, 4, 4)
ROLLS = nn.functional.one_hot(torch.arange(4 * 64).view(4, 2, 2, 16) % 12, 12).float()
CASES = {
    "FFJORD": Case(
        lambda: FFJORD(Shear(), 2, num_steps=2, fine_steps=4),
        POINTS,
        lambda m: FFJORDLearner(m, FlowLossConfig(lr=1e-2), 2),
        lambda m: m.log_prob(POINTS),
    ),
    "MuseGAN": Case(
        lambda: MuseGAN(Tracks(), Height(), (2, 2, 16, 12), 3, lowest=48),
        ROLLS,
        lambda m: MuseGANLearner(m, MuseGANLossConfig(critic_steps=1), 2),
        lambda m: m.heights(ROLLS),
    ),
    "Autoencoder": Case(
        autoencoder,
        IMAGES,
        lambda m: AutoencoderLearner(m, AutoencoderLossConfig(), 2),
        lambda m: m.reconstruct(IMAGES),
    ),
    "Classifier": Case(
        lambda: Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4), 3),
        (IMAGES, torch.tensor([0, 1, 2, 0])),
        lambda m: ClassifierLearner(m, ClassifierLossConfig(), 2),
        lambda m: m.log_probs(IMAGES),
    ),
    "ConvVAE": Case(
        frames_vae,
        torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8),
        lambda m: VAELearner(m, VAELossConfig(free_bits=0.0), 2),
        lambda m: m.decode(torch.ones(1, 3)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_model_put_together_by_hand_works_as_any_other(name, tmp_path):
    case = CASES[name]
    torch.manual_seed(0)
    model = case.make()
    learner, before = case.learner(model), case.result(model).detach()
    losses = learner.update(case.batch)
    assert all(torch.as_tensor(value).isfinite().all() for value in losses.values())
    model.eval()
    after = case.result(model).detach()
    assert not torch.equal(after, before)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"{name} that was put together by hand.*load_weights"):
        type(model).from_pretrained(tmp_path / "model")
    again = case.make().eval()
    again.load_weights(tmp_path / "model")
    assert torch.equal(case.result(again), after)


def test_frames_are_coded_as_blocks_or_not_with_the_same_loss():
    """The fast route of the paper's decoder gives the losses of a plain one around it."""
    torch.manual_seed(0)
    fast = ConvVAEConfig(4, (4, 8, 8, 16)).build()
    plain = ConvVAE(fast.encoder, fast.posterior, nn.Sequential(fast.decoder), 4)
    losses = []
    for model in (fast, plain):
        torch.manual_seed(1)
        learner = VAELearner(model, VAELossConfig(lr=1e-9, final_lr=1e-9), 1)
        losses.append(learner.update(CASES["ConvVAE"].batch))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-4)
