"""The game of two views, by itself and behind its server, without a browser."""

import base64
import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

import gymnasium
import numpy as np
import pytest
import torch

from agents.play.server import MAX_BODY, MAX_VIEWERS, PlayServer
from agents.play.session import Session, keyboard_action
from agents.video import drive
from agents.world_model_agent import AgentConfig, WorldModelAgent
from envs.car_racing import resize_frames
from generative.training.signals import Stop
from generative.vae import ConvVAEConfig
from tests.pages import fetch, watching
from worldmodels.controller import ControllerConfig, LinearController
from worldmodels.memory import MDNRNN, MDNRNNConfig
from worldmodels.world_model import WorldModel

FAST = "WorldModels/FastCarRacing-v0"
REPEAT = 3


def tiny_agent(reward_input: bool = False) -> WorldModelAgent:
    torch.manual_seed(1)
    world = WorldModel(
        ConvVAEConfig(latent_dim=4, channels=(2, 2, 4, 4)).build(),
        MDNRNN(
            MDNRNNConfig(
                latent_dim=4,
                hidden_dim=8,
                reward_input=reward_input,
                predict_reward=True,
                predict_end=True,
            )
        ),
    )
    controller = LinearController(ControllerConfig(latent_dim=4, hidden_dim=8))
    controller.load_vector(torch.randn(controller.config.num_parameters))
    return WorldModelAgent(world, controller, AgentConfig(action_repeat=REPEAT))


@pytest.fixture
def session():
    made = Session(tiny_agent(), 3, seconds=2.4, wake_after=None)
    yield made
    made.close()


def play(session: Session, *held: list[str]) -> None:
    """A decision under each of these keys."""
    for keys in held:
        session.apply({"keys": keys, "paused": False})
        assert session.advance()


DRIVE = [["gas"]] * 4 + [["gas", "left"]] * 3 + [[]] * 2 + [["brake", "right"]] * 3


def real_frames(actions: list[np.ndarray], track: int) -> tuple[list[np.ndarray], list[float]]:
    """Frames before each decision and after the last, and scores, of a game of our own."""
    env = gymnasium.make(FAST)
    frames, scores = [env.reset(seed=track)[0]], [0.0]
    for action in actions:
        obs, total = frames[-1], scores[-1]
        for _ in range(REPEAT):
            obs, reward, *_ = env.step(action)
            total += float(reward)
        frames.append(obs)
        scores.append(total)
    env.close()
    return frames, scores


# ---------------------------------------------------------------------------------------------
# The game
# ---------------------------------------------------------------------------------------------


