"""Classifiers against logistic regression, which they equal without hidden layers."""

from __future__ import annotations

from dataclasses import replace

from scripts.certified.common import Certificate, Line, Settings

__all__ = ["CERTIFICATES"]


def cnn_digits(settings: Settings) -> list[Line]:
    """Share of 360 test digits that is misclassified."""
    import torch

    from generative.classifier import Classifier
    from generative.data.digits import load_digits
    from scripts import train_classifier

    args = replace(train_classifier.PRESETS["digits"], out=settings.work, seed=settings.seed)
    if settings.smoke:
        args = replace(args, steps=3)
    model = Classifier.from_pretrained(train_classifier.main(args))
    digits = load_digits()
    test = digits.part("test")
    labels = torch.from_numpy(test.factors[:, 0])
    with torch.no_grad():
        wrong = float((model.classify(test.as_tensor()) != labels).double().mean())
    linear = logistic_regression_error(digits, 3 if settings.smoke else 500)
    return [
        Line("error rate on 360 test digits", wrong, linear, "logistic regression", wrong, 0.01)
    ]


def logistic_regression_error(digits, max_iter: int) -> float:
    """Error rate on the test digits of logistic regression at its optimum, with the penalty (of
    ten) that is best on the validation digits."""
    import torch

    from generative.classifier import Classifier, MLPClassifierConfig

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
}
