"""What holds for every family: the verbs of docs/families.md, saving, scripts, resuming."""

import copy
import functools
import importlib
import json
import shlex
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.training import threads
from generative.training.cli import parse
from generative.training.ending import describe_run
from generative.training.metrics import read_metrics
from tests.commands import crash, once, run_script, shared_base
from tests.generative.families import FAMILIES

torch.set_num_threads(1)


def having(*verbs: str):
    """Runs a test over the families that have all of these verbs."""
    names = [name for name in FAMILIES if set(verbs) <= FAMILIES[name].verbs]
    return pytest.mark.parametrize("name", names)


def without_variants() -> set[str]:
    """The first of each class of models, and those with a command; others are their variants."""
    classes = {type(FAMILIES[name].make()): name for name in reversed(FAMILIES)}
    return {*classes.values(), *(name for name in FAMILIES if FAMILIES[name].script)}


every_family = pytest.mark.parametrize("name", FAMILIES)


def one_of_each_learner() -> set[str]:
    """The first with a command, or the first, of the families that a class of learners trains."""
    ordered = sorted(FAMILIES, key=lambda name: not FAMILIES[name].script)
    kinds = {type(fresh_learner(name)[0]): name for name in reversed(ordered)}
    return set(kinds.values())


def fresh_learner(name: str):
    """Of a run of 6 steps, and what it is trained on."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    learner = family.learner(family.make().train(), 6)
    return learner, family.to_batch(family.examples(8))


def others_nightly(some: set[str], without: str = ""):
    """Runs a test over these families, and every night over all but the one to leave out."""
    marks = {True: (), False: pytest.mark.nightly}
    names = [name for name in FAMILIES if name != without]
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=marks[name in some]) for name in names]
    )


MAIN = without_variants()
variants_nightly = others_nightly(MAIN)
"""For what takes long. In every run the variants are trained for some steps by
`test_learner_goes_on_from_its_state`."""
KINDS = one_of_each_learner()
learners_once = others_nightly(KINDS)
"""For what is the learner's, and hardly its model's."""
every_script = pytest.mark.parametrize("name", [n for n in FAMILIES if FAMILIES[n].script])


def make(name: str, seed: int = 0):
    """The tiny model with weights that are anything: some layers begin as zeros."""
    torch.manual_seed(seed)
    model = FAMILIES[name].make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


@functools.cache
def made(name: str):
    """What `make` returns, once, for tests that do not change it."""
    return make(name)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@having("loss")
def test_gradients_reach_every_parameter(name):
    model = make(name).train()
    FAMILIES[name].loss(model, FAMILIES[name].examples(8)).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@having("sample")
def test_samples(name):
    family, model = FAMILIES[name], made(name)
    samples = model.sample(5, generator=generator(1))
    assert samples.shape == (5, *family.examples(1).shape[1:])
    assert samples.dtype == family.examples(1).dtype
    assert samples.isfinite().all()
    low, high = family.sample_range
    assert low <= samples.min()
    assert samples.max() <= high


@having("sample")
def test_a_seed_gives_the_same_samples_and_uses_no_other_generator(name):
    model = made(name)
    state = torch.random.get_rng_state()
    first, again, other = (model.sample(5, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@having("log_prob")
def test_log_prob_is_one_number_an_example(name):
    model, x = made(name), FAMILIES[name].examples(6)
    log_prob = model.log_prob(x)
    assert log_prob.shape == (6,)
    torch.testing.assert_close(model.log_prob(x[2:4]), log_prob[2:4])
    if "bound" not in FAMILIES[name].verbs:  # what is trained is the bound, where there is one
        torch.testing.assert_close(FAMILIES[name].loss(model, x), -log_prob.mean())


@having("bound")
def test_bound_is_one_number_an_example_and_repeats(name):
    model, x = made(name), FAMILIES[name].examples(6)
    bound = model.bound(x, generator=generator(3))
    assert bound.shape == (6,)
    assert torch.equal(model.bound(x, generator=generator(3)), bound)


@having("encode", "decode")
def test_encode_and_decode_fit_together(name):
    model, x = made(name), FAMILIES[name].examples(6)
    z = model.encode(x)
    assert len(z) == 6
    assert model.decode(z).shape == x.shape
    if "reconstruct" not in FAMILIES[name].verbs and "log_prob" in FAMILIES[name].verbs:
        # A flow loses nothing.
        assert (model.decode(z) - x).abs().max() < 1e-5


@having("reconstruct")
def test_reconstructions_have_the_shape_of_images(name):
    x = FAMILIES[name].examples(6)
    assert made(name).reconstruct(x).shape == x.shape


def fit_eight_examples(name: str, share: float) -> tuple[float, float, int]:
    """The first value, what it has to come below, and for how many steps on end it did; 5 suffice.

    Args:
        share: of the way from the first value to the family's `below`.
    """
    family = FAMILIES[name]
    torch.manual_seed(0)
    model = family.make()
    batch = family.to_batch(family.examples(8))
    learner = family.learner(model.train(), family.steps)
    first = learner.update(batch)[family.logged]
    bar, below = first + share * (family.below - first), 0
    for _ in range(family.steps - 1):
        below = below + 1 if learner.update(batch)[family.logged] < bar else 0
        if below == 5:
            break
    return first, bar, below


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in KINDS else pytest.mark.nightly)
        for name in FAMILIES
        if name in MAIN
    ],
)
def test_comes_half_the_way_to_eight_examples(name):
    """One of each kind in every run; `test_overfits_eight_examples` goes the whole way."""
    first, bar, below = fit_eight_examples(name, 0.5)
    assert first > bar
    assert below


@pytest.mark.nightly
@every_family
def test_overfits_eight_examples(name):
    """It stops where it has come below and stayed there for five steps."""
    first, bar, below = fit_eight_examples(name, 1.0)
    assert first > bar
    assert below


def assert_same(ours, theirs, where: str = "") -> None:
    """States of learners are equal to the bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, (list, tuple)):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_same(*pair, f"{where}.{i}")
    else:
        assert ours == theirs, where


