"""The command that draws what words say: by itself, and in a browser without a window."""

import base64
import io
import itertools
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.known.picture_talk import PictureTalk
from generative.pages.pictures import Painter
from generative.pages.pictures.requests import Drawing
from generative.training.cli import parse, start
from scripts import play_pictures
from tests.browser import browser_in
from tests.commands import run_script
from tests.generative.families import FAMILIES
from tests.pages import running, tiny_flamingo


def test_smoke_draws_for_itself():
    done = run_script("play_pictures", "smoke")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^draw at http://127\.0\.0\.1:\d+/[\w-]{24}/ ", done.stdout)
    assert "'a red square': 2 pictures of 24x24 in 2 steps, done" in done.stdout
    assert done.stderr == ""


def test_a_saved_model_is_shown(tmp_path, capsys):
    model = play_pictures.untrained()
    model.save_pretrained(tmp_path / "run" / "model")
    play_pictures.main(replace(play_pictures.PRESETS["smoke"], model=tmp_path / "run"))
    assert "2 pictures of 24x24 in 2 steps, done" in capsys.readouterr().out


def test_other_hosts_are_warned_of(capsys):
    play_pictures.main(replace(play_pictures.PRESETS["smoke"], host="0.0.0.0"))
    assert "warning: all who can reach 0.0.0.0" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(number, status):
    with running("play_pictures", "draw", "None") as (process, _):
        before = process.stdout
        process.send_signal(number)
        assert process.wait(60) == status
        assert process.stdout == before
        assert "Traceback" not in process.stderr


def told_by(capsys, *argv):
    with pytest.raises(SystemExit) as caught:
        start(
            play_pictures.main, play_pictures.PRESETS, "default", argv=argv, prog="play_pictures.py"
        )
    assert caught.value.code == 1
    return capsys.readouterr().err


def test_what_is_missing_is_told_with_the_command_that_makes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = told_by(capsys)
    assert told.startswith("play_pictures.py: pretrained/emoji: no such folder; make it with ")
    assert "`worldmodels train_latent_diffusion emoji`, or pass another as model" in told
    told = told_by(capsys, "None", "--flamingo", "runs/none")
    assert "runs/none: no such folder; make it with `worldmodels train_flamingo`" in told


def test_models_that_need_more_than_words_are_refused(tmp_path, capsys):
    FAMILIES["Upsampler"].make().save_pretrained(tmp_path / "upsampler")
    told = told_by(capsys, str(tmp_path / "upsampler"), "--self-test", "--port", "0")
    assert (
        "the model is of the class Upsampler, which is told a small image besides a text; pass the "
        in told
    )
    PictureTalk().tokeniser.save(tmp_path / "vocabulary.json")
    told = told_by(capsys, "smoke", "--flamingo", str(tmp_path / "upsampler"))
    assert "of the class Upsampler, which answers no questions about pictures; pass a run " in told


def test_a_port_that_does_not_fit_is_told(capsys):
    with pytest.raises((SystemExit, ValueError)) as caught:
        parse(play_pictures.PRESETS, "default", argv=["--port", "70000"], prog="play_pictures.py")
    message = "port is 70000, and must be at least 0 and at most 65,535"
    assert message in " ".join((capsys.readouterr().err + str(caught.value)).split())


# ---------------------------------------------------------------------------------------------
# In a browser
# ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of the model with random weights, opened, with a Flamingo to ask."""
    folder = tmp_path_factory.mktemp("flamingo")
    tiny_flamingo().save_pretrained(folder / "model")
    PictureTalk().tokeniser.save(folder / "vocabulary.json")
    profile = tmp_path_factory.mktemp("chromium")
    words = ("None", "--flamingo", folder, "--device", "cpu")
    with running("play_pictures", "draw", *words) as (_, url), browser_in(profile) as browser:
        browser.resize(1280, 900)
        browser.open(url)
        yield browser
        assert browser.errors == []


def set_values(page, **values):
    """Give controls these values, without the events of a hand."""
    for name, value in values.items():
        page.value(f"$('{name}').value = {value!r}")
    page.value("tell()")


def choose(page, mode):
    page.value(f"document.querySelector('input[value={mode}]').click()")


def drawn(page):
    """Press Draw; the view of the finished drawing with its pictures, uint8 (n, H, W, 3)."""
    before = page.value("now.drawing")
    page.value("$('words').requestSubmit()")
    page.wait(f"now.drawing > {before} && now.status === 'done'")
    view = page.value("now")
    return view, np.stack([decoded(png) for png in view["pictures"]])


def decoded(png):
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


