"""A trained CLIP: similarity of a batch, classes by their names, search both ways, robustness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

from generative.known.config import CaptionMix
from generative.training.ranges import Checked, Count, CountOrZero
from scripts.common.captions import CaptionData, class_label, load_pairs
from scripts.common.clip import (
    embed_captions,
    embed_images,
    load_vocabulary,
    pair_scores,
    scene_scores,
    zero_shot,
)
from scripts.explored.common import Subject, scale_to

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from generative.clip import CLIP
    from generative.data.caption_tokens import CaptionTokeniser

CLASSES = ("CLIP",)


@dataclass(frozen=True)
class Settings(Checked):
    """CLIP."""

    labels: tuple[str, ...] = ()
    """Classes to choose from, each with its article: "a dress"; if not given, those of the data."""
    template: str = ""
    """Caption with {} in the place of a class, such as "a photo of {}"; if not given, one that was
    trained."""
    queries: tuple[str, ...] = ()
    """Captions to search images for; if not given, some of the data."""
    num_images: Count = 8
    """Pairs in the matrix, and images of the other pictures."""
    pool: Count = 512
    """Images and captions that are searched."""
    batch_size: Count = 128
    """Pairs among which a caption or an image is looked for, in the figures that are returned."""
    classifier_steps: CountOrZero = 300
    """Training steps of the classifier that changed images are shown to as well; 0 for none."""


def explore(subject: Subject, settings: Settings) -> dict[str, Any]:
    """Pictures; returns the loss beside its floor, search, and accuracies on changed images."""
    import torch

    model: CLIP = subject.model
    tokeniser = load_vocabulary(subject.run, subject.folder)
    if subject.data not in get_args(CaptionData):
        raise ValueError(
            f"{subject.folder} was trained on images with captions and data is {subject.data!r}; "
            f"pass --data {', '.join(get_args(CaptionData))}"
        )
    data, shape = cast("CaptionData", subject.data), model.image_shape
    mix = CaptionMix(**subject.setting("mix", {}))
    pairs = load_pairs(
        data, subject.data_dir, shape, mix, "test", subject.setting("max_images", None)
    )
    generator = torch.Generator().manual_seed(subject.seed)
    x, texts, fits = pairs.draw(settings.num_images, generator)
    found = pair_scores(model, tokeniser, pairs, generator, settings.batch_size)
    images, captions = embed_images(model, x), embed_captions(model, tokeniser, texts)
    subject.save_figure("similarity", matrix(x, texts, (images @ captions.T).cpu(), fits))

    many, described, _ = pairs.draw(settings.pool, generator)
    queries = list(settings.queries) or texts[:4]
    subject.save_figure("search", search(model, tokeniser, many, queries, settings.num_images))
    subject.save_figure("captions", best_captions(model, tokeniser, x[:4], described))

    known = known_classes(subject, settings)
    if known is None and settings.labels:
        chances = probabilities(model, tokeniser, x[:4], settings.labels, settings.template or "{}")
        subject.save_figure("zero_shot", bars(x[:4], chances, settings.labels))
    elif known is not None:
        inputs, labels, names, template = known
        shown = torch.randperm(len(inputs), generator=generator)[:4]
        chances = probabilities(model, tokeniser, inputs[shown], names, template)
        subject.save_figure("zero_shot", bars(inputs[shown], chances, names))
        if not settings.labels:
            found |= robustness(subject, settings, inputs, labels, names, template, generator)
    if data == "scenes":
        found |= scene_scores(model, tokeniser, generator, (shape[1] - 24) // 2)
    return found


def known_classes(
    subject: Subject, settings: Settings
) -> tuple[Tensor, Tensor, Sequence[str], str] | None:
    """Test images, their classes, the names of these, and a template; None if none are known."""
    import torch

    if subject.data == "scenes":
        from generative.known.scenes import OBJECTS, draw, one_object

        cells, border = one_object(), (subject.model.image_shape[1] - 24) // 2
        found = draw(cells, border), cells.amin(1), OBJECTS, settings.template or "a {}"
    elif subject.data == "fashion-mnist":
        from generative.data.fashion_mnist import CLASSES as NAMES

        test = subject.images(subject.model.image_shape, max_images=10_000).part("test").thin(1000)
        names = [class_label(name) for name in NAMES]
        labels = torch.from_numpy(test.factors[:, 0])
        found = test.as_tensor(), labels, names, settings.template or "a photo of {}"
    else:
        return None
    return found if not settings.labels else (found[0], found[1], settings.labels, found[3])


def probabilities(
    model: CLIP, tokeniser: CaptionTokeniser, x: Tensor, names: Sequence[str], template: str
) -> Tensor:
    """p(name | image) of images among names in a template, (n, names)."""
    captions = [template.replace("{}", name) for name in names]
    logits = model.logits(embed_images(model, x), embed_captions(model, tokeniser, captions))
    return logits.detach().softmax(1).cpu()


def changed_copies(generator: Any) -> dict[str, Callable[[Tensor], Tensor]]:
    """Ways in which images are changed and stay of their class."""
    import torch
    import torch.nn.functional as F

    def noisy(x: Tensor) -> Tensor:
        return (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)

    return {
        "as_trained": lambda x: x,
        "shifted": lambda x: x.roll((1, 1), (2, 3)),
        "noisy": noisy,
        "darker": lambda x: 0.6 * x,
        "blurred": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1),
    }


def robustness(
    subject: Subject,
    settings: Settings,
    x: Tensor,
    labels: Tensor,
    names: Sequence[str],
    template: str,
    generator: Any,
) -> dict[str, float]:
    """Zero-shot accuracy on changed copies of images, beside that of a classifier of labels.

    The classifier is trained on unchanged images: half of `x`, of which the other half is tested.
    """
    import torch
    from matplotlib.figure import Figure

    tokeniser = load_vocabulary(subject.run, subject.folder)
    order = torch.randperm(len(x), generator=generator)
    train, test = order[: len(x) // 2], order[len(x) // 2 :]
    classifier = None
    if settings.classifier_steps:
        classifier = train_classifier(
            x[train], labels[train], len(names), settings.classifier_steps, generator
        )
    found: dict[str, float] = {}
    for name, change in changed_copies(generator).items():
        copies = change(x[test])
        args = copies, labels[test], names, template
        found[f"zero_shot_{name}"] = zero_shot(subject.model, tokeniser, *args)
        if classifier is not None:
            right = classifier.classify(copies) == labels[test]
            found[f"classifier_{name}"] = float(right.float().mean())
    figure = Figure(figsize=(6, 3), layout="constrained")
    axis, kinds = figure.subplots(), list(changed_copies(generator))
    for offset, who in ((-0.2, "zero_shot"), (0.2, "classifier")):
        values = [found.get(f"{who}_{kind}", 0.0) for kind in kinds]
        axis.bar([i + offset for i in range(len(kinds))], values, 0.38, label=who.replace("_", "-"))
    axis.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axis.set_ylim(0, 1)
    axis.set_ylabel("accuracy")
    axis.legend()
    subject.save_figure("robustness", figure, dpi=100)
    return found


def train_classifier(
    x: Tensor, labels: Tensor, num_classes: int, steps: int, generator: Any
) -> Any:
    """A small convolutional classifier of the labels."""
    import torch

    from generative.classifier import ClassifierLearner, ClassifierLossConfig, CNNClassifierConfig

    config = CNNClassifierConfig(
        cast("tuple[int, int, int]", tuple(x.shape[1:])),
        num_classes,
        (16, 32),
        (3, 3),
        (2, 2),
        32,
        norm_momentum=0.1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = ClassifierLearner(config.build(), ClassifierLossConfig(lr=3e-3), steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (64,), generator=generator)
            learner.update((x[rows], labels[rows]))
    return learner.kept.eval()


# ---------------------------------------------------------------------------------------------
# Figures
# ---------------------------------------------------------------------------------------------


def matrix(x: Tensor, texts: Sequence[str], cosines: Tensor, fits: Tensor) -> Figure:
    """Cosines of every image and caption of a batch; a frame marks captions that fit."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    n = len(x)
    figure = Figure(figsize=(2 + 0.7 * n, 3.2 + 0.7 * n), layout="constrained")
    top, below = figure.subplots(2, 1, height_ratios=(1, n))
    top.imshow(_row(x))
    top.set_axis_off()
    below.imshow(cosines.T.numpy(), vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    for row in range(n):
        for column in range(n):
            value = float(cosines[column, row])
            ink = "white" if abs(value) > 0.7 else "black"  # the ends of the colours are dark
            below.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink)
            if fits[column, row]:
                corner = (column - 0.5, row - 0.5)
                below.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", lw=2))
    below.set_xticks([])
    below.set_yticks(range(n), [_folded(text) for text in texts], fontsize=7)
    return figure


