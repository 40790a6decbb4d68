"""Classifiers against logistic regression, which they equal without hidden layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scripts.certified.common import Certificate, Line, Settings

if TYPE_CHECKING:
    from generative.classifier import Classifier

__all__ = ["CERTIFICATES"]


def cnn_digits(settings: Settings) -> list[Line]:
    """Share of 360 test digits that is misclassified."""
    wrong, linear = test_error(trained("digits", settings)), linear_error(settings)
    return [
        Line("error rate on 360 test digits", wrong, linear, "logistic regression", wrong, 0.01)
    ]


def vit_digits(settings: Settings) -> list[Line]:
    """The same of a Vision Transformer, which knows what is beside what by learned positions alone:
    with these exchanged it hardly knows a digit."""
    import torch

    from generative.nets.vit import ViT

    model = trained("digits-vit", settings)
    wrong, linear = test_error(model), linear_error(settings)
    (vit,) = (part for part in model.modules() if isinstance(part, ViT))
    generator = torch.Generator().manual_seed(settings.seed)
    order = 1 + torch.randperm(len(vit.positions) - 1, generator=generator)
    with torch.no_grad():
        vit.positions[1:] = vit.positions[order]
    known = 1 - test_error(model)
    return [
        Line("error rate on 360 test digits", wrong, linear, "logistic regression", wrong, 0.02),
        Line("digits that it knows with its positions exchanged", known, 0.1, "chance", known, 0.5),
    ]


def trained(preset: str, settings: Settings) -> Classifier:
    """A classifier of digits by a preset of train_classifier."""
    from generative.classifier import Classifier
    from scripts import train_classifier

    args = replace(train_classifier.PRESETS[preset], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3)
    return Classifier.from_pretrained(train_classifier.main(args))


def test_error(model: Classifier) -> float:
    """Share of the 360 test digits that is misclassified."""
    import torch

    from generative.data.digits import load_digits

    test = load_digits().part("test")
    labels = torch.from_numpy(test.factors[:, 0])
    with torch.no_grad():
        return float((model.classify(test.as_tensor()) != labels).double().mean())


def linear_error(settings: Settings) -> float:
    """That of logistic regression at its optimum."""
    from generative.data.digits import load_digits

    return logistic_regression_error(load_digits(), 3 if settings.smoke else 500)


def logistic_regression_error(digits, max_iter: int) -> float:
    """Error rate on the test digits of logistic regression at its optimum, with the penalty (of
    ten) that is best on the validation digits."""
    import torch

    from generative.classifier import MLPClassifierConfig

    def fit(parts: tuple[str, ...], penalty: float) -> Classifier:
        known = digits.part(*parts)
        x, labels = known.as_tensor().double(), torch.from_numpy(known.factors[:, 0])
        torch.manual_seed(0)
        model = MLPClassifierConfig((1, 8, 8), 10, ()).build().double()
        optimizer = torch.optim.LBFGS(
            model.parameters(), max_iter=max_iter, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            squares = sum(p.square().sum() for p in model.parameters() if p.dim() > 1)
            loss = model.loss(x, labels).loss + penalty * squares
            loss.backward()
            return loss

        optimizer.step(closure)
        return model

    def error(model: Classifier, part: str) -> float:
        known = digits.part(part)
        labels = torch.from_numpy(known.factors[:, 0])
        with torch.no_grad():
            return float((model.classify(known.as_tensor().double()) != labels).double().mean())

    penalties = [10.0 ** (-0.5 * i) for i in range(4, 14)]
    best = min(penalties, key=lambda penalty: error(fit(("train",), penalty), "val"))
    return error(fit(("train", "val"), best), "test")


CERTIFICATES = {
    "cnn-digits": Certificate("Convolutional classifier", cnn_digits, 2),
    "vit-digits": Certificate("Vision Transformer", vit_digits, 10),
}
