"""Download a public data set to the folder that the training scripts use, and check it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from generative.training.cli import start
from generative.training.ranges import Checked


@dataclass(frozen=True)
class Args(Checked):
    """Download a public data set, with the checksums that were published for it.

    CelebA and the LEGO bricks cannot be downloaded by a program: for these it prints the address,
    and checks the files that you have put into the folder.
    """

    data: Literal["mnist", "fashion-mnist", "cifar-10", "flowers", "celeba", "bricks"]
    folder: Path | None = None
    """Target folder; by default data/NAME, which the training scripts use."""


DEFAULT_PRESET = "fashion-mnist"
PRESETS = {
    "fashion-mnist": Args("fashion-mnist"),  # 30 MB
    "mnist": Args("mnist"),  # 11 MB
    "cifar-10": Args("cifar-10"),  # 170 MB
    "flowers": Args("flowers"),  # 345 MB
    "celeba": Args("celeba"),
    "bricks": Args("bricks"),
    "smoke": Args("celeba"),  # needs no network
}


def main(args: Args) -> Path:
    """Returns the folder."""
    from generative.data import bricks, celeba, cifar10, fashion_mnist, flowers, mnist
    from generative.data.download import check_md5, download

    folder = args.folder or Path("data") / args.data
    if args.data == "bricks":
        print(
            f"The bricks are given out by hand, without checksums: {bricks.PAGE}\n"
            f"Unpack them so that there is {folder / 'dataset'}."
        )
    elif args.data == "celeba":
        print(f"CelebA is given out by hand, for research: {celeba.PAGE}")
        for source in celeba.SOURCES:
            path = folder / source.name
            if path.is_file():
                check_md5(path, source.md5)
            print(f"{path}: {'is whole' if path.is_file() else 'put it there'}")
    else:
        sources = {
            "mnist": mnist.SOURCES,
            "fashion-mnist": fashion_mnist.SOURCES,
            "cifar-10": cifar10.SOURCES,
            "flowers": flowers.SOURCES,
        }[args.data]
        download(sources, folder)
        print(f"{folder}: {', '.join(source.name for source in sources)} are whole")
    return folder


if __name__ == "__main__":
    start(main, PRESETS, DEFAULT_PRESET)
