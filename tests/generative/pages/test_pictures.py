"""Pictures of a page beside those of the model itself, and the server, without a browser."""

import base64
import contextlib
import io
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generative.diffusion.config import ScheduleConfig
from generative.known.captions import WORDS as SCENE_WORDS
from generative.known.picture_talk import PictureTalk
from generative.nets.config import ConditionalUNetConfig, TextEncoderConfig, clip_block
from generative.pages.pictures import Asker, Drawing, Hole, Painter, PictureServer
from generative.pages.pictures.examples import example_prompts
from generative.pages.pictures.requests import MAX_STEPS, checked_drawing, picture_bytes
from generative.text.tokens import with_start
from generative.text_to_image import GLIDEConfig
from generative.training.signals import Stop
from tests.generative.families import FAMILIES
from tests.pages import fetch, tiny_flamingo, watching

WORDS = ("red", "blue", "square", "disc")
CONFIG = GLIDEConfig(
    (3, 8, 8),
    WORDS,
    TextEncoderConfig(8, 6, 1, clip_block(8, 2), causal=False),
    ConditionalUNetConfig(8, (1, 2), head_dim=4, context_dim=8, vector_dim=8),
    ScheduleConfig(max_signal=0.999),
    steps=4,
)


def with_any_weights(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def make(kind="glide"):
    """A model of four words whose weights are anything."""
    torch.manual_seed(0)
    if kind == "glide":
        return with_any_weights(CONFIG.build())
    if kind == "grey":
        return with_any_weights(replace(CONFIG, image_shape=(1, 8, 8)).build())
    config = FAMILIES["LatentDiffusion"].make().config
    return with_any_weights(replace(config, words=WORDS).build())


def generator(seed):
    return torch.Generator().manual_seed(seed)


def generators(n):
    """Those of pictures of the seeds 7, 8 ..."""
    return [generator(7 + k) for k in range(n)]


def pixels(images):
    """Images (B, C, H, W) in [0, 1] as uint8 (B, H, W, 3), by NumPy alone."""
    x = np.rint(np.clip(images.numpy(), 0, 1).astype(np.float32) * np.float32(255))
    return np.broadcast_to(x.astype(np.uint8).transpose(0, 2, 3, 1), (*x.shape[::2], x.shape[3], 3))


def last(painter, request):
    *_, drawn = painter.draw(request)
    return np.stack(drawn)


def some_picture(painter, seed=3):
    _, height, width = painter.image_shape
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


DRAW = Drawing("draw", "red disc", num=3, steps=5, scale=2.5, seed=7)
kinds = pytest.mark.parametrize("kind", ["glide", "grey", "latent"])


# ---------------------------------------------------------------------------------------------
# The painter
# ---------------------------------------------------------------------------------------------


@kinds
def test_pictures_are_samples_of_seeds_in_a_row(kind):
    model = make(kind)
    drawn = last(Painter(model), DRAW)
    wanted = model.sample(["red disc"] * 3, generators(3), steps=5, scale=2.5)
    assert np.array_equal(drawn, pixels(wanted))
    for k in range(3):  # alone, from one generator as everyone has it
        one = model.sample(["red disc"], generators(3)[k], steps=5, scale=2.5)
        assert np.array_equal(last(Painter(model), replace(DRAW, num=1, seed=7 + k)), pixels(one))
        assert np.abs(drawn[k].astype(int) - pixels(one)[0].astype(int)).max() <= 1
    assert not np.array_equal(drawn[0], drawn[1])


def test_each_step_shows_what_the_model_then_expects():
    model = make()
    shown = list(Painter(model).draw(replace(DRAW, num=1)))
    path = list(model.path(["red disc"], generator(7), steps=5, scale=2.5))
    assert len(shown) == len(path) == 5
    for (picture,), step in zip(shown, path, strict=True):
        assert np.array_equal(picture, pixels(model.images(step.data))[0])


@pytest.mark.parametrize(
    ("kind", "strength", "steps"),
    [
        ("glide", 0.0, 1), ("glide", 0.3, 3), ("glide", 1.0, 10), ("grey", 0.5, 5),
        ("latent", 0.5, 5),
    ],
)  # fmt: skip
def test_a_picture_is_drawn_over_as_the_model_does(kind, strength, steps):
    model = make(kind)
    painter = Painter(model)
    picture = some_picture(painter)
    request = replace(DRAW, mode="over", picture=picture, strength=strength, steps=10, num=2)
    shown = list(painter.draw(request))
    assert len(shown) == painter.num_steps(request) == steps
    x = torch.tensor(picture / 255).float().movedim(-1, 0)[None]
    if kind == "grey":
        grey = np.rint(picture.astype(float).mean(-1)).astype(np.uint8)
        x = torch.tensor(grey)[None, None].float() / 255
    x = x.expand(2, -1, -1, -1)
    wanted = model.redraw(x, ["red disc"] * 2, strength, generators(2), 10, 2.5)
    assert np.array_equal(np.stack(shown[-1]), pixels(wanted))


@kinds
def test_filling_in_keeps_every_pixel_around(kind):
    model = make(kind)
    painter = Painter(model)
    picture = some_picture(painter)
    if kind == "grey":
        picture = np.repeat(picture[..., :1], 3, -1)
    hole = Hole(left=2, top=1, width=3, height=5)
    request = replace(DRAW, mode="fill", picture=picture, hole=hole, num=2)
    inside = np.zeros(picture.shape[:2], bool)
    inside[1:6, 2:5] = True
    for drawn in painter.draw(request):
        for one in drawn:
            assert np.array_equal(one[~inside], picture[~inside])
            assert not np.array_equal(one[inside], picture[inside])
    channels = painter.image_shape[0]
    x = torch.tensor(picture).float().movedim(-1, 0)[None, :channels] / 255
    hole = torch.tensor(inside)[None]
    wanted = model.inpaint(
        x.expand(2, -1, -1, -1), hole, ["red disc"] * 2, generators(2), steps=5, scale=2.5
    )
    assert np.array_equal(np.stack(drawn), pixels(wanted))
    one = pixels(model.inpaint(x, hole, ["red disc"], generators(2)[1], steps=5, scale=2.5))[0]
    assert np.abs(drawn[1].astype(int) - one.astype(int)).max() <= 1


@kinds
@pytest.mark.parametrize("two_noises", [False, True])
def test_a_walk_is_the_models_own(kind, two_noises):
    model = make(kind)
    request = replace(DRAW, mode="walk", last="blue square", num=5, two_noises=two_noises)
    drawn = last(Painter(model), request)
    ends = [model.noise(1, generator(seed)) for seed in (7, 7 + two_noises)]
    wanted = model.walk("red disc", "blue square", 5, torch.cat(ends), 5, 2.5)
    assert np.array_equal(drawn, pixels(wanted))


def test_an_empty_prompt_and_unknown_words_are_drawn_all_the_same():
    model = make()
    painter = Painter(model)
    nothing = model.sample([""], generator(7), steps=5, scale=2.5)
    assert np.array_equal(last(painter, replace(DRAW, prompt=" ", num=1))[0], pixels(nothing)[0])
    request = replace(DRAW, mode="walk", prompt="a rad disc", last="xyz disc", num=2)
    assert painter.unknown(request) == {"a": [], "rad": ["red"], "xyz": []}
    assert len(last(painter, request)) == 2
    assert painter.unknown(DRAW) == {}


def test_what_the_model_cannot_draw_is_refused_before_anything_is_drawn():
    painter = Painter(make())
    for request in (
        replace(DRAW, prompt="red disc red disc red"),
        replace(DRAW, mode="walk", last="red, disc, red"),
    ):
        with pytest.raises(ValueError, match="has 5 words and signs, and the model reads at most"):
            painter.check(request)
        with pytest.raises(ValueError, match="shorten it"):
            next(painter.draw(request))
    few = Painter(replace(CONFIG, schedule=ScheduleConfig("linear", num_betas=20)).build())
    few.check(replace(DRAW, steps=20))
    with pytest.raises(ValueError, match="steps is 21; this model has at most 20 noise levels"):
        few.check(replace(DRAW, steps=21))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("Upsampler", "of the class Upsampler, which is told a small image besides a text; pass"),
        ("ImageDecoder", "of the class ImageDecoder, which is told the embedding of an image"),
        ("ImageVAE", "which draws no texts; pass the folder of a model that draws from words"),
    ],
)
def test_models_that_need_more_than_words_are_refused(family, message):
    with pytest.raises(ValueError, match=message):
        Painter(FAMILIES[family].make())