def painter():
    return Painter(play_pictures.untrained())


def wanted(**request):
    *_, pictures = painter().draw(
        Drawing(**{"mode": "draw", "steps": 6, "scale": 2.0, "seed": 11, **request})
    )
    return np.stack(pictures)


@pytest.fixture
def settled(page):
    """The page with few steps, whose sliders do not draw by themselves."""
    page.value("$('live').checked = false")
    choose(page, "draw")
    set_values(page, prompt="a red disc", num="2", steps="6", scale="2", seed="11")
    yield page
    page.value("$('live').checked = true; clearTimeout(waiting)")
    page.value("document.activeElement.blur()")


def test_a_prompt_becomes_pictures(settled):
    """By Enter in the text field; the last pictures are those of the model itself."""
    page = settled
    page.value("$('prompt').focus()")
    page.call("Input.dispatchKeyEvent", type="keyDown", code="Enter", key="Enter", text="\r")
    page.wait("now.status === 'done' && now.prompt === 'a red disc' && now.steps === 6")
    view = page.value("now")
    generators = [torch.Generator().manual_seed(seed) for seed in (11, 12)]
    model = play_pictures.untrained().eval()
    x = model.sample(["a red disc"] * 2, generators, steps=6, scale=2.0)
    pictures = np.stack([decoded(png) for png in view["pictures"]])
    assert np.array_equal(pictures, (x.movedim(1, -1) * 255).round().byte().numpy())
    shown = page.value("[...document.querySelectorAll('#pictures img')].map((x) => x.src)")
    assert shown == [f"data:image/png;base64,{png}" for png in view["pictures"]]
    assert page.value(
        "Promise.all([...document.querySelectorAll('#pictures img')].map((x) => x.decode()"
        ".then(() => x.naturalWidth)))"
    ) == [24, 24]
    said = page.value("$('said').textContent")
    assert re.fullmatch(r"2 pictures, 6 steps in \d+\.\d s", said)
    saves = page.value("[...document.querySelectorAll('a[download]')].map((x) => x.download)")
    assert saves == ["a-red-disc-seed-11.png", "a-red-disc-seed-12.png"]


def test_the_steps_are_shown_as_they_come(settled):
    page = settled
    page.value(
        "window.steps_seen = []; window.on_time = stream.onmessage;"
        "stream.onmessage = (event) => { on_time(event); steps_seen.push([now.status, now.step,"
        "document.querySelector('#pictures img')?.src.length > 100]); }"
    )
    set_values(page, steps="30")
    view, _ = drawn(page)
    page.value("stream.onmessage = on_time")
    seen = page.value("steps_seen")
    steps = [step for status, step, _ in seen if status == "drawing"]
    assert len(steps) > 3  # of 30: a busy machine misses some
    assert steps == sorted(steps)
    assert all(pictures for _, step, pictures in seen if step > 0)
    assert view["steps"] == 30


def test_a_slider_that_is_dragged_draws_again(page):
    page.value("$('live').checked = true")
    choose(page, "draw")
    set_values(page, prompt="two blue squares", num="2", steps="3", scale="2", seed="40")
    drawn(page)
    for name, key, text, after in (
        ("seed", "ArrowRight", "41", {"seed": 41}),
        ("scale", "ArrowRight", "2.1", {"seed": 41, "scale": 2.1}),
        ("steps", "ArrowRight", "4 steps", {"seed": 41, "scale": 2.1, "steps": 4}),
        ("num", "ArrowLeft", "1 picture", {"seed": 41, "scale": 2.1, "steps": 4, "num": 1}),
    ):
        before = page.value("now.drawing")
        page.value(f"$('{name}').focus()")
        page.key(key)
        page.wait(f"$('{name}-out').textContent === '{text}'")
        page.wait(f"now.drawing > {before} && now.status === 'done'")
        settings = {"prompt": "two blue squares", "num": 2, "steps": 3, "scale": 2.0, **after}
        got = np.stack([decoded(png) for png in page.value("now.pictures")])
        assert np.array_equal(got, wanted(**settings)), name
    page.value("document.activeElement.blur()")


def test_unknown_words_are_told(settled):
    page = settled
    set_values(page, prompt="a red trangle")
    _, pictures = drawn(page)
    assert len(pictures) == 2
    told = page.value("$('unknown').textContent")
    assert told.startswith('Not known: "trangle". Known words that are close: triangle')
    set_values(page, prompt="a red triangle")
    drawn(page)
    assert page.value("$('unknown').textContent") == ""
    known = page.value("$('known').textContent")
    assert "blue" in known
    assert "triangle" in known
    assert page.value("$('knowncount').textContent") == "48 words that the model knows"


