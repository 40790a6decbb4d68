"""Docstrings open with a verb or a noun, and their examples run as they stand: on tiny models, with
the names that they leave to the reader, and with a stand-in that only checks its arguments where a
call would take minutes."""

from __future__ import annotations

import ast
import importlib
import random
import re
import runpy
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, create_autospec

import gymnasium
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from generative.training.pretrained import Pretrained
from tests.commands import ROOT
from tests.generative.families import FAMILIES
from tests.pages import tiny_flamingo
from tests.tiny_dalle2 import tiny_dalle2

torch.set_num_threads(1)

PACKAGES = ("generative", "worldmodels", "envs", "agents")
TINY = {type(family.make()): family for family in reversed(FAMILIES.values())}
"""The tiny form of each class of model."""


def paragraphs(docstring: str) -> Iterator[str]:
    """Those that are Python and do something; a paragraph of prose never is."""
    for paragraph in re.split(r"\n\s*\n", docstring.partition("\n")[2]):
        code = textwrap.dedent(paragraph)
        try:
            nodes = [*ast.walk(ast.parse(code))]
        except SyntaxError:
            continue
        if any(isinstance(node, (ast.Call, ast.Assign, ast.With, ast.ClassDef)) for node in nodes):
            yield code


def docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    """That of a module, a class or a function, and those of what is defined in it."""
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from docstrings(child)


def find_examples() -> dict[str, str]:
    """The code in the docstrings of each module that has some, by the module's name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            texts = docstrings(ast.parse(path.read_text(encoding="utf-8")))
            code = "\n".join(code for text in texts for code in paragraphs(text))
            if code:
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = code
    return found


EXAMPLES = find_examples()


def load(name: str) -> Any:
    """An object by "module:name"."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def names(module: str, *wanted: str) -> dict[str, Any]:
    """Names that a reader imports from another module."""
    return {name: load(f"{module}:{name}") for name in wanted}


def stands_in(module: str, *wanted: str) -> dict[str, Any]:
    """What checks its arguments and does nothing, for calls that take minutes."""
    return {name: create_autospec(load(f"{module}:{name}")) for name in wanted}


def tokens(rows: int = 4, length: int = 8) -> torch.Tensor:
    return torch.randint(2, 10, (rows, length))


# ---------------------------------------------------------------------------------------------
# What the examples leave to the reader, by module; each is given a folder of its own
# ---------------------------------------------------------------------------------------------


def given_music(folder: Path) -> dict[str, Any]:
    [score] = load("generative.data.tunes:tunes")(3).part("train").scores
    melody = score.part(0)
    for name in ("bach.mid", "suite.mid"):
        melody.write_midi(folder / name)
    (folder / "suite.krn").write_text("**kern\n*M3/4\n=1\n4d\n4f#\n4g\n*-\n")
    (folder / "reels.abc").write_text("X:1\nL:1/4\nK:G\nGAB|\n\nX:2\nL:1/4\nK:D\nDEF|\n")
    voices = np.random.default_rng(0).integers(50, 60, size=(2, 32, 2))
    return {
        "score": melody,
        "streams": load("generative.music.tokens:streams_of_score")(melody),
        "samples": voices,
        "chorales": voices,
        "run": SimpleNamespace(metrics=MagicMock()),
        "step": 1,
    }


def given_runs(folder: Path) -> dict[str, Any]:
    TINY[load("generative.flow:Chain")].make().save_pretrained(
        folder / "runs" / "realnvp" / "model"
    )
    return {}


def given_grown(_folder: Path) -> dict[str, Any]:
    gan = load("generative.stylegan:ProGANConfig")((3, 16, 16), 8, 128, 8).build()
    inputs = {"z": torch.randn(4, 8), "images": torch.rand(4, 3, 8, 8)}
    return inputs | {"generator": gan.generator, "critic": gan.critic}


def given_rlhf(folder: Path) -> dict[str, Any]:
    return {
        "policy": TINY[load("generative.text.gpt:GPT")].make(),
        "config": load("generative.text.config:TextLossConfig")(),
        "steps": 3,
        "demonstrations": tokens(),
        "ranked": tokens(8).view(4, 2, 8),
        "prompts": tokens(8, 1),
        **names("generative.rlhf", "TextPPOConfig"),
    }


def given_requests(folder: Path) -> dict[str, Any]:
    config = load("generative.text.config:GPTConfig")
    requests = load("generative.known.requests:Requests")()
    block = load("generative.text.config:BlockConfig")(dim=8, num_heads=2, ff_dim=8)
    length = requests.texts.shape[-1]
    model = load("generative.text.gpt:GPT")(
        config(vocab_size=requests.vocab_size, max_len=length, block=block)
    )
    return {"sft": model, "policy": model}