def test_keys_become_actions():
    action = keyboard_action(frozenset(["gas", "left"]), 0.0)
    assert action.dtype == np.float32
    assert action.tolist() == pytest.approx([-0.25, 0.6, 0.0])
    steering, seen = 0.0, []
    for keys in [["right"]] * 5 + [["left"]] * 2 + [[]] * 2 + [["left", "right"]]:
        steering = float(keyboard_action(frozenset(keys), steering)[0])
        seen.append(steering)
    # A quarter a decision, at most 1; against the present side, and to the middle, twice as fast.
    assert seen == [0.25, 0.5, 0.75, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    assert keyboard_action(frozenset(["brake"]), 0.3).tolist() == pytest.approx([0, 0, 0.6])


def test_the_real_track_is_the_games_own_under_the_keys(session):
    play(session, *DRIVE)
    by_keys, steering = [], 0.0
    for keys in DRIVE:
        by_keys.append(keyboard_action(frozenset(keys), steering))
        steering = float(by_keys[-1][0])
    frames, scores = real_frames(by_keys, track=3)
    assert np.array_equal(session.frame, frames[-1])
    assert session.now.score == pytest.approx(scores[-1])
    assert session.now.reward == pytest.approx(scores[-1] - scores[-2])
    view = session.view()
    assert view.numbers["action"] == pytest.approx(by_keys[-1].tolist())
    assert np.array_equal(view.pictures["track"], frames[-1][:84])
    assert np.array_equal(view.pictures["seen"], resize_frames(frames[-1]))
    json.dumps(view.numbers, allow_nan=False)


def test_a_car_that_left_the_road_is_told(session):
    """The seconds since the centre of the car was last near the middle of the road."""
    session.apply({"temperature": 0})
    longest = 0.0
    for _ in range(38):
        play(session, ["gas", "left"])
        car, track = session.env.unwrapped.car, np.array(session.env.unwrapped.track)
        far = np.hypot(*(track[:, 2:4] - car.hull.position).T).min()
        told = session.view().numbers["off_road"]
        if far < 5:  # half the road is 6.67 wide, and a tile 3.5 long
            assert told == 0
        if far > 12:
            assert told > 0
        assert told <= longest + 0.0601
        longest = max(longest, told)
    assert longest > 0.5


def test_a_pause_stops_the_time(session):
    play(session, ["gas"])
    before = session.env.unwrapped.t, session.now
    session.apply({"paused": True})
    assert not session.advance()
    assert (session.env.unwrapped.t, session.now) == before
    session.apply({"keys": []})
    assert not session.advance()
    session.apply({"keys": ["left"]})  # drives on
    assert session.advance()


@pytest.mark.parametrize("to", [0, 1, 7, 12])
def test_rewind_gives_the_exact_earlier_moment_and_the_same_future(session, to):
    frames, dreams, scores = [session.frame], [session.now.dreaming.dream.z], [0.0]
    session.apply({"temperature": 1.3})
    for keys in DRIVE:
        play(session, keys)
        frames.append(session.frame)
        dreams.append(session.now.dreaming.dream.z)
        scores.append(session.now.score)
    assert len(frames) == 13
    session.apply({"rewind": 12 - to})
    assert session.now.index == to
    assert session.paused
    assert np.array_equal(session.frame, frames[to])
    assert torch.equal(session.now.dreaming.dream.z, dreams[to])
    assert not to or not torch.equal(dreams[to], dreams[to - 1])
    for i in range(to, 12):  # the same keys again: the same game, and the same dream
        play(session, DRIVE[i])
        assert np.array_equal(session.frame, frames[i + 1])
        assert torch.equal(session.now.dreaming.dream.z, dreams[i + 1])
        assert session.now.score == scores[i + 1]


def test_rewind_stops_at_the_start_and_does_not_go_forward(session):
    play(session, ["gas"], ["gas"])
    session.apply({"rewind_to": 9})
    assert session.now.index == 2
    session.apply({"rewind": 500})
    assert session.now.index == 0
    assert np.array_equal(session.frame, real_frames([], 3)[0][0])


@pytest.mark.parametrize("reward_input", [False, True])
def test_agent_drives_as_its_predict(reward_input):
    session = Session(tiny_agent(reward_input), 3)
    session.apply({"driver": "agent"})
    assert not session.paused
    actions = []
    for _ in range(10):
        session.advance()
        actions.append(session._actions[-1])
    env = gymnasium.make(FAST)
    wanted = [s.decision.action for s in drive(tiny_agent(reward_input), env, 3, 30) if s.is_new]
    assert np.array_equal(actions, wanted)
    env.close()
    session.close()


def test_memory_reads_what_was_really_done(session):
    """h and surprise, from one pass of M over the whole sequence of what V saw and keys did."""
    play(session, *DRIVE)
    frames, _ = real_frames(session._actions, 3)
    world = session.agent.world
    z = world.encode(np.stack([resize_frames(frame) for frame in frames]))
    actions = torch.from_numpy(np.stack(session._actions))
    with torch.no_grad():
        out, (h, c) = world.memory(z[None, :-1], actions[None])
    assert torch.allclose(session.now.state.h, h, atol=1e-5)
    assert torch.allclose(session.now.state.c, c, atol=1e-5)
    nats = -out.mixture.log_prob(z[None, 1:]).mean(-1)[0]
    moments = session._moments[1:]
    assert [m.surprise for m in moments] == pytest.approx(nats.tolist(), rel=1e-4)
    assert [m.expected for m in moments] == pytest.approx(out.reward[0].tolist(), rel=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.5])
