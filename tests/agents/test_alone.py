"""The page that dreams without a server: its files, its step against Python's, and in a browser."""

import functools
import hashlib
import http.server
import io
import itertools
import math
import tarfile
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.play import alone
from agents.play.session import keyboard_action
from agents.world_model_agent import AgentConfig, WorldModelAgent
from generative.training.files import DamagedFileError
from generative.vae import ConvVAEConfig
from tests.browser import browser_in
from tests.commands import ROOT
from worldmodels.configs import DreamConfig, MDNRNNConfig, VectorVisionConfig
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.dreaming.starts import DreamStarts
from worldmodels.dreaming.step import DreamState, Noise, dream_step
from worldmodels.memory import MDNRNN
from worldmodels.memory.base import MixtureNoise
from worldmodels.vision import VectorVision
from worldmodels.world_model import WorldModel

D, H, K = 4, 8, 3
DREAM = DreamConfig(9, 1.3, reward_clip=(-1.0, 0.3), pace_cap=0.1, pace_window=4)


def tiny_agent() -> WorldModelAgent:
    torch.manual_seed(1)
    memory = MDNRNN(MDNRNNConfig(D, 3, H, K, predict_reward=True, predict_end=True, dropout=0.25))
    memory.end_head.bias.data.fill_(-4)  # most dreams reach the horizon
    world = WorldModel(ConvVAEConfig(D, (2, 2, 4, 4)).build(), memory)
    controller = LinearController(ControllerConfig(D, H))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    return WorldModelAgent(world, controller, AgentConfig(action_repeat=3), dream=DREAM)


def tiny_starts(n: int = 5) -> DreamStarts:
    generator = torch.Generator().manual_seed(2)
    z, h, c = (torch.randn(n, size, generator=generator) for size in (D, H, H))
    return DreamStarts(z, h, c, torch.zeros(n))


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_runtime(monkeypatch):
    """A runtime of a few bytes in the place of the real one."""
    files = {name: name.encode() * 3 for name in alone.RUNTIME}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    monkeypatch.setattr(alone, "RUNTIME", digests)
    return files