def test_a_prompt_that_is_too_long_is_told(settled):
    page = settled
    set_values(page, prompt="red " * 30)
    page.value("$('words').requestSubmit()")
    page.wait("$('error').textContent.startsWith('the prompt has 30 words and signs, and the ')")
    assert all("400 (Bad Request)" in str(error) for error in page.errors)
    page.errors.clear()
    set_values(page, prompt="red")
    drawn(page)
    assert page.value("$('error').textContent") == ""


def test_an_example_is_drawn_at_a_press(settled):
    page = settled
    examples = page.value("[...document.querySelectorAll('#examples button')].map(x => "
                          "x.textContent)")  # fmt: skip
    assert "three red discs" in examples
    before = page.value("now.drawing")
    page.value(
        "[...document.querySelectorAll('#examples button')].find((x) => x.textContent === "
        "'three red discs').click()"
    )
    page.wait(f"now.drawing > {before} && now.status === 'done'")
    assert page.value("[now.prompt, $('prompt').value]") == ["three red discs"] * 2


def test_a_picture_is_painted_on_and_drawn_over(settled):
    page = settled
    drawn(page)
    page.value("document.querySelectorAll('.pick')[1].click()")
    page.wait("chosen === 1")
    taken = decoded(page.value("now.pictures[1]"))
    choose(page, "over")
    page.wait("!$('tools').hidden && work.data[0] === " + str(taken[0, 0, 0]))
    set_values(page, num="2", strength="50", colour="#ff0000", size="1")
    box = page.value("(() => { const b = $('work').getBoundingClientRect(); return [b.x, b.y, "
                     "b.width, b.height]; })()")  # fmt: skip
    for kind, x, y in (("mousePressed", 2, 3), ("mouseMoved", 8, 3), ("mouseReleased", 8, 3)):
        page.call(
            "Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1,
            x=box[0] + (x + 0.5) / 24 * box[2], y=box[1] + (y + 0.5) / 24 * box[3],
        )  # fmt: skip
    painted = taken.copy()
    painted[3, 2:9] = (255, 0, 0)
    found = bytes(page.value("[...work.data].filter((_, i) => i % 4 < 3)"))
    assert found == painted.tobytes()
    view, pictures = drawn(page)
    assert view["steps"] == 3
    how = {"prompt": "a red disc", "num": 2, "strength": 0.5}
    assert np.array_equal(pictures, wanted(mode="over", picture=painted, **how))
    page.value("$('undo').click()")
    assert bytes(page.value("[...work.data].filter((_, i) => i % 4 < 3)")) == taken.tobytes()
    # By keyboard: from where the mouse left the brush.
    page.value("$('work').focus()")
    page.key("ArrowDown")
    page.key("Space")
    painted = taken.copy()
    painted[4, 8] = (255, 0, 0)
    assert bytes(page.value("[...work.data].filter((_, i) => i % 4 < 3)")) == painted.tobytes()
    page.value("$('blank').click()")
    assert page.value("work.data.every((x) => x === 255)")


def test_a_rectangle_is_filled_in_and_the_rest_stays(settled):
    page = settled
    drawn(page)
    page.value("document.querySelectorAll('.pick')[0].click()")
    before = decoded(page.value("now.pictures[0]"))
    choose(page, "fill")
    page.wait("!$('tools').hidden && !touched && work.data[0] === " + str(before[0, 0, 0]))
    for name, value in (("left", 4), ("top", 6), ("width", 9), ("height", 5)):
        page.value(
            f"(() => {{ $('{name}').value = {value};"
            f"$('{name}').dispatchEvent(new Event('input')); }})()"
        )
    set_values(page, prompt="a blue square", num="2")
    _, pictures = drawn(page)
    inside = np.zeros((24, 24), bool)
    inside[6:11, 4:13] = True
    for picture in pictures:
        assert np.array_equal(picture[~inside], before[~inside])
        assert not np.array_equal(picture[inside], before[inside])
    box = page.value("(() => { const b = $('work').getBoundingClientRect(); return [b.x, b.y, "
                     "b.width, b.height]; })()")  # fmt: skip
    for kind, x, y in (("mousePressed", 20, 9), ("mouseMoved", 2, 3), ("mouseReleased", 2, 3)):
        page.call(
            "Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1,
            x=box[0] + (x + 0.5) / 24 * box[2], y=box[1] + (y + 0.5) / 24 * box[3],
        )  # fmt: skip
    sides = {"left": 2, "top": 3, "width": 19, "height": 7}
    assert page.value("hole") == sides
    page.value("$('work').focus()")
    page.key("ArrowRight")
    assert page.value("hole") == sides | {"left": 3}
    assert page.value("$('left').value") == "3"
    set_values(page, width="30")
    page.value("$('width').dispatchEvent(new Event('input')); $('words').requestSubmit()")
    page.wait("$('error').textContent.startsWith('the rectangle from 3, 3 is 30 wide')")
    assert all("400 (Bad Request)" in str(error) for error in page.errors)
    page.errors.clear()
    page.value("cut(3, 3, 4, 4)")


