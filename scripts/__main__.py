"""The console command: `worldmodels VERB [arguments]` runs scripts/VERB.py."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
import textwrap
from pathlib import Path

from generative.training.streams import tell

GROUPS: dict[str, tuple[str, ...]] = {
    "look at an agent": ("play", "evaluate", "render_dream", "temperature_sweep"),
    "train an agent in its dream": (
        "train_in_dream", "collect_rollouts", "train_vae", "train_vision", "standardise_vectors",
        "encode_rollouts", "train_mdnrnn", "train_transformer_memory", "train_controller",
        "train_ppo",
    ),
    "train a model of images or points": (
        "train_autoencoder", "train_image_vae", "train_gan", "train_wgan",
        "train_conditional_gan", "train_attention_gan", "train_progan", "train_stylegan",
        "train_stylegan2",
        "train_realnvp", "train_glow", "train_ffjord", "train_flow_matching", "train_pixelcnn",
        "train_energy", "train_rbm", "train_score", "train_diffusion", "train_classifier",
        "train_pix2pix", "train_cyclegan", "train_vqvae", "train_vqgan", "train_code_prior",
        "train_vae_gan", "train_latent_diffusion", "train_text_to_image", "train_kl_autoencoder",
        "train_caption_reader", "train_controlnet",
    ),
    "train a model of images and captions": (
        "train_clip", "train_prior", "train_text_to_codes", "train_flamingo",
    ),
    "train a model of texts": (
        "train_recurrent_text", "train_gpt", "train_bert", "fine_tune_bert", "train_t5",
        "train_rlhf", "train_toolformer",
    ),
    "train a model of music": (
        "train_music_rnn", "train_music_transformer", "train_musegan", "listen",
    ),
    "look into what was trained": (
        "explore", "chat", "play_pictures", "draw_dalle2", "draw_cascade",
    ),
    "compare and certify": (
        "compare_families", "compare_images", "compare_memories", "compare_controllers",
        "compare_sizes", "compare_text_to_image",
        "certificates", "cma_es_demo",
    ),
    "bring in and give out": (
        "download_data", "import_episodes", "import_weights", "export_onnx",
        "export_minari", "export_page", "card",
    ),
    "this installation": ("info",),
}  # fmt: skip
"""The verbs by what they are for, in the order in which a newcomer needs them."""
START_HERE = """start here:
  worldmodels play                      drive beside the agent and its dream
  worldmodels train_diffusion           a first model, with its floor
  worldmodels explore runs/diffusion    what it has learned
  worldmodels train_in_dream            an agent, from nothing to its score"""


def main(argv: list[str] | None = None) -> int:
    """Run the verb that the command line names; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbs = find_verbs()
    if not words or words[0] in ("-h", "--help"):
        tell(usage(verbs))
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        tell(f"worldmodels {version()}")
        return 0
    verb = words[0].replace("-", "_")
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, n=1)
        hint = f"did you mean {close[0]}?" if close else "`worldmodels --help` lists them"
        print(f"worldmodels: there is no verb {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    from generative.training.cli import start

    script = importlib.import_module(f"scripts.{verb}")
    default = getattr(script, "DEFAULT_PRESET", None)
    prog = f"worldmodels {verb}"
    start(script.main, script.PRESETS, default, argv=words[1:], prog=prog)
    return 0


def find_verbs() -> dict[str, str]:
    """First docstring line of every script by name, read without importing any."""
    verbs = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        verbs[path.stem] = docstring.partition("\n")[0]
    return verbs


def version() -> str:
    """The version that is installed; "of a checkout" where none is."""
    from importlib import metadata

    try:
        return metadata.version("worldmodels-toolkit")
    except metadata.PackageNotFoundError:
        return "of a checkout that is not installed"


def usage(verbs: dict[str, str]) -> str:
    """The help text; verbs without a group come last."""
    width = max(map(len, verbs), default=0)
    lines = ["usage: worldmodels VERB [PRESET] [--field value ...]", "", START_HERE]
    grouped = {verb for group in GROUPS.values() for verb in group}
    others = tuple(verb for verb in verbs if verb not in grouped)
    for title, names in {**GROUPS, "others": others}.items():
        lines += ["", f"{title}:"] if names else []
        for verb in filter(verbs.__contains__, names):
            indent = " " * (width + 4)
            text = f"  {verb:<{width}}  {verbs[verb]}"
            lines.append(textwrap.fill(text, 80, subsequent_indent=indent))
    lines += ["", "`worldmodels VERB --help` lists presets, options and the time of the default;"]
    lines += ["`worldmodels info` shows versions, processor and extras."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
