"""The version and the revision of the code; the revision is part of a trial's name."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from trustsweep.data_pipelines import plugins

#: What a trial's figures can depend on.
PACKAGES = ("data_pipelines", "trainables", "search_spaces", "distributed")
#: Files of these that hold code, or values that code reads.
_SUFFIXES = (".py", ".yaml")
_ROOT = Path(__file__).resolve().parents[1]
#: Where a hook of git runs this, these would name another repository.
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


def _version() -> str:
    try:
        return version("trustsweep")
    except PackageNotFoundError:
        # Run from a job's working directory on a node where it is not installed.
        return "0+uninstalled"


VERSION = _version()


def code_revision() -> str:
    """The revision of the code of this process, part of a trial's id and of the records.

    Run from a checkout: the commit (12 digits), and where files of `PACKAGES` differ from it, "+"
    and a digest of these. Elsewhere, as in an installation or the working directory of a Ray job:
    "source-" and a digest of all their files. Where plug-in files are used, "/" and a digest of
    these follow, as of packages that offer plug-ins. Our own is worked out once in a process; that
    of a sweep's main process counts for all its workers.
    """
    revision, outside = _own_revision(), plugins.digest()
    return f"{revision}/{outside}" if outside else revision


@cache
def _own_revision() -> str:
    return revision_of(_ROOT)


def revision_of(root: Path) -> str:
    """The revision of the packages below `root`; see `code_revision`."""
    listed = _git(root, "ls-files", "-z", "--", *PACKAGES)
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    # A virtual environment may lie within a checkout of something else.
    if not listed or not commit:
        return f"source-{_digest(root, _sources(root))}"
    short = commit.decode().strip()[:12]
    status = _git(root, "status", "--porcelain", "-z", "--no-renames", "-uall", "--", *PACKAGES)
    # Lines of two letters and a space, then a path from the repository's root.
    paths = [line[3:].decode() for line in (status or b"").split(b"\0") if line]
    top = Path((_git(root, "rev-parse", "--show-toplevel") or b".").decode().strip())
    changed = sorted(top / path for path in paths if path.endswith(_SUFFIXES))
    return f"{short}+{_digest(top, changed)}" if changed else short


def _sources(root: Path) -> Iterator[Path]:
    """Sorted, so that the order of a file system's answers changes nothing."""
    for package in PACKAGES:
        files = (root / package).rglob("*")
        yield from sorted(path for path in files if path.suffix in _SUFFIXES)


def _digest(root: Path, paths: list[Path] | Iterator[Path]) -> str:
    """Of names and contents; one that is gone has a name alone."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.is_file() else b"gone"
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _git(root: Path, *arguments: str) -> bytes | None:
    """The output of git in the folder; None if it is no checkout, or there is no git."""
    environment = {k: v for k, v in os.environ.items() if k not in _MISLEADING}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            check=False,
            env=environment,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
