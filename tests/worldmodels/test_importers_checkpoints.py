"""ctallec/world-models' checkpoints, against its modules built again; and files with a sting."""

import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from generative.training.files import DamagedFileError
from tests.dtypes import default_dtype
from tests.worldmodels.foreign_weights import VAE, A, Controller, D, H, experiment_folder, save
from worldmodels.configs import ActionHead
from worldmodels.importers import ForeignWeightsError, read_checkpoints
from worldmodels.importers.checkpoints import read_state_dict

torch.set_num_threads(1)


@pytest.fixture(params=["zip", "legacy"])
def experiment(tmp_path, request):
    """An experiment folder in today's format, or that of 2018; and what is in it."""
    return tmp_path, *experiment_folder(tmp_path, legacy=request.param == "legacy")


@torch.no_grad()
def test_v_sees_and_draws_the_same(experiment):
    folder, vae, _, _ = experiment
    ours, x, z = read_checkpoints(folder).world.vision, torch.rand(2, 3, 64, 64), torch.randn(2, D)
    mu, logsigma = vae.encoder(x)
    mu_ours, logvar = ours.encode_mu_logvar(x)
    torch.testing.assert_close(mu_ours, mu)
    torch.testing.assert_close(torch.exp(logvar / 2), logsigma.exp())
    torch.testing.assert_close(ours.decode(z), vae.decoder(z))
    assert not torch.allclose(
        ours.decoder.layers(ours.decoder.from_z(z)).sigmoid(), vae.decoder(z), atol=1e-4
    )


@torch.no_grad()
def test_what_is_read_is_float32_and_can_be_trained(experiment):
    folder, *_ = experiment
    with default_dtype(torch.float64), torch.inference_mode():
        world, controller, _ = read_checkpoints(folder)
    parameters = [*world.parameters(), *controller.parameters()]
    assert {p.dtype for p in parameters} == {torch.float32}
    assert not any(p.is_inference() for p in parameters)


def test_m_and_c_go_through_an_episode_the_same(experiment):
    folder, _, mdrnn, theirs = experiment
    world, controller, files = read_checkpoints(folder)
    assert [f.parent.name for f in files] == ["vae", "mdrnn", "ctrl"]
    latents, actions = torch.randn(2, 7, D), torch.randn(2, 7, A)
    mu, sigma, log_pi, reward, end, h = (
        x.transpose(0, 1) for x in mdrnn(actions.transpose(0, 1), latents.transpose(0, 1))
    )
    out, (h_last, _) = world.memory(latents, actions)
    torch.testing.assert_close(out.h, h)
    torch.testing.assert_close(h_last, h[:, -1])
    torch.testing.assert_close(out.reward, reward)
    torch.testing.assert_close(out.end_logit, end)
    torch.testing.assert_close(out.mixture.mu, mu.transpose(2, 3))
    torch.testing.assert_close(out.mixture.log_std.exp(), sigma.transpose(2, 3))
    for d in range(D):  # the same weights for every dimension
        torch.testing.assert_close(out.mixture.log_pi[:, :, d], log_pi)
    expected = theirs.fc(torch.cat([latents[:, 0], h[:, 0]], 1))
    torch.testing.assert_close(controller.act(latents[:, 0], h[:, 0], h[:, 0]), expected)
    assert controller.config.action == ActionHead("raw", num=3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: f"_orig_mod.module.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: key.replace(".", "._orig_mod.", 1),  # a part of it compiled
    ],
)
def test_networks_that_were_wrapped_when_they_were_saved(tmp_path, wrap):
    modules = dict(zip(("vae", "mdrnn", "ctrl"), experiment_folder(tmp_path), strict=True))
    expected = read_checkpoints(tmp_path)
    wrapped = {
        name: {wrap(key): value for key, value in module.state_dict().items()}
        for name, module in modules.items()
    }
    for name, state in wrapped.items():
        torch.save({"state_dict": state}, tmp_path / name / "best.tar")
    found = read_checkpoints(tmp_path)
    for ours, theirs in ((found.world, expected.world), (found.controller, expected.controller)):
        for name, weight in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], weight, rtol=0, atol=0)
    plain = {key: value.clone() for key, value in modules["mdrnn"].state_dict().items()}
    both = {**plain, **wrapped["mdrnn"]}
    torch.save({"state_dict": both}, tmp_path / "mdrnn" / "best.tar")
    with pytest.raises(ForeignWeightsError, match="same name under several prefixes"):
        read_checkpoints(tmp_path)