def search(
    model: CLIP, tokeniser: CaptionTokeniser, x: Tensor, queries: Sequence[str], most: int
) -> Figure:
    """The closest images of a pool to each caption, with their cosines."""
    from matplotlib.figure import Figure

    cosines = (embed_captions(model, tokeniser, queries) @ embed_images(model, x).T).cpu()
    best = cosines.topk(min(most, len(x)), 1)
    figure = Figure(figsize=(0.9 * most, 1.4 * len(queries)), layout="constrained")
    axes = figure.subplots(len(queries), 1, squeeze=False)[:, 0]
    for axis, query, rows, values in zip(axes, queries, best.indices, best.values, strict=True):
        axis.imshow(_row(x[rows]))
        axis.set_axis_off()
        shown = " ".join(f"{value:.2f}" for value in values.tolist())
        axis.set_title(f"{query}: {shown}", fontsize=7)
    return figure


def best_captions(
    model: CLIP, tokeniser: CaptionTokeniser, x: Tensor, texts: Sequence[str], most: int = 5
) -> Figure:
    """The closest captions of a pool to each image, with their cosines."""
    texts = list(dict.fromkeys(texts))
    cosines = (embed_images(model, x) @ embed_captions(model, tokeniser, texts).T).cpu()
    best = cosines.topk(min(most, len(texts)), 1)
    names = [[texts[i] for i in row] for row in best.indices.tolist()]
    return _beside(x, best.values, names)


def bars(x: Tensor, chances: Tensor, names: Sequence[str], most: int = 5) -> Figure:
    """Images, and the probabilities of their likeliest classes."""
    best = chances.topk(min(most, len(names)), 1)
    return _beside(x, best.values, [[names[int(i)] for i in row] for row in best.indices])


def _beside(x: Tensor, values: Tensor, names: Sequence[Sequence[str]]) -> Figure:
    """Images, each beside a bar for each of its names."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 * len(x)), layout="constrained")
    axes = figure.subplots(len(x), 2, squeeze=False, width_ratios=(1, 4))
    for (left, right), image, row, called in zip(axes, x, values, names, strict=True):
        left.imshow(_row(image[None]))
        left.set_axis_off()
        right.barh(range(len(called)), row.tolist())
        right.set_yticks(range(len(called)), [_folded(name) for name in called], fontsize=7)
        right.set_xlim(0, 1)
        right.invert_yaxis()
    return figure


def _row(x: Tensor) -> Any:
    from generative.training.pictures import strips

    return strips(x.expand(-1, 3, -1, -1), scale=scale_to(64, x.shape[1:]))


def _folded(text: str, width: int = 40) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
