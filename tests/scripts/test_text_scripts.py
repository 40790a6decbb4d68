"""Texts for scripts, fine-tuning, and looking into trained models of texts."""

import json
import math
from dataclasses import replace

import pytest
import torch

from generative.data.text import Tokeniser
from generative.known.rules import Rules
from generative.text.bert import BERT
from generative.text.config import BlockConfig, GPTConfig, RecurrentTextConfig
from generative.text.gpt import GPT
from generative.text.recurrent import RecurrentText
from generative.text.t5 import T5
from generative.text.tokens import up_to_end
from generative.training.run import read_result
from scripts import explore, fine_tune_bert, train_bert, train_gpt, train_t5
from scripts.common.text import TextSource, load_texts
from scripts.common.text import score as writer_score
from scripts.explored import text
from scripts.fine_tune_bert import nameless, score
from tests.commands import run_script

torch.set_num_threads(1)
LETTERS = Tokeniser("characters", ("", "[UNK]", *"abcdefgh"))


# ---------------------------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------------------------


def test_separate_texts_keep_the_last_tenth(tmp_path):
    records = [{"title": f"dish{k}", "directions": ["Cook."]} for k in range(20)]
    (tmp_path / "full_format_recipes.json").write_text(json.dumps(records))
    texts = load_texts(TextSource("recipes", data_dir=tmp_path, length=10), 100)
    assert "dish18" not in texts.tokeniser.vocabulary
    assert texts.tokeniser.decode(texts.test[0]) == "recipe for [UNK] | cook ."
    batch = texts.batch(3, 50)
    assert batch.shape == (50, 10)
    assert torch.equal(batch, texts.batch(3, 50))
    assert not torch.equal(batch, texts.batch(4, 50))
    assert not (batch == 1).any()
    assert texts.floor() is None


def test_windows_of_a_long_text(tmp_path):
    (tmp_path / "a.txt").write_text("abcdefghij" * 30)
    source = TextSource("text", text=tmp_path / "a.txt", tokens="characters", length=11)
    texts = load_texts(source, 100)
    for row in texts.batch(0, 20):
        shown = texts.tokeniser.decode(row)
        assert shown in "abcdefghij" * 3
    # The last character of a window is the first of the next: every one is predicted once.
    assert [texts.tokeniser.decode(row) for row in texts.test] == ["abcdefghija"] * 2
    with pytest.raises(ValueError, match="need more than length, 50"):
        load_texts(replace(source, length=50), 100)
    with pytest.raises(ValueError, match=r"has 10 tokens, the model only 5.*vocab-size"):
        load_texts(TextSource("markov"), 5)


@pytest.mark.parametrize("data", ["reviews", "markov", "hidden-markov"])
def test_floors_are_entropies(data):
    texts = load_texts(TextSource(data, length=40), 100)
    floor = texts.floor()
    assert floor is not None
    if data == "hidden-markov":
        expected = -float(texts.source.log_prob(texts.batch(1, 2000)).mean()) / 40
    elif data == "markov":
        expected = texts.source.entropy(40) / 40
    else:
        expected = texts.source.entropy() / (texts.num_test_tokens / 2000)
    assert floor == pytest.approx(expected, rel=0.02)


def test_pairs_of_words_by_rules_of_their_own_and_by_one():
    texts = load_texts(TextSource("rules", length=12), 100)
    rules = texts.source
    assert texts.tokeniser.decode(texts.test[0]).split()[0] in texts.tokeniser.vocabulary[2:10]
    assert texts.floor() == pytest.approx(rules.entropy() / 12, rel=0.02)
    one = load_texts(TextSource("one-rule", length=12), 100)
    assert one.floor() == pytest.approx(math.log(8) / 2)
    words, answers = rules.split(torch.cat([one.test, one.batch(5, 100)]))
    assert all(len(answers[words == w].unique()) == 1 for w in range(8))
    found = one.measure(GPT(GPTConfig(18, 12, 1, BlockConfig(16, 2, 8, 16))).eval())
    assert found["best_accuracy_after_0"] == 1
    assert found["accuracy"] < 0.5
    assert texts.measure(GPT(GPTConfig(18, 12, 1, BlockConfig(16, 2, 8, 16))).eval())[
        "best_accuracy_after_1"
    ] == pytest.approx(float(Rules(num_pairs=6).best().accuracy[1]))
    with pytest.raises(ValueError, match="needs an even one"):
        load_texts(TextSource("rules", length=5), 100)


