"""Names put into sentences."""

__all__ = ["with_article"]


def with_article(name: str) -> str:
    """The name of a class or a kind with "a" or "an": "an ImageVAE", "an MDNRNN", "a GAN".

    Names that begin with two capitals are spelled letter by letter.
    """
    spelled = name[:2].isupper() or name[1:2].isdigit()
    vowels = "AEFHILMNORSX" if spelled else "AEIOaeio"
    return f"{'an' if name[:1] in tuple(vowels) else 'a'} {name}"
