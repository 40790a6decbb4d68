"""Models that are had by name from the hub, and given to it, by the package huggingface_hub.

    folder = find_folder("owner/name@v1")       # a folder of this machine, or one of the hub
    commit = push_folder(folder, "owner/name")

What comes from the hub is data of a stranger: only JSON and safetensors are fetched, and they are
read as strictly as any other folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from generative.training.extras import PROJECT, how_to_install
from generative.training.files import MANIFEST_NAME, MAX_STATE_BYTES, cut, write_file

if TYPE_CHECKING:
    import types

__all__ = [
    "CARD_NAME",
    "Shared",
    "find_folder",
    "find_model",
    "hub_name",
    "push_folder",
    "where_else",
]

T = TypeVar("T")
CARD_NAME = "README.md"
FETCHED = ("*.json", "*.safetensors")
MAX_FILES = 1000
OWN_FOLDERS = ("data", "pretrained", "runs")
"""Folders of this project's own commands, which are never taken for an owner."""
NAME = re.compile(r"([a-zA-Z\d][\w.-]*/[\w.-]+)(?:@(\w[\w./-]*))?", re.ASCII)


def hub_name(path: Path | str) -> tuple[str, str | None] | None:
    """Read a path as a name on the hub: ("owner/name", revision or None).

    Returns None for what is there as a file or folder, for what has another form than owner/name or
    owner/name@revision, and where the owner is a folder here or one of `OWN_FOLDERS`: a misspelt
    `runs/vae` is asked of nobody.
    """
    match = NAME.fullmatch(Path(path).as_posix())
    if match is None or os.path.lexists(path):
        return None
    owner = match[1].partition("/")[0]
    return None if owner in OWN_FOLDERS or os.path.lexists(owner) else (match[1], match[2])


def find_folder(path: Path | str) -> Path:
    """Find the folder at a path, or fetch the one that the hub has under the name owner/name.

    Args:
        path: folder or file of this machine, which is returned as it is, there or not; or
            "owner/name", or "owner/name@revision" with a branch, a tag or a commit. A commit names
            the same files for ever, and is fetched only once.
    Raises:
        FileNotFoundError: the path is a name of which the hub has no model, or huggingface_hub is
            not installed.
        ConnectionError: the hub could not be reached, and its cache has nothing of this name.
        ValueError: the hub holds something else under this name, or too much; nothing is fetched.
    """
    asked = hub_name(path)
    return Path(path) if asked is None else _plain(_fetch(*asked))


def find_model(model: T | Path | str) -> T | Path:
    """Return a model as it is, and a path as `find_folder` does."""
    return find_folder(model) if isinstance(model, (str, Path)) else model


def where_else(path: Path | str) -> str:
    """Say where the agents of this project are, if a missing path names one of them; or ""."""
    if Path(path).parts[:1] != ("pretrained",):
        return ""
    return (
        "; the project's own agents are not in the installed package: run this in a checkout, "
        "whose folder pretrained/ holds them, or pass one's name on the hub, owner/name"
    )


def push_folder(
    folder: Path | str, name: str, *, private: bool | None = None, message: str = ""
) -> str:
    """Give a saved model or agent to the hub, with its card; returns the address of the commit.

    Only JSON, safetensors and README.md are given. The account is the one of `hf auth login`.

    Args:
        folder: what `save_pretrained` wrote.
        name: "owner/name", made if it is not there.
        private: whether only its owner sees it, if it is made; None leaves that to the owner's
            settings.
        message: of the commit.
    Raises:
        ValueError: the name has another form, or the folder holds no saved model.
        ConnectionError: the hub was not reached, or refused.
    """
    folder = Path(folder)
    if (match := NAME.fullmatch(name)) is None or match[2]:
        raise ValueError(f"{name!r} is no name on the hub; pass it as owner/name")
    if not any(folder.rglob(MANIFEST_NAME)):
        raise ValueError(
            f"{folder} holds no saved model ({MANIFEST_NAME}); there is nothing to push"
        )
    library = _library(f"{name} cannot be pushed")
    client = library.HfApi(library_name=PROJECT)
    try:
        client.create_repo(name, private=private, exist_ok=True)
        return client.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*FETCHED, CARD_NAME],
            commit_message=message or f"Save {name.partition('/')[2]}",
        ).commit_url
    except Exception as error:  # of the hub, of its transport, or of the system
        raise ConnectionError(f"{name} was not pushed: {_first_line(error)}") from error