def update(learner, batch, step: int) -> None:
    torch.manual_seed(step)
    learner.update(batch)


@functools.cache
def states(name: str) -> tuple[tuple[dict, dict], ...]:
    """States of an undisturbed model and learner after 1, 3 and 4 steps; do not change them."""
    learner, batch = fresh_learner(name)
    found = []
    for step in range(4):
        update(learner, batch, step)
        found.append(copy.deepcopy((learner.model.state_dict(), learner.state_dict())))
    return found[0], found[2], found[3]


@every_family
def test_learner_goes_on_from_its_state(name):
    """The state of step 3 in a fresh learner gives the weights and the state of step 4."""
    _, halfway, end = states(name)
    resumed, batch = fresh_learner(name)
    resumed.load_state_dict(copy.deepcopy(halfway[1]))
    update(resumed, batch, 3)
    assert_same((resumed.model.state_dict(), resumed.state_dict()), end)


@learners_once
def test_a_trial_of_threads_leaves_the_learner_as_it_was(name, monkeypatch):
    """A trial of two steps is the shortest."""
    monkeypatch.setattr(threads, "TRIALS", 2)

    class Seeds:
        seed_for = staticmethod(lambda name, step: step)

    learner, batch = fresh_learner(name)
    random = torch.get_rng_state()
    threads._try(learner, lambda step: batch, Seeds(), 1)
    assert torch.equal(random, torch.get_rng_state())
    update(learner, batch, 0)
    assert_same((learner.model.state_dict(), learner.state_dict()), states(name)[0])


@every_family
def test_saved_and_loaded_model_gives_equal_outputs(name, tmp_path):
    model, x = made(name), FAMILIES[name].examples(4)
    model.save_pretrained(tmp_path / "a model")
    again = type(model).from_pretrained(tmp_path / "a model")
    assert again.config == model.config
    has = FAMILIES[name].verbs
    if "sample" in has:
        samples = [m.sample(4, generator=generator(0)) for m in (model, again)]
        assert torch.equal(*samples)
    if "log_prob" in has:
        assert torch.equal(model.log_prob(x), again.log_prob(x))
    if "reconstruct" in has:
        assert torch.equal(model.reconstruct(x), again.reconstruct(x))


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name in FAMILIES for i in range(len(FAMILIES[name].wrong))]
)
def test_wrong_input_is_told_what_it_is_and_what_is_needed(name, number):
    x, message = FAMILIES[name].wrong[number]
    with pytest.raises(ValueError, match=message):
        FAMILIES[name].loss(made(name), x)