def test_a_walk_is_dragged_through(settled):
    page = settled
    choose(page, "walk")
    assert page.value("[$('num').min, $('num').max, $('num').value]") == ["2", "16", "9"]
    set_values(page, last="two blue discs", num="5")
    view, pictures = drawn(page)
    assert (view["mode"], view["last"]) == ("walk", "two blue discs")
    how = {"prompt": "a red disc", "last": "two blue discs", "num": 5}
    assert np.array_equal(pictures, wanted(mode="walk", **how))
    page.value("$('place').focus()")
    page.key("Home")
    for k in range(1, 5):
        page.key("ArrowRight")
        page.wait(f"$('place-out').textContent === '{k + 1} of 5'")
        assert page.value("$('frame').src").endswith(view["pictures"][k])
    page.value("document.querySelectorAll('.pick')[1].click()")
    page.wait("$('place').value === '1'")
    page.value("$('two').click()")
    _, pictures = drawn(page)
    assert np.array_equal(pictures, wanted(mode="walk", two_noises=True, **how))
    choose(page, "draw")
    assert page.value("$('num').value") == "2"  # as it was left


def test_a_question_about_the_picture_is_answered(settled):
    page = settled
    drawn(page)
    set_values(page, question="what colour is the dosc ?")
    page.value("$('asking').requestSubmit()")
    page.wait("/^(Answer: |The model says nothing)/.test($('answer').textContent)")
    assert 'Not known: "dosc". Known words that are close: disc' in page.value(
        "$('answer').textContent"
    )
    assert page.value("$('nobody').hidden")


def test_stop_ends_a_drawing(settled):
    page = settled
    set_values(page, steps="100", num="8")
    page.value("$('words').requestSubmit()")
    page.wait("now.status === 'drawing' && !$('stop').disabled")
    page.value("$('stop').click()")
    page.wait("now.status !== 'drawing'")
    assert page.value("now.status") in ("stopped", "done")  # the last step may have come first
    assert page.value("$('stop').disabled")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits(settled, width, height, scheme):
    """In every mode all that is on the page lies within its width."""
    page = settled
    page.resize(width, height, scheme, touch=width < 500)
    for mode in ("draw", "over", "fill", "walk"):
        choose(page, mode)
        drawn(page)
        assert page.value("document.documentElement.scrollWidth") <= width, mode
        outside = page.value(
            "[...document.querySelectorAll('button, input, output, canvas, summary, p')].filter("
            "(e) => e.offsetParent && !e.closest('.strip')).filter((e) => { const b = "
            f"e.getBoundingClientRect(); return b.left < 0 || b.right > {width}; }})"
            ".map((e) => e.id || e.outerHTML.slice(0, 80))"
        )
        assert outside == [], mode
    page.resize(1280, 900)


def test_everything_on_the_page_has_a_name(settled):
    page = settled
    for mode in ("over", "fill", "walk"):
        choose(page, mode)
        drawn(page)
        tree = page.call("Accessibility.getFullAXTree")["nodes"]
        roles = ("button", "slider", "textbox", "spinbutton", "checkbox", "radio", "image", "img")
        found = [node for node in tree if node.get("role", {}).get("value") in roles]
        names = [node.get("name", {}).get("value", "") for node in found]
        assert len(found) >= 20
        assert all(names), [node for node in found if not node.get("name", {}).get("value")]


@pytest.mark.nightly
def test_axe_finds_nothing_serious_in_the_page(settled):
    page = settled
    for mode, width, scheme in itertools.product(
        ("draw", "over", "fill", "walk"), (1280, 390), ("light", "dark")
    ):
        page.resize(width, 844, scheme, touch=width < 500)
        choose(page, mode)
        set_values(page, prompt="a red trangle")
        drawn(page)
        page.value("document.querySelectorAll('details').forEach((x) => { x.open = true; })")
        assert page.serious() == [], (mode, width, scheme)
    page.resize(1280, 900)
