"""Option that names the folder of data, for errors about files that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["folder_of"]


@contextmanager
def folder_of(option: str) -> Iterator[None]:
    """Name the option in an error about missing files; also a decorator of what reads them.

    Raises:
        FileNotFoundError: that of the block, with the option behind it.
    """
    try:
        yield
    except FileNotFoundError as error:
        if error.errno or option in str(error):  # the system's have parts instead of a message
            raise
        raise FileNotFoundError(f"{error}; pass another folder with {option}") from error