# ---------------------------------------------------------------------------------------------
# Scripts
# ---------------------------------------------------------------------------------------------


def outcome(run) -> dict:
    """All that a run came to, but for the time it took."""
    lines = [{**line, "time": None} for line in read_metrics(run)]
    files = [*(run / "model").iterdir(), *run.glob("images/*"), *run.glob("texts/*")]
    return {
        "lines": lines,
        "files": {str(path.relative_to(run)): path.read_bytes() for path in files},
        "result": json.loads((run / "result.json").read_text()),
    }


@pytest.fixture
def undisturbed(name, tmp_path_factory) -> tuple[Path, list[str]]:
    """A smoke run by command line and the words that made it; do not change it."""

    def make(folder):
        folder.mkdir()
        words = ["smoke", *map(str, FAMILIES[name].words(folder))]
        (folder / "words.json").write_text(json.dumps(words))
        done = run_script(FAMILIES[name].script, *words, "--out", folder / "a run", cwd=folder)
        assert done.returncode == 0, done.stderr

    folder = once(shared_base(tmp_path_factory), f"smoke of {name}", make)
    return folder / "a run", json.loads((folder / "words.json").read_text())


@every_script
def test_smoke_by_command_line(name, undisturbed):
    run, _ = undisturbed
    found = outcome(run)
    assert found["lines"]
    values = [value for value in found["result"].values() if isinstance(value, int | float)]
    assert values
    assert np.isfinite(values).all()
    before = (run / "result.json").stat().st_mtime_ns
    model = type(FAMILIES[name].make()).from_pretrained(run / "model")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert (run / "result.json").stat().st_mtime_ns == before


@every_script
def test_the_command_to_try_next_takes_the_run(name, undisturbed):
    """It parses, what it reads is there, and an explorer knows the model."""
    run, _ = undisturbed
    *_, line = describe_run(run).splitlines()
    program, verb, *words = shlex.split(line.partition("next")[2])
    assert program == "worldmodels"
    script = importlib.import_module(f"scripts.{verb}")
    args = parse(script.PRESETS, getattr(script, "DEFAULT_PRESET", None), argv=words)
    values = [value if isinstance(value, tuple) else (value,) for value in vars(args).values()]
    paths = [path for value in values for path in value if isinstance(path, Path)]
    read = [path for path in paths if run in (path, *path.parents)]
    assert read
    assert all(path.exists() for path in read)
    if verb == "explore":
        script.kind_of(script.open_subject(args), args)


KILLED = {"ConvVAE", "GPT", "Glow", "ImageDiffusion", "MuseGAN, held notes", "PointEnergy", "RBM"}
"""One of each kind of learner is killed in every test run, and the others every night."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in KILLED else pytest.mark.nightly)
        for name in FAMILIES
        if FAMILIES[name].script
    ],
)
def test_killed_and_continued_ends_as_if_never_stopped(name, undisturbed, tmp_path):
    """First by SIGTERM, after which the step is finished and saved, then by SIGKILL.

    Both when it is about to log its first metrics: steps are done, and others are to come.
    """
    whole, words = undisturbed
    stopped, log = tmp_path / "stopped", tmp_path / "log"
    command = (FAMILIES[name].script, *words, "--out", stopped)
    for number, status in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -9)):
        done = run_script(*command, **crash(stopped / "metrics.jsonl", log, 1, number))
        assert done.returncode == status, done.stderr
    assert not (stopped / "result.json").exists()
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    assert outcome(stopped) == outcome(whole)


def test_time_is_the_only_thing_left_out_of_an_outcome(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": time.time()}) + "\n")
    (tmp_path / "result.json").write_text("{}")
    assert outcome(tmp_path) == {"lines": [{"step": 1, "time": None}], "files": {}, "result": {}}
