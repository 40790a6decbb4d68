"""The whole recipe of a Toolformer by command line, killed and continued, and its pictures."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch

from generative.known.tool_questions import Questions
from generative.text import tools as tools_module
from generative.text.gpt import GPT
from generative.text.tools import Candidate, call_losses, find_call
from generative.training.files import MAX_CONFIG_BYTES, write_json
from generative.training.run import Run, read_result
from scripts import explore, train_toolformer
from scripts.train_toolformer import CALLS_NAME, sum_up
from tests.commands import crash, run_script

torch.set_num_threads(1)
SMOKE = train_toolformer.PRESETS["smoke"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, by command line."""
    folder = tmp_path_factory.mktemp("toolformer") / "a run"
    done = run_script("train_toolformer", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_calls_are_kept_by_what_their_results_save(run):
    records = json.loads((run / "calls" / CALLS_NAME).read_text())
    assert len(records) == SMOKE.num_labelled * SMOKE.calls.num_calls
    questions = Questions()
    language = GPT.from_pretrained(run / "language" / "model")
    for record in records[:10]:
        # The call is taken out of the text again, and its gain computed alone.
        before, _, rest = record["text"].partition("[")
        written, _, behind = rest.partition("->")
        call = find_call(before + "[" + written)
        result, _, tail = behind.partition("]")
        found = call_losses(
            language,
            questions.tokeniser,
            [Candidate(before + tail, len(before), call, result)],
        )
        assert float(found.gain) == pytest.approx(record["gain"], abs=1e-3)
    found = read_result(run / "calls")
    assert found == sum_up(records, SMOKE.calls.min_gain)
    assert found["calls_kept"] == found["calls_tried"]
    assert 0 < found["calls_kept_and_right"] == found["calls_right"] < found["calls_tried"]


def test_many_calls_are_read_again(tmp_path):
    """The list of 2,000 texts has more bytes than settings may have."""
    args = replace(SMOKE, out=tmp_path)
    with Run.open(args, tmp_path / "calls", kind="train_toolformer calls") as run:
        record = {"text": "347*185=[CALC(347*185)->64195]64195.", "gain": 1.5, "right": True}
        write_json(run.path / CALLS_NAME, [record] * 20_000)
        run.finish({"calls_tried": 20_000})
    assert (tmp_path / "calls" / CALLS_NAME).stat().st_size > MAX_CONFIG_BYTES
    kept = train_toolformer.label(args, Questions(), [], GPT(SMOKE.model))
    assert kept == [record["text"]] * 20_000


def test_counting_of_calls():
    records = [
        {"right": True, "gain": 1.0}, {"right": True, "gain": 0.2}, {"right": False, "gain": 0.7},
        {"right": False, "gain": -1.0},
    ]  # fmt: skip
    assert sum_up(records, 0.5) == {
        "calls_tried": 4, "calls_right": 2, "calls_kept": 2, "calls_kept_and_right": 1,
    }  # fmt: skip


def test_a_model_that_writes_no_calls_is_told(tmp_path):
    args = replace(SMOKE, out=tmp_path / "run", calls_by="model", language_steps=1)
    with pytest.raises(ValueError, match="none of 0 calls saved"):
        train_toolformer.main(args)


def test_scores_of_a_model_that_makes_the_right_calls():
    """And of one that answers by itself, wrongly."""
    questions = Questions()

    class Knows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = GPT(SMOKE.model).config
            self.weight = torch.nn.Parameter(torch.zeros(1))

    def answers(_model, _tokeniser, prompts, tools, *_):
        if tools is None:
            return [f"{prompt}1." for prompt in prompts]
        found = []
        for prompt in prompts:
            if prompt.startswith("code of "):
                question = questions.fact(prompt[8:13])
            else:
                a, b = prompt[:-1].split("*")
                question = questions.product(int(a), int(b))
            found.append(f"{prompt}{question.call.written(question.answer)}{question.answer}.")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools_module, "answer", answers)
        found = train_toolformer.score(Knows(), questions, 20)
    assert found["products_right_with_tools"] == found["facts_right_with_tools"] == 1
    assert found["products_with_right_call"] == found["facts_with_right_call"] == 1
    assert found["products_right_without_tools"] == found["facts_right_without_tools"] == 0


def outcome(folder) -> dict:
    paths = [
        *folder.glob("**/model/*"),
        *folder.glob("**/result.json"),
        *folder.glob("calls/*s.json"),
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_killed_and_continued_ends_as_if_never_stopped(run, tmp_path):
    stopped, log = tmp_path / "stopped", tmp_path / "log"
    expected = outcome(run)
    assert {"language/result.json", "calls/calls.json", "result.json"} < expected.keys()
    env = crash(stopped / "metrics.jsonl", log, 1, signal.SIGKILL)
    done = run_script("train_toolformer", "smoke", "--out", stopped, **env)
    assert done.returncode == -9, done.stderr
    assert not (stopped / "result.json").exists()
    shutil.rmtree(stopped / "calls")  # as if it had been killed before that stage
    done = run_script("train_toolformer", "smoke", "--out", stopped)
    assert done.returncode == 0, done.stderr
    assert outcome(stopped) == expected


def test_exploring(run, tmp_path):
    args = replace(explore.PRESETS["smoke"], folder=run, pictures=tmp_path / "pictures")
    explore.main(args)
    assert {path.stem for path in (tmp_path / "pictures").glob("*.png")} == {"gains", "curves"}
    text = (tmp_path / "pictures" / "answers.txt").read_text()
    assert text.startswith("with tools:\n")
    assert "code of " in text
    asked = replace(args.toolformer, prompts=("12+7=", "12/7="))
    with pytest.raises(ValueError, match="which the model does not know; ask for products"):
        explore.main(replace(args, toolformer=asked))
    shutil.rmtree(tmp_path / "pictures")
    explore.main(replace(args, toolformer=replace(args.toolformer, prompts=("12+7=",))))
    found = json.loads((tmp_path / "pictures" / "explore.json").read_text())
    assert len(found["answers"]["with tools"]) == 1
    assert found["answers"]["without"][0].startswith("12+7=")
