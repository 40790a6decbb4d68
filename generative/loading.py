"""The model that a folder holds, whichever family it is of.

model = load_model("runs/realnvp")              # the folder of a run, or the `model` in it
model = load_model("owner/name")                # or a name on the hub
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from generative.training.files import MAX_MODEL_CONFIG_BYTES, read_json
from generative.training.words import with_article

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["MODELS", "load_model", "model_folder"]

MODELS: dict[str, str] = {
    "AttentionGAN": "generative.attention_gan",
    "Autoencoder": "generative.autoencoder",
    "AutoregressivePrior": "generative.priors",
    "BERT": "generative.text",
    "BERTClassifier": "generative.text",
    "Bidirectional": "generative.text",
    "BoltzmannMachine": "generative.rbm",
    "CLIP": "generative.clip",
    "CNNClassifier": "generative.classifier:Classifier",
    "Chain": "generative.flow",
    "Classifier": "generative.classifier",
    "ControlNet": "generative.text_to_image",
    "ConditionalGAN": "generative.gan:GAN",
    "ConvAutoencoder": "generative.autoencoder:Autoencoder",
    "ConvEnergy": "generative.energy:ImageEnergy",
    "ConvVAE": "generative.vae",
    "CycleGAN": "generative.translation",
    "DALLE": "generative.text_to_codes",
    "DeepBeliefNetwork": "generative.rbm",
    "Diffusion": "generative.diffusion",
    "DiffusionPrior": "generative.priors",
    "EDM": "generative.diffusion",
    "FFJORD": "generative.flow",
    "FlowMatching": "generative.flow_matching",
    "Flamingo": "generative.flamingo",
    "GAN": "generative.gan",
    "GLIDE": "generative.text_to_image:TextToImage",
    "GPT": "generative.text",
    "GPTPrior": "generative.codes",
    "Glow": "generative.flow:ImageFlow",
    "ImageDecoder": "generative.text_to_image",
    "ImageDiffusion": "generative.diffusion:Diffusion",
    "ImageEDM": "generative.diffusion:EDM",
    "ImageEnergy": "generative.energy",
    "ImageFlow": "generative.flow",
    "ImageFlowMatching": "generative.flow_matching:FlowMatching",
    "ImageMeanFlow": "generative.flow_matching:MeanFlow",
    "ImageRealNVP": "generative.flow:ImageFlow",
    "ImageVAE": "generative.vae:VAE",
    "Imagen": "generative.text_to_image:TextToImage",
    "KLAutoencoder": "generative.text_to_image",
    "LatentDiffusion": "generative.text_to_image:TextToImage",
    "LinearAutoencoder": "generative.autoencoder:Autoencoder",
    "LinearVAE": "generative.vae",
    "MLPClassifier": "generative.classifier:Classifier",
    "MUSE": "generative.text_to_codes",
    "MeanFlow": "generative.flow_matching",
    "MuseGAN": "generative.musegan",
    "MusicRNN": "generative.music.rnn",
    "MusicTransformer": "generative.music.transformer",
    "Parti": "generative.text_to_codes",
    "Pix2Pix": "generative.translation",
    "NFNet": "generative.flamingo",
    "PixelCNN": "generative.pixelcnn",
    "PixelCNNPrior": "generative.codes",
    "PointDiffusion": "generative.diffusion:Diffusion",
    "PointEDM": "generative.diffusion:EDM",
    "PointEnergy": "generative.energy",
    "PointFlowMatching": "generative.flow_matching:FlowMatching",
    "PointMeanFlow": "generative.flow_matching:MeanFlow",
    "ProGAN": "generative.stylegan",
    "RBM": "generative.rbm",
    "RealNVP": "generative.flow:Chain",
    "RecurrentText": "generative.text",
    "RewardModel": "generative.rlhf",
    "ScoreNetwork": "generative.score_matching",
    "StyleGAN": "generative.stylegan",
    "StyleGAN2": "generative.stylegan:StyleGAN",
    "T5": "generative.text",
    "TextToImage": "generative.text_to_image",
    "Upsampler": "generative.text_to_image",
    "VAE": "generative.vae",
    "VAEGAN": "generative.vae_gan",
    "VQGAN": "generative.codes:VQVAE",
    "VQVAE": "generative.codes",
    "ViTClassifier": "generative.classifier:Classifier",
    "ViTVQGAN": "generative.codes:VQVAE",
    "WGAN": "generative.gan:GAN",
}
"""Module of each class of model, by the name that a saved model carries; with the class, where the
name is that of a recipe which the class builds."""


def load_model(
    folder: Path | str,
    device: torch.device | str = "cpu",
    known: Mapping[str, str] = MODELS,
    advice: str = "",
) -> nn.Module:
    """The model that a folder holds, in evaluation mode.

    Its class is found by name in a table of this project; nothing in the folder can run code.

    Args:
        folder: of a model, or of the run that made it; or owner/name[@revision] on the hub.
        device: where the weights go.
        known: modules of the classes, by name; `worldmodels.loading` knows more of them.
        advice: see `model_folder`.
    Raises:
        FileNotFoundError: there is no such folder, or no model in it; says what makes one.
        DamagedFileError: a file is missing, cut, changed, or does not fit the others.
        ValueError: the model is of a class that is not known.
    """
    from generative.training.pretrained import class_name

    folder = model_folder(folder, advice)
    name = class_name(folder)
    if name not in known:
        raise ValueError(
            f"{folder} holds {with_article(name)}, a class that this version does not know; pass "
            "the folder of a model that it has saved"
        )
    module, _, kind = known[name].partition(":")
    return getattr(import_module(module), kind or name).from_pretrained(folder, device)


def model_folder(folder: Path | str, advice: str = "") -> Path:
    """The folder of the model: the one named, here or on the hub, or `model` in that of a run.

    Args:
        advice: what to do where there is no such folder, if only some commands make what is needed;
            see `generative.training.words.made_by`.
    Raises:
        FileNotFoundError: there is none; says what makes one.
        DamagedFileError: its config.json cannot be read.
    """
    from generative.training.hub import find_folder, where_else
    from generative.training.run import CONFIG_NAME, RESULT_NAME

    folder = find_folder(folder)
    if not folder.is_dir():
        advice = advice or (
            "pass the folder of a run or of a model, which a training command makes (`worldmodels "
            "--help` lists them)"
        )
        raise FileNotFoundError(f"{folder}: no such folder; {advice}{where_else(folder)}")
    if (folder / "model").is_dir():
        return folder / "model"
    agent = next((p for p in (folder / "agent", folder) if (p / "vision").is_dir()), None)
    if agent is not None:
        raise FileNotFoundError(
            f"{folder} holds an agent; pass one of its models: {agent / 'vision'}, "
            f"{agent / 'memory'}, {agent / 'controller'}"
        )
    if not (folder / CONFIG_NAME).exists():
        raise FileNotFoundError(
            f"{folder} holds no model; pass the folder of a run or of its `model`"
        )
    content = read_json(folder / CONFIG_NAME, MAX_MODEL_CONFIG_BYTES)
    if isinstance(content, dict) and "settings" in content:
        command = content.get("kind")
        if (folder / RESULT_NAME).exists():
            raise FileNotFoundError(
                f"{folder} is a run of {command}, which makes no model; pass the run of a training"
            )
        raise FileNotFoundError(
            f"{folder} is a run of {command} that has made no model yet; go on with "
            f"`worldmodels {command} --resume {folder}`"
        )
    return folder