def test_a_model_of_edges_or_without_words_is_refused():
    from generative.text_to_image import ControlNet

    with pytest.raises(ValueError, match="of the class ControlNet, which is told another image"):
        Painter(ControlNet.around(make()))
    with pytest.raises(ValueError, match="this model has no words"):
        Painter(replace(CONFIG, words=()).build())


def test_examples_are_of_words_that_the_model_knows():
    assert "a red square left of a blue disc" in example_prompts(SCENE_WORDS)
    assert example_prompts(("red", "heart", "rocket", "face")) == ["red heart", "rocket"]
    assert example_prompts(("fox", "bear")) == ["fox", "bear"]


# ---------------------------------------------------------------------------------------------
# Questions
# ---------------------------------------------------------------------------------------------


def test_answers_are_the_most_probable_words():
    model, talk = tiny_flamingo(), PictureTalk()
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    answers = set()
    for question in ("what colour is the disc ?", "how many discs", "Where is the red disc?"):
        found = Asker(model, talk.tokeniser).ask(picture, question)
        words = question.lower().replace("?", " ").split()
        tokens = talk.tokeniser.encode(" ".join(["image", *words, "?"]))
        x = torch.tensor(picture).float().movedim(-1, 0)[None, None] / 255
        wanted = []
        for _ in range(6):
            with torch.no_grad():
                logits = model.logits(with_start(torch.tensor([tokens])), x)[0, -1]
            logits[talk.image_token] = -torch.inf
            tokens.append(int(logits.argmax()))
            word = talk.tokeniser.vocabulary[tokens[-1]]
            if word in ("", "eoc") or (wanted and word in ("how", "what", "where", "is", "are")):
                break
            wanted.append(word)
        assert found.text == " ".join(wanted)
        assert found.unknown == {}
        answers.add(found.text)
    assert len(answers) > 1