def given_memory(folder: Path) -> dict[str, Any]:
    memory = load("worldmodels.memory.loading:load_memory")(
        ROOT / "pretrained/carracing-dream/memory"
    )
    rng, rows = np.random.default_rng(0), 300
    rewards, actions = rng.normal(size=rows), rng.uniform(0, 1, size=(rows, 3))
    rewards[[149, 299]] = actions[[149, 299]] = 0  # frames after the last decision
    encoded = load("worldmodels.sequences:EncodedRollouts")(
        mu=rng.normal(size=(rows, 32)).astype(np.float16),
        logvar=np.full((rows, 32), -9, np.float16),
        actions=actions.astype(np.float32),
        rewards=rewards.astype(np.float32),
        terminated=np.zeros(rows, bool),
        starts=np.array([0, 150, 300]),
    )
    b, t = 2, 5
    controller = load("worldmodels.controller:LinearController")
    return {
        "memory": memory,
        "encoded": encoded,
        "driver": load("worldmodels.memory.scores:Driver")(
            controller.from_pretrained(ROOT / "pretrained/carracing-dream/controller"),
            memory,
            load("worldmodels.dreaming.starts:warm_up")(memory, encoded),
        ),
        "z": torch.randn(b, t, 32),
        "next_z": torch.randn(b, t, 32),
        "action": torch.rand(b, t, 3),
        "actions": torch.rand(2, t, 3),
        "reward": torch.zeros(b, t),
        "z_next": torch.randn(b, 32),
        "action_next": torch.rand(b, 3),
        "x": torch.rand(2, 3, 64, 64),
        "frames": np.zeros((2, 64, 64, 3), np.uint8),
    }


def given_importers(folder: Path) -> dict[str, Any]:
    from tests.worldmodels import foreign_weights as foreign

    foreign.json_folder(folder / "WorldModelsExperiments" / "carracing")
    foreign.experiment_folder(folder / "exp_dir")
    d, h = foreign.D, foreign.H
    state = {"z": torch.zeros(1, d), "h": torch.zeros(1, h), "c": torch.zeros(1, h)}
    return state | {"frames": np.zeros((1, 64, 64, 3), np.uint8)}


