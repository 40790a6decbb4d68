"""Embeddings for the priors of DALL.E 2, and what a trained prior makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from generative.clip import CLIP
    from generative.data.caption_tokens import CaptionTokeniser
    from generative.known.gaussian_pair import GaussianPair
    from generative.priors import PriorBatch
    from scripts.common.captions import Pairs

__all__ = [
    "CLIPEmbeddings",
    "Embeddings",
    "PairEmbeddings",
    "PriorData",
    "embedding_scores",
    "level_errors",
    "load_embeddings",
]

PriorData = Literal["gaussian-pair", "clip"]
"""Names of the sources: a pair whose law is known, or a CLIP that train_clip trained."""
LEVELS = (-6.0, -3.0, 0.0, 2.0)
"""log SNR at which errors are compared with the least possible."""


class Embeddings(Protocol):
    """Source of embeddings of images and captions."""

    def draw(self, n: int, generator: Generator) -> PriorBatch:
        """Draw n pairs."""
        ...

    def compared(self, batch: PriorBatch, image: Tensor) -> Tensor:
        """Images (n, D) for the captions of a batch in a form whose law tells right from wrong."""
        ...


@dataclass(frozen=True)
class PairEmbeddings:
    """The Gaussian pair: y stands for the caption, z for the image."""

    pair: GaussianPair

    def draw(self, n: int, generator: Generator) -> PriorBatch:
        from generative.priors import PriorBatch

        y, z = self.pair.draw(n, generator)
        return PriorBatch(z, y)

    def compared(self, batch: PriorBatch, image: Tensor) -> Tensor:
        """Images less their mean given the caption, which have one law for all captions."""
        return image.cpu() - self.pair.posterior_mean(batch.text.cpu())


@dataclass(frozen=True)
class CLIPEmbeddings:
    """Embeddings of a trained CLIP, and with `context` the encoded tokens of captions."""

    clip: CLIP
    tokeniser: CaptionTokeniser
    pairs: Pairs
    context: bool

    @property
    def widths(self) -> tuple[int, int, int]:
        """Numbers of an embedding, numbers of an encoded token, and tokens of a caption."""
        config: Any = self.clip.config
        return config.embed_dim, config.text.block.dim, config.text.max_len

    def draw(self, n: int, generator: Generator) -> PriorBatch:
        import torch

        from generative.priors import PriorBatch
        from scripts.common.clip import embed_images

        x, texts, _ = self.pairs.draw(n, generator)
        tokens = self.tokeniser.encode(texts).to(self.clip.log_scale.device)
        with torch.no_grad():
            text, image = self.clip.encode_text(tokens), embed_images(self.clip, x)
            if not self.context:
                return PriorBatch(image, text)
            outputs = cast("Any", self.clip.text).encoder(tokens).outputs
        return PriorBatch(image, text, outputs, tokens != 0)

    def compared(self, batch: PriorBatch, image: Tensor) -> Tensor:
        """Pairs of a caption's embedding and an image's."""
        import torch

        return torch.cat([batch.text.cpu(), image.cpu()], 1)


def load_embeddings(data: PriorData, clip: Path, context: bool, device: Any) -> Embeddings:
    """A source of embeddings.

    Args:
        clip: run of train_clip, of "clip".
        context: encoded tokens are wanted too.
    Raises:
        FileNotFoundError: there is no such run; says what makes one.
    """
    if data == "gaussian-pair":
        from generative.known.gaussian_pair import GaussianPair

        return PairEmbeddings(GaussianPair())
    from generative.clip import CLIP
    from generative.known.config import CaptionMix
    from generative.training.run import CONFIG_NAME, read_config
    from scripts.common.captions import load_pairs
    from scripts.common.clip import load_vocabulary

    if not (clip / CONFIG_NAME).is_file():
        raise FileNotFoundError(
            f"{clip}: no such run; pass --clip with a run of train_clip, which "
            "`worldmodels train_clip` makes"
        )
    settings = read_config(clip)[1]
    model = CLIP.from_pretrained(clip / "model", device)
    pairs = load_pairs(
        settings["data"], Path(settings["data_dir"]), model.image_shape,
        CaptionMix(**settings["mix"]),
    )  # fmt: skip
    return CLIPEmbeddings(model, load_vocabulary(clip, clip), pairs, context)


def level_errors(
    model: Any, pair: GaussianPair, generator: Generator, n: int = 4096
) -> dict[str, float]:
    """Errors of a diffusion prior of the Gaussian pair at some noise levels, with the least ones.

    `mse_LEVEL` is the error given the text and `floor_LEVEL` the least; `alone_mse_LEVEL` and
    `alone_floor_LEVEL` are those without a text. The levels are those of the model's table next to
    `LEVELS`.
    """
    import torch

    from generative.diffusion.schedules import signal_and_noise

    y, z = pair.draw(n, generator)
    eps = torch.randn(z.shape, generator=generator)
    found = {}
    for level in LEVELS:
        table = model.schedule.log_snr(torch.linspace(0, 1, model.schedule.config.num_betas))
        near = float(table[(table - level).abs().argmin()])
        log_snr = torch.full((n,), near)
        signal, rate = (part[:, None] for part in signal_and_noise(log_snr))
        x = model.scale * signal * z + rate * eps
        for name, text in (("", y), ("alone_", torch.zeros_like(y))):
            with torch.no_grad():
                device = next(model.parameters()).device
                data = model.denoise(*(part.to(device) for part in (x, log_snr, text))).cpu()
            found[f"{name}mse_{level:g}"] = float((data / model.scale - z).square().mean())
            found[f"{name}floor_{level:g}"] = pair.denoising_mse(near, text=not name)
    return found


def embedding_scores(
    model: Any, source: Embeddings, generator: Generator, n: int = 500
) -> dict[str, float]:
    """Samples for new captions: their distance from the truth, and cosines.

    `energy_p` is the share of random relabellings that are further apart than samples are from true
    images, which are quantised where the prior quantises; see `Embeddings.compared`.
    `cosine` is that of samples and true images, `cosine_of_text` that of captions and images where
    they can be compared, and `cosine_unrelated` that of samples and images of other captions. A
    mean cosine prefers the mean of the posterior to its samples, so it is no target.
    """
    import torch
    from torch.nn import functional as F

    from generative.known.two_samples import energy_test

    device = next(model.parameters()).device
    batch, other = source.draw(n, generator), source.draw(n, generator)
    _, *given = batch.to(device)
    drawn = model.sample(*given, generator=torch.Generator(device).manual_seed(0)).cpu()
    image, truth = batch.image.cpu(), other.image
    if hasattr(model, "encode"):
        truth = model.decode(model.encode(truth.to(device)))
    ours, known = source.compared(batch, drawn), source.compared(other, truth)
    found = energy_test(ours, known, 199)

    def cosine(a: Tensor, b: Tensor) -> float:
        return float(F.cosine_similarity(a, b).mean())

    scores = {
        "energy_distance": found.distance,
        "energy_p": found.p_value,
        "cosine": cosine(drawn, image),
        "cosine_unrelated": cosine(drawn, image.roll(1, 0)),
    }
    if batch.text.shape == image.shape:
        scores["cosine_of_text"] = cosine(batch.text.cpu(), image)
    return scores