def test_questions_may_have_unknown_words_but_not_too_many():
    asker = Asker(tiny_flamingo(), PictureTalk().tokeniser)
    picture = np.zeros((32, 32, 3), np.uint8)  # of another size
    unknown = asker.ask(picture, "what coluor is the dog ?").unknown
    assert list(unknown) == ["coluor", "dog"]
    assert unknown["coluor"][0] == "colour"
    with pytest.raises(ValueError, match="the question has 41 words, and the model reads at most"):
        asker.ask(picture, "red " * 41)


def test_others_cannot_be_asked():
    tokeniser = PictureTalk().tokeniser
    with pytest.raises(ValueError, match="of the class TextToImage, which answers no questions"):
        Asker(make(), tokeniser)
    few = replace(tokeniser, vocabulary=tokeniser.vocabulary[:9])
    with pytest.raises(ValueError, match="got 9 words, and the model's GPT has"):
        Asker(tiny_flamingo(), few)


# ---------------------------------------------------------------------------------------------
# Requests
# ---------------------------------------------------------------------------------------------

PICTURE = base64.b64encode(bytes(8 * 8 * 3)).decode()
GOOD = {
    "draw": {"mode": "draw", "prompt": "red disc", "pictures": 2, "steps": 4, "scale": 3, "seed": 1}
}
GOOD["over"] = GOOD["draw"] | {"mode": "over", "picture": PICTURE, "strength": 0.5}
HOLE = {"left": 1, "top": 2, "width": 7, "height": 6}
GOOD["fill"] = GOOD["draw"] | {"mode": "fill", "picture": PICTURE, "hole": HOLE}
GOOD["walk"] = GOOD["draw"] | {"mode": "walk", "last": "blue", "two_noises": False}
BAD = [
    ("draw", {"mode": "paint"}, "mode is 'paint'; send one of draw, over, fill, walk"),
    ("draw", {"mode": ["draw"]}, "mode is ['draw']"),
    ("draw", {"prompt": 3}, "prompt: got 3; send a text"),
    ("draw", {"prompt": "a" * 401}, "prompt: got 401 characters; send at most 400"),
    ("draw", {"pictures": 9}, "pictures: got 9; send a whole number from 1 to 8"),
    ("draw", {"pictures": 10**12}, "pictures: got 1000000000000"),
    ("draw", {"pictures": 0}, "pictures: got 0"),
    ("draw", {"pictures": 2.5}, "pictures: got 2.5"),
    ("walk", {"pictures": 1}, "pictures: got 1; send a whole number from 2 to 16"),
    ("walk", {"pictures": 17}, "pictures: got 17"),
    ("walk", {"two_noises": 1}, "two_noises: got 1; send true or false"),
    ("draw", {"steps": MAX_STEPS + 1}, f"steps: got {MAX_STEPS + 1}; send a whole number from 1"),
    ("draw", {"scale": float("nan")}, "scale: got nan; send a number between 0 and 20"),
    ("draw", {"scale": -0.1}, "scale: got -0.1"),
    ("draw", {"seed": -1}, "seed: got -1"),
    ("draw", {"seed": 2**31}, "seed: got 2147483648"),
    ("draw", {"last": "x"}, "there is no request 'last'; known are prompt, pictures"),
    ("over", {"strength": 1.1}, "strength: got 1.1; send a number between 0 and 1"),
    ("over", {"picture": PICTURE[:-4]}, "picture: got 252 characters; send the 8 by 8 pixels"),
    ("over", {"picture": "!" + PICTURE[1:]}, "picture: this is not base64; send"),
    ("over", {"picture": PICTURE[:-2] + "=="}, "picture: got 190 bytes; send"),
    ("over", {"picture": None}, "picture: got None; send a text"),
    ("fill", {"hole": HOLE | {"left": 2}}, "the rectangle from 2, 2 is 7 wide and 6 high, and the"),
    ("fill", {"hole": HOLE | {"height": 7}}, "the rectangle from 1, 2 is 7 wide and 7 high"),
    ("fill", {"hole": HOLE | {"width": 0}}, "hole: width: got 0; send a whole number from 1"),
    ("fill", {"hole": {"left": 1}}, "hole: top, width, height is missing; send left, top, width"),
    ("fill", {"hole": [1, 2, 3, 4]}, "hole: a request is [1, 2, 3, 4]; send an object of left"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "change", "message"), BAD)