class ShortRace(gymnasium.Env):
    """Black frames of the size of CarRacing's, without the game that draws them."""

    frame = np.zeros((96, 96, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        return self.frame, {}

    def step(self, action):
        return self.frame, 0.0, False, False, {}


def given_agent(folder: Path) -> dict[str, Any]:
    agent = load("agents.world_model_agent:WorldModelAgent").from_pretrained(
        ROOT / "pretrained/carracing-dream"
    )
    return {
        "agent": agent,
        "obs": np.zeros((96, 96, 3), np.uint8),
        "state": None,
        "start": True,
        "env": gymnasium.make("CartPole-v1"),
        "gymnasium": SimpleNamespace(make=lambda _: ShortRace()),
        "folder": folder,
        "session": MagicMock(),
        "run_folder": folder,
        "agent_folder": folder,
        "evaluation": None,
        "record": load("agents.report:RoundRecord")(
            0, 100, None, None, 1.0, 0.1, 50.0, 30, 3000, 3, [500.0]
        ),
    }


def given_training(folder: Path) -> dict[str, Any]:
    model = TINY[load("generative.vae:VAE")].make()
    batch = TINY[type(model)].examples(4)
    settings = load("tests.generative.training.small_script:Args")
    return {
        "model": model,
        "batch": batch,
        "learner": TINY[type(model)].learner(model, 2),
        "batches": [1, 2],
        "steps": 2,
        "step": 1,
        "args": settings(out=folder / "run"),
        "run": SimpleNamespace(metrics=MagicMock()),
        "save": lambda: None,
        "Args": settings,
        **names("torch.optim.swa_utils", "AveragedModel"),
    }


def given_diffusion(folder: Path) -> dict[str, Any]:
    schedules, exact = "generative.diffusion.schedules", "generative.diffusion.exact"
    schedule = load(f"{schedules}:Schedule")()
    toy = names("generative.known.densities", "Standardised", "TwoMoons")
    return {
        **toy,
        "schedule": schedule,
        "denoise": load(f"{exact}:MixtureDenoiser").of(toy["Standardised"](toy["TwoMoons"]())),
        "x": torch.randn(4, 2),
        "x_t": torch.randn(4, 2),
        "log_snr": torch.zeros(4),
        "model": load("generative.diffusion.config:PointDiffusionConfig")(
            hidden_dim=8, num_hidden=1
        ).build(),
        "density": toy["Standardised"](toy["TwoMoons"]()),
    }


def given_guidance(folder: Path) -> dict[str, Any]:
    model = FAMILIES["GLIDE"].make()
    tokens = torch.tensor([[2, 4, 6, 3, 0, 0]]).repeat(16, 1)
    told, nothing = model.told(tokens), model.told(torch.zeros_like(tokens))
    return {"model": model.diffusion, "told": told, "nothing": nothing}


def given_lines(folder: Path) -> dict[str, Any]:
    toy = names("generative.known.densities", "Standardised", "TwoMoons")
    return {
        **toy,
        "x_t": torch.randn(4, 2),
        "t": torch.full((4,), 0.2),
        "r": torch.full((4,), 0.7),
        "flow": FAMILIES["PointFlowMatching"].make(),
        "model": FAMILIES["PointMeanFlow"].make(),
        "density": toy["Standardised"](toy["TwoMoons"]()),
    }


def given_known(folder: Path) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    seen = torch.rand(100, 64, generator=generator) < 0.5
    model = TINY[load("generative.flow:Chain")].make()
    return {
        "model": model,
        "seen": seen,
        "generator": generator,
        "density": load("generative.known.densities:Standardised")(
            load("generative.known.densities:TwoMoons")()
        ),
        "energy": lambda x: x.square().sum(1) / 2,
        "grid": load("generative.known.quadrature:Grid")((-8.0, -8.0), (8.0, 8.0), (64, 64)),
        "data": torch.randn(600, 2, generator=generator),
        "model_images": np.zeros((2, 32, 32, 3), np.uint8),
        "rng": np.random.default_rng(0),
        **names("generative.known.sprites", "sprites"),
        **names("generative.known.quadrature", "divergence"),
    }


def given_points(folder: Path) -> dict[str, Any]:
    settings = SimpleNamespace(batch_size=8)
    run = SimpleNamespace(config=settings, device="cpu", seed_for=lambda *purpose: 1)
    return {"run": run, "step": 0, "flow": TINY[load("generative.flow:Chain")].make()}


def given_data(folder: Path) -> dict[str, Any]:
    faces = SimpleNamespace(factors=np.zeros((2, 2), np.int64), factor_names=("Male", "Smiling"))
    return {
        **names("generative.data.digits", "load_digits"),
        "folder": folder,
        "texts": ["Recipe for ham", "Recipe for peas"],
        "model_images": np.zeros((2, 32, 32, 3), np.uint8),
        "load_celeba": create_autospec(
            load("generative.data.celeba:load_celeba"), return_value=faces
        ),
        **stands_in("generative.data.download", "download"),
        "load_music21_chorales": create_autospec(
            load("generative.data.music21_chorales:load_music21_chorales"),
            return_value=load("generative.data.tunes:tunes")(3),
        ),
    }


def given_captioned(folder: Path) -> dict[str, Any]:
    for i in range(3):
        Image.new("RGB", (8, 8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a picture")
    return {"folder": folder, "generator": torch.Generator().manual_seed(0)}


def given_scenes(folder: Path) -> dict[str, Any]:
    """Noisy pictures, pictures of one caption, and a sampler that is always right."""
    caption = "three red discs"
    world = load("generative.known.captioned_scenes:CaptionedScenes")(part="all")
    draw = load("generative.known.scenes:draw")
    images = draw(world.scenes([caption] * 420))
    return {
        "x_t": torch.randn(2, 3, 24, 24),
        "log_snr": torch.zeros(2),
        "generator": torch.Generator().manual_seed(0),
        "images": images,
        "captions": [caption] * len(images),
        "sample": lambda captions: draw(world.scenes(captions)),
    }


def given_attention(folder: Path) -> dict[str, Any]:
    nets = "generative.nets"
    return {
        "x": torch.randn(2, 10, 256),
        "memory": torch.randn(2, 7, 256),
        "term": load(f"{nets}.relative:RelativePositions")(4, 64, max_distance=31),
    }


def given_relative(folder: Path) -> dict[str, Any]:
    attention = load("generative.nets.attention:MultiHeadAttention")
    return {"x": torch.randn(2, 10, 64), "attention": attention(64, num_heads=4, causal=True)}


def given_unet(folder: Path) -> dict[str, Any]:
    settings = load("generative.nets.config:UNetConfig")
    return {
        "x_t": torch.randn(4, 3, 16, 16),
        "log_snr": torch.zeros(4),
        "config": settings((8, 16), 1),
        "earlier": torch.randn(4, 12, 16, 16),
        "embedded_action": torch.randn(4, 16),
    }


def given_chain(folder: Path) -> dict[str, Any]:
    return {
        **names("generative.flow", "AffineCoupling"),
        "mask": load("generative.flow:make_mask")("alternate", (2,)),
        "config": load("generative.flow:RealNVPConfig")(hidden_dim=8, num_hidden=1),
        "x": torch.randn(4, 2),
    }


def given_gan(folder: Path) -> dict[str, Any]:
    family, faces = TINY[load("generative.gan:GAN")], FAMILIES["ConditionalGAN"].make()
    return {
        "images": family.examples(4),
        "z": torch.randn(4, faces.latent_dim),
        "faces": faces,
        "labels": torch.tensor([0, 1, 0, 1]),
    }


def given_attention_gan(folder: Path) -> dict[str, Any]:
    config = load("generative.attention_gan:AttentionGANConfig")
    gan = config((3, 32, 32), 10, widths=(4, 4, 4), attention_side=16).build().eval()
    gan.save_pretrained(folder / "runs" / "biggan" / "model")
    labels = torch.tensor([0, 1])
    return {"z": torch.randn(2, gan.latent_dim), "labels": labels}


def given_prior(folder: Path) -> dict[str, Any]:
    vqvae = load("generative.codes:VQVAEConfig")
    return {
        "model": FAMILIES["VQVAE"].make().eval(),
        **names("generative.codes", "GPTPrior"),
    } | {"VQVAEConfig": vqvae}


def given_classifier(folder: Path) -> dict[str, Any]:
    config = load("generative.classifier:CNNClassifierConfig")(
        (3, 16, 16), 3, (4,), (3,), (2,), hidden_dim=5
    )
    images = torch.rand(3, 8, 3, 16, 16)
    return {
        "classifier": config.build().eval(),
        "x": images[0],
        "recon": images[1],
        "training_images": images[0],
        "samples": images[2],
    }


def given_search(folder: Path) -> dict[str, Any]:
    return {
        **names("worldmodels.configs", "EvaluationConfig", "EvolutionConfig"),
        **names("generative.training.parallel", "ParallelConfig"),
        **stands_in("worldmodels.scoring", "Scoring"),
        **stands_in("worldmodels.evolution", "evolve"),
        "episode": lambda candidate, seed: 0.0,
    }


def given_moment(folder: Path) -> dict[str, Any]:
    """One decision of an M that has read an episode, and where its dreams begin."""
    given, kinds = given_memory(folder), ("MDNRNN", "load_memory", "BOOK_MDNRNN")
    memory = given["memory"]
    h, c = memory.initial_state(1)
    return {
        **given,
        **names("worldmodels.memory", *kinds),
        "world": memory,
        "z": torch.randn(1, 32),
        "h": h,
        "c": c,
        "action": torch.rand(1, 3),
        "prev_reward": torch.zeros(1),
        "config": load("worldmodels.configs:DreamConfig")(),
        "generator": torch.Generator().manual_seed(0),
        "rng": np.random.default_rng(0),
        "folder": folder,
    }


def given_environments(folder: Path) -> dict[str, Any]:
    sb3 = "stable_baselines3"
    return {
        "make_my_env": partial(gymnasium.make, "CartPole-v1"),
        "PPO": create_autospec(load(f"{sb3}:PPO")),
        "VecMonitor": load(f"{sb3}.common.vec_env:VecMonitor"),
        "actions": torch.zeros(1024, 3),
        **names("envs.action_repeat", "ActionRepeat"),
    }


def given_agents(folder: Path) -> dict[str, Any]:
    """Scores, films and trainings take minutes; an endless drive ends with its episode."""
    return {
        **given_agent(folder),
        **names("agents.world_model_agent", "WorldModelAgent"),
        **names("agents.configs", "PPOConfig", "NetworkConfig"),
        **names("generative.training.checkpoint", "Checkpoints"),
        **names("generative.training.signals", "stop_signals"),
        **stands_in("agents.evaluation", "evaluate"),
        **stands_in("agents.ppo", "make_learner", "train"),
        **stands_in("stable_baselines3.common.evaluation", "evaluate_policy"),
        **stands_in("agents.video", "drive_and_dream", "write_video"),
        **stands_in("worldmodels.export", "export_onnx"),
        "starts": None,
        **stands_in("agents.play.alone", "build_page"),
        **stands_in("agents.play.server", "PlayServer"),
        **stands_in("agents.play.session", "Session"),
        **stands_in("agents.report", "write_report"),
    }


def given_policy(folder: Path) -> dict[str, Any]:
    shutil.copytree(
        ROOT / "pretrained/carracing-ppo-dream", folder / "runs/ppo/agent", dirs_exist_ok=True
    )
    (folder / "runs/ppo/carracing-dream").symlink_to(ROOT / "pretrained/carracing-dream")
    return given_agents(folder)


def of_words(tokeniser: Any, max_len: int) -> dict[str, Any]:
    """A GPT of these words, not trained."""
    gpt = load("generative.text:GPT")
    config = load("generative.text:GPTConfig")(len(tokeniser), max_len)
    return {"model": gpt(replace(config, block=SMALL_BLOCK)).eval(), "tokeniser": tokeniser}


SMALL_BLOCK = load("generative.text.config:BlockConfig")(8, 2, 4, 8)


def given_tools(folder: Path) -> dict[str, Any]:
    config = load("generative.text:ToolformerConfig")(min_probability=0.0)
    questions = load("generative.known.tool_questions:Questions")()
    return {**of_words(questions.tokeniser, 40), "texts": ["347*185=64195."], "config": config}


def given_chat(folder: Path) -> dict[str, Any]:
    return of_words(load("generative.known.dialogues:Dialogues")().tokeniser, 72)


def given_flamingo(folder: Path) -> dict[str, Any]:
    family = FAMILIES["Flamingo"]
    tokens = family.examples(1)[:, :6]
    pictures = torch.rand(2, 1, 3, 8, 8)
    return {
        **names("generative.flamingo", "Flamingo"),
        "tokens": tokens[:, :5],
        "prompt": tokens[:, :5],
        "picture": pictures[0],
        "other": pictures[1],
        "images": torch.rand(1, 2, 3, 8, 8),
    }


def given_painter(folder: Path) -> dict[str, Any]:
    """Tiny models of images from texts, trained by nobody, and what they are told."""
    words, captions = load("generative.known.captions:WORDS"), ["a red square", "a blue disc"]
    for name, place in (
        ("GLIDE", "text_to_image"), ("ImageDecoder", "image_decoder"), ("Upsampler", "upsampler")
    ):  # fmt: skip
        tiny = FAMILIES[name].make().config
        text = replace(tiny.text, vocab_size=4 + len(words), max_len=24)
        model = replace(tiny, words=words, text=text).build()
        model.save_pretrained(folder / "runs" / place / "model")
    tiny = FAMILIES["GLIDE"].make().config
    base = replace(tiny, image_shape=(3, 4, 4), words=words, text=text).build()
    embed = SimpleNamespace(
        encode_image=lambda x: torch.randn(2, 5), encode_text=lambda tokens: torch.randn(2, 5),
        sample=lambda text: torch.randn(len(text), 5),
    )  # fmt: skip
    return {
        **names("generative.text_to_image", "TextToImage"),
        "folder": folder / "runs/text_to_image/model",
        "hole": torch.zeros(1, 8, 8, dtype=torch.bool),
        "texts": captions, "captions": captions, "edges": torch.rand(2, 1, 8, 8),
        "x": torch.rand(2, 3, 8, 8), "clip": embed, "prior": embed,
        "small": torch.rand(2, 3, 4, 4), "noisy": torch.rand(2, 3, 4, 4),
        "t5": FAMILIES["T5"].make(), "tokens": torch.tensor([[2, 5, 4, 3, 0, 0]]),
        "base": base, "upsampler": model,
    }  # fmt: skip


def given_dalle2(_: Path) -> dict[str, Any]:
    """The parts of a DALL.E 2 that nobody trained, and two pictures."""
    whole = tiny_dalle2()
    parts = {name: getattr(whole, name) for name in ("clip", "prior", "decoder", "tokeniser")}
    return {**parts, "images": torch.rand(2, 3, 24, 24)}


def given_pages(folder: Path) -> dict[str, Any]:
    """Tiny models behind pages, and a server of pictures that ends at once."""
    tiny_flamingo().save_pretrained(folder / "runs" / "flamingo" / "model")
    return {
        **given_painter(folder),
        **names("generative.flamingo", "Flamingo"),
        **names("generative.known.picture_talk", "PictureTalk"),
        **names("generative.training.signals", "stop_signals"),
        **stands_in("generative.pages.pictures.server", "PictureServer"),
        "page": b"<!doctype html>", "add": lambda n: n, "painter": MagicMock(),
        "picture": np.zeros((24, 24, 3), np.uint8),
    }  # fmt: skip


Given = Callable[[Path], dict[str, Any]]
GIVEN: dict[str, Given] = {
    "generative.assignment": lambda _: {"cost": np.random.default_rng(0).random((4, 4))},
    "generative.attention_gan": lambda _: {},
    "generative.attention_gan.model": given_attention_gan,
    "generative.classifier.distances": given_classifier,
    "generative.clip": lambda _: {
        **names("generative.clip", "CLIP"),
        "x": torch.rand(2, 3, 16, 16),
        "tokens": torch.tensor([[2, 5, 3, 0], [2, 6, 7, 3]]),
    },
    "generative.codes.prior": given_prior,
    "generative.data": given_data,
    "generative.data.captioned": given_captioned,
    "generative.data.emoji": lambda _: {"generator": torch.Generator().manual_seed(0)},
    "generative.diffusion.editing": lambda folder: (
        given_diffusion(folder)
        | names("generative.diffusion", "Schedule")
        | {"stations": load("generative.diffusion.schedules:Schedule")().steps(5)}
        | {name: torch.randn(4, 2) for name in ("known", "z", "eps")}
        | {"hole": torch.tensor([True, False])}
    ),
    "generative.diffusion.exact": given_diffusion,
    "generative.diffusion.guidance": given_guidance,
    "generative.diffusion.model": lambda _: (
        names("generative.nets.unet", "UNet", "UNetConfig")
        | names("generative.diffusion", "ScheduleConfig")
    ),
    "generative.diffusion.samplers": given_diffusion,
    "generative.energy.walks": lambda _: {
        "x": torch.randn(4, 2),
        "my_energy": lambda x: x.square().sum(1) / 2,
    },
    "generative.flow.chain": given_chain,
    "generative.flow_matching.exact": given_lines,
    "generative.flamingo": given_flamingo,
    "generative.flamingo.vision": lambda _: {"images": torch.rand(2, 3, 24, 24)},
    "generative.gan.model": given_gan,
    "generative.loading": given_runs,
    "generative.mdn": lambda _: {"features": torch.randn(3, 64), "target": torch.randn(3, 2)},
    "generative.music": given_music,
    "generative.pages": given_pages,
    "generative.nets.conditional_dit": lambda _: {
        **names("generative.nets.conditional_unet", "Condition"),
        "text": torch.randn(2, 5, 64),
        "mask": torch.ones(2, 5, dtype=torch.bool),
        "vector": torch.randn(2, 64),
        "x_t": torch.randn(2, 3, 24, 24),
        "log_snr": torch.zeros(2),
    },
    "generative.nets.conditional_unet": lambda _: {
        "text": torch.randn(2, 5, 64),
        "mask": torch.ones(2, 5, dtype=torch.bool),
        "x_t": torch.randn(2, 3, 16, 16),
        "log_snr": torch.zeros(2),
    },
    "generative.nets.attention": given_attention,
    "generative.nets.quantiser": lambda _: {
        "z": torch.randn(4, 16),
        "codes": torch.randint(64, (4,)),
    },
    "generative.nets.text_encoder": lambda _: {
        "tokens": torch.tensor([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0]]),
        "maps": [],
    },
    "generative.nets.vit": lambda _: {
        **names("generative.nets.vit", "ViTConfig", "vit_block"),
        "x": torch.rand(2, 3, 32, 32),
        "config": load("generative.nets.vit:ViTConfig")(
            (3, 32, 32), patch=8, num_layers=1, block=load("generative.nets.vit:vit_block")(8, 2)
        ),
    },
    "generative.nets.dit": lambda _: {
        "x_t": torch.randn(2, 3, 32, 32),
        "log_snr": torch.zeros(2),
        "labels": torch.tensor([3, 10]),
    },
    "generative.nets.patches": lambda _: {"x": torch.rand(2, 3, 64, 64)},
    "generative.nets.perceptual": given_classifier,
    "generative.nets.equalised": lambda _: {
        "x": torch.randn(2, 64, 4, 4),
        "w": torch.randn(2, 128),
    },
    "generative.nets.relative": given_relative,
    "generative.nets.unet": given_unet,
    "generative.translation": lambda _: {
        **names("generative.translation", "Pix2Pix", "edges"),
        "photographs": torch.rand(2, 3, 16, 16),
        "generator": torch.Generator().manual_seed(0),
    },
    "generative.training.pretrained": lambda _: (
        names("generative.vae", "ConvVAEConfig")
        | names("generative.diffusion", "ImageDiffusionConfig")
    ),
    "generative.rlhf.model": given_rlhf,
    "generative.priors": lambda _: {
        **names("generative.priors", "DiffusionPrior"),
        "text": torch.rand(2, 4),
        "image": torch.rand(2, 4),
    },
    "generative.text_to_codes": lambda _: {
        **names("generative.text_to_codes", "DALLE", "MUSE", "Parti"),
        "tokens": torch.tensor([[2, 5, 6, 3, 0]]),
        "codes": torch.zeros(1, 4, 4, dtype=torch.int64),
        "hidden": torch.full((1, 4, 4), 5),
    },
    "generative.stylegan": given_grown,
    "generative.sampling": lambda _: {"logits": torch.randn(2, 50), "generator": None},
    "generative.text.chat": given_chat,
    "generative.text.scaling": lambda _: {
        "weights": torch.tensor([1e3, 1e3, 1e4, 1e4]),
        "tokens": torch.tensor([1e5, 1e6, 1e5, 1e6]),
        "excess": torch.tensor([0.4, 0.3, 0.2, 0.1]),
    },
    "generative.text.tools": given_tools,
    "generative.training.summary": lambda _: names(
        "generative.classifier.config", "CNNClassifierConfig"
    ),
    "generative.known": given_known,
    "generative.known.points": given_points,
    "generative.known.bindings": lambda _: {
        "similarity": lambda x, texts: torch.rand(len(x), len(texts)),
        "generator": None,
    },
    "generative.known.gaussian_pair": lambda _: {
        "generator": None,
        "codes": torch.zeros(512, 1, dtype=torch.int64),
        "mean": torch.zeros(16),
        "directions": torch.eye(16)[:, :1],
        "borders": torch.zeros(1, 1),
    },
    "generative.known.scenes": lambda _: {"samples": torch.rand(2, 3, 24, 24)},
    "generative.known.requests": given_requests,
    "generative.known.captions": lambda _: {},
    "generative.known.questions": lambda _: {
        "cells": load("generative.known.captions:fitting")("a red square left of a blue cross")[-1],
        "scenes": load("generative.known.scenes:one_object")()[:3],
        "generator": torch.Generator().manual_seed(0),
    },
    "generative.known.scene_denoiser": given_scenes,
    "generative.known.scene_scores": given_scenes,
    "generative.known.prompts": given_scenes,
    "generative.known.picture_talk": lambda _: {"rng": random.Random(0)},
    "generative.known.rules": lambda _: of_words(range(18), 24),
    "generative.text_to_image": given_painter,
    "generative.text_to_image.dalle2": given_dalle2,
    "generative.training": given_training,
    "generative.training.sizes": lambda _: {"config": FAMILIES["GLIDE"].make().config},
    "generative.training.learner": lambda _: names("generative.flow", "Chain"),
    "worldmodels": lambda folder: (
        given_memory(folder) | names("worldmodels.dreaming.starts", "warm_up")
    ),
    "worldmodels.dreaming.starts": given_moment,
    "worldmodels.dreaming.step": given_moment,
    "worldmodels.memory": given_moment,
    "worldmodels.memory.mdnrnn": lambda folder: (
        given_memory(folder) | names("worldmodels.configs", "BOOK_MDNRNN")
    ),
    "worldmodels.memory.scores": lambda folder: (
        given_memory(folder) | names("worldmodels.dreaming.starts", "warm_up")
    ),
    "worldmodels.memory.transformer": given_memory,
    "worldmodels.evolution": lambda _: names("worldmodels.configs", "EvolutionConfig"),
    "worldmodels.export": given_agents,
    "worldmodels.importers": given_importers,
    "worldmodels.scoring": given_search,
    "envs": given_environments,
    "agents": given_agents,
    "agents.rounds": lambda folder: {
        "episodes": folder,
        **names("agents.rounds.vision", "VAESettings", "VAETraining"),
        **names("generative.training.settings", "recast"),
        **stands_in("agents.rounds.vision", "train_vae"),
    },
    "agents.policy_agent": given_policy,
}
"""By the longest beginning of a module's name; a module of `generative` that is not here is that of
a family, and gets its examples."""


def small(kind: type) -> nn.Module:
    """The tiny form of a class of model, but as large as the example of its module needs."""
    model = TINY[kind].make()
    config = model.config
    if kind.__name__ == "GPT":
        config = replace(config, max_len=48)
    elif kind.__name__ == "Flamingo":
        config = replace(config, language=replace(config.language, max_len=48))
    elif kind.__name__ == "PixelCNN":
        config = replace(config, image_shape=(1, 16, 16))
    elif kind.__name__ == "MusicTransformer":
        config = replace(config, streams=("START 4/4TS C4 D4 rest", "0.0 1.0 1/3"))
    return config.build() if kind.builds else kind(config)


def given_family(code: str) -> dict[str, Any]:
    """Input of a model under the names that the examples have for it."""
    kind = next(k for k in TINY if re.search(rf"\b{k.__name__}\.from_pretrained", code))
    family = TINY[kind]
    x, model = family.examples(4), small(kind)
    if kind.__name__ == "PixelCNN":
        x = x.repeat(1, 1, 4, 4)
    shape = getattr(model.config, "latent_dim", x.shape[1])
    noise = model.draw_noise(8) if hasattr(model, "draw_noise") else None
    return dict.fromkeys(("x", "images", "tokens", "prompt", "frames"), x) | {
        kind.__name__: kind,
        "z": torch.randn(4, shape),
        "labels": torch.tensor([0, 1, 0, 1]),
        "sigma": torch.ones(4),
        "other": noise,
        "my_energy": lambda x: x.square().flatten(1).sum(1),
    }


def read_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `from_pretrained` give a small model where an example has one that a reader trained."""
    trained = Pretrained.from_pretrained.__func__

    def from_pretrained(cls, folder, *args, **settings):
        if cls in TINY and not (Path(folder) / "manifest.json").exists():
            return small(cls).eval()
        return trained(cls, folder, *args, **settings)

    monkeypatch.setattr(Pretrained, "from_pretrained", classmethod(from_pretrained))


ELSEWHERE = {
    "generative.training.hub": "asks the hub; test_hub.py does so at a server of its own",
    "generative.loading": "asks the hub; test_hub.py and test_loading.py do the same",
    "agents.cards": "writes into pretrained; test_cards.py writes cards of all agents",
    "agents.rounds.foreign_episodes": "reads recordings; test_foreign_episodes.py makes some",
}


@pytest.mark.parametrize("module", EXAMPLES)
def test_example(module, tmp_path, monkeypatch):
    if module in ELSEWHERE:
        pytest.skip(ELSEWHERE[module])
    if module == "envs.take_cover":
        pytest.importorskip("vizdoom", reason="the extra `doom` is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    read_small_models(monkeypatch)
    loaded = importlib.import_module(module)
    parts = module.split(".")
    beginnings = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    given = next((GIVEN[name] for name in beginnings if name in GIVEN), None)
    code = EXAMPLES[module]
    for place in re.findall(r"runs/[\w/-]+", code):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    namespace = {
        "torch": torch, "nn": nn, "np": np, "gymnasium": gymnasium,
        "Path": Path, "Fraction": Fraction, "partial": partial, "dataclass": dataclass,
        **{name: getattr(loaded, name) for name in dir(loaded)},  # a lazy package has no vars
        **(given(tmp_path) if given else given_family(code)),
    }  # fmt: skip
    exec(compile(code, f"the docstring of {module}", "exec"), namespace)


def test_examples_are_blocks_of_code_on_the_site(monkeypatch):
    """The packages that build the site are not needed: of theirs only a base class is used."""
    griffe = SimpleNamespace(Extension=object, Object=object, Alias=object)
    monkeypatch.setitem(sys.modules, "griffe", griffe)
    path = ROOT / "docs" / "examples_in_docstrings.py"
    fenced = runpy.run_path(str(path))["fenced"]
    rest = "\n\nProse = prose, and more.\n\n    z = h(1)"
    assert fenced("A title.\n\nx = f(1)\n\ny = g(x)" + rest) == (
        "A title.\n\n```python\nx = f(1)\n\ny = g(x)\n```" + rest
    )
    number = 0
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for text in docstrings(ast.parse(path.read_text(encoding="utf-8"))):
                found = fenced(text)
                assert found.replace("```python\n", "").replace("\n```", "") == re.sub(
                    r"\n\s*\n", "\n\n", text
                )
                blocks = "\n\n".join(re.findall(r"```python\n(.*?)\n```", found, re.S))
                code = [part for part in paragraphs(text) if f"\n{part.strip()}" in f"\n{text}"]
                assert blocks == "\n\n".join(part.strip() for part in code), path
                number += len(code)
    assert number > 40


@pytest.mark.parametrize("folder", [*PACKAGES, "scripts", "benchmarks", "examples"])
def test_docstrings_open_with_a_verb_or_a_noun(folder):
    opening = re.compile(r"\s*(Of|How|What|Which|Whose|Where|Whether)\b")
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value.value.strip().splitlines()[0]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and opening.match(node.value.value)
    ]
    assert not found, "\n".join(["name the result, or what is done:", *found])
