"""What the code is called: by git in a checkout, by its content elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trustsweep.distributed.version import PACKAGES, code_revision, revision_of


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a file of each package, in no checkout."""
    for package in PACKAGES:
        (tmp_path / "code" / package).mkdir(parents=True)
        (tmp_path / "code" / package / "part.py").write_text(f"NAME = {package!r}")
    return tmp_path / "code"


@pytest.fixture
def checkout(source: Path) -> Path:
    git(source, "init", "-q")
    git(source, "add", ".")
    git(source, "commit", "-qm", "First")
    return source


def git(folder: Path, *arguments: str) -> str:
    who = {
        f"GIT_{role}_{key}": "a@b" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(
        command, env={**os.environ, **who}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_without_git_the_content_of_the_files_counts_and_nothing_else(source: Path) -> None:
    first = revision_of(source)
    assert first.startswith("source-")
    copied = shutil.copytree(source, source.with_name("copy"))
    (copied / "distributed" / "notes.txt").write_text("no code")
    (copied / "distributed" / "__pycache__").mkdir()
    assert revision_of(copied) == first
    (copied / "trainables" / "part.py").write_text("NAME = 2")
    second = revision_of(copied)
    (copied / "trainables" / "part.py").rename(copied / "trainables" / "other.py")
    assert len({first, second, revision_of(copied)}) == 3


def test_in_a_checkout_it_is_the_commit_and_a_digest_of_what_differs(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")[:12]
    assert revision_of(checkout) == commit
    (checkout / "README.md").write_text("no code")
    assert revision_of(checkout) == commit
    seen = set()
    for content in ("NAME = 2", "NAME = 3"):
        (checkout / "trainables" / "part.py").write_text(content)
        seen.add(revision_of(checkout))
    (checkout / "trainables" / "new.py").write_text("")
    seen.add(revision_of(checkout))
    git(checkout, "add", ".")
    seen.add(revision_of(checkout))  # staged or not
    (checkout / "distributed" / "part.py").unlink()
    seen.add(revision_of(checkout))
    assert len(seen) == 4
    assert all(revision.startswith(f"{commit}+") for revision in seen)
    git(checkout, "commit", "-qam", "Second")
    assert revision_of(checkout) == git(checkout, "rev-parse", "HEAD")[:12]


def test_an_installation_within_another_checkout_is_not_taken_for_it(checkout: Path) -> None:
    (checkout / ".gitignore").write_text(".venv")
    installed = checkout / ".venv" / "site-packages"
    shutil.copytree(checkout / "distributed", installed / "distributed")
    assert revision_of(installed).startswith("source-")


def test_every_process_gives_the_same_name() -> None:
    ask = "from trustsweep.distributed.version import code_revision; print(code_revision())"
    told = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == code_revision()
