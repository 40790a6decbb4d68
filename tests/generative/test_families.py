"""What holds for every family: the verbs of docs/families.md, saving, scripts, resuming."""

import copy
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from generative.training import threads
from generative.training.metrics import read_metrics
from tests.commands import crash, once, run_script, shared_base
from tests.generative.families import FAMILIES

torch.set_num_threads(1)


def having(*verbs: str):
    """Runs a test over the families that have all of these verbs."""
    names = [name for name in FAMILIES if set(verbs) <= FAMILIES[name].verbs]
    return pytest.mark.parametrize("name", names)


def main_families() -> set[str]:
    """The first of each class of models, and those with a command; others are their variants."""
    classes = {type(FAMILIES[name].make()): name for name in reversed(FAMILIES)}
    return {*classes.values(), *(name for name in FAMILIES if FAMILIES[name].script)}


every_family = pytest.mark.parametrize("name", FAMILIES)
MAIN = main_families()
variants_nightly = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in MAIN else pytest.mark.nightly) for n in FAMILIES],
)
"""For what takes long. In every run the variants are trained for some steps by
`test_learner_goes_on_from_its_state`."""
every_script = pytest.mark.parametrize("name", [n for n in FAMILIES if FAMILIES[n].script])


def make(name: str, seed: int = 0):
    """The tiny model with weights that are anything: some layers begin as zeros."""
    torch.manual_seed(seed)
    model = FAMILIES[name].make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


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
    family, model = FAMILIES[name], make(name)
    samples = model.sample(5, generator=generator(1))
    assert samples.shape == (5, *family.examples(1).shape[1:])
    assert samples.dtype == family.examples(1).dtype
    assert samples.isfinite().all()
    low, high = family.sample_range
    assert low <= samples.min()
    assert samples.max() <= high


@having("sample")
def test_a_seed_gives_the_same_samples_and_uses_no_other_generator(name):
    model = make(name)
    state = torch.random.get_rng_state()
    first, again, other = (model.sample(5, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@having("log_prob")
def test_log_prob_is_one_number_an_example(name):
    model, x = make(name), FAMILIES[name].examples(6)
    log_prob = model.log_prob(x)
    assert log_prob.shape == (6,)
    torch.testing.assert_close(model.log_prob(x[2:4]), log_prob[2:4])
    if "bound" not in FAMILIES[name].verbs:  # what is trained is the bound, where there is one
        torch.testing.assert_close(FAMILIES[name].loss(model, x), -log_prob.mean())


@having("bound")
def test_bound_is_one_number_an_example_and_repeats(name):
    model, x = make(name), FAMILIES[name].examples(6)
    bound = model.bound(x, generator=generator(3))
    assert bound.shape == (6,)
    assert torch.equal(model.bound(x, generator=generator(3)), bound)


@having("encode", "decode")
def test_encode_and_decode_fit_together(name):
    model, x = make(name), FAMILIES[name].examples(6)
    z = model.encode(x)
    assert len(z) == 6
    assert model.decode(z).shape == x.shape
    if "reconstruct" not in FAMILIES[name].verbs and "log_prob" in FAMILIES[name].verbs:
        # A flow loses nothing.
        assert (model.decode(z) - x).abs().max() < 1e-5


@having("reconstruct")
def test_reconstructions_have_the_shape_of_images(name):
    x = FAMILIES[name].examples(6)
    assert make(name).reconstruct(x).shape == x.shape


@variants_nightly
def test_overfits_eight_examples(name):
    """It stops where it has come below and stayed there for five steps."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    model = family.make()
    batch = family.to_batch(family.examples(8))
    learner = family.learner(model.train(), family.steps)
    first = learner.update(batch)[family.logged]
    below = 0
    for _ in range(family.steps - 1):
        below = below + 1 if learner.update(batch)[family.logged] < family.below else 0
        if below == 5:
            break
    assert first > family.below
    assert below


@every_family
def test_learner_goes_on_from_its_state(name):
    """The state of step 3 in a fresh learner gives the weights of step 6."""
    family = FAMILIES[name]
    batch = family.to_batch(family.examples(8))
    torch.manual_seed(0)
    whole = family.learner(family.make(), 6)
    for step in range(6):
        torch.manual_seed(step)
        whole.update(batch)
        if step == 2:
            halfway = copy.deepcopy(whole.state_dict())
    resumed = family.learner(family.make(), 6)
    resumed.load_state_dict(halfway)
    for step in range(3, 6):
        torch.manual_seed(step)
        resumed.update(batch)
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@every_family
def test_a_trial_of_threads_leaves_the_learner_as_it_was(name):
    class Seeds:
        seed_for = staticmethod(lambda name, step: step)

    family = FAMILIES[name]
    batch = family.to_batch(family.examples(8))
    learners = []
    for _ in range(2):
        torch.manual_seed(0)
        learners.append(family.learner(family.make().train(), 6))
    learner, twin = learners
    random = torch.get_rng_state()
    threads._try(learner, lambda step: batch, Seeds(), 1)
    assert torch.equal(random, torch.get_rng_state())
    for step in range(2):
        for one in learners:
            torch.manual_seed(step)
            one.update(batch)
    for key, value in learner.model.state_dict().items():
        assert torch.equal(value, twin.model.state_dict()[key]), key


@every_family
def test_saved_and_loaded_model_gives_equal_outputs(name, tmp_path):
    model, x = make(name), FAMILIES[name].examples(4)
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
        FAMILIES[name].loss(make(name), x)


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