def test_dream_begins_at_the_real_moment_with_the_same_actions_at_its_temperature(
    session, temperature
):
    play(session, ["gas"], ["gas"])
    session.apply({"temperature": temperature, "dream": True})
    real, dreaming = session.now.state, session.now.dreaming
    assert torch.equal(dreaming.dream.z, real.z)
    assert dreaming.dream.age == 0
    pictures = session.view().pictures
    assert np.array_equal(pictures["dream"], pictures["kept"])
    play(session, ["left"], ["left", "gas"])

    memory, z, state = session.agent.world.memory, real.z, (real.h, real.c)
    noise = torch.Generator().manual_seed(3 + 2)  # the track, and the number of the dream
    score = 0.0
    for action in session._actions[-2:]:
        with torch.no_grad():
            out, state = memory.step(z, torch.from_numpy(action)[None], state)
        heaviest = out.mixture.log_pi.argmax(-1, keepdim=True)
        z = out.mixture.sample(temperature, noise)
        if temperature == 0:
            assert torch.equal(z, out.mixture.mu.gather(-1, heaviest)[..., 0])
        score += float(out.reward)
    now = session.now.dreaming
    assert torch.equal(now.dream.z, z)
    assert now.dream.age == 2
    assert now.score == pytest.approx(score, abs=1e-6)
    assert now.end == pytest.approx(1 / (1 + float(torch.exp(-out.end_logit))), abs=1e-6)
    # The mixture's variance is E[x^2] - E[x]^2.
    pi, mu, std = out.mixture.log_pi.exp(), out.mixture.mu, out.mixture.log_std.exp()
    variance = (pi * (mu**2 + std**2)).sum(-1) - (pi * mu).sum(-1) ** 2
    assert now.spread == pytest.approx(float(variance.sqrt().mean()), abs=1e-5)


def test_agent_that_looks_at_its_dream_acts_by_it(session):
    play(session, ["gas"], ["gas"], ["gas"])
    session.apply({"driver": "agent", "eyes": "dream"})
    dream = session.now.dreaming.dream
    session.advance()
    with torch.no_grad():
        wanted = session.agent.controller.act(dream.z, dream.state.h, dream.state.c)[0].numpy()
    assert np.array_equal(session._actions[-1], wanted)
    assert not np.array_equal(wanted, session._moments[-2].state.action[0])


def test_dream_wakes_by_itself():
    session = Session(tiny_agent(), 3, wake_after=0.25)  # a decision is 0.06 s
    ages = []
    for _ in range(12):
        play(session, ["gas"])
        ages.append(session.now.dreaming.dream.age)
    assert ages == [1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0]
    assert torch.equal(session.now.dreaming.dream.z, session.now.state.z)
    session.close()


def test_an_episode_ends_and_another_begins(session):
    session.apply({"driver": "agent"})
    while session.advance():
        pass
    assert session.now.index == 40  # 2.4 s
    assert session.now.over == "time is up"
    session.apply({"track": None})
    assert (session.track, session.now.index, session.now.over) == (4, 0, "")
    assert np.array_equal(session.frame, real_frames([], 4)[0][0])
    session.apply({"track": 3})
    assert np.array_equal(session.frame, real_frames([], 3)[0][0])


BAD = [
    ([], "a request is"),
    ({}, "a request is"),
    ({"fly": 1}, "there is no request 'fly'; known are keys, paused"),
    ({"keys": ["up"]}, "keys: got"),
    ({"keys": "gas"}, "keys: got 'gas'; send a list of left, right, gas, brake"),
    ({"keys": [["gas"]]}, "keys: got"),
    ({"paused": 1}, "paused: got 1; send true or false"),
    ({"driver": "nobody"}, "driver: got 'nobody'; send you or agent"),
    ({"eyes": []}, "eyes: got"),
    ({"temperature": -0.1}, "temperature: got -0.1; send a number between 0 and 3"),
    ({"temperature": float("nan")}, "temperature: got nan"),
    ({"temperature": True}, "temperature: got True"),
    ({"wake_after": 0}, "wake_after: got 0; send a number between 0.1 and 60"),
    ({"rewind": -1}, "rewind: got -1"),
    ({"rewind_to": 1.5}, "rewind_to: got 1.5"),
    ({"track": 2**31}, "track: got"),
    ({"dream": None}, "dream: got"),
]