class Shared:
    """Adds `push_to_hub` to what has `save_pretrained`."""

    def push_to_hub(
        self, name: str, *, card: str = "", private: bool | None = None, message: str = ""
    ) -> str:
        """Save to the hub under the name owner/name; returns the address of the commit.

        `worldmodels card FOLDER --push owner/name` gives a saved folder, with a card from its
        reports.

        Args:
            card: text of the model card, README.md; by default one line with how it is loaded.
            private, message: see `push_folder`.
        Raises:
            ValueError: the name is not owner/name, or a weight is not finite.
            ConnectionError: the hub was not reached, or refused.
        """
        kind = type(self).__name__
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            saved: Any = self
            saved.save_pretrained(folder)
            text = card or f'`{kind}.from_pretrained("{name}")` of {PROJECT} loads it.\n'
            write_file(folder / CARD_NAME, text.encode())
            return push_folder(folder, name, private=private, message=message)


def _library(what: str) -> types.ModuleType:
    """The package huggingface_hub; raises FileNotFoundError that begins with `what`."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise FileNotFoundError(f"{what}: {how_to_install('huggingface_hub')}")
    import huggingface_hub.errors

    return huggingface_hub


def _fetch(name: str, revision: str | None) -> Path:
    """Fetch a model into the hub's cache; returns the cache's folder of it, which holds links."""
    where = f"{name}@{revision}" if revision else name
    library = _library(f"{where}: no such folder; if it is a name on the hub")
    errors = library.errors

    def ask(**how: Any) -> Any:
        return library.snapshot_download(
            name, revision=revision, allow_patterns=list(FETCHED), library_name=PROJECT, **how
        )

    try:
        try:
            files = ask(dry_run=True)
        except errors.DryRunError as error:
            if isinstance(error.__cause__, errors.RepositoryNotFoundError):
                raise error.__cause__ from None
            return Path(ask(local_files_only=True))  # what the cache has serves without the hub
        _check_files(where, {file.filename: file.file_size for file in files})
        return Path(ask())
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"{where}: no such folder, and the hub shows no model of this name; pass a folder, or "
            "owner/name of a model (for a private one, log in by `hf auth login`)"
        ) from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise ConnectionError(
            f"{where}: no such folder; the hub was asked, in vain: {_first_line(error)}"
        ) from error


def _check_files(where: str, sizes: dict[str, int]) -> None:
    """Raise ValueError if these files, with their bytes, are not those of a saved model."""
    if not any(Path(file).name == MANIFEST_NAME for file in sizes):
        raise ValueError(
            f"{where} on the hub was not saved by this project (it has no {MANIFEST_NAME}); pass "
            "the name of a model that push_to_hub gave"
        )
    if sum(sizes.values()) > MAX_STATE_BYTES or len(sizes) > MAX_FILES:
        raise ValueError(
            f"{where} on the hub has {len(sizes):,} files, {sum(sizes.values()):,} bytes; at most "
            f"{MAX_FILES:,} files, {MAX_STATE_BYTES:,} bytes are fetched"
        )


def _plain(snapshot: Path) -> Path:
    """Folder with the files of a snapshot of the hub's cache, where the snapshot has links.

    A saved model is read from ordinary files only. These share their disk space with the cache's.
    """
    plain = snapshot.parents[1] / "plain" / snapshot.name
    if not plain.is_dir():
        plain.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=plain.parent) as beside:
            made = Path(beside) / "made"
            shutil.copytree(snapshot, made, copy_function=_link)
            try:
                os.rename(made, plain)
            except OSError:
                if not plain.is_dir():  # another process was first
                    raise
    return plain


def _link(source: str, target: str) -> None:
    """Make a hard link to a file, through symbolic ones, or a copy where that cannot be."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _first_line(error: Exception) -> str:
    return cut(next(iter(str(error).splitlines()), "") or type(error).__name__, 200)
