"""MuseGAN: sizes, what each noise changes, the penalty, what is given."""

import numpy as np
import pytest
import torch

from generative.musegan import (
    MuseGAN,
    MuseGANConfig,
    MuseGANLearner,
    MuseGANLossConfig,
    rolls_of_voices,
    track_penalty,
    voices_of_rolls,
)
from generative.musegan.networks import chroma, hold, onsets

torch.set_num_threads(1)


def tiny(**settings) -> MuseGAN:
    torch.manual_seed(0)
    config = MuseGANConfig(
        num_pitches=24, lowest=48, latent_dim=4, temporal_dim=8, dense_dim=16,
        channels=(8,) * 4, critic_channels=(4,) * 8, critic_dim=8,
        **{"init": "glorot", **settings},
    )  # fmt: skip
    return config.build().eval()


def num_weights(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_the_books():
    gan = MuseGANConfig().build()
    assert num_weights(gan.generator) == 6_576_612
    assert num_weights(gan.critic) == 1_446_401
    assert num_weights(gan.generator.chords) == 101_472
    assert num_weights(gan.generator.bars["2"]) == 1_517_313


@pytest.mark.parametrize("output", ["tanh", "one-hot", "held"])
def test_what_each_noise_changes(output):
    """The book's four explorations, exactly."""
    gan = tiny(output=output, num_bars=3)
    pieces = 32 if output == "held" else 4
    noise, other = (gan.draw_noise(pieces, torch.Generator().manual_seed(s)) for s in (0, 1))
    with torch.no_grad():
        first = gan.generator(noise)
        for name in ("chords", "style"):
            changed = gan.generator(noise._replace(**{name: getattr(other, name)}))
            differs = (changed != first).flatten(2).any(2)
            # Every track, and of every piece but where one note may be held throughout.
            assert (differs.any(0) if output == "held" else differs).all()
        for name in ("melody", "groove"):
            one = getattr(noise, name).clone()
            one[:, 2] = getattr(other, name)[:, 2]
            changed = gan.generator(noise._replace(**{name: one}))
            kept = [track for track in range(4) if track != 2]
            assert torch.equal(changed[:, kept], first[:, kept])
            assert (changed[:, 2] != first[:, 2]).any()


@pytest.mark.parametrize("output", ["one-hot", "held"])
def test_one_hot_output_is_one_pitch_and_has_a_slope(output):
    gan = tiny(output=output)
    rolls = gan.generate(gan.draw_noise(3))
    assert torch.equal(rolls.detach().sum(-1), torch.ones(3, 4, 2, 16))
    assert set(rolls.detach().unique().tolist()) == {0.0, 1.0}
    (rolls * torch.randn_like(rolls)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in gan.generator.bars.parameters())


def test_a_bar_begins_as_held_notes():
    noise = tiny(init="held").draw_noise(3)
    with torch.no_grad():
        rolls = tiny(init="held").generator(noise)
        first_half = rolls[:, :, :, :8]
        assert torch.allclose(first_half, first_half[:, :, :, :1].expand_as(first_half), atol=1e-6)
        assert not torch.allclose(rolls[:, :, :, 0], rolls[:, :, :, 8])


def test_notes_are_held_until_the_next_begins():
    rng = np.random.default_rng(0)
    rolls = torch.from_numpy(rng.random((3, 2, 16, 24))).requires_grad_()
    begins = torch.from_numpy(rng.integers(2, size=(3, 2, 16))).double().requires_grad_()
    held = hold(begins, rolls)
    for piece in range(3):
        sounding = 0  # whatever the gate says, the first step begins a note
        for t in range(32):
            sounding = t if begins[piece].flatten()[t] else sounding
            assert torch.equal(held[piece].flatten(0, 1)[t], rolls[piece].flatten(0, 1)[sounding])
    assert torch.autograd.gradcheck(hold, (begins[:1, :, :4], rolls[:1, :, :4, :3]))


def test_pitch_classes_by_hand():
    x = -torch.ones(1, 2, 1, 2, 24)
    x[0, 0, 0, 0, 3] = x[0, 0, 0, 1, 23] = 1  # an E flat, then silence
    x[0, 1, 0, :, 15] = x[0, 1, 0, 1, 4] = 1  # another one an octave higher, then E with it
    found = ((chroma(x) + 1) / 2).unflatten(-1, (2, 12))
    assert torch.equal(found[..., 0, :], found[..., 1, :])
    assert found[0, :, 0, :, 0].nonzero().tolist() == [[0, 0, 3], [1, 0, 3], [1, 1, 3], [1, 1, 4]]


def test_onsets_by_hand():
    x = -torch.ones(1, 1, 2, 3, 4)
    x[0, 0, 0, 1:, 2] = x[0, 0, 1, 0, 2] = x[0, 0, 1, 2, 0] = 1  # held over the bar line
    found = onsets(x)
    assert (found == 1).nonzero().tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 0]]
    assert (found == -1).sum() == found.numel() - 2


