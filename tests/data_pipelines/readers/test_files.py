"""Folders: found whole and in order; digests and names that are the same anywhere."""

import hashlib
import os
import shutil

import pytest

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size, digest, opaque, walk


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def _names(root, suffixes):
    return [path.relative_to(root).as_posix() for path in walk(root, suffixes)]


def test_files_come_sorted_and_by_their_endings(tmp_path):
    _touch(tmp_path, "b/2.PNG", "b/1.png", "a.nii.gz", "a.gz", "c.txt", ".hidden.png", ".git/d.png")
    assert _names(tmp_path, [".png", ".nii.gz"]) == ["a.nii.gz", "b/1.png", "b/2.PNG"]
    assert _names(tmp_path, [".tif"]) == []


def test_linked_folders_and_files_are_followed(tmp_path):
    _touch(tmp_path / "elsewhere", "1.png", "deep/2.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "file.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    assert _names(root, [".png"]) == ["file.png", "linked/1.png", "linked/deep/2.png"]


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_links_that_lead_back_are_named(tmp_path, target):
    _touch(tmp_path, "a/b/1.png")
    loop = tmp_path / "a" / "b" / "loop"
    loop.symlink_to(target)
    with pytest.raises(UserError, match="loop: a link that leads back"):
        walk(tmp_path, [".png"])


def test_broken_links_are_left_to_the_reader(tmp_path):
    link = tmp_path / "a.png"
    link.symlink_to(tmp_path / "none.png")
    assert walk(tmp_path, [".png"]) == [link]
    with pytest.raises(BadFile, match="no such file"):
        checked_size(link)


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        walk(tmp_path / "nowhere", [".png"])


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BadFile, match="no regular file"):
        checked_size(tmp_path / "a.png")
    with pytest.raises(BadFile, match="no regular file"):
        digest(tmp_path, [tmp_path / "a.png"])


def test_sizes_are_bounded(tmp_path):
    _touch(tmp_path, "four")
    assert checked_size(tmp_path / "four", 4) == 4
    with pytest.raises(BadFile, match="larger than 3 bytes; not read"):
        checked_size(tmp_path / "four", 3)


def test_digests_are_of_names_and_contents(tmp_path):
    _touch(tmp_path / "one", "a/1.png", "2.png")
    shutil.copytree(tmp_path / "one", tmp_path / "two")

    def of(name):
        return digest(tmp_path / name, walk(tmp_path / name, [".png"]))

    expected = hashlib.sha256()
    for name in ("2.png", "a/1.png"):
        expected.update(f"{name}\0{hashlib.sha256(name.encode()).hexdigest()}\n".encode())
    assert of("one") == of("two") == expected.hexdigest()
    (tmp_path / "two" / "2.png").write_text("other")
    assert of("one") != of("two")
    (tmp_path / "two" / "2.png").write_text("2.png")
    (tmp_path / "two" / "2.png").rename(tmp_path / "two" / "3.png")
    assert of("one") != of("two")


def test_digests_of_missing_files_name_them(tmp_path):
    with pytest.raises(BadFile, match=r"none\.png"):
        digest(tmp_path, [tmp_path / "none.png"])


def test_digests_take_names_in_any_encoding(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_text("content")
    assert len(digest(tmp_path, walk(tmp_path, [".png"]))) == 64
    assert len(opaque("set", name)) == 16


def test_opaque_names_are_stable_and_apart():
    names = {opaque("set", str(number)) for number in range(1000)}
    assert len(names) == 1000
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)
    assert opaque("set", "1") == hashlib.sha256(b"set/1").hexdigest()[:16]
    assert opaque("set", "1") != opaque("other", "1")
