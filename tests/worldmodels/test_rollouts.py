"""Recorded episodes on disk, their encoded form, and the windows drawn from it."""

import contextlib
import json
import re
import resource
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.training.files import DamagedFileError
from worldmodels import frames as frames_module
from worldmodels.frames import FrameBatches
from worldmodels.rollouts import Episode, EpisodeRecord, RolloutStore, load_frames
from worldmodels.sequences import EncodedRollouts, SequenceBatches, encode_rollouts


def make_episode(seed: int, steps: int = 5, size: int = 4, action_dim: int = 2) -> Episode:
    rng = np.random.default_rng(seed)
    terminated = np.zeros(steps, bool)
    terminated[-1] = seed % 2
    return Episode(
        frames=rng.integers(256, size=(steps + 1, size, size, 3), dtype=np.uint8),
        actions=rng.normal(size=(steps, action_dim)).astype(np.float32),
        rewards=rng.normal(size=steps).astype(np.float32),
        terminated=terminated,
        info={"seed": seed, "driver": "walk", "nested": {"a": [1, 2.5, None]}, "name": "Spa ü"},
    )


def assert_same(a: Episode, b: Episode) -> None:
    for name in ("frames", "actions", "rewards", "terminated"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    assert a.info == b.info


@pytest.fixture
def store(tmp_path: Path) -> RolloutStore:
    """Three episodes, closed."""
    store = RolloutStore(tmp_path / "my rollouts")
    for seed in range(3):
        store.append(make_episode(seed, steps=4 + seed))
    store.close()
    return store


def reopen(store: RolloutStore, damaged: int = 0, tail: bool = False) -> RolloutStore:
    """Opens it to be mended, and checks that damage is told in one warning, or none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = RolloutStore(store.folder, mend=True)
    assert len(again.damaged) == damaged
    # Python may tell something else meanwhile, such as a file that another test left open.
    told = [text for w in caught if (text := str(w.message)).startswith(f"{store.folder}: ")]
    assert len(told) == bool(damaged or tail)
    for name in again.damaged:
        assert name in told[0]
        with pytest.raises(DamagedFileError, match=re.escape(f"{store.folder}/")):
            RolloutStore(store.folder)
    return again


# --- episodes -------------------------------------------------------------------------------------


def test_episode_survives_the_round_trip_and_is_the_same_bytes_each_time():
    episode = make_episode(1)
    assert_same(Episode.from_bytes(episode.to_bytes()), episode)
    assert episode.to_bytes() == make_episode(1).to_bytes()


def test_file_is_an_ordinary_npz_without_pickle(store):
    with np.load(store.folder / "episode-000001.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(
            archive["frames"].transpose(0, 2, 3, 1), make_episode(1, 5).frames
        )
        assert json.loads(archive["info.json"])["seed"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": np.zeros((6, 4, 4, 3))}, "frames are float64"),
        ({"frames": np.zeros((5, 4, 4, 3), np.uint8)}, "frames are uint8 (5, 4, 4, 3)"),
        ({"actions": np.zeros((5, 2))}, "actions are float64"),
        ({"actions": np.full((5, 2), np.nan, np.float32)}, "actions are not finite at decision 0"),
        (
            {"rewards": np.array([0, 0, np.inf, 0, 0], np.float32)},
            "rewards are not finite at decision 2",
        ),
        ({"terminated": np.zeros(4, bool)}, "terminated are bool (4,)"),
    ],
)
def test_an_episode_that_does_not_fit_together_is_refused(change, words):
    with pytest.raises(ValueError) as error:
        replace(make_episode(1), **change)
    assert words in str(error.value)


# --- store ----------------------------------------------------------------------------------------


def test_store_reads_back_what_was_appended(store):
    again = reopen(store)
    assert len(again) == 3
    assert (again.steps, again.num_frames) == (4 + 5 + 6, 5 + 6 + 7)
    assert (again.frame_shape, again.action_dim) == ((4, 4, 3), 2)
    for seed, episode in enumerate(again):
        assert_same(episode, make_episode(seed, 4 + seed))
        assert again.returns[seed] == pytest.approx(float(episode.rewards.sum()), abs=1e-5)
        assert again.records[seed].info == episode.info
        assert again.records[seed].terminated == bool(seed % 2)


def test_last_file_cut_anywhere_is_named(store):
    path = store.folder / "episode-000002.npz"
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        again = reopen(store, damaged=1)
        assert (len(again), again.steps) == (2, 9)
        assert "episode-000002.npz" in again.damaged[0]
        assert f"{size} bytes, {len(whole)} were written" in again.damaged[0]
    path.unlink()
    assert "missing" in reopen(store, damaged=1).damaged[0]
    path.symlink_to("/dev/zero")
    assert "is a link" in reopen(store, damaged=1).damaged[0]


def test_a_flipped_bit_in_a_file_is_noticed(store):
    path = store.folder / "episode-000001.npz"
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        again = reopen(store, damaged=1)
        assert [record.info["seed"] for record in again.records] == [0, 2]
        assert again.damaged == ["episode-000001.npz (checksum differs)"]
    with pytest.raises(DamagedFileError, match=r"episode-000001.npz \(checksum differs\)"):
        store.episode(1)  # opened before the damage


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.nightly)])
def test_index_cut_anywhere_holds_the_whole_lines_and_takes_appends(store, every):
    """At every so many places, and around the end of each line."""
    path = store.folder / "index.jsonl"
    whole = path.read_bytes()
    files = {p.name: p.read_bytes() for p in store.folder.glob("*.npz")}
    ends = [place + i for place, byte in enumerate(whole) if byte == 10 for i in (0, 1)]
    for size in sorted({*range(0, len(whole), every), *ends} - {len(whole)}):
        path.write_bytes(whole[:size])
        lines = whole[:size].count(b"\n")
        for name in list(files)[lines + 1 :]:
            (store.folder / name).unlink(missing_ok=True)  # as if the crash had been there
        tail = bool(size) and whole[size - 1 : size] != b"\n"
        again = reopen(store, tail=tail)
        assert len(again) == lines
        if size % 120 == 0:
            for seed in range(lines, 3):
                again.append(make_episode(seed, 4 + seed))
            again.close()
            assert path.read_bytes() == whole
            assert len(reopen(store)) == 3
        for name, data in files.items():
            (store.folder / name).write_bytes(data)


def fill(folder: Path, count: int = 3) -> list[int]:
    """Makes what a store lacks of the episodes above; returns the seeds of what was made."""
    made = []

    def make(places):
        made.extend(places)
        for seed in places:
            episode = make_episode(seed, steps=4 + seed)
            data = episode.to_bytes()
            yield EpisodeRecord.of(episode, data), data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = RolloutStore(folder, mend=True)
    with contextlib.closing(store):
        for _ in store.fill(range(count), lambda record: record.info["seed"], make):
            pass
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_any_flipped_bit_in_the_index_is_noticed_and_mended(store):
    path = store.folder / "index.jsonl"
    whole = contents(store.folder)
    index = whole["index.jsonl"]
    rng = np.random.default_rng(0)
    newlines = [i for i, byte in enumerate(index) if byte == ord("\n")]
    for place in sorted({*range(0, len(index), 3), *newlines}):
        flipped = bytearray(index)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = RolloutStore(store.folder, mend=True)
        # JSON reads \\u00FC as it reads \\u00fc, so a flip may change nothing; without its newline
        # the last line was never whole.
        last = place == len(index) - 1
        assert again.damaged or last or again.records == store.records
        # A broken newline spoils the lines on both of its sides.
        assert len(again) >= (1 if place in newlines else 2)
        assert all(record in store.records for record in again.records)
        if place % 90 == 0 or place in newlines:
            fill(store.folder)
            assert contents(store.folder) == whole or not (again.damaged or last)


DAMAGES = {
    "first file": lambda folder: flip(folder / "episode-000000.npz"),
    "two files": lambda folder: [flip(folder / f"episode-00000{i}.npz") for i in (0, 2)],
    "all files": lambda folder: [flip(path) for path in folder.glob("*.npz")],
    "file missing": lambda folder: (folder / "episode-000001.npz").unlink(),
    "file and line": lambda folder: (flip(folder / "episode-000001.npz"), cut(folder, 1)),
    "line lost": lambda folder: lines(folder, 0, 2),
    "first line lost": lambda folder: lines(folder, 1, 2),
    "last two lines lost": lambda folder: lines(folder, 0),
    "lines swapped": lambda folder: lines(folder, 0, 2, 1),
    "line twice": lambda folder: lines(folder, 0, 1, 1, 2),
    "index lost": lambda folder: (folder / "index.jsonl").unlink(),
    "index empty": lambda folder: (folder / "index.jsonl").write_bytes(b""),
    "index binary": lambda folder: (folder / "index.jsonl").write_bytes(bytes(range(256))),
}


def flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def lines(folder: Path, *kept: int) -> None:
    index = folder / "index.jsonl"
    before = index.read_bytes().splitlines(keepends=True)
    index.write_bytes(b"".join(before[i] for i in kept))


def cut(folder: Path, number: int) -> None:
    index = folder / "index.jsonl"
    before = index.read_bytes().splitlines(keepends=True)
    before[number] = before[number][:20] + b"\n"
    index.write_bytes(b"".join(before))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_an_error_and_is_made_again_to_the_same_bytes(store, damage):
    whole = contents(store.folder)
    damage(store.folder)
    with pytest.raises((DamagedFileError, ValueError), match=re.escape(str(store.folder))):
        RolloutStore(store.folder)
    fill(store.folder)
    assert contents(store.folder) == whole
    assert len(reopen(store)) == 3


def test_an_episode_that_does_not_come_out_the_same_is_not_put_in(store):
    path = store.folder / "episode-000001.npz"
    flip(path)
    damaged = path.read_bytes()

    def make(places):
        episode = make_episode(1, steps=7)
        data = episode.to_bytes()
        yield EpisodeRecord.of(episode, data), data

    again = reopen(store, damaged=1)
    with pytest.raises(DamagedFileError, match=r"000001\.npz: is damaged, and made again it is an"):
        list(again.fill(range(3), lambda record: record.info["seed"], make))
    assert path.read_bytes() == damaged
    with pytest.raises(ValueError, match=r"000002\.npz .* not of this collection"):
        list(again.fill(range(2), lambda record: record.info["seed"], make))


def test_a_file_that_is_not_listed_is_told(store):
    """A crash leaves the next one; another one is a line that was lost, or a stranger."""
    strange = store.folder / "episode-000009.npz"
    strange.write_bytes((store.folder / "episode-000001.npz").read_bytes())
    assert reopen(store, damaged=1).damaged == ["episode-000009.npz (not in index.jsonl)"]
    with pytest.raises(DamagedFileError, match=r"000009\.npz \(not in index\.jsonl\)"):
        fill(store.folder)
    strange.unlink()
    assert not fill(store.folder)


def test_a_file_without_its_line_is_not_in_the_store_and_is_written_anew(store):
    (store.folder / "episode-000003.npz").write_bytes(b"half an episo")
    (store.folder / ".episode-000003.npz.1.tmp").write_bytes(b"half")
    again = reopen(store)
    assert len(again) == 3
    again.append(make_episode(3))
    again.close()
    assert_same(reopen(store).episode(3), make_episode(3))
    assert not list(store.folder.glob(".*"))


@pytest.mark.parametrize("full", ["episode", "index"])
def test_a_full_disk_leaves_the_earlier_episodes_whole(store, full):
    before = {p.name: p.read_bytes() for p in store.folder.iterdir()}
    new = make_episode(3, steps=20 if full == "episode" else 1)
    index_size = len(before["index.jsonl"])
    limit = 1000 if full == "episode" else index_size + 10
    assert (len(new.to_bytes()) > limit) == (full == "episode")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # no file may grow beyond it
    try:
        with pytest.raises(OSError) as error:
            store.append(new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert " bytes)" in str(error.value)
    assert "3 earlier episodes are whole" in str(error.value)
    assert str(store.folder) in str(error.value)
    after = {p.name: p.read_bytes() for p in store.folder.iterdir()}
    assert {name: after[name] for name in before} == before
    store.append(new)  # there is room again
    assert_same(reopen(store).episode(3), new)


def test_an_episode_is_on_the_disk_before_its_line(store, disk):
    record = store.append(make_episode(3))
    file, folder = record.file, store.folder.name
    written = [("sync", f"{file}.tmp"), ("rename", file), ("sync", folder)]
    assert disk[-4:] == [*written, ("sync", "index.jsonl")]


def test_two_writers_are_refused(store):
    first, second = reopen(store), reopen(store)
    first.append(make_episode(3))
    with pytest.raises(BlockingIOError, match="my rollouts is being appended to"):
        second.append(make_episode(4))
    first.close()
    second.append(make_episode(4))  # and sees what the first one has written
    second.close()
    assert [record.info["seed"] for record in reopen(store).records] == [0, 1, 2, 3, 4]


def test_folders_that_do_not_fit_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"frames of \(4, 4, 3\).* needed is \(64, 64, 3\)"):
        RolloutStore(store.folder, frame_shape=(64, 64, 3))
    with pytest.raises(ValueError, match=r"actions of 2; what is needed is .* and 3"):
        RolloutStore(store.folder, action_dim=3)
    with pytest.raises(ValueError, match=r"frames of \(8, 8, 3\).* store holds \(4, 4, 3\)"):
        store.append(make_episode(0, size=8))
    run = tmp_path / "vae"
    run.mkdir()
    (run / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not a rollout store.* holds config.json"):
        RolloutStore(run)
    with pytest.raises(ValueError, match="is a file"):
        RolloutStore(run / "config.json")
    made = RolloutStore(run, create=True)
    made.append(make_episode(0))
    assert len(RolloutStore(run)) == 1


def test_load_frames(store, tmp_path):
    other = RolloutStore(tmp_path / "other")
    other.append(make_episode(5, steps=9))
    everything = np.concatenate([make_episode(s, 4 + s).frames for s in range(3)])
    everything = np.concatenate([everything, make_episode(5, 9).frames])
    np.testing.assert_array_equal(load_frames([store, other]), everything)
    np.testing.assert_array_equal(load_frames(store), everything[:18])
    some = load_frames([store, other], max_frames=11, seed=3)
    places = [int(np.argwhere((everything == f).all((1, 2, 3)))[0, 0]) for f in some]
    assert len(places) == 11
    assert places == sorted(set(places))
    assert (some != load_frames([store, other], max_frames=11, seed=4)).any()
    with pytest.raises(ValueError, match=r"no episodes in .*empty"):
        load_frames(RolloutStore(tmp_path / "empty"))
    big = RolloutStore(tmp_path / "big")
    big.append(make_episode(0, size=8))
    with pytest.raises(ValueError, match=r"different frame shapes.*\(4, 4, 3\).*\(8, 8, 3\)"):
        load_frames([store, big])


# --- encoded rollouts -----------------------------------------------------------------------------


def mean_and_max(frames: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
    """Stands for V: two latents a frame."""
    x = frames.astype(np.float32) / 255
    return torch.from_numpy(x[:, 0, :2, 0]), x[:, 1, :2, 0]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_encode_rollouts(store, batch_size):
    encoded = encode_rollouts(store, mean_and_max, batch_size=batch_size)
    assert (len(encoded), encoded.num_frames, encoded.z_dim, encoded.action_dim) == (3, 18, 2, 2)
    assert encoded.starts.tolist() == [0, 5, 11, 18]
    assert encoded.lengths.tolist() == [4, 5, 6]
    for e, episode in enumerate(store):
        first, end = encoded.starts[e], encoded.starts[e + 1]
        mu, logvar = mean_and_max(episode.frames)
        np.testing.assert_array_equal(encoded.mu[first:end], mu.numpy().astype(np.float16))
        np.testing.assert_array_equal(encoded.logvar[first:end], logvar.astype(np.float16))
        np.testing.assert_array_equal(encoded.actions[first : end - 1], episode.actions)
        np.testing.assert_array_equal(encoded.rewards[first : end - 1], episode.rewards)
        np.testing.assert_array_equal(encoded.terminated[first : end - 1], episode.terminated)
        assert not encoded.actions[end - 1].any()


def test_a_latent_that_is_not_finite_names_its_episode(store):
    def burst(frames):
        return np.full((len(frames), 2), 1e6), np.zeros((len(frames), 2))

    with pytest.raises(ValueError, match=r"not finite in float16 for .*episode-000000.npz"):
        encode_rollouts(store, burst)


def test_encoded_rollouts_on_disk(store, tmp_path):
    folder = tmp_path / "encoded"
    one = encode_rollouts(store, mean_and_max)
    two = EncodedRollouts.concat([one, one])
    assert (len(two), two.num_frames, two.starts.tolist()) == (6, 36, [0, 5, 11, 18, 23, 29, 36])
    one.save(folder)
    for name, array in vars(EncodedRollouts.load(folder)).items():
        np.testing.assert_array_equal(array, getattr(one, name))
        assert array.dtype == getattr(one, name).dtype

    two.save(folder)
    assert len(EncodedRollouts.load(folder)) == 6

    data = folder / "encoded.safetensors"
    whole = data.read_bytes()
    for size in range(0, len(whole), 40):
        data.write_bytes(whole[:size])
        with pytest.raises(DamagedFileError, match=f"encoded.safetensors: has {size} bytes"):
            EncodedRollouts.load(folder)
    data.write_bytes(whole[:-1] + bytes([whole[-1] ^ 4]))
    with pytest.raises(DamagedFileError, match=r"encoded.safetensors: .* changed"):
        EncodedRollouts.load(folder)
    data.unlink()
    with pytest.raises(DamagedFileError, match=r"encoded.safetensors: cannot be read"):
        EncodedRollouts.load(folder)
    (folder / "config.json").write_text('{"class": "ConvVAE", "format": 1}')
    with pytest.raises(ValueError, match="holds ConvVAE, not EncodedRollouts"):
        EncodedRollouts.load(folder)
    with pytest.raises(DamagedFileError, match=r"config.json"):
        EncodedRollouts.load(tmp_path)


def test_encoded_rollouts_of_different_v_are_not_joined(store):
    one = encode_rollouts(store, mean_and_max)
    three = replace(one, mu=one.mu[:, :1], logvar=one.logvar[:, :1])
    with pytest.raises(ValueError, match=r"\(z, action\) sizes are \[\(2, 2\), \(1, 2\)\]"):
        EncodedRollouts.concat([one, three])


# --- windows --------------------------------------------------------------------------------------


def numbered(lengths: list[int], logvar: float = -60.0) -> EncodedRollouts:
    """Row t of episode e has mu (e, t), action e + t / 100, reward t + 1 + e / 100."""
    columns = {name: [] for name in ("mu", "actions", "rewards", "terminated")}
    for e, steps in enumerate(lengths):
        for t in range(steps + 1):
            real = t < steps
            columns["mu"].append((e, t))
            columns["actions"].append([real * (e + t / 100)])
            columns["rewards"].append(real * (t + 1 + e / 100))
            columns["terminated"].append(t == steps - 1 and e % 2 == 1)
    mu = np.array(columns["mu"], np.float16)
    return EncodedRollouts(
        mu=mu,
        logvar=np.full_like(mu, logvar),
        actions=np.array(columns["actions"], np.float32),
        rewards=np.array(columns["rewards"], np.float32),
        terminated=np.array(columns["terminated"]),
        starts=np.cumsum([0] + [steps + 1 for steps in lengths]),
    )


def test_windows_against_a_loop_over_the_episodes():
    """No window crosses episodes; short ones are padded and masked; next is what comes next."""
    lengths, length = [3, 40, 9, 10, 11], 10
    batches = SequenceBatches(numbered(lengths), 32, length, seed=5, start_fraction=0.2)
    seen = set()
    for step in range(20):
        batch = batches(step)
        assert {name: tuple(x.shape) for name, x in batch.items()} == {
            "z": (32, 10, 2),
            "next_z": (32, 10, 2),
            "action": (32, 10, 1),
            "reward": (32, 10),
            "prev_reward": (32, 10),
            "terminated": (32, 10),
            "mask": (32, 10),
        }
        assert all(x.dtype == torch.float32 for x in batch.values())
        for b in range(32):
            e, first = (int(x) for x in batch["z"][b, 0])
            seen.add(e)
            count = min(length, lengths[e])
            assert 0 <= first <= lengths[e] - count
            if b < 7:
                assert first == 0
            for i in range(length):
                t = first + i
                got = {name: x[b, i].tolist() for name, x in batch.items()}
                if i >= count:
                    if i == count:
                        assert got.pop("z") == [e, t]  # the episode's last frame
                    assert not np.any([np.any(x) for x in got.values()])
                    continue
                assert got == {
                    "z": [e, t],
                    "next_z": [e, t + 1],
                    "action": [pytest.approx(e + t / 100)],
                    "reward": pytest.approx(t + 1 + e / 100),
                    "prev_reward": pytest.approx(t + e / 100 if t else 0),
                    "terminated": float(t == lengths[e] - 1 and e % 2 == 1),
                    "mask": 1,
                }
    assert seen == set(range(len(lengths)))


def test_windows_are_drawn_as_often_as_promised():
    lengths, length, weights = np.array([3, 12, 30]), 6, np.array([1.0, 2.0, 1.0])
    batches = SequenceBatches(
        numbered(list(lengths)), 500, length, seed=1, start_fraction=0, weights=weights
    )
    windows = torch.cat([batches(step)["z"][:, 0] for step in range(60)]).numpy().astype(int)
    for e, steps in enumerate(lengths):
        share = steps * weights[e] / (lengths * weights).sum()
        first = windows[windows[:, 0] == e, 1]
        assert len(first) / len(windows) == pytest.approx(share, abs=0.01)
        expected = np.zeros(steps)
        for u in range(1 - length, steps):  # by counting
            expected[min(max(u, 0), max(steps - length, 0))] += 1 / (steps + length - 1)
        found = np.bincount(first, minlength=steps) / len(first)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_episodes_of_weight_zero_are_never_drawn_and_wrong_weights_refused():
    encoded = numbered([5, 5, 5])
    batches = SequenceBatches(encoded, 200, 4, seed=0, weights=np.array([0, 1, 0]))
    assert batches(0)["z"][:, 0, 0].unique().tolist() == [1]
    for weights in ([1, 1], [1, -1, 1], [0, 0, 0], [1, np.nan, 1]):
        with pytest.raises(ValueError, match="for 3 episodes"):
            SequenceBatches(encoded, 2, 2, 0, weights=np.array(weights))


def test_resampled_latents_have_the_moments_of_v():
    rng = np.random.default_rng(0)
    encoded = numbered([1])
    mu = rng.normal(size=(2, 2)).astype(np.float16)
    logvar = rng.normal(size=(2, 2)).astype(np.float16)
    batches = SequenceBatches(replace(encoded, mu=mu, logvar=logvar), 1000, 1, seed=0)
    drawn = [batches(step) for step in range(40)]
    for row, name in enumerate(("z", "next_z")):
        z = torch.cat([batch[name][:, 0] for batch in drawn]).double().numpy()
        std = np.exp(logvar[row].astype(np.float64) / 2)
        np.testing.assert_allclose(z.mean(0), mu[row], atol=4 * std.max() / 200)
        np.testing.assert_allclose(z.std(0), std, rtol=0.02)


def test_a_frame_has_one_draw_per_batch_and_a_new_one_in_each():
    batches = SequenceBatches(numbered([50], logvar=0.0), 8, 20, seed=3)
    one, other = batches(0), batches(1)
    assert torch.equal(one["z"][:, 1:], one["next_z"][:, :-1])
    assert not torch.equal(one["z"][:2], other["z"][:2])


def test_batch_comes_from_seed_and_step_alone():
    encoded = numbered([50, 7], logvar=0.0)
    forward = [SequenceBatches(encoded, 8, 20, seed=3)(step) for step in range(4)]
    batches = SequenceBatches(encoded, 8, 20, seed=3)
    torch.manual_seed(1)
    for step in (3, 0, 2, 1):
        batch = batches(step)
        assert all(torch.equal(batch[name], forward[step][name]) for name in batch)
    other = SequenceBatches(encoded, 8, 20, seed=4)(0)
    assert not torch.equal(other["z"], forward[0]["z"])


def vector_episode(seed: int = 0, steps: int = 5) -> Episode:
    rng = np.random.default_rng(seed)
    return replace(
        make_episode(seed, steps), frames=rng.normal(size=(steps + 1, 3)).astype(np.float32)
    )


def test_an_episode_of_vectors_survives_the_round_trip(tmp_path):
    episodes = [vector_episode(seed) for seed in range(2)]
    assert_same(Episode.from_bytes(episodes[0].to_bytes()), episodes[0])
    store = RolloutStore(tmp_path / "vectors")
    for episode in episodes:
        store.append(episode)
    assert store.frame_shape == (3,)
    loaded = load_frames(RolloutStore(tmp_path / "vectors"))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, np.concatenate([e.frames for e in episodes]))
    with pytest.raises(ValueError, match=r"frames of \(4, 4, 3\) and actions of 2; the store"):
        store.append(make_episode(0))
    with pytest.raises(ValueError, match=r"holds vectors of \(3,\), this V is trained on frames"):
        load_frames(store, shape=(64, 64, 3))


def test_vectors_have_to_be_finite_floats():
    episode = vector_episode()
    frames = episode.frames.copy()
    frames[4, 1] = np.nan
    with pytest.raises(ValueError, match="frames are not finite at decision 4"):
        replace(episode, frames=frames)
    with pytest.raises(ValueError, match="frames are float64"):
        replace(episode, frames=episode.frames.astype(np.float64))


def test_a_store_knows_the_environments_of_its_episodes(tmp_path):
    store = RolloutStore(tmp_path / "s")
    for name in ("B-v0", "A-v1", "B-v0", None):
        info = {} if name is None else {"env_id": name}
        store.append(replace(make_episode(0), info=info))
    assert store.env_ids == ["A-v1", "B-v0"]


def rng_of(seed: int):
    return lambda name, *numbers: np.random.default_rng([seed, *name.encode(), *numbers])


def test_frames_that_fit_are_drawn_from_all_of_them(store):
    rng, frames = rng_of(1), FrameBatches([store], 5, rng_of(1), shape=(4, 4, 3))
    everything = load_frames(store)
    assert len(frames) == len(everything)
    for step in (0, 7, 3):
        rows = rng("batch", step).integers(len(everything), size=5)
        np.testing.assert_array_equal(frames(step), everything[rows])
    rows = rng("scale").permutation(len(everything))[:4]
    np.testing.assert_array_equal(frames.take(rows), everything[rows])


def test_frames_that_do_not_fit_come_from_some_episodes_at_a_time(tmp_path, monkeypatch):
    """12 episodes of 10 frames of one colour each; there is room for 35 frames, so 3 episodes."""
    folder = tmp_path / "rollouts"
    with contextlib.closing(RolloutStore(folder)) as store:
        for seed in range(12):
            episode = make_episode(seed, steps=9)
            store.append(replace(episode, frames=np.full_like(episode.frames, seed)))
    room = 35 * 4 * 4 * 3
    monkeypatch.setattr(frames_module, "load_frames", None)  # all of them are never read

    def batches():
        return FrameBatches([RolloutStore(folder)], 8, rng_of(1), max_bytes=room)

    frames, seen, per_pool = batches(), [], 35 // 8
    for step in range(40 * per_pool):
        batch = frames(step)
        assert batch.shape == (8, 4, 4, 3)
        assert frames._pool.nbytes <= room
        seen.append(np.unique(batch).tolist())
    for first in range(0, len(seen), per_pool):
        pool = {colour for step in seen[first : first + per_pool] for colour in step}
        assert 1 <= len(pool) <= 3
    counts = np.bincount([colour for step in seen for colour in step], minlength=12)
    assert (counts > 0).all()
    again = batches()  # whatever was drawn before
    for step in (101, 3, 102):
        np.testing.assert_array_equal(again(step), frames(step))
    rows = np.array([119, 0, 35, 34])
    assert frames.take(rows)[:, 0, 0, 0].tolist() == [11, 0, 3, 3]