class Sting:
    """Runs a command when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("where", ["value", "state", "bare"])
def test_nothing_in_a_file_is_run(tmp_path, legacy, where):
    mark, path = tmp_path / "ran", tmp_path / "best.tar"
    if where == "bare":
        path.write_bytes(pickle.dumps({"state_dict": Sting(mark)}))
    else:
        state = OrderedDict(Controller().state_dict())
        state.update({"fc.more": Sting(mark)} if where == "state" else {})
        more = {"reward": Sting(mark)} if where == "value" else {}
        content = {"state_dict": state, **more}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises((ForeignWeightsError, DamagedFileError), match=r"best\.tar"):
        read_state_dict(path)
    assert not mark.exists()
    with path.open("rb") as file:  # that it would have run
        torch.load(file, weights_only=False) if where != "bare" else pickle.load(file)
    assert mark.exists()


def test_more_than_data_is_refused_by_name(tmp_path):
    path = tmp_path / "best.tar"
    torch.save({"state_dict": {}, "model": Controller()}, path)
    with pytest.raises(ForeignWeightsError, match="holds more than tensors and numbers"):
        read_state_dict(path)


def test_damaged_files_are_named(tmp_path, monkeypatch):
    path = tmp_path / "vae" / "best.tar"
    save(path, VAE())
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], whole[:7], b"", b"no checkpoint at all"):
        path.write_bytes(damage)
        with pytest.raises((DamagedFileError, ForeignWeightsError), match=r"vae/best\.tar"):
            read_state_dict(path)
    path.unlink()
    os.symlink("/dev/zero", path)
    with pytest.raises(DamagedFileError, match="is a link"):
        read_state_dict(path)
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * 2_000_000)
    monkeypatch.setattr("worldmodels.importers.checkpoints.MAX_BYTES", 1_000_000)
    with pytest.raises(DamagedFileError, match="unpacks to 2000000 bytes"):
        read_state_dict(path)
    path.write_bytes(whole)
    monkeypatch.setattr("worldmodels.importers.checkpoints.MAX_BYTES", 1000)
    with pytest.raises(DamagedFileError, match="at most 1000 are expected"):
        read_state_dict(path)


def test_what_does_not_fit_is_named(experiment):
    folder, vae, mdrnn, controller = experiment

    def change(module, name, **changes):
        state = OrderedDict(module.state_dict())
        for key, value in changes.items():
            key = key.replace("__", ".")
            state.pop(key) if value is None else state.update({key: value})
        torch.save({"state_dict": state}, folder / name / "best.tar")

    cases = [
        (vae, "vae", {"encoder__conv1__bias": torch.zeros(3)}, r"shape \(3,\), needed is \(2,\)"),
        (vae, "vae", {"decoder__fc1__weight": None}, r"decoder\.fc1\.weight is missing; there"),
        (vae, "vae", {"decoder__fc9": torch.zeros(1)}, r"no place here: decoder\.fc9"),
        (vae, "vae", {"encoder__fc_mu__weight": torch.zeros(3)}, "needed are 2 axes"),
        (vae, "vae", {"decoder__fc1__bias": torch.full((20,), torch.nan)}, "finite numbers"),
        (vae, "vae", {"decoder__fc1__bias": 3}, "not a dense tensor"),
        (mdrnn, "mdrnn", {"gmm_linear__weight": torch.zeros(30, H)}, "7 inputs and 30 outputs do"),
        (mdrnn, "mdrnn", {"rnn__bias_hh_l0": torch.zeros(23)}, r"needed is \(24,\)"),
        (controller, "ctrl", {"fc__weight": torch.zeros(3, D)}, r"needed is \(3, 10\)"),
    ]
    for module, name, changes, message in cases:
        change(module, name, **changes)
        with pytest.raises(ForeignWeightsError, match=message) as caught:
            read_checkpoints(folder)
        assert f"{name}/best.tar" in str(caught.value)
        change(module, name)
    torch.save([1, 2], folder / "vae" / "best.tar")
    with pytest.raises(ForeignWeightsError, match='has no "state_dict"'):
        read_checkpoints(folder)
    (folder / "ctrl" / "best.tar").unlink()
    change(vae, "vae")
    assert read_checkpoints(folder).controller is None
    (folder / "mdrnn" / "best.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no M: looked for mdrnn/best\.tar"):
        read_checkpoints(folder)