def test_fine_tuning_a_gpt(tmp_path):
    """It goes on from the weights of another, whose vocabulary has to be the same."""
    smoke = replace(train_gpt.PRESETS["smoke"], data="rules", length=4, prompt="dax", steps=2,
        model=GPTConfig(18, 4, 1, BlockConfig(16, 2, 8, 32)), sample_every=5)  # fmt: skip
    first = train_gpt.main(replace(smoke, out=tmp_path / "first"))
    still = replace(smoke.loss, lr=1e-9, final_lr=1e-9)
    tuned = replace(smoke, out=tmp_path / "tuned", data="one-rule", start_from=first, loss=still)
    a, b = (GPT.from_pretrained(folder).state_dict() for folder in (first, train_gpt.main(tuned)))
    for name, weight in a.items():
        torch.testing.assert_close(weight, b[name], rtol=0, atol=1e-6)
    other = replace(tuned, out=tmp_path / "other", data="markov")
    with pytest.raises(ValueError, match="has 18 tokens, markov as many as 10 or other ones"):
        train_gpt.main(other)


def test_exploring_a_gpt_of_rules(tmp_path):
    smoke = replace(train_gpt.PRESETS["smoke"], data="rules", length=4, prompt="dax", steps=2,
        model=GPTConfig(18, 4, 1, BlockConfig(16, 2, 8, 32)), out=tmp_path / "run")  # fmt: skip
    train_gpt.main(smoke)
    args = replace(explore.PRESETS["smoke"], folder=tmp_path / "run", pictures=tmp_path / "p",
        text=text.Settings(prompts=("dax red",), num_tokens=2))  # fmt: skip
    explore.main(args)
    assert (tmp_path / "p" / "examples.png").is_file()
    found = json.loads((tmp_path / "p" / "explore.json").read_text())
    assert len(found["accuracy_by_examples"]) == 2
    assert found["best_accuracy_by_examples"][0] == 0.125


def test_score_of_a_model_that_knows_nothing():
    texts = load_texts(TextSource("markov", length=8), 10)
    model = RecurrentText(RecurrentTextConfig(10, 4, 4, length=8))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = writer_score(model, texts)
    assert found["test_loss"] == pytest.approx(math.log(10), rel=1e-5)
    assert found["gap"] == pytest.approx(found["test_loss"] - texts.floor())
    model.config = replace(model.config, from_start=False)
    texts.test[:, 4:] = 0
    with torch.no_grad():
        model.head.bias[0] = 5.0
    log_p = model.head.bias.detach().log_softmax(0)
    book = writer_score(model, texts, padding=True)
    # Three letters are not given, then comes the end, and three more zeros.
    assert book["test_loss"] == pytest.approx(-float(3 * log_p[1] + log_p[0]) / 4, rel=1e-5)
    expected = -float(3 * log_p[1] + 4 * log_p[0]) / 7
    assert book["test_loss_with_padding"] == pytest.approx(expected, rel=1e-5)
    assert set(book) == {"test_loss", "test_loss_with_padding"}