@pytest.mark.parametrize(("request_", "message"), BAD)
def test_a_bad_request_is_told_and_nothing_of_it_is_done(session, request_, message):
    with pytest.raises(ValueError) as caught:
        session.apply({"paused": False, **request_} if request_ else request_)
    assert str(caught.value).startswith(message)
    assert session.paused


# ---------------------------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------------------------


@contextmanager
def serving(session: Session, host: str = "127.0.0.1"):
    """A server in which time passes."""
    stop = Stop()
    with PlayServer(session, host) as server:
        clock = threading.Thread(target=server.play, args=(stop,))
        clock.start()
        try:
            yield server
        finally:
            stop.signal = True
            clock.join()


def act(server, request, **headers):
    return fetch(server, "POST", "act", json.dumps(request), **headers)


@pytest.fixture
def server():
    with serving(Session(tiny_agent(), 3, seconds=60, wake_after=None)) as running:
        yield running


def test_a_game_over_the_wire():
    """Decision by decision, by the test's own clock: a slow reader would miss views."""
    with PlayServer(Session(tiny_agent(), 3, wake_after=None)) as server, watching(server) as views:
        first = next(views)
        assert first["paused"]
        assert first["index"] == 0
        assert act(server, {"keys": ["gas", "right"], "temperature": 0.5})[0] == 200
        assert next(views)["temperature"] == 0.5
        actions, frames = [], []
        for _ in range(6):
            with server.changed:
                server.session.advance()
                server.publish()
            view = next(views)
            actions.append(np.array(view["action"], np.float32))
            frames.append(base64.b64decode(view["pictures"]["track"]["rgb"]))
        assert [a[0] for a in actions] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
        assert all(a[1] == pytest.approx(0.6) for a in actions)
        # The pictures are those of a game of our own under these actions.
        real, _ = real_frames(actions, 3)
        assert frames == [frame[:84].tobytes() for frame in real[1:]]

        act(server, {"keys": [], "rewind_to": 2})
        view = next(views)
        assert (view["index"], view["paused"]) == (2, True)
        assert base64.b64decode(view["pictures"]["track"]["rgb"]) == real[2][:84].tobytes()
        assert json.loads(fetch(server, name="view")[1]) == view


def test_time_passes_while_someone_looks(server):
    act(server, {"driver": "agent"})
    time.sleep(0.2)
    assert json.loads(server.view())["index"] == 0
    with watching(server) as views:
        assert any(view["index"] >= 2 for view in views)
        act(server, {"paused": True})
        view = next(view for view in views if view["paused"])
        time.sleep(0.2)
        assert json.loads(server.view()) == view


def test_only_who_has_the_token_and_names_this_machine_gets_in(server):
    assert fetch(server)[0] == 200
    for token in (
        "",
        "guess",
        server.token[:-1],
        server.token + "x",
        "%C3%BC",
    ):
        for method, name in (("GET", ""), ("GET", "view"), ("GET", "stream"), ("POST", "act")):
            status, text = fetch(server, method, name, "{}", token=token)
            assert status == 403
            assert b"token is missing or wrong" in text
    for host in (
        "evil.example",
        f"evil.example:{server.port}",
        "127.0.0.1.evil.example",
        "[::1].evil.com",
        "[::1]:80.evil.com",
        "[::1]evil.com",
        "[::1%25lo]",
        "::1",
        "localhost.evil.com",
        "evil.com@localhost",
        "localhost:80:80",
        "localhost:port",
        "localhost:",
        "localhost/",
        "localhost?",
        "localhost#",
        "local host",
        "127.1",
        "2130706433",
        "127.0.0.2",
        "localhost, evil.com",
        "localhost:" + "1" * 6,
        "l" * 10_000,
        "[",
        "",
    ):
        assert fetch(server, Host=host)[0] == 403
        assert act(server, {"driver": "agent"}, Host=host)[0] == 403
    for host in ("localhost:8080", "127.0.0.1", "[::1]:5"):  # through a tunnel, say
        assert fetch(server, Host=host)[0] == 200
    here = f"http://127.0.0.1:{server.port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{server.port + 1}"):
        assert act(server, {"driver": "agent"}, Origin=origin)[0] == 403
    assert server.session.driver == "you"
    assert act(server, {"driver": "agent"}, Origin=here)[0] == 200
    assert server.session.driver == "agent"