def test_voices_and_rolls():
    config = tiny().config
    voices = np.random.default_rng(0).integers(47, 71, size=(3, 32, 4))
    voices[voices == 47] = -1
    rolls = rolls_of_voices(voices, config)
    assert rolls.shape == (3, 4, 2, 16, 24)
    np.testing.assert_array_equal(voices_of_rolls(rolls, config.lowest), voices)
    assert rolls[1, 2, 1, 5, voices[1, 16 + 5, 2] - 48] == 1
    with pytest.raises(ValueError, match="48 to 70"):
        rolls_of_voices(np.full((1, 32, 4), 71), config)
    with pytest.raises(ValueError, match=r"\(N, 32, 4\)"):
        rolls_of_voices(voices[:, :31], config)


def test_a_given_track_stays():
    gan = tiny(given="track", given_track=1, output="one-hot")
    melody = gan.generate(gan.draw_noise(3), gan_track(gan, 3)).detach()
    assert torch.equal(melody[:, 1], gan_track(gan, 3))
    other = gan_track(gan, 3).flip(-1)
    noise = gan.draw_noise(3)
    with torch.no_grad():
        a, b = (gan.generator(noise, 2 * g - 1) for g in (gan_track(gan, 3), other))
    assert (a[:, 0] != b[:, 0]).any()
    with pytest.raises(ValueError, match="needs track 1"):
        gan.sample(2)
    with pytest.raises(ValueError, match="given nothing"):
        tiny().sample(2, given=gan_track(gan, 2))


def gan_track(gan, n: int) -> torch.Tensor:
    x = torch.zeros(n, 2, 16, 24)
    x[:, :, :8, 3] = x[:, :, 8:, 5] = 1
    return x


def test_a_piece_goes_on():
    gan = tiny(given="bar", output="one-hot")
    begun = gan.sample(2, torch.Generator().manual_seed(0))  # after silence
    long = gan.go_on(begun, 7, torch.Generator().manual_seed(1))
    assert long.shape == (2, 4, 7, 16, 24)
    assert torch.equal(long[:, :, :2], begun)
    rolls = torch.zeros(2, 4, 3, 16, 24)
    real, known = gan.split(rolls)
    assert (real.shape[2], known.shape) == (2, (2, 4, 16, 24))
    with pytest.raises(ValueError, match="train one with 'bar'"):
        tiny().go_on(begun, 4)


@pytest.mark.parametrize("given", ["nothing", "track", "bar"])
def test_one_update_of_every_kind(given):
    gan = tiny(given=given).train()
    learner = MuseGANLearner(gan, MuseGANLossConfig(critic_steps=2, norm_eps=1e-12), 3)
    rolls = torch.zeros(4, 4, 2 + (given == "bar"), 16, 24)
    rolls[..., 3] = 1
    logged = learner.update(rolls)
    assert logged["c_loss"] == pytest.approx(
        float(logged["c_wass"] + 10 * logged["c_gp"]), rel=1e-4
    )
    assert all(p.grad is not None for p in gan.parameters())


def test_penalty_of_tracks_for_a_linear_critic():
    """Its slope is the same everywhere: one norm for each track, by hand."""
    weights = torch.randn(4, 2, 16, 24)

    def critic(x):
        return (x * weights).flatten(1).sum(1)

    real, fake = torch.rand(2, 5, 4, 2, 16, 24)
    found = track_penalty(critic, real, fake)
    expected = sum((weights[t].norm() - 1) ** 2 for t in range(4)) / 4
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps_per_bar": 24}, "power of two"),
        ({"num_pitches": 80}, "multiple of 12"),
        ({"num_bars": 1}, "num_bars is 1, and must be at least 2"),
        ({"channels": (8, 8)}, "needed are 4 and 8"),
        ({"lowest": 60}, "give 0 to 44"),
        ({"given_track": 4}, "tracks are 0 to 3"),
    ],
)
def test_settings_that_can_not_be(change, message):
    with pytest.raises(ValueError, match=message):
        MuseGANConfig(**change)
    with pytest.raises(ValueError, match="lipschitz 'penalty'"):
        MuseGANLossConfig(lipschitz="clipping")