def test_tests_of_tasks_are_answered_by_what_was_asked():
    args = train_t5.PRESETS["reviews"]
    pairs = train_t5.make_pairs(args, load_texts(args, 200))
    source, target = pairs.test
    assert source.shape == (1000, 40)
    assert up_to_end(target).sum(1).max() == target.shape[1] == 6
    assert (source != 1).all()
    assert (target != 1).all()

    class Knows:
        """Gives every second answer."""

        def parameters(self):
            return iter([torch.zeros(1)])

        def generate(self, sources, num_tokens):
            rows = target[self.at : self.at + len(sources)].clone()
            rows[1::2] = 0
            self.at += len(sources)
            return rows

        at = 0

    found = pairs.score(Knows())
    assert set(found) == {"right_sum_up", "right_in_order", "right_which_food"}
    assert found["right_sum_up"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="is of data reviews, not of markov"):
        replace(args, data="markov")


@pytest.mark.parametrize("preset", ["book", "corrected"])
def test_the_books_data_and_loss(preset, tmp_path):
    """The book counts what stands behind the end of a review, and gives the first word."""
    words = {"country": "US", "province": "Oregon", "variety": "Pinot", "description": "Ripe. Red."}
    (tmp_path / "winemag-data-130k-v2.json").write_text(json.dumps([words] * 30))
    args = train_gpt.PRESETS[preset]
    block = replace(args.model.block, dim=8, key_dim=4, ff_dim=8)
    args = replace(args, out=tmp_path / "run", data_dir=tmp_path, steps=2, batch_size=4,
        model=replace(args.model, block=block))  # fmt: skip
    model = GPT.from_pretrained(train_gpt.main(args))
    assert model.config.vocab_size == 2 + 9  # wine review us oregon pinot ripe red : .
    assert "wine review" in (tmp_path / "run/texts/samples-000002.txt").read_text()
    texts = load_texts(args, 100)
    x = texts.test[:1]
    assert x.shape == (1, 81 if preset == "book" else 80)
    log_p = model.token_log_probs(x)[0]
    length = int((x != 0).sum()) + 1  # and the end
    expected = -log_p.mean() if preset == "book" else -log_p[:length].mean()
    found = read_result(tmp_path / "run")
    name = "test_loss_with_padding" if preset == "book" else "test_loss"
    assert found[name] == pytest.approx(float(expected.detach()), rel=1e-4)