def test_bad_requests_are_told_what_to_send(mode, change, message):
    checked_drawing(GOOD[mode], (3, 8, 8))
    with pytest.raises(ValueError) as caught:
        checked_drawing(GOOD[mode] | change, (3, 8, 8))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("mode", GOOD)
def test_every_value_has_to_be_there(mode):
    for name in GOOD[mode]:
        request = {key: value for key, value in GOOD[mode].items() if key != name}
        with pytest.raises(ValueError, match="mode is None" if name == "mode" else "is missing"):
            checked_drawing(request, (3, 8, 8))
    for nothing in ({}, [], None, 3, "draw"):
        with pytest.raises(ValueError, match="mode is None"):
            checked_drawing(nothing, (3, 8, 8))


# ---------------------------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(painter, asker=None):
    """A server that makes drawings."""
    stop = Stop()
    with PictureServer(painter, asker, "tiny") as server:
        worker = threading.Thread(target=server.serve, args=(stop,))
        worker.start()
        try:
            yield server
        finally:
            stop.signal = True
            worker.join()


def post(server, name, request, **headers):
    return fetch(server, "POST", name, json.dumps(request), **headers)


def read(view):
    """Pictures of a view, uint8 (n, H, W, 3)."""
    return np.stack(
        [np.array(Image.open(io.BytesIO(base64.b64decode(x)))) for x in view["pictures"]]
    )


def until(views, status, number=None):
    """The first view with this status, of a drawing if its number is given."""
    for view in views:
        if view["status"] == status and number in (None, view["drawing"]):
            return view
    raise AssertionError(f"the stream ended before: {status}")


@pytest.fixture
def server():
    asker = Asker(tiny_flamingo(), PictureTalk().tokeniser)
    with serving(Painter(make()), asker) as running:
        yield running


@pytest.mark.parametrize("mode", GOOD)
def test_every_mode_over_the_wire(server, mode):
    with watching(server) as views:
        assert next(views)["status"] == "idle"
        assert post(server, "draw", GOOD[mode]) == (200, b"1")
        view = until(views, "done")
    assert (view["drawing"], view["mode"], view["prompt"]) == (1, mode, "red disc")
    assert view["step"] == view["steps"] == (2 if mode == "over" else 4)
    assert view["seconds"] > 0
    wanted = last(Painter(make()), checked_drawing(GOOD[mode], (3, 8, 8)))
    assert np.array_equal(read(view), wanted)
    assert json.loads(fetch(server, name="view")[1]) == view


def test_the_stream_shows_the_steps(server):
    """The test's own clock: each step waits until the one before was read."""
    original, read_on = server.painter.draw, threading.Semaphore(0)

    def slow(request):
        for pictures in original(request):
            yield pictures
            assert read_on.acquire(timeout=20)

    server.painter.draw = slow
    estimates = list(original(checked_drawing(GOOD["draw"], (3, 8, 8))))
    with watching(server) as views:
        post(server, "draw", GOOD["draw"])
        assert until(views, "drawing")["step"] == 0
        for k in range(3):
            view = next(views)
            assert (view["status"], view["step"]) == ("drawing", 1 + k)
            assert np.array_equal(read(view), np.stack(estimates[k]))
            read_on.release()
        assert np.array_equal(read(until(views, "done")), np.stack(estimates[3]))


