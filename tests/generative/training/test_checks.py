"""What is no tensor is refused where a model needs one, with what it needs."""

import numpy as np
import pytest
import torch

from tests.generative.families import FAMILIES

torch.set_num_threads(1)
TEXTS = ["a red disc", "a blue disc"]
IMAGES = np.zeros((2, 3, 16, 16), np.float32)
X = torch.zeros(2, 3, 16, 16)
CODES = torch.zeros(2, 4, 4, dtype=torch.int64)
CALLS = {
    "CLIP": [
        lambda m: m.encode_text(TEXTS), lambda m: m.similarity(X, TEXTS),
        lambda m: m.classify(X, TEXTS), lambda m: m.loss(X, TEXTS),
    ],
    "DALLE": [
        lambda m: m.sample(TEXTS), lambda m: m.log_prob(TEXTS, CODES),
        lambda m: m.loss(TEXTS, CODES),
    ],
    "Parti": [
        lambda m: m.sample(TEXTS), lambda m: m.sample(TEXTS, guidance=2.0),
        lambda m: m.log_prob(TEXTS, CODES), lambda m: m.loss(TEXTS, CODES),
    ],
    "MUSE": [
        lambda m: m.sample(TEXTS), lambda m: m.sample(TEXTS, guidance=2.0),
        lambda m: m.fill(TEXTS, CODES), lambda m: m.loss(TEXTS, CODES),
    ],
    "GPT": [lambda m: m.generate(TEXTS, 3), lambda m: m.loss(TEXTS), lambda m: m.log_prob(TEXTS)],
    "LSTM of texts": [lambda m: m.generate(TEXTS, 3), lambda m: m.loss(TEXTS)],
    "BERT": [lambda m: m.encode(TEXTS)],
    "T5": [
        lambda m: m.encode(TEXTS), lambda m: m.generate(TEXTS, 3),
        lambda m: m.loss(torch.full((2, 3), 2), TEXTS),
    ],
}  # fmt: skip
TOKENS = [
    pytest.param(name, call, id=f"{name} {number}")
    for name, calls in CALLS.items()
    for number, call in enumerate(calls)
]


@pytest.mark.parametrize(("name", "call"), TOKENS)
def test_texts_are_told_to_be_encoded_first(name, call):
    words = r"tokens that are no tensor, \['a red disc', 'a blue disc'\].*int64 \(B, T\).*encode"
    with pytest.raises(ValueError, match=words):
        call(FAMILIES[name].make().eval())


@pytest.mark.parametrize("name", ["CLIP", "GLIDE", "ConvVAE", "CNNClassifier"])
def test_an_array_of_images_is_refused_by_name(name):
    model = FAMILIES[name].make().eval()
    call = model.encode_image if name == "CLIP" else lambda x: FAMILIES[name].loss(model, x)
    with pytest.raises(ValueError, match=r"are no tensor, ndarray of shape \(2,.*needs float \(B"):
        call(IMAGES)


def test_texts_of_a_text_to_image_model_are_captions():
    model = FAMILIES["GLIDE"].make().eval()
    for wrong in (IMAGES[0, 0], [1, 2], [["red"]]):
        with pytest.raises(ValueError, match=r"got texts .*give a list of captions.*tokeniser"):
            model.sample(wrong)
    assert len(model.sample([])) == len(model.sample(0)) == 0
