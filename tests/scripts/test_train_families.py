"""What the training scripts of the families read, beyond what their smoke presets do."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.autoencoder.config import ConvAutoencoderConfig
from generative.data import digits
from generative.flow import ImageFlow
from generative.flow.config import RealNVPConfig
from scripts import train_autoencoder, train_realnvp
from scripts.common.images import load_images
from worldmodels.rollouts import Episode, RolloutStore

torch.set_num_threads(1)


def test_recorded_frames_are_split_between_episodes(tmp_path):
    store = RolloutStore(tmp_path / "episodes")
    rng = np.random.default_rng(0)

    def record(frames: int) -> None:
        store.append(
            Episode(
                frames=rng.integers(256, size=(frames, 8, 8, 3), dtype=np.uint8),
                actions=np.zeros((frames - 1, 3), np.float32),
                rewards=np.zeros(frames - 1, np.float32),
                terminated=np.zeros(frames - 1, bool),
            )
        )

    def lengths() -> tuple[int, int]:
        images = load_images("frames", tmp_path / "episodes", (3, 8, 8))
        train, test = images.part("train"), images.part("test")
        last = np.concatenate([store.episode(i).frames for i in range(len(store))])[-len(test) :]
        np.testing.assert_array_equal(test.images, last)
        return len(train), len(test)

    record(30)
    with pytest.raises(ValueError, match="one episode; training and testing need at least two"):
        lengths()
    record(10)
    assert lengths() == (30, 10)  # a tenth of all would be the end of one that is trained on
    for frames in (45, 7, 9):
        record(frames)
    assert lengths() == (92, 9)  # of the last 16 and the last 9, nearer to a tenth of 101


def test_denoising_on_a_folder_of_images(tmp_path):
    for i in range(12):
        pixels = np.full((20, 20), 20 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    args = replace(
        train_autoencoder.PRESETS["denoising"],
        data="folder",
        data_dir=tmp_path,
        out=tmp_path / "run",
        model=ConvAutoencoderConfig((1, 16, 16), latent_dim=2, channels=(4,)),
        steps=3,
        batch_size=4,
    )
    train_autoencoder.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 < result["test_mse"] < 1
    strip = np.asarray(Image.open(tmp_path / "run" / "images" / "reconstructions-000003.png"))
    assert strip.shape[0] == 3 * 32 + 2 * 2  # clean, noisy, denoised, each enlarged by 2


def test_flow_on_digits(tmp_path, monkeypatch):
    table = np.random.default_rng(0).integers(17, size=(1797, 65))
    with gzip.open(tmp_path / "digits.csv.gz", "wt") as file:
        np.savetxt(file, table, fmt="%d", delimiter=",")
    monkeypatch.setattr(digits, "find_digits", lambda: tmp_path / "digits.csv.gz")
    small = RealNVPConfig(
        (1, 8, 8), ("checkerboard",), num_couplings=2, hidden_dim=8, num_hidden=1, actnorm=True
    )
    args = replace(
        train_realnvp.PRESETS["digits"], out=tmp_path / "run", model=small, steps=3, batch_size=8
    )
    flow = ImageFlow.from_pretrained(train_realnvp.main(args))
    assert flow.sample(2).shape == (2, 1, 8, 8)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    # No model of random levels can have fewer than log2(17) = 4.09 bits.
    assert 4.0 < result["test_bits_per_dim"] < 6
    assert (tmp_path / "run" / "images" / "samples-000003.png").exists()


@pytest.mark.parametrize("data", ["eight-gaussians", "grid-25"])
def test_flow_on_other_points(tmp_path, data):
    args = replace(
        train_realnvp.PRESETS["smoke"], out=tmp_path / "run", data=data, points=0, even=True
    )
    train_realnvp.main(args)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["nll"] == pytest.approx(result["floor"] + result["gap"])
    assert result["gap"] > 0