def test_a_new_request_stops_the_one_before(server):
    original, begun = server.painter.draw, threading.Event()
    asked = threading.Event()

    def slow(request):
        for pictures in original(request):
            yield pictures
            if request.steps == 50:
                begun.set()
                assert asked.wait(20)

    server.painter.draw = slow
    with watching(server) as views:
        assert post(server, "draw", GOOD["draw"] | {"steps": 50})[1] == b"1"
        assert begun.wait(20)
        for number in (2, 3):  # the second one is never begun
            request = GOOD["draw"] | {"seed": number, "prompt": "blue disc"}
            assert post(server, "draw", request)[1] == b"%d" % number
        asked.set()
        view = until(views, "done")
    assert (view["drawing"], view["prompt"], view["seed"]) == (3, "blue disc", 3)
    # A refused request stops nothing.
    begun.clear()
    asked.clear()
    post(server, "draw", GOOD["draw"] | {"steps": 50})
    assert begun.wait(20)
    assert post(server, "draw", GOOD["draw"] | {"steps": 0})[0] == 400
    assert json.loads(fetch(server, name="view")[1])["status"] == "drawing"
    with watching(server) as views:
        assert post(server, "stop", {})[0] == 200
        asked.set()
        view = until(views, "stopped")
    assert (view["drawing"], view["steps"]) == (4, 50)
    assert view["step"] < 50


def test_unknown_words_are_told_and_the_picture_comes(server):
    with watching(server) as views:
        post(server, "draw", GOOD["draw"] | {"prompt": "rad disc xyz"})
        view = until(views, "done")
    assert view["unknown"] == {"rad": ["red"], "xyz": []}
    assert len(view["pictures"]) == 2


def test_a_drawing_that_fails_is_told_and_the_next_one_comes(server, capfd):
    original = server.painter.draw
    server.painter.draw = lambda request: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with watching(server) as views:
        post(server, "draw", GOOD["draw"])
        assert until(views, "failed")["error"] == "RuntimeError: out of memory"
        server.painter.draw = original
        post(server, "draw", GOOD["draw"])
        assert until(views, "done")["drawing"] == 2
    assert "out of memory" in capfd.readouterr().err


def test_what_the_page_learns_about_the_model(server):
    about = json.loads(fetch(server, name="about")[1])
    assert about["words"] == sorted(WORDS)
    assert about["image_shape"] == [3, 8, 8]
    assert (about["scale"], about["steps"], about["name"]) == (3.0, 4, "tiny")
    assert about["most"]["pictures"] == 8
    assert about["asks"]


def test_questions_over_the_wire(server):
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    request = {
        "question": "what colour is the dosc ?",
        "picture": base64.b64encode(picture.tobytes()).decode(),
    }
    status, content = post(server, "ask", request)
    found, wanted = json.loads(content), server.asker.ask(picture, request["question"])
    assert status == 200
    assert found == {"answer": wanted.text, "unknown": {"dosc": wanted.unknown["dosc"]}}
    assert "disc" in found["unknown"]["dosc"]
    for change, message in (
        ({"question": "  "}, b"the question is empty"),
        ({"question": "red " * 60}, b"the question has 60 words"),
        ({"question": "a" * 401}, b"question: got 401 characters"),
        ({"picture": "AAAA"}, b"picture: got 4 characters"),
        ({"colour": "red"}, b"there is no request 'colour'"),
    ):
        status, text = post(server, "ask", request | change)
        assert status == 400
        assert text.startswith(message)


def test_without_a_model_to_ask_the_page_is_told_how_to_get_one():
    with serving(Painter(make())) as server:
        assert not json.loads(fetch(server, name="about")[1])["asks"]
        status, text = post(server, "ask", {"question": "how many discs ?", "picture": PICTURE})
        assert (status, text) == (
            400, b"there is no model to ask; start the page with --flamingo FOLDER\n"
        )  # fmt: skip


def test_requests_of_others_and_large_ones_are_refused(server):
    for name in ("draw", "stop", "ask"):
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            assert post(server, name, GOOD["draw"], **headers)[0] == 403
        assert fetch(server, "POST", name, "{}", token="guess")[0] == 403
        assert fetch(server, "POST", name, b" " * (server.max_body + 1))[0] == 413
        assert fetch(server, "POST", name, b"{nonsense")[0] == 400
    for name in ("about", "view", "stream", ""):
        assert fetch(server, name=name, Host="evil.example")[0] == 403
    assert fetch(server, name="page.html")[0] == 404
    assert server.max_body == 4096 + picture_bytes((3, 8, 8))
    assert json.loads(fetch(server, name="view")[1])["status"] == "idle"


def test_page_needs_nothing_from_elsewhere(server):
    page = fetch(server)[1].decode()
    assert "://" not in page
    assert "Words to pictures" in page
