"""The command that shows track and dream: by itself, and in a browser without a window."""

import itertools
import re
import signal
import socket
from dataclasses import replace

import pytest

from generative.training.cli import parse, start
from scripts import play, render_dream
from tests.browser import browser_in
from tests.commands import ROOT, run_script
from tests.pages import running


def playing(*words: object):
    """A running `play.py` and the address that it printed."""
    return running("play", "play", *words)


def test_smoke_serves_a_view_to_itself():
    done = run_script("play", "smoke")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^play at http://127\.0\.0\.1:\d+/[\w-]{24}/ ", done.stdout)
    assert "pictures: track 96x84, seen 64x64, kept 64x64, dream 64x64" in done.stdout
    assert done.stderr == ""


def test_other_hosts_are_warned_of(capsys):
    play.main(replace(play.PRESETS["smoke"], host="0.0.0.0"))
    captured = capsys.readouterr()
    assert "warning: all who can reach 0.0.0.0" in captured.err
    assert "page: " in captured.out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(number, status):
    with playing() as (process, _):
        before = process.stdout
        process.send_signal(number)
        assert process.wait(60) == status
        assert process.stdout == before
        assert "Traceback" not in process.stderr


def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            start(play.main, play.PRESETS, argv=["smoke", "--port", str(port)], prog="play.py")
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith(f"play.py: can not listen on port {port} of 127.0.0.1")
    assert "another --port, or 0" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temperature", "4"], "temperature is 4.0, and must be at least 0 and at most 3"),
        (["--seconds", "0"], "seconds is 0.0, and must be above 0"),
        (["--wake-after", "0"], "wake_after is 0.0, and must be at least 0.1"),
        (["--port", "70000"], "port is 70000, and must be at least 0 and at most 65,535"),
    ],
)
def test_settings_that_do_not_fit(words, message, capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        parse(play.PRESETS, play.DEFAULT_PRESET, argv=words, prog="play.py")
    assert message in " ".join((capsys.readouterr().err + str(caught.value)).split())


@pytest.mark.parametrize("script", [play, render_dream])
def test_agents_of_other_games_are_refused(script):
    args = replace(script.PRESETS["smoke"], agent=ROOT / "pretrained" / "doom-take-cover")
    with pytest.raises(ValueError, match="doom-take-cover plays WorldModels/TakeCover64-v0"):
        script.main(args)


# ---------------------------------------------------------------------------------------------
# In a browser
# ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page, opened, and the process behind it."""
    folder = tmp_path_factory.mktemp("chromium")
    with playing("--track", 5) as (_, url), browser_in(folder) as browser:
        browser.resize(1280, 800)
        browser.open(url)
        yield browser
        assert browser.errors == []


def test_page_is_driven_by_the_keys(page):
    assert page.value("document.getElementById('line').textContent") == "live"
    assert page.wait("document.getElementById('banner').textContent").startswith("Hold an arrow")
    page.key("ArrowUp", "keyDown")
    page.key("KeyA", "keyDown")
    page.wait("now.index > 3 && now.action[0] === -1")
    assert page.value("now.action[1]") == pytest.approx(0.6)
    page.key("KeyA", "keyUp")
    page.wait("now.action[0] === 0 && now.action[1] > 0.5")
    page.key("ArrowUp", "keyUp")
    page.wait("now.action[1] === 0")

    page.key("Space")
    page.wait("now.paused")
    index = page.value("now.index")
    assert page.value("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    page.key("Backspace")
    page.wait(f"now.index === Math.max(0, {index} - 17)")
    page.key("KeyF")
    page.wait("now.dream.age === 0")
    page.key("KeyG")
    page.wait("now.driver === 'agent' && !now.paused && now.dream.age > 0")
    page.key("KeyR")
    page.wait("now.track === 6")
    page.key("KeyG")
    page.wait("now.driver === 'you'")


def test_page_shows_the_pictures(page):
    """What lies on the canvas is what was sent."""
    page.key("KeyG")
    page.wait("now.driver === 'agent' && now.index > 10")
    page.value("ask({paused: true})")
    page.wait("now.paused")
    for name in ("track", "dream", "seen", "kept"):
        assert page.value(
            f"(() => {{ const c = document.getElementById('{name}'), sent = now.pictures.{name};"
            "const got = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const rgb = atob(sent.rgb); let same = rgb.length === c.width * c.height * 3;"
            "for (let i = 0; i < rgb.length / 3; i++) for (let k = 0; k < 3; k++)"
            "same &&= got[4 * i + k] === rgb.charCodeAt(3 * i + k); return same; })()"
        )
    page.value("ask({driver: 'you', track: 5})")
    page.wait("now.track === 5")


def test_settings_reach_the_game(page):
    """A slider is moved by its own arrow keys, and these do not steer."""
    page.value("ask({paused: true})")
    page.value("document.getElementById('temperature').focus()")
    for _ in range(4):
        page.key("ArrowRight")
    page.wait("Math.abs(now.temperature - 1.2) < 1e-9")
    assert page.wait("document.getElementById('tau').textContent === '1.20'")
    assert page.value("now.paused")
    page.value("ask({temperature: 1})")
    page.wait("now.temperature === 1 && document.getElementById('temperature').value === '1'")
    for control, value, wanted in (("wake", "", "null"), ("eyes", "dream", "'dream'")):
        page.value(
            f"(() => {{ const s = document.getElementById('{control}'); s.value = '{value}';"
            "s.dispatchEvent(new Event('change')); })()"
        )
        page.wait(f"now.{'wake_after' if control == 'wake' else control} === {wanted}")
    page.value("ask({wake_after: 3, eyes: 'track', temperature: 1})")
    page.value("document.activeElement.blur()")


def test_a_slider_keeps_what_a_hand_does_to_it(page):
    """Views of before a move arrive after it: none of them may move the slider back."""
    page.value("ask({driver: 'agent', paused: false})")
    page.wait("now.driver === 'agent' && !now.paused")
    page.value("document.getElementById('temperature').focus()")
    page.value(
        "window.shown = []; window.watch = setInterval(() => {"
        "const value = Number(document.getElementById('temperature').value);"
        "if (shown.at(-1) !== value) shown.push(value); }, 1)"
    )
    for _ in range(20):
        page.key("ArrowRight")
    page.wait("Math.abs(now.temperature - 2) < 1e-9")
    index = page.value("now.index")
    page.wait(f"now.index > {index} + 2")  # views of later than the answer
    assert page.value("Number(document.getElementById('temperature').value)") == 2
    page.value("clearInterval(watch)")
    shown = page.value("shown")
    assert shown == sorted(shown)
    page.value("document.activeElement.blur()")
    page.value("ask({driver: 'you', track: 5, paused: true, temperature: 1})")
    page.wait("now.temperature === 1 && now.paused && now.track === 5")


def test_a_view_of_before_a_move_comes_after_its_answer(page):
    """The order that a busy machine makes, made here on purpose."""
    page.value("ask({paused: true, temperature: 1})")
    page.wait("now.paused && document.getElementById('temperature').value === '1'")
    page.value("document.getElementById('temperature').focus()")
    slider = "Number(document.getElementById('temperature').value)"
    page.value(  # the stream is held up
        "window.before = {...now}; window.late = []; window.onTime = stream.onmessage;"
        "stream.onmessage = (event) => { late.push(event); }"
    )
    for moved in (1.05, 1.1, 1.15):
        page.key("ArrowRight")
        page.value("window.answered = false; asked.then(() => { answered = true; })")
        page.wait("answered")
        page.value("show(before)")
        assert page.value(slider) == pytest.approx(moved)
    page.value("stream.onmessage = onTime; late.forEach(onTime); document.activeElement.blur()")
    page.wait("Math.abs(now.temperature - 1.15) < 1e-9")
    page.value("ask({temperature: 1})")
    page.wait(f"now.temperature === 1 && {slider} === 1")


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [
        (1280, 800, "light"),
        (360, 740, "dark"),
        pytest.param(1280, 800, "dark", marks=pytest.mark.nightly),
        pytest.param(360, 740, "light", marks=pytest.mark.nightly),
    ],
)
def test_page_fits_and_nothing_jumps(page, width, height, scheme):
    """Every control lies within the width, and stays where it is while the car drives."""
    page.resize(width, height, scheme, touch=width < 500)
    assert page.value("document.documentElement.scrollWidth") <= width
    if width > 1000:
        assert page.value("document.documentElement.scrollHeight") <= height
    boxes = (
        "JSON.stringify([...document.querySelectorAll('button, input, select, canvas, dd')].map("
        "e => { const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; }))"
    )
    page.value("ask({driver: 'you', track: 5, paused: true})")
    page.wait("now.paused && now.index === 0")
    before = page.value(boxes)
    page.value("ask({driver: 'agent'})")
    page.wait("now.index > 20")
    assert page.value(boxes) == before
    page.resize(1280, 800)


def test_the_surprise_is_drawn_anew_at_another_size(page):
    page.value("ask({driver: 'agent', paused: false})")
    page.wait("now.index > 20")
    page.value("ask({paused: true})")
    page.wait("now.paused")
    for width in (390, 1280):
        page.resize(width, 800, touch=width < 500)
        page.wait("Math.round(devicePixelRatio * $('chart').clientWidth) === $('chart').width")
        drawn = page.value(
            "[...$('chart').getContext('2d').getImageData(0, 0, $('chart').width, "
            "$('chart').height).data].filter((x) => x > 0).length"
        )
        assert drawn > 1000


def test_a_lost_road_and_a_slow_machine_are_told(page):
    page.value("ask({driver: 'you', keys: [], paused: true})")
    page.wait("now.paused")
    page.value(
        "window.fixed = performance.now; window.at = 0; performance.now = () => at;"
        "show({...now, paused: false, over: '', off_road: 1.2});"
        "for (let i = 0; i < 40; i++) { at += 200; show({...now, index: now.index + 1}); }"
    )
    told = page.value("[$('line').textContent, $('banner').textContent, now.time_step]")
    assert told[0] == "live, 0.3x of real time"  # 60 of 200 milliseconds
    assert told[1].startswith("Off the road")
    assert told[2] == 0.06
    page.value("performance.now = fixed; ask({track: 5, paused: true})")
    page.wait("now.track === 5 && now.paused && $('line').textContent === 'live'")


@pytest.mark.nightly
def test_axe_finds_nothing_serious_in_the_page(page):
    for width, scheme in itertools.product((1280, 390), ("light", "dark")):
        page.resize(width, 844, scheme, touch=width < 500)
        assert page.serious() == [], (width, scheme)
    page.resize(1280, 800)


def test_everything_on_the_page_has_a_name(page):
    """What a screen reader would call each control."""
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "combobox", "image", "img", "Canvas")
    found = [node for node in tree if node.get("role", {}).get("value") in roles]
    names = [node.get("name", {}).get("value", "") for node in found]
    assert len(found) >= 12
    assert all(names), found