def put(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_a_runtime_is_read_from_a_folder_and_from_a_package(small_runtime, tmp_path):
    put(tmp_path / "plain", small_runtime)
    put(tmp_path / "package" / "dist", small_runtime)
    assert alone.runtime_files(tmp_path / "plain") == small_runtime
    assert alone.runtime_files(tmp_path / "package") == small_runtime


def test_another_version_is_named(small_runtime, tmp_path):
    name = min(small_runtime)
    put(tmp_path / "plain", {**small_runtime, name: b"of another version"})
    with pytest.raises(DamagedFileError, match=rf"{name}: its SHA-256 is .*--runtime"):
        alone.runtime_files(tmp_path / "plain")
    (tmp_path / "plain" / name).unlink()
    with pytest.raises(DamagedFileError, match=rf"{name}: cannot be read"):
        alone.runtime_files(tmp_path / "plain")


def test_npm_fetches_what_is_missing(small_runtime, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(
        f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\ntest -e "{tmp_path}/package.tgz" || '
        f'{{ echo no network >&2; exit 1; }}\n/bin/cp "{tmp_path}/package.tgz" "$4"\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    folder = tmp_path / "data" / "runtime"
    with pytest.raises(ConnectionError, match="no network"):
        alone.runtime_files(folder)
    for data in (b"changed on the way", None):
        with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
            for name, whole in small_runtime.items():
                info = tarfile.TarInfo(f"package/dist/{name}")
                info.size = len(data or whole)
                archive.addfile(info, io.BytesIO(data or whole))
        if data:
            with pytest.raises(DamagedFileError, match=alone.PACKAGE):
                alone.runtime_files(folder)
            assert not folder.exists()
    assert alone.runtime_files(folder) == small_runtime
    assert (tmp_path / "asked").read_text().count(f"pack {alone.PACKAGE}") == 3
    npm.unlink()
    assert alone.runtime_files(folder) == small_runtime  # kept
    with pytest.raises(FileNotFoundError, match="there is no npm"):
        alone.runtime_files(tmp_path / "elsewhere")


def test_what_cannot_be_shown_is_refused_before_any_work(tmp_path):
    agent, missing = tiny_agent(), tmp_path / "nothing"
    with pytest.raises(ValueError, match="the starts have z"):
        starts = replace(tiny_starts(), z=torch.zeros(5, D + 1))
        alone.build_page(agent, starts, tmp_path / "page", missing)
    agent.world.vision = VectorVision(VectorVisionConfig(D))
    with pytest.raises(ValueError, match="V is of vectors"):
        alone.build_page(agent, tiny_starts(), tmp_path / "page", missing)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"holds other files \(thesis\.tex\)"):
        alone.build_page(tiny_agent(), tiny_starts(), tmp_path / "mine", missing)


# ---------------------------------------------------------------------------------------------
# In a browser: nightly, as it traces graphs for ten seconds; test_export.py looks at the step
# ---------------------------------------------------------------------------------------------

RUNTIME = ROOT / "runs" / "data" / "onnxruntime-web"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The page of a tiny agent."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="the extra `onnx` is not installed")
    try:
        alone.runtime_files(RUNTIME)
    except (ConnectionError, FileNotFoundError) as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("page") / "a page"
    return alone.build_page(tiny_agent(), tiny_starts(), folder, RUNTIME, horizon=9)


@pytest.fixture(scope="module")
def page(built, tmp_path_factory):
    """The page, opened as a file."""
    with browser_in(tmp_path_factory.mktemp("chromium")) as browser:
        browser.resize(1280, 800)
        browser.open(built.as_uri())
        yield browser
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.asked_for} <= {
            "file",
            "http",
            "data",
            "blob",
        }
        assert len([url for url in browser.asked_for if url.startswith("http")]) <= 1


def settle(page):
    """A new dream that waits for a person, at a point where no decision is under way."""
    page.value("paused = true; driver = 'you'; down.clear(); todo.push(() => begin(1));")
    page.wait("paused && todo.length === 0 && now.index === 0 && now.number === 1")


@pytest.mark.nightly
def test_the_step_is_pythons(page):
    """Decision by decision on the same noise, from every start of the page."""
    settle(page)
    agent, rng = tiny_agent(), np.random.default_rng(3)
    memory = agent.world.eval().memory
    order = np.random.default_rng(0).permutation(5)
    starts = tiny_starts().take(order)
    ended = truncated = 0
    for row in range(5):
        temperature = [0.0, 0.5, 1.0, 1.3, 3.0][row]
        config = DreamConfig(9, temperature, reward_clip=(-1.0, 0.3), pace_cap=0.1, pace_window=4)
        page.value(f"window.lane = beginAt({row}, uniformNumbers({row})); null")
        mask = torch.tensor(page.value("Array.from(lane.mask.data)"))
        assert set((mask * 0.75).round(decimals=6).tolist()) <= {0.0, 1.0}
        one = starts.take([row])
        state = DreamState.at(one.z, one.h, one.c, one.prev_reward, mask[None])
        for t in range(9):
            action = rng.uniform(-1, 1, 3).astype(np.float32)
            gumbel = rng.gumbel(size=(D, K)).astype(np.float32)
            eps = rng.normal(size=D).astype(np.float32)
            uniform = 0.0 if row == 1 and t == 6 else float(np.float32(rng.random() * 0.5 + 0.5))
            noise = Noise(
                MixtureNoise(torch.from_numpy(gumbel)[None], torch.from_numpy(eps)[None]),
                torch.tensor([uniform]),
            )
            with torch.no_grad():
                state, outcome = dream_step(
                    memory, state, torch.from_numpy(action)[None], noise, config
                )
            told = page.value(
                f"(async () => {{ const [after, outcome] = await step(lane, {action.tolist()}, "
                f"{{gumbel: {gumbel.ravel().tolist()}, eps: {eps.tolist()}, uniform: {uniform}}}, "
                f"{temperature}); lane = after; return {{...outcome, state: Object.fromEntries("
                "Object.entries(after).map(([k, v]) => [k, Array.from(v.data, Number)]))}; })()"
            )
            for name, value in state._asdict().items():
                got = torch.tensor(told["state"][name])
                assert torch.allclose(got, value.flatten().to(got.dtype), atol=1e-4), (row, t, name)
            assert told["paid"] == pytest.approx(float(outcome.paid), abs=1e-4)
            assert told["end"] == pytest.approx(float(outcome.p_end), abs=1e-4)
            assert told["ended"] == bool(outcome.ended)
            assert told["truncated"] == bool(outcome.truncated)
            assert told["finite"]
        ended, truncated = ended + told["ended"], truncated + told["truncated"]
        image = agent.world.vision.decode(state.z).detach().flatten()
        shown = torch.tensor(page.value("picture(lane.z).then((x) => Array.from(x))"))
        assert torch.allclose(shown, image, atol=1e-4)
        chosen = agent.controller.act(state.z, state.h, state.c)[0].tolist()
        assert page.value("agentAction(lane)") == pytest.approx(chosen, abs=1e-4)
    assert (ended, truncated) == (1, 4)


@pytest.mark.nightly
def test_the_noise_is_what_it_is_called(page):
    page.value(
        "window.draws = (f, n, r = uniformNumbers(7)) => Array.from({length: n}, () => f(r))"
    )
    flat = np.array(page.value("draws((r) => r(), 20000)"))
    assert flat.min() >= 0
    assert flat.max() < 1
    assert np.array_equal(flat, np.float32(flat))
    assert abs(flat.mean() - 1 / 2) < 0.01
    assert abs(np.corrcoef(flat[1:], flat[:-1])[0, 1]) < 0.03
    bell = np.array(page.value("draws(normal, 20000)"))
    assert abs(bell.mean()) < 0.03
    assert abs(bell.std() - 1) < 0.02
    top = np.array(page.value("draws(gumbel, 20000)"))
    assert abs(top.mean() - np.euler_gamma) < 0.03
    assert abs(top.std() - math.pi / math.sqrt(6)) < 0.03
    assert page.value("gumbel(() => 0)") == pytest.approx(-math.log(126 * math.log(2)))


@pytest.mark.nightly
def test_keys_steer_as_in_the_game_of_two_views(page):
    steering = 0.0
    for keys in [["right", "gas"]] * 5 + [["left"]] * 2 + [["brake"]] * 2 + [["left", "right"]]:
        told = page.value(f"keyboardAction(new Set({keys}), {steering})")
        assert told == pytest.approx(keyboard_action(frozenset(keys), steering).tolist())
        steering = told[0]


@pytest.mark.nightly
def test_keys_and_agent_drive_the_dream(page):
    settle(page)
    assert page.value("$('banner').textContent").startswith("Hold an arrow key")
    look = (
        "Array.from(document.getElementById('dream').getContext('2d').getImageData(0,0,64,64).data)"
    )
    first = page.value(look)
    page.key("ArrowLeft", "keyDown")
    page.wait("now.index >= 5")
    page.key("ArrowLeft", "keyUp")
    assert page.value("now.action[0]") == -1
    page.wait("now.over")  # the horizon
    assert page.value("now.over") == "The time is up"
    assert page.value("now.index") == 9
    assert page.value(look) != first
    assert not page.value("$('frame').classList.contains('lost')")
    score = page.value("now.score")
    assert sum(page.value("now.recent")) == pytest.approx(score)
    page.key("KeyN")
    page.wait("now.number === 2 && now.index === 9")
    page.key("KeyR")
    page.key("KeyG")
    page.wait("driver === 'agent' && now.number === 2 && now.index === 9")
    twice = page.value("now.score")
    page.key("KeyR")
    page.wait("now.index < 9")
    page.wait("now.index === 9")
    assert page.value("now.score") == twice != score  # the same dream again
    page.key("Space")
    page.wait("paused && $('pause').getAttribute('aria-pressed') === 'true'")


@pytest.mark.nightly
def test_a_lost_dream_has_a_red_border(page):
    settle(page)
    page.value("game.lost_seconds = 0.12; now.recent = [1, -1.5]; null")  # two decisions
    page.wait("$('frame').classList.contains('lost')")
    assert page.value("getComputedStyle($('frame')).borderTopColor") == "rgb(195, 43, 34)"
    page.value("now.recent = [-1, 1.5]; null")
    page.wait("!$('frame').classList.contains('lost')")
    page.value("game.lost_seconds = 1.5; null")
    page.value("state.z = float([NaN, 0, 0, 0], 1, 4); paused = false; null")
    page.wait("$('banner').textContent.startsWith('M gave a number that is not finite')")
    assert page.value("$('frame').classList.contains('lost')")


@pytest.mark.nightly
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page, scheme):
    settle(page)
    page.resize(390, 844, scheme, touch=True)
    assert page.value("document.documentElement.scrollWidth") <= 390
    page.wait("getComputedStyle($('pedals')).display === 'grid'")
    box = page.value("(({x, y}) => [x, y])($('pedals').children[0].getBoundingClientRect())")
    press = {"x": box[0] + 9, "y": box[1] + 9, "button": "left", "clickCount": 1}
    page.call("Input.dispatchMouseEvent", type="mousePressed", **press)
    page.wait("now.action[0] === -1")
    page.call("Input.dispatchMouseEvent", type="mouseReleased", **press)
    page.wait("down.size === 0")
    page.resize(1280, 800)
    settle(page)


@pytest.mark.nightly
def test_axe_finds_nothing_serious_in_the_page(page):
    settle(page)
    for width, scheme in itertools.product((1280, 390), ("light", "dark")):
        page.resize(width, 844, scheme, touch=width < 500)
        assert page.serious() == [], (width, scheme)
    page.resize(1280, 800)


@pytest.mark.nightly
def test_it_is_served_by_any_web_server(page, built):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=built.parent)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.open(f"http://127.0.0.1:{server.server_port}/")
        page.key("KeyG")
        page.wait("now.index > 3")
        server.shutdown()
