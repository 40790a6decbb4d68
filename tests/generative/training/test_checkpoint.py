"""Checkpoints: what goes in comes out, bit for bit; what is damaged is named and not used."""

import errno
import json
import math
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from generative.training import files
from generative.training.checkpoint import (
    Checkpoints,
    DamagedFileError,
    load_state,
    pack_state,
    read_tensors,
    save_state,
    unpack_state,
)
from generative.training.metrics import Metrics


def same(a, b) -> bool:
    """Equal in type, value, shape and memory layout; NaN equals NaN."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and (a.stride() == b.stride() or a.numel() < 2)
            and torch.equal(a.flatten().view(torch.uint8), b.flatten().view(torch.uint8))
        )
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    return type(a) is type(b) and a == b


def trained_optimizer(name: str):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        schedule.step()
    return model, optimizer, schedule


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_state_of_torch_optimizers_survives(tmp_path, name):
    state = [part.state_dict() for part in trained_optimizer(name)]
    state = [dict(state[0]), *state[1:]]
    save_state(tmp_path / "s", state)
    loaded = load_state(tmp_path / "s")
    assert same(loaded, state)
    model, optimizer, schedule = trained_optimizer(name)
    for part, saved in zip((model, optimizer, schedule), loaded, strict=True):
        part.load_state_dict(saved)


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        [
            torch.tensor(3, dtype=torch.int64),
            torch.zeros(0, 2),
            torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
            torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
            torch.tensor([True, False]),
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            np.arange(5, dtype=np.uint8),
            np.float64(2.5) * np.ones((2, 2)),
        ]
    )
)
keys = st.text(max_size=4) | st.sampled_from(["$tensor", "$items", "$float", "a.b"])
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=3)
        | st.dictionaries(
            st.integers() | st.booleans() | st.tuples(st.integers()), inner, max_size=3
        )
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


@given(states)
def test_any_nested_state_survives_json(state):
    tree, tensors = pack_state(state)
    assert same(unpack_state(json.loads(json.dumps(tree, allow_nan=False)), tensors), state)


def test_views_of_one_memory_are_saved_apart(tmp_path):
    base = torch.arange(10.0)
    state = {"whole": base, "tied": base, "part": base[2:5], "strided": base[::2]}
    save_state(tmp_path / "s", state)
    loaded = load_state(tmp_path / "s")
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_two_places_whose_names_read_alike_do_not_collide():
    state = {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1), "x": {1: torch.ones(2), "1": None}}
    state["x"]["1"] = torch.zeros(2)
    tree, tensors = pack_state(state)
    assert same(unpack_state(tree, tensors), state)


def test_what_cannot_be_saved_is_named():
    with pytest.raises(TypeError, match=r"state\.model\.hook is a function"):
        pack_state({"model": {"hook": lambda: None}})
    with pytest.raises(TypeError, match=r"state\.x is an array of Python objects"):
        pack_state({"x": np.array([object()])})


STATE = {"weights": torch.arange(12.0).reshape(3, 4), "step": 4, "note": "x", "rate": 0.1}


def checkpoint_files(folder: Path) -> list[Path]:
    found = sorted(folder.iterdir())
    assert [path.name for path in found] == ["manifest.json", "state.json", "state.safetensors"]
    return found


@pytest.mark.parametrize("index", range(3))
def test_every_cut_is_noticed_and_named(tmp_path, index):
    save_state(tmp_path / "s", STATE)
    path = checkpoint_files(tmp_path / "s")[index]
    whole = path.read_bytes()
    for length in {0, 1, len(whole) // 2, len(whole) - 2}:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError, match=path.name):
            load_state(tmp_path / "s")
    path.unlink()
    with pytest.raises(DamagedFileError, match=path.name):
        load_state(tmp_path / "s")


@pytest.mark.parametrize("index", range(3))
def test_every_flipped_bit_is_noticed_or_harmless(tmp_path, index):
    save_state(tmp_path / "s", STATE)
    path = checkpoint_files(tmp_path / "s")[index]
    whole = path.read_bytes()
    rng = np.random.default_rng(index)
    for position in rng.choice(8 * len(whole), size=min(300, 8 * len(whole)), replace=False):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            state = load_state(tmp_path / "s")
        except DamagedFileError:
            continue
        assert path.name == "manifest.json"  # e.g. a space that became another one
        assert same(state, STATE)


def test_longer_file_is_refused(tmp_path):
    save_state(tmp_path / "s", STATE)
    with open(tmp_path / "s/state.safetensors", "ab") as file:
        file.write(b"\0")
    with pytest.raises(DamagedFileError, match="safetensors"):
        load_state(tmp_path / "s")


def test_manifest_leads_nowhere_else(tmp_path):
    save_state(tmp_path / "s", STATE)
    save_state(tmp_path / "t", STATE)
    manifest = tmp_path / "s/manifest.json"
    content = json.loads(manifest.read_text())
    for name in ("../t/state.json", "/etc/passwd", "state.json/../state.json"):
        changed = dict(content["files"])
        changed[name] = changed.pop("state.json")
        manifest.write_text(json.dumps({"format": 1, "files": changed}))
        with pytest.raises(DamagedFileError, match=r"manifest\.json: lists"):
            load_state(tmp_path / "s")
    manifest.write_text(json.dumps(content))
    (tmp_path / "s/state.json").unlink()
    (tmp_path / "s/state.json").symlink_to(tmp_path / "t/state.json")
    with pytest.raises(DamagedFileError, match=r"state\.json: is a link"):
        load_state(tmp_path / "s")
    (tmp_path / "s/state.json").unlink()
    os.mkfifo(tmp_path / "s/state.json")
    with pytest.raises(DamagedFileError, match="not an ordinary file"):
        load_state(tmp_path / "s")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\2",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{{",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", 58) + b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}   }',
        struct.pack("<Q", 66)
        + b'{"a":{"dtype":"F32","shape":[999999999],"data_offsets":[0,4]}    }',
    ],
)
def test_bad_safetensors_headers_are_refused(data):
    with pytest.raises(DamagedFileError, match=r"weights\.safetensors"):
        read_tensors(data, Path("weights.safetensors"))


def test_huge_header_is_refused_without_taking_memory(tmp_path):
    """A sparse file claims a header of 4 GB; it is refused within 2 GB of address space."""
    path = tmp_path / "s"
    save_state(path, STATE)
    with open(path / "state.safetensors", "r+b") as file:
        file.write(struct.pack("<Q", 2**32))
        file.truncate(2**33)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from generative.training.checkpoint import load_state, DamagedFileError\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))\n"
        "try: load_state(Path(sys.argv[1]))\n"
        "except DamagedFileError as error: print('refused:', error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert "refused:" in result.stdout
    assert "state.safetensors" in result.stdout


def test_newest_two_are_kept_and_the_newest_is_loaded(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.load_latest() is None
    for step in (1, 20, 300, 1_000_000):
        checkpoints.save(step, {"step": step})
    assert checkpoints.steps() == [300, 1_000_000]
    assert checkpoints.load_latest() == (1_000_000, {"step": 1_000_000})
    checkpoints.save(1_000_000, {"step": "again"})
    assert checkpoints.load_latest() == (1_000_000, {"step": "again"})


def test_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(10, {"step": 10})
    checkpoints.save(20, {"step": 20})
    (tmp_path / "c/000020/state.json").write_text("{")
    assert checkpoints.load_latest() == (10, {"step": 10})
    assert "000020/state.json" in capsys.readouterr().err
    # Saving goes on, and the damaged one does not count among those kept.
    checkpoints.save(15, {"step": 15})
    assert checkpoints.steps() == [10, 15]
    (tmp_path / "c/000010/state.json").unlink()
    (tmp_path / "c/000015/manifest.json").unlink()
    with pytest.raises(DamagedFileError, match=r"(?s)000015/manifest\.json.*000010/state\.json"):
        checkpoints.load_latest()


@pytest.mark.parametrize("room", [0, 10, 100, 400, 5000])
def test_full_disk_leaves_the_previous_checkpoint_whole(tmp_path, monkeypatch, room):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, STATE)
    left = room

    def write_until_full(path, data):
        nonlocal left
        path.write_bytes(data[:left])
        left -= len(data)
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_write_synced", write_until_full)
    big = {"weights": torch.zeros(5000)}
    with pytest.raises(OSError, match="the one of step 1 is whole") as caught:
        checkpoints.save(2, big)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path / "c") == ["000001"]
    left = room
    with pytest.raises(OSError, match="the one of step 1 is whole"):
        checkpoints.save(1, big)
    monkeypatch.undo()
    step, state = checkpoints.load_latest()
    assert step == 1
    assert same(state, STATE)


def test_file_size_limit_of_the_system_leaves_the_previous_whole(tmp_path):
    """The real thing: the kernel refuses to write more than 4 kB into a file."""
    save_state(tmp_path / "s", STATE)
    code = (
        "import resource, signal, sys, torch; from pathlib import Path\n"
        "from generative.training.checkpoint import save_state\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: save_state(Path(sys.argv[1]), {'weights': torch.zeros(5000)})\n"
        "except OSError as error: print('refused', error.errno)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"refused {errno.EFBIG}" in result.stdout
    assert os.listdir(tmp_path) == ["s"]
    assert same(load_state(tmp_path / "s"), STATE)


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, disk):
    files.write_file(tmp_path / "config", b"a")
    folder = ("sync", tmp_path.name)
    assert disk == [("sync", "config.tmp"), ("rename", "config"), folder]
    disk.clear()
    files.write_folder(tmp_path / "state", {"a": b"a", "b": b"b"})
    assert sorted(disk[:3]) == [("sync", "a"), ("sync", "b"), ("sync", "manifest.json")]
    assert disk[3:] == [("sync", "state.tmp"), ("rename", "state"), folder]
    disk.clear()
    files.append_file(tmp_path / "journal", b"a", sync=True)
    assert disk == [("sync", "journal")]


def test_metrics_are_on_the_disk_before_their_checkpoint(tmp_path, disk):
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.log(1, {"loss": 0.5})
    assert not disk
    metrics.sync()
    assert disk == [("sync", "metrics.jsonl")]


def test_foreign_files_are_never_deleted(tmp_path):
    save_state(tmp_path / "s", STATE)
    (tmp_path / "s/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        save_state(tmp_path / "s", STATE)
    with pytest.raises(ValueError, match="link or a file"):
        save_state(tmp_path / "s/notes.txt", STATE)
    (tmp_path / "link").symlink_to(tmp_path / "s")
    with pytest.raises(ValueError, match="link or a file"):
        save_state(tmp_path / "link", STATE)


@pytest.mark.parametrize("atomic", [True, False])
def test_saving_over_a_folder_replaces_it(tmp_path, monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    save_state(tmp_path / "s", STATE)
    save_state(tmp_path / "s", {"other": 1})
    assert load_state(tmp_path / "s") == {"other": 1}
    assert os.listdir(tmp_path) == ["s"]


def test_nothing_in_a_checkpoint_is_pickled(tmp_path):
    save_state(tmp_path / "s", [part.state_dict() for part in trained_optimizer("Adam")])
    json.loads((tmp_path / "s/state.json").read_text())
    data = (tmp_path / "s/state.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    # Tensors and the header fill the file: there is no room for anything else.
    assert max(e["data_offsets"][1] for e in header.values()) + 8 + len(
        data[8 : 8 + struct.unpack("<Q", data[:8])[0]]
    ) == len(data)


def test_files_are_readable_by_others_as_the_umask_says(tmp_path):
    old = os.umask(0o022)
    try:
        save_state(tmp_path / "s", STATE)
    finally:
        os.umask(old)
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "s/state.json").stat().st_mode & 0o777 == 0o644


def test_unfinished_folders_of_a_killed_process_are_cleared(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, STATE)
    shutil.copytree(tmp_path / "c/000001", tmp_path / "c/.000002.x7.tmp")
    assert checkpoints.steps() == [1]
    assert checkpoints.load_latest()[0] == 1
    assert os.listdir(tmp_path / "c") == ["000001"]
