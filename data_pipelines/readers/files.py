"""Finding and identifying folders and files, and naming them without naming a patient."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.problems import BadFile


def checked_size(path: Path, limit: int | None = None) -> int:
    """Bytes of a regular, readable file that holds something.

    Raises `BadFile` for a file that is missing, empty, unreadable, larger than `limit` bytes, or no
    regular file: opening a pipe or a device may block for ever.
    """
    _regular(path)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror}).") from error
    if not os.access(path, os.R_OK):
        raise BadFile(path, "may not be read. Give yourself the permission.")
    if size == 0:
        raise BadFile(path, "the file is empty. Fetch it again.")
    if limit is not None and size > limit:
        raise BadFile(path, f"larger than {limit:,} bytes; not read. Split it, or take it away.")
    return size


def walk(root: Path, suffixes: Collection[str]) -> list[Path]:
    """Files below `root` whose names end in one of `suffixes` (any case), sorted by path.

    Links to folders are followed. Hidden files and folders are left out. A link that leads nowhere
    is listed as a file, so that the reader that meets it can refuse it.

    Raises `UserError` where `root` is no folder, where a folder may not be read, and for a link
    that leads back to a folder that contains it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder. Give the one that holds the data set.")
    endings = tuple(suffix.lower() for suffix in suffixes)
    return sorted(path for path in _files(root, ()) if path.name.lower().endswith(endings))


def digest(root: Path, paths: Iterable[Path]) -> str:
    """Hex SHA-256 over the paths relative to `root` and their contents, in the order given.

    Raises `BadFile` for a file that cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        _regular(path)
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadFile(path, f"cannot be read ({error.strerror}). Fetch it again.") from error
        name = path.relative_to(root).as_posix()
        total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def opaque(*parts: str) -> str:
    """16 hex digits for a name that must not be stored: the same for the same parts, anywhere.

    Begin with the data set's name, so that equal numbers of two data sets differ. Whoever can list
    all possible names can still find one out again: this hides names from readers of the shards,
    it does not protect them from an attack.
    """
    return hashlib.sha256("/".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def _regular(path: Path) -> None:
    if not path.is_file():
        what = "no regular file" if path.exists() else "no such file"
        raise BadFile(path, f"{what}. Fetch it again, or take its entry away.")


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """`above` holds device and inode of the folders on the way here."""
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read ({error.strerror}).") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise UserError(f"{folder}: a link that leads back to a folder around it. Remove it.")
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files(entry, (*above, here))
        else:
            yield entry