def test_requests_are_bounded_and_told_what_is_wrong(server, capfd):
    assert fetch(server, "POST", "act", b"{" + b" " * MAX_BODY)[0] == 413
    assert fetch(server, "POST", "act", b"{nonsense")[0] == 400
    assert fetch(server, "POST", "act", b"[" * MAX_BODY)[0] == 400
    assert fetch(server, "POST", "act", b"\xff\xfe{}")[0] == 400
    status, text = act(server, {"temperature": 99})
    assert (status, text) == (400, b"temperature: got 99; send a number between 0 and 3\n")
    status, text = fetch(server, "POST", "act", b'{"temperature": NaN}')
    assert status == 400
    # No length, a negative one, two of them: nothing is read.
    for lines, status in (
        ([], 411),
        (["Content-Length: -5"], 411),
        (["Content-Length: +2"], 411),
        (["Content-Length: 2_0"], 411),
        (["Content-Length: ２"], 411),
        (["Content-Length: 0x2"], 411),
        (["Transfer-Encoding: chunked"], 411),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], 411),
        (["Content-Length: 2", "Content-Length: 2"], 411),
        ([f"Content-Length: {'9' * 45_000}"], 400),
        ([f"Content-Length: {'0' * 45_000}2"], 400),
        (["Content-Length: 99999999999"], 400),
        (["Content-Length: 9999999999"], 413),
        (["Host: localhost", "Content-Length: 2"], 403),
        (["Origin: http://localhost", "Origin: http://localhost", "Content-Length: 2"], 403),
    ):
        with socket.create_connection((server.host, server.port), 20) as raw:
            head = [f"POST /{server.token}/act HTTP/1.1", "Host: localhost", *lines, "", "{}"]
            raw.sendall("\r\n".join(head).encode())
            assert raw.makefile().readline().startswith(f"HTTP/1.1 {status}"), lines
    assert capfd.readouterr().err == ""
    assert fetch(server, "DELETE")[0] == 501


def test_nothing_of_the_disk_is_served(server):
    for name in ("page.html", "server.py", "../server.py", "%2e%2e/pyproject.toml", "/etc/passwd"):
        assert fetch(server, name=name)[0] == 404
        assert fetch(server, "POST", name, "{}")[0] == 404


def test_page_needs_nothing_from_elsewhere(server):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    connection.request("GET", f"/{server.token}/?from=a-bookmark")
    response = connection.getresponse()
    page = response.read().decode()
    assert "default-src 'none'" in response.getheader("Content-Security-Policy")
    assert response.getheader("Referrer-Policy") == "no-referrer"
    assert "://" not in page
    connection.close()


def test_viewers_are_counted(server):
    streams = [watching(server) for _ in range(MAX_VIEWERS)]
    for stream in streams:
        next(stream.__enter__())
    assert fetch(server, name="stream")[0] == 503
    for stream in streams:
        stream.__exit__(None, None, None)


def test_closing_ends_the_streams():
    with serving(Session(tiny_agent(), 3)) as running, watching(running) as views:
        next(views)
        threading.Timer(0.2, running.close).start()
        assert list(views) == []


def test_other_addresses():
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    session = Session(tiny_agent(), 3)
    try:
        made = PlayServer(session, "::1")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with made as running:
        assert running.url.startswith("http://[::1]:")
        assert fetch(running)[0] == 200
        with pytest.raises(OSError, match=f"can not listen on port {running.port} of ::1"):
            PlayServer(session, "::1", running.port)


def test_a_server_for_others_refuses_names_that_are_not_its_own():
    with PlayServer(Session(tiny_agent(), 3), "0.0.0.0") as running:
        assert running.knows_host("192.0.2.7:80")
        assert running.knows_host(f"{socket.gethostname()}:80")
        assert not running.knows_host("evil.example")
