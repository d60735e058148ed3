"""Data sets on an object store, against a real server that speaks S3, and other URLs."""

import csv
import pickle
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import load_manifest, parts, read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Manifest, Split
from trustsweep.data_pipelines.storage import Folder
from trustsweep.data_pipelines.streams import Samples


def _phantoms(out: str | Path, **options):
    return prepare(None, "phantoms", out, size=16, count=40, **options)


def test_a_data_set_on_s3_is_the_local_one(s3, tmp_path):
    local, remote = tmp_path / "out", "s3://data/phantoms/small"
    report = _phantoms(remote)
    assert report.manifest == _phantoms(local).manifest == load_manifest(remote)
    for split in (Split.TRAIN, Split.VAL, Split.TEST):
        assert parts(remote, split) == parts(local, split)
        here, there = Samples.read(local, split), Samples.read(remote, split)
        assert here.sample_ids == there.sample_ids
        assert here.batch([0, 1]).image.equal(there.batch([0, 1]).image)
    assert _phantoms(remote).unchanged


def test_a_data_set_on_s3_is_replaced_only_when_asked(s3):
    remote = "s3://data/replaced"
    old = _phantoms(remote).manifest
    with pytest.raises(UserError, match=r"s3://data/replaced: holds another data set"):
        _phantoms(remote, seed=1)
    assert Manifest.load(remote) == old
    new = _phantoms(remote, seed=1, overwrite=True).manifest
    assert Manifest.load(remote) == new != old
    names = Folder(remote).files()
    assert sum(name.endswith(".json") for name in names) == 1


def test_folds_on_s3(s3):
    report = _phantoms("s3://data/folds", folds=3)
    assert Manifest.load("s3://data/folds/fold-0") == report.manifest
    with pytest.raises(UserError, match="several data sets, name one of them: fold-0"):
        Manifest.load("s3://data/folds")


def test_what_is_not_there_and_what_is_something_else(s3):
    with pytest.raises(UserError, match="no prepared data set here"):
        Manifest.load("s3://data/nothing/here")
    boto3.client("s3", region_name="us-east-1").put_object(
        Bucket="data", Key="thesis/chapter.tex", Body=b"five years"
    )
    with pytest.raises(UserError, match="not empty, and no data set"):
        _phantoms("s3://data/thesis", overwrite=True)
    assert Folder("s3://data/thesis").read("chapter.tex") == b"five years"


def test_an_upload_that_breaks_off_reads_as_nothing_and_goes_on(s3, monkeypatch):
    remote = "s3://data/broken"
    upload = Folder.upload

    def breaks_off(self, source, names):
        upload(self, source, names[: len(names) // 2])
        raise self.unreachable(OSError("the line is dead"))

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "upload", breaks_off)
        with pytest.raises(UserError, match="the line is dead"):
            _phantoms(remote, seed=7)
    assert Folder(remote).files()
    with pytest.raises(UserError, match="no prepared data set here"):
        read_table(remote, Split.TRAIN)
    report = _phantoms(remote, seed=7)
    assert "went on from where an earlier preparation was interrupted" in report.warnings
    assert "uploading" not in Folder(remote).files()
    assert load_manifest(remote) == report.manifest


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["materialised", "streamed"])
def test_a_sweep_reads_its_data_from_s3(s3, tmp_path, mode):
    """In a process of its own: Ray's processes take S3's address and keys from it."""
    _phantoms("s3://data/swept")
    small = ("space.epochs=1", "space.width=4", "evaluation.attack_steps=1", "search.trials=1")
    # After one epoch a model may have no skill yet.
    unbound = ("constraints=[]", "objectives=[dice_lesion_area, clean.brier]")
    where = (f"resources.data={mode}", "resources.slots=1")
    settings = [f"--set={item}" for item in (*small, *unbound, *where)]
    command = [Path(sys.executable).with_name("trustsweep"), "sweep", "quick", *settings]
    command += ["--data", "s3://data/swept", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{mode}" in done.stdout
    with (tmp_path / "run" / "trials.csv").open(newline="") as file:
        (trial,) = csv.DictReader(file)
    assert trial["state"] == "completed"
    assert list((tmp_path / "run" / "evaluation").glob("*.json"))


@pytest.mark.slow
def test_a_server_that_is_away_is_said_and_comes_back(s3):
    remote = "s3://data/away"
    manifest = _phantoms(remote).manifest
    s3.stop()
    with pytest.raises(UserError, match=r"s3://data/away: the storage does not answer"):
        Manifest.load(remote)
    s3.start()
    with pytest.raises(UserError, match="no prepared data set here"):
        Manifest.load(remote)
    assert _phantoms(remote).manifest == manifest


def test_other_urls_go_through_fsspec(tmp_path):
    report = _phantoms("memory://data/set")
    assert load_manifest("memory://data/set") == report.manifest
    table = read_table("memory://data/set", Split.VAL)
    assert len(table) == report.manifest.split_counts["val"]
    local = Folder(f"file://{tmp_path}")
    assert local.local == tmp_path


def test_credentials_in_a_url_are_refused_and_not_repeated():
    for url in ("s3://me:geheim@data/x", "s3://data/x?secret_key=geheim"):
        with pytest.raises(UserError) as raised:
            Folder(url)
        assert "geheim" not in str(raised.value)
        assert "environment variables" in str(raised.value)


def test_an_unknown_kind_of_url_is_named():
    with pytest.raises(UserError, match=r"gopher://x: no way to read this kind of URL"):
        Folder("gopher://x").files()


def test_a_folder_survives_pickling_and_knows_its_name(tmp_path):
    for location in ("s3://data/phantoms/", tmp_path / "phantoms"):
        folder = Folder(location)
        again = pickle.loads(pickle.dumps(folder))  # noqa: S301 - between processes of one run
        assert (str(again), again.name) == (str(folder), "phantoms")
    relative = Folder("data/x").resolved()
    assert relative.local == Path.cwd() / "data/x"