# ---------------------------------------------------------------------------------------------
# Fine-tuning
# ---------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_fine_tuning_from_a_trained_bert(tmp_path):
    smoke = train_bert.PRESETS["smoke"]
    bert = train_bert.main(replace(smoke, data="reviews", length=40, out=tmp_path / "bert",
        model=replace(smoke.model, vocab_size=200, max_len=41)))  # fmt: skip
    words = ("--start-from", bert, "--out", tmp_path / "classifier")
    done = run_script("fine_tune_bert", "smoke", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = read_result(tmp_path / "classifier")
    assert 0.4 < found["best_accuracy"] <= 1
    assert 0 <= found["test_accuracy"] <= found["best_accuracy"] + 0.02


@pytest.mark.nightly
def test_best_guess_at_a_grape_by_bayes():
    """A classifier that knows the posterior reaches the best accuracy, and no one names a grape."""
    texts = load_texts(TextSource("reviews", length=40), 200)
    rows, labels = nameless(texts.source, texts.tokeniser)
    shown = texts.tokeniser.decode(rows[0])
    assert shown.startswith("wine review : france : bordeaux : [UNK] : a rich red wine")
    posterior: dict[bytes, torch.Tensor] = {}
    for row, label, p in zip(rows, labels.tolist(), texts.source.p, strict=True):
        key = row.numpy().tobytes()
        posterior.setdefault(key, torch.zeros(10, dtype=torch.float64))[label] += p

    class Knows:
        def parameters(self):
            return iter([torch.zeros(1)])

        def logits(self, x):
            return torch.stack([posterior[row.numpy().tobytes()] for row in x])

    found = score(Knows(), texts.source, rows, labels)
    assert found["test_accuracy"] == found["best_accuracy"]
    expected = sum(float(p.detach().max()) for p in posterior.values())
    assert found["best_accuracy"] == pytest.approx(expected, abs=0.03)


# ---------------------------------------------------------------------------------------------
# Exploring
# ---------------------------------------------------------------------------------------------


def save(model, folder) -> None:
    model.eval().save_pretrained(folder / "model")
    LETTERS.save(folder / "vocabulary.json")


def test_exploring_gpt(tmp_path):
    torch.manual_seed(0)
    model = GPT(GPTConfig(10, 16, 2, BlockConfig(16, 2, 8, 16)))
    save(model, tmp_path)
    args = replace(
        explore.PRESETS["smoke"],
        folder=tmp_path / "model", pictures=tmp_path / "pictures", data="markov",
    )  # fmt: skip
    explore.main(args)
    names = {path.stem for path in (tmp_path / "pictures").glob("*.png")}
    assert names == {"next-words", "word-probabilities", "attention", "looking-back"}
    found = json.loads((tmp_path / "pictures" / "explore.json").read_text())
    p = model.logits(torch.tensor([[0, 2, 3]]))[0, -1].softmax(-1).detach()
    name, value = found["next_words"]["ab"]["1.0"][0]
    assert value == pytest.approx(float(p.detach().max()), abs=1e-4)
    assert (LETTERS.vocabulary[int(p.argmax())] or "(end)") == name
    sharper = (p**2 / (p**2).sum()).max()
    assert found["next_words"]["ab"]["0.5"][0][1] == pytest.approx(float(sharper), abs=1e-4)
    assert "temperature 0.5:" in (tmp_path / "pictures" / "samples.txt").read_text()
    with pytest.raises(ValueError, match=r"holds a GPT and nothing tells what to ask it; pass"):
        explore.main(replace(args, data=""))


def test_exploring_the_other_kinds(tmp_path):
    torch.manual_seed(0)
    block = BlockConfig(16, 2, 8, 16)
    models = {
        "rnn": (RecurrentText(RecurrentTextConfig(10, 8, 8, length=8)), ("ab", "")),
        "bert": (BERT(replace(train_bert.PRESETS["smoke"].model, max_len=12)), ("a[MASK]b[MASK]",)),
        "t5": (T5(replace(train_t5.PRESETS["smoke"].model, block=block)), ("abc", "d")),
    }
    expected = {
        "rnn": {"next-words", "word-probabilities"},
        "bert": {"attention", "gaps", "looking-around"},
        "t5": {"cross-attention"},
    }
    for name, (model, prompts) in models.items():
        save(model, tmp_path / name)
        args = replace(
            explore.PRESETS["smoke"], folder=tmp_path / name / "model",
            pictures=tmp_path / name / "pictures",
            text=text.Settings(prompts=prompts, num_tokens=6),
        )  # fmt: skip
        explore.main(args)
        found = {path.stem for path in args.pictures.glob("*.png")}
        assert found == expected[name]
    gaps = json.loads((tmp_path / "bert/pictures/explore.json").read_text())["gaps"]
    assert list(gaps) == ["a ____ b ____"]
    with pytest.raises(FileNotFoundError, match=r"vocabulary\.json: no such file"):
        (tmp_path / "t5/vocabulary.json").unlink()
        explore.main(args)


def test_missing_files_are_named_in_one_line(tmp_path):
    for preset, name in (("book", "winemag-data-130k-v2.json"), ("characters", "data/text.txt")):
        done = run_script("train_gpt", preset, "--out", tmp_path / preset, cwd=tmp_path)
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr
    assert set(train_gpt.PRESETS) >= {"book", "corrected", "smoke"}


def test_fine_tuning_says_what_it_starts_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder; pass one with a BERT"):
        fine_tune_bert.main(
            replace(fine_tune_bert.PRESETS["smoke"], out=tmp_path / "a", start_from=tmp_path / "b")
        )
