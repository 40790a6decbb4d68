"""Words for messages."""

__all__ = ["made_by", "with_article"]


def with_article(name: str) -> str:
    """Name of a class or a kind with its article: "an ImageVAE", "an MDNRNN", "a GAN".

    Names that begin with two capitals are spelled letter by letter.
    """
    spelled = name[:2].isupper() or name[1:2].isdigit()
    vowels = "AEFHILMNORSX" if spelled else "AEIOaeio"
    return f"{'an' if name[:1] in tuple(vowels) else 'a'} {name}"


def made_by(option: str, *commands: str) -> str:
    """Advice where a run is missing: which option takes one, and which commands make one.

    Args:
        commands: with their presets: "train_vqvae scenes".
    """
    named = " or ".join(f"`worldmodels {command}`" for command in commands)
    return f"pass {option} with a run of {named}"
