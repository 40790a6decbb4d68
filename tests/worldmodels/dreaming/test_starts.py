"""Where dreams begin: moments that M had read up to, on disk and from recordings."""

import numpy as np
import pytest
import safetensors.torch
import torch

from generative.training.files import DamagedFileError
from tests.worldmodels.dreaming.test_rollout import (
    EVERYTHING,
    D,
    H,
    cell_of,
    random_starts,
    small_memory,
)
from worldmodels.dreaming.starts import DreamStarts, digest, soon_in_trouble, warm_up
from worldmodels.sequences import EncodedRollouts

torch.set_num_threads(1)


def encoded_episodes(lengths=(6, 1, 9, 4, 9)) -> EncodedRollouts:
    """Episodes of these many decisions, laid end to end."""
    rng = np.random.default_rng(0)
    starts = np.cumsum([0] + [n + 1 for n in lengths])
    rows = starts[-1]
    actions = rng.uniform(0, 1, (rows, 3)).astype(np.float32)
    rewards = np.where(rng.random(rows) < 0.3, 3.2, -0.1).astype(np.float32)
    actions[starts[1:] - 1], rewards[starts[1:] - 1] = 0, 0
    mu, logvar = rng.normal(size=(2, rows, D)).astype(np.float16)
    return EncodedRollouts(mu, logvar, actions, rewards, np.zeros(rows, bool), starts)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("max_idle", [None, 0, 2])
def test_warm_up_is_a_loop_over_episodes(batch_size, max_idle):
    memory, encoded = small_memory(**EVERYTHING), encoded_episodes()
    starts = warm_up(memory, encoded, max_idle, batch_size=batch_size)
    cell, expected = cell_of(memory), []
    for first, last in zip(encoded.starts[:-1], encoded.starts[1:] - 1, strict=True):
        h, c, reward, unpaid = torch.zeros(H), torch.zeros(H), 0.0, 0
        for row in range(first, last):
            z = torch.from_numpy(encoded.mu[row]).float()
            if max_idle is None or unpaid <= max_idle:
                expected.append((z, h, c, torch.tensor(reward)))
            action = torch.from_numpy(encoded.actions[row])
            with torch.no_grad():
                h, c = cell(torch.cat([z, action, torch.tensor([reward / 2.0])]), (h, c))
            reward = float(encoded.rewards[row])
            unpaid = 0 if reward > 0 else unpaid + 1
    assert len(starts) == len(expected)
    assert (len(starts) == encoded.lengths.sum()) == (max_idle is None)
    for field, column in zip(vars(starts).values(), zip(*expected, strict=True), strict=True):
        assert field.dtype == torch.float16
        torch.testing.assert_close(field.float(), torch.stack(column), rtol=1e-3, atol=1e-3)


def test_moments_before_trouble_count_more():
    """Trouble as the docstring has it, decision by decision."""
    rng = np.random.default_rng(3)
    rewards = np.repeat(rng.choice([3.2, -0.3], 20), rng.integers(1, 14, 20)).astype(np.float32)
    expected = [
        any(
            len(rewards[a : a + 10]) == 10 and (rewards[a : a + 10] <= 0).all()
            for a in range(t, t + 16)
        )
        for t in range(len(rewards))
    ]
    assert 0 < sum(expected) < len(expected)
    assert soon_in_trouble(rewards).tolist() == expected
    assert not soon_in_trouble(rewards[:5] * 0).any()

    n = len(rewards) + 1
    mu = np.arange(n, dtype=np.float16)[:, None].repeat(D, 1)
    ends, actions = np.zeros(n, bool), np.zeros((n, 3), np.float32)
    encoded = EncodedRollouts(
        mu, mu * 0, actions, np.append(rewards, np.float32(0)), ends, np.array([0, n])
    )
    starts = warm_up(small_memory(), encoded, trouble_weight=3)
    counts = np.bincount(starts.z[:, 0].int().numpy(), minlength=n - 1)
    assert counts.tolist() == [3 if trouble else 1 for trouble in expected]


def test_starts_are_drawn_as_rows():
    starts = DreamStarts(*(field.half() for field in vars(random_starts(9)).values()))
    drawn = starts.draw(200, np.random.default_rng(0))
    assert len(drawn) == 200
    assert drawn.z.dtype == torch.float32
    rows = [(starts.z.float() == z).all(1).nonzero().item() for z in drawn.z]
    assert set(rows) == set(range(9))
    for name, field in vars(starts).items():
        assert torch.equal(getattr(drawn, name), field[rows].float())


def test_starts_saved_and_loaded(tmp_path):
    starts, path = random_starts(), tmp_path / "starts.safetensors"
    starts.save(path, dtype=torch.float32)
    for name, field in vars(DreamStarts.load(path)).items():
        assert torch.equal(field, getattr(starts, name))
    starts.save(path)  # in place of the older file
    for name, field in vars(DreamStarts.load(path)).items():
        assert torch.equal(field, getattr(starts, name).half())
    broken = DreamStarts(starts.z * 1e6, starts.h, starts.c, starts.prev_reward)
    with pytest.raises(ValueError, match=r"z of the starts is not finite as torch\.float16"):
        broken.save(path)
    assert torch.equal(DreamStarts.load(path).z, starts.z.half())


def test_damaged_starts_are_named(tmp_path):
    path = tmp_path / "starts.safetensors"
    random_starts().save(path)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[-3] ^= 1
    for damage in (whole[:-7], whole[:40], b"", bytes(changed)):
        path.write_bytes(damage)
        with pytest.raises(DamagedFileError, match=r"starts\.safetensors"):
            DreamStarts.load(path)
    small_memory().save_pretrained(tmp_path / "memory")
    with pytest.raises(DamagedFileError, match="not the starts of a dream"):
        DreamStarts.load(tmp_path / "memory" / "model.safetensors")
    with pytest.raises(DamagedFileError, match="No such file"):
        DreamStarts.load(tmp_path / "nothing")


def test_stored_starts_that_are_not_finite_are_refused(tmp_path):
    """As somebody else may have written them; `save` refuses them itself."""
    fields = {
        "z": torch.zeros(5, 4),
        "h": torch.zeros(5, 8),
        "c": torch.zeros(5, 8),
        "prev_reward": torch.zeros(5),
    }
    for name, bad in (("h", torch.nan), ("prev_reward", torch.inf)):
        tensors = {**fields, name: fields[name].clone()}
        tensors[name][3] = bad
        metadata = {"sha256": digest(tensors)}
        path = tmp_path / "starts.safetensors"
        path.write_bytes(safetensors.torch.save(tensors, metadata))
        told = f"starts.safetensors: {name} in row 3 of the starts is not finite"
        with pytest.raises(DamagedFileError, match=told):
            DreamStarts.load(path)
