"""Words for messages."""

__all__ = ["with_article"]


def with_article(name: str) -> str:
    """Name of a class or a kind with its article: "an ImageVAE", "an MDNRNN", "a GAN".

    Names that begin with two capitals are spelled letter by letter.
    """
    spelled = name[:2].isupper() or name[1:2].isdigit()
    vowels = "AEFHILMNORSX" if spelled else "AEIOaeio"
    return f"{'an' if name[:1] in tuple(vowels) else 'a'} {name}"
