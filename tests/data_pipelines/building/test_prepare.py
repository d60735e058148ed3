"""From a folder to shards: everything arrives, everything wrong is named, all of it or nothing."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trustsweep.data_pipelines.building import shards
from trustsweep.data_pipelines.building.prepare import PrepareReport, prepare
from trustsweep.data_pipelines.building.shards import load_manifest, read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.phantoms import Phantoms
from trustsweep.data_pipelines.problems import LISTED, BadFiles
from trustsweep.data_pipelines.schema import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Manifest,
    Split,
    TaskName,
)
from trustsweep.data_pipelines.storage import Folder


def _phantoms(out: Path, count: int = 40, size: int = 16, **options) -> PrepareReport:
    return prepare(None, "phantoms", out, size=size, count=count, **options)


def _write_pair(root: Path, part: str, name: str, seed: int, *, infected: bool = True) -> None:
    draw = np.random.default_rng(seed)
    images, masks = root / part / "Images", root / part / "Ground-truths"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw.integers(0, 256, (24, 24), np.uint8)).save(images / name)
    mask = np.zeros((24, 24), np.uint8)
    mask[6:18, 6:18] = 255 * infected
    Image.fromarray(mask).save(masks / f"mask_{name}")


@pytest.fixture
def qata(tmp_path) -> Path:
    """A miniature of QaTa-COV19-v2: both kinds of file name, a series, an empty mask."""
    root = tmp_path / "QaTa-COV19" / "QaTa-COV19-v2"
    for i in range(12):
        _write_pair(root, "Train Set", f"covid_{i}.png", i, infected=i > 0)
    for i in range(8):
        name = f"sub-S{i // 2:05d}_ses-E{i:05d}_run-1_bp-chest_vp-ap_dx.png"
        _write_pair(root, "Train Set", name, 100 + i)
    for day in (0, 5, 9):
        _write_pair(root, "Train Set", f"series-1-day{day}-PA.png", 200 + day)
    for i in range(4):
        _write_pair(root, "Test Set", f"covid_{100 + i}.png", 300 + i)
    return root


def _prepare_qata(root: Path, out: Path | None = None, **options) -> PrepareReport:
    return prepare(root, "qata-cov19", out or root.parent.parent / "out", size=16, **options)


# --- what is written ---------------------------------------------------------------------------


def test_every_phantom_arrives_as_it_was_drawn(tmp_path):
    report = _phantoms(tmp_path / "out")
    layout = Phantoms(None, size=16, seed=0, count=40)
    drawn = {s.sample_id: s for case in layout.cases() for s in layout.load(case)}
    for split, count in report.manifest.split_counts.items():
        table = read_table(tmp_path / "out", Split(split))
        images = table["image"].combine_chunks().to_numpy_ndarray()
        masks = table["mask"].combine_chunks().to_numpy_ndarray()
        tabular = table["tabular"].combine_chunks().to_numpy_ndarray()
        assert len(table) == count
        assert set(table["split"].to_pylist()) == {split}
        for row, sample_id in enumerate(table["sample_id"].to_pylist()):
            sample = drawn.pop(sample_id)
            assert np.array_equal(images[row], sample.image)
            assert np.array_equal(masks[row], sample.mask)
            assert np.array_equal(tabular[row], sample.tabular, equal_nan=True)
            stored = {name: table[name][row].as_py() for name in ("label", "site", "sex", "age")}
            assert stored == {"label": sample.label, "site": sample.site, **sample.groups}
            boxes = [list(box.values()) for box in table["boxes"][row].as_py()]
            expected = np.column_stack([sample.boxes.xyxy, sample.boxes.classes])
            assert np.array_equal(np.array(boxes).reshape(-1, 5), expected)
    assert not drawn


def test_columns_have_the_published_types(tmp_path):
    manifest = _phantoms(tmp_path / "out").manifest
    schema = read_table(tmp_path / "out", Split.TRAIN).schema
    assert schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), (1, 16, 16))
    assert schema.field("mask").type == pa.fixed_shape_tensor(pa.uint8(), (1, 16, 16))
    assert schema.field("tabular").type == pa.fixed_shape_tensor(pa.float32(), (5,))
    assert schema.field("label").type == pa.int64()
    assert schema.field("age").type == pa.float32()
    assert manifest.columns.keys() == set(schema.names)
    assert manifest.columns["image"] == "uint8[1, 16, 16]"


def test_the_manifest_tells_the_truth(tmp_path):
    report = _phantoms(tmp_path / "out", size=20, seed=3)
    manifest = report.manifest
    assert Manifest.load(tmp_path / "out") == manifest
    assert manifest.image_shape == (1, 20, 20)
    assert manifest.tasks == (TaskName.SEGMENTATION, TaskName.CLASSIFICATION)
    assert [f.name for f in manifest.tabular] == [f.name for f in Phantoms.tabular]
    assert sum(manifest.split_counts.values()) == 40
    assert manifest.preprocessing["seed"] == 3
    assert manifest.preprocessing["count"] == 40
    # Of the train split alone, by another route.
    column = read_table(tmp_path / "out", Split.TRAIN)["image"].combine_chunks()
    train = column.to_numpy_ndarray() / 255
    assert manifest.mean == pytest.approx([train.mean()], abs=1e-12)
    assert manifest.std == pytest.approx([train.std()], abs=1e-12)


def test_a_small_split_has_parts_for_several_workers(tmp_path):
    _phantoms(tmp_path / "out", count=100)
    rows = [part.rows for part in shards.parts(tmp_path / "out", Split.TRAIN)]
    assert len(rows) == 8
    assert all(sum(groups) >= 8 for groups in rows[:-1])


def test_rows_are_shuffled_within_a_split(tmp_path):
    _phantoms(tmp_path / "out", count=60)
    ids = read_table(tmp_path / "out", Split.TRAIN)["sample_id"].to_pylist()
    assert sum(a < b for a, b in pairwise(ids)) < 0.75 * len(ids)


def test_parts_and_groups_keep_to_their_size(tmp_path, monkeypatch):
    # A row of 16 x 16 has a good 512 bytes of image and mask.
    monkeypatch.setattr(shards, "PART_BYTES", 8_000)
    monkeypatch.setattr(shards, "GROUP_BYTES", 3_000)
    report = _phantoms(tmp_path / "out", count=70)
    parts = sorted((tmp_path / "out" / "train").glob("part-*.parquet"))
    assert [part.name for part in parts] == [f"part-{i:05d}.parquet" for i in range(len(parts))]
    files = [pq.ParquetFile(part) for part in parts]
    assert len(files) > 3
    for file in files:
        assert file.metadata.num_rows * 512 <= 8_000
        for group in range(file.num_row_groups):
            assert file.metadata.row_group(group).num_rows * 512 <= 3_000
    assert sum(f.metadata.num_rows for f in files) == report.manifest.split_counts["train"]


def test_a_site_can_be_held_out(tmp_path):
    manifest = _phantoms(tmp_path / "out", ood_site="portable").manifest
    assert manifest.split_counts["ood"] > 0
    assert set(read_table(tmp_path / "out", Split.OOD)["site"].to_pylist()) == {"portable"}
    assert "portable" not in read_table(tmp_path / "out", Split.TRAIN)["site"].to_pylist()


# --- again, over, interrupted ------------------------------------------------------------------


def _stamps(out: Path) -> dict[str, int]:
    return {str(p.relative_to(out)): p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


def test_the_same_again_does_nothing_and_says_so(tmp_path):
    first = _phantoms(tmp_path / "out")
    before = _stamps(tmp_path / "out")
    again = _phantoms(tmp_path / "out")
    assert not first.unchanged
    assert again.unchanged
    assert "up to date" in again.warnings[0]
    assert again.manifest == first.manifest
    assert _stamps(tmp_path / "out") == before


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"count": 41}, {"size": 18}, {"ratios": (0.6, 0.2, 0.2)}]
)
def test_another_data_set_is_replaced_only_when_asked(tmp_path, change):
    old = _phantoms(tmp_path / "out").manifest
    with pytest.raises(UserError, match=r"holds another data set.*--overwrite"):
        _phantoms(tmp_path / "out", **change)
    assert Manifest.load(tmp_path / "out") == old
    new = _phantoms(tmp_path / "out", overwrite=True, **change).manifest
    assert new.fingerprint != old.fingerprint
    assert Manifest.load(tmp_path / "out") == new
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_data_set_of_an_earlier_version_is_replaced_when_asked(tmp_path):
    _phantoms(tmp_path / "out")
    path = tmp_path / "out" / MANIFEST_NAME
    raw = json.loads(path.read_text())
    raw["schema_version"] = 1
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=r"another version .*Pass --overwrite to replace"):
        _phantoms(tmp_path / "out")
    report = _phantoms(tmp_path / "out", overwrite=True)
    assert Manifest.load(tmp_path / "out") == report.manifest


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_never_replaced(tmp_path, overwrite):
    precious = tmp_path / "out" / "thesis.tex"
    precious.parent.mkdir()
    precious.write_text("five years")
    with pytest.raises(UserError, match="not empty, and no data set"):
        _phantoms(tmp_path / "out", overwrite=overwrite)
    assert precious.read_text() == "five years"


def _contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


#: Dies in the middle of reading, or the moment before completion, when only manifests are missing.
_KILLED = """
import os, signal, sys
from pathlib import Path
from trustsweep.data_pipelines.building import dataset, prepare, spool

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

spool._CHUNK_CASES = 4
if sys.argv[2] == "reading":
    load = prepare.LAYOUTS["phantoms"].load
    phantoms = prepare.LAYOUTS["phantoms"]
    phantoms.load = lambda self, case: die() if case.index == 30 else load(self, case)
else:
    dataset.write_atomically = die
prepare.prepare(None, "phantoms", Path(sys.argv[1]), size=16, count=40)
"""


@pytest.mark.parametrize("moment", ["reading", "ending"])
def test_a_killed_preparation_reads_as_nothing_and_goes_on(tmp_path, monkeypatch, moment):
    command = [sys.executable, "-c", _KILLED, tmp_path / "out", moment]
    process = subprocess.run(command, check=False)
    assert process.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name == "out.partial"
    for folder in (left, tmp_path / "out"):
        with pytest.raises(UserError, match="no prepared data set"):
            read_table(folder, Split.TRAIN)
    loaded = []
    load = Phantoms.load
    monkeypatch.setattr(
        Phantoms, "load", lambda self, c: (loaded.append(c.index), load(self, c))[1]
    )
    report = _phantoms(tmp_path / "out")
    assert "went on from where an earlier preparation was interrupted" in report.warnings
    # The first case is looked at again for its shape.
    assert set(loaded) <= {0, *range(16, 40)} if moment == "reading" else set(loaded) == {0}
    fresh = _phantoms(tmp_path / "fresh")
    assert report.manifest == fresh.manifest
    assert _contents(tmp_path / "out") == _contents(tmp_path / "fresh")
    assert {p.name for p in tmp_path.iterdir()} == {"out", "fresh"}


def test_what_another_preparation_left_is_not_taken_up(tmp_path):
    subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "out", "reading"], check=False)
    report = _phantoms(tmp_path / "out", seed=1)
    assert not any("went on" in warning for warning in report.warnings)
    assert report.manifest == _phantoms(tmp_path / "fresh", seed=1).manifest


def test_two_preparations_at_once_are_refused(tmp_path):
    with (
        shards.building(Folder(tmp_path / "out"), tmp_path / "out.partial"),
        pytest.raises(UserError, match="another preparation is writing it"),
    ):
        _phantoms(tmp_path / "out")


def test_a_failed_preparation_keeps_the_old_data_set(qata, tmp_path):
    old = _prepare_qata(qata).manifest
    (qata / "Train Set" / "Images" / "covid_3.png").write_bytes(b"")
    with pytest.raises(BadFiles):
        _prepare_qata(qata, overwrite=True)
    assert Manifest.load(tmp_path / "out") == old
    assert {p.name for p in tmp_path.iterdir()} == {"out", "QaTa-COV19"}


# --- reading back ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": 1}, "schema: 1"),
        ({"schema_version": None}, "schema: none stated"),
        ({"licence": None}, f"schema: {SCHEMA_VERSION}, but other keys: licence"),
        ({"dose": 3}, f"schema: {SCHEMA_VERSION}, but other keys: dose"),
    ],
)
def test_a_data_set_of_another_version_is_refused_in_a_line(tmp_path, changes, words):
    out = tmp_path / "out"
    raw = json.loads(_phantoms(out).manifest.to_json()) | changes
    kept = {key: value for key, value in raw.items() if changes.get(key, "") is not None}
    (out / MANIFEST_NAME).write_text(json.dumps(kept))
    with pytest.raises(UserError) as refused:
        load_manifest(out)
    assert str(refused.value) == (
        f"{out}: a prepared data set of another version ({words}; this trustsweep reads "
        f"{SCHEMA_VERSION}). Prepare it again with `trustsweep prepare`."
    )


def test_reading_refuses_a_patient_in_two_splits(tmp_path):
    out = tmp_path / "out"
    manifest = _phantoms(out).manifest
    part = out / "train" / "part-00000.parquet"
    shutil.copy(part, out / "test" / "part-00099.parquet")
    raw = json.loads(manifest.to_json())
    raw["split_counts"]["test"] += pq.ParquetFile(part).metadata.num_rows
    (out / MANIFEST_NAME).write_text(json.dumps(raw))
    with pytest.raises(UserError, match="is in both train and test"):
        read_table(out, Split.VAL)


def test_reading_refuses_missing_rows_parts_and_splits(tmp_path):
    out = tmp_path / "out"
    _phantoms(out)
    with pytest.raises(UserError, match="no ood split; it has train, val, test"):
        read_table(out, Split.OOD)
    part = out / "val" / "part-00000.parquet"
    whole = part.read_bytes()
    pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(UserError, match="rows in the val split, the manifest says"):
        read_table(out, Split.TRAIN)
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"part-00000\.parquet: damaged"):
        read_table(out, Split.VAL)
    part.unlink()
    with pytest.raises(UserError, match="val: the shards are missing"):
        read_table(out, Split.VAL)


# --- QaTa-COV19 --------------------------------------------------------------------------------


def _patients(out: Path, split: Split) -> list[str]:
    return read_table(out, split)["patient_id"].to_pylist()


def test_qata_keeps_the_published_test_set_and_splits_by_patient(qata, tmp_path):
    report = _prepare_qata(qata)
    counts = report.manifest.split_counts
    assert counts["test"] == 4
    assert counts["train"] + counts["val"] == 23
    patients = [p for s in (Split.TRAIN, Split.VAL) for p in _patients(tmp_path / "out", s)]
    # 12 images of unknown patients, 4 subjects with 2 images, a series of 3
    assert sorted(patients.count(p) for p in set(patients)) == [1] * 12 + [2] * 4 + [3]
    sites = read_table(tmp_path / "out", Split.TRAIN)["site"].to_pylist()
    assert set(sites) == {"bimcv", "unstated"}


def test_qata_reports_empty_masks_and_unknown_patients(qata):
    warnings = _prepare_qata(qata).warnings
    assert "1 of 27 masks are all background; kept" in warnings
    assert "19 of 27 images do not name their patient; each case counts as one" in warnings


def test_qata_stores_no_names(qata, tmp_path):
    _prepare_qata(qata)
    content = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"covid_" not in content
    table = read_table(tmp_path / "out", Split.TRAIN)
    for column in ("sample_id", "patient_id"):
        assert not any("S0000" in value for value in table[column].to_pylist())


@pytest.mark.parametrize("above", [0, 1, 2])
def test_qata_is_found_from_the_folders_above(qata, above):
    folder = [qata, qata.parent, qata.parent.parent][above]
    for sibling in ("Infected", "Control Group"):
        (qata.parent / sibling).mkdir()
    (qata / "Test Set" / "Images" / "readme.txt").write_text("hello")
    report = prepare(folder, "qata-cov19", qata.parent.parent / "out", size=16)
    (unread,) = [w for w in report.warnings if w.startswith("not read")]
    assert "Test Set/Images/readme.txt" in unread
    assert ("Control Group" in unread) == ("Infected" in unread) == (above > 0)


def test_qata_losing_an_infection_to_the_size_is_reported(qata):
    dot = np.zeros((24, 24), np.uint8)
    dot[0, 0] = 255
    Image.fromarray(dot).save(qata / "Train Set" / "Ground-truths" / "mask_covid_4.png")
    report = prepare(qata, "qata-cov19", qata.parent.parent / "out", size=8)
    assert "1 of 27 images lose their infection at 8 pixels; a larger size helps" in report.warnings


def test_qata_content_is_part_of_the_fingerprint(qata, tmp_path):
    first = _prepare_qata(qata).manifest
    assert _prepare_qata(qata).unchanged
    moved = qata.parent.parent / "elsewhere" / "QaTa-COV19-v2"
    shutil.copytree(qata, moved)
    assert _prepare_qata(moved, tmp_path / "out").unchanged
    _write_pair(moved, "Train Set", "covid_1.png", 999)
    other = _prepare_qata(moved, tmp_path / "other").manifest
    assert other.fingerprint != first.fingerprint


# --- what is refused ---------------------------------------------------------------------------


def _refused(root: Path) -> BadFiles:
    with pytest.raises(BadFiles) as raised:
        _prepare_qata(root)
    assert not (root.parent.parent / "out").exists()
    return raised.value


def test_every_bad_file_is_reported_at_once(qata):
    images, masks = qata / "Train Set" / "Images", qata / "Train Set" / "Ground-truths"
    (masks / "mask_covid_1.png").unlink()
    (images / "covid_2.png").unlink()
    Image.fromarray(np.zeros((24, 25), np.uint8)).save(masks / "mask_covid_3.png")
    whole = (images / "covid_4.png").read_bytes()
    (images / "covid_4.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((24, 24), np.uint16)).save(images / "covid_5.png")
    Image.new("RGBA", (24, 24)).save(images / "covid_6.png")
    (images / "covid_7.png").write_bytes(b"")
    Image.fromarray(np.full((24, 24), 9, np.uint8)).save(masks / "mask_covid_8.png")
    error = _refused(qata)
    found = {problem.path.name: problem.reason for problem in error.problems}
    expected = {
        "covid_1.png": "no mask_covid_1.png in Ground-truths",
        "mask_covid_2.png": "a mask without an image",
        "mask_covid_3.png": "the mask is 25 x 24 pixels, its image 24 x 24",
        "covid_4.png": "damaged or truncated",
        "covid_5.png": "mode I;16",
        "covid_6.png": "mode RGBA",
        "covid_7.png": "the file is empty",
        "mask_covid_8.png": "this one 9 as well",
    }
    assert found.keys() == expected.keys()
    assert all(expected[name] in reason for name, reason in found.items())
    first, *others = str(error).splitlines()
    assert first.startswith(f"{error.problems[0].path}: ")
    assert first.endswith("(7 more)")
    assert len(others) == 7


def test_a_long_list_of_bad_files_is_cut(qata):
    for path in (qata / "Train Set" / "Images").iterdir():
        path.write_bytes(b"")
    error = _refused(qata)
    assert len(error.problems) == 23
    lines = str(error).splitlines()
    assert lines[0].endswith("(22 more)")
    assert len(lines) == 1 + LISTED + 1
    table = qata.parent.parent / "out.bad.csv"
    assert lines[-1].strip() == f"... and 2 more; all of them in {table}"
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "reason"]
    assert rows == [[str(p.path), p.reason] for p in error.problems]


def test_bad_files_can_be_skipped_and_are_listed(qata, tmp_path):
    images = qata / "Train Set" / "Images"
    (images / "covid_7.png").write_bytes(b"")
    (images / "covid_2.png").unlink()
    report = _prepare_qata(qata, skip_bad=True)
    assert sum(report.manifest.split_counts.values()) == 25
    assert report.manifest.preprocessing["skipped"] == 2
    assert "cases that cannot be used, left out: 2; skipped.csv says why" in report.warnings
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert {Path(row[0]).name for row in rows} == {"covid_7.png", "mask_covid_2.png"}
    assert all(row[1] for row in rows)
    # The same again does nothing, but whoever does not ask to skip is told.
    assert _prepare_qata(qata, skip_bad=True).unchanged
    with pytest.raises(UserError, match="made with --skip-bad, without 2 cases"):
        _prepare_qata(qata)


def test_nothing_usable_is_refused_even_when_skipping(qata):
    for path in qata.glob("*/Images/*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no usable image or table here"):
        _prepare_qata(qata, skip_bad=True)


# --- folds and held-out sites ------------------------------------------------------------------


def test_folds_test_every_sample_once(tmp_path):
    report = _phantoms(tmp_path / "out", count=60, folds=4)
    assert report.folders == ("fold-0", "fold-1", "fold-2", "fold-3")
    tested, fingerprints = [], set()
    for name in report.folders:
        manifest = Manifest.load(tmp_path / "out" / name)
        fingerprints.add(manifest.fingerprint)
        assert sum(manifest.split_counts.values()) == 60
        tested += read_table(tmp_path / "out" / name, Split.TEST)["sample_id"].to_pylist()
    assert len(tested) == len(set(tested)) == 60
    assert len(fingerprints) == 4
    with pytest.raises(UserError, match="several data sets, name one of them: fold-0, fold-1"):
        Manifest.load(tmp_path / "out")
    again = _phantoms(tmp_path / "out", count=60, folds=4)
    assert again.unchanged
    assert again.folders == report.folders


def test_every_site_is_left_out_once(tmp_path):
    report = _phantoms(tmp_path / "out", count=60, ood_site="each")
    out = []
    for name in report.folders:
        (site,) = set(read_table(tmp_path / "out" / name, Split.OOD)["site"].to_pylist())
        assert name == f"without-{site}"
        assert site not in read_table(tmp_path / "out" / name, Split.TRAIN)["site"].to_pylist()
        out.append(site)
    assert sorted(out) == ["computed", "digital", "portable"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"folds": 1}, "folds: a whole number from 2 on"),
        ({"folds": 2}, "folds: at least 3 here"),
        ({"folds": 3, "ood_site": "each"}, "not both"),
        ({"ood_site": 3}, "ood_site: a site, a list"),
        ({"dtype": "int8"}, "dtype: uint8 or float16"),
    ],
)
def test_impossible_divisions_are_refused(tmp_path, change, match):
    with pytest.raises(UserError, match=match):
        _phantoms(tmp_path / "out", **change)
    assert not list(tmp_path.iterdir())


def test_copies_of_an_image_are_left_out_and_counted(qata):
    train, test = qata / "Train Set", qata / "Test Set"
    shutil.copy(test / "Images" / "covid_100.png", train / "Images" / "covid_1.png")
    shutil.copy(
        test / "Ground-truths" / "mask_covid_100.png", train / "Ground-truths" / "mask_covid_1.png"
    )
    report = _prepare_qata(qata)
    # The held-out one stays.
    assert report.manifest.split_counts["test"] == 4
    assert sum(report.manifest.split_counts.values()) == 26
    assert any("1 of 27 images are copies" in warning for warning in report.warnings)


def test_copies_with_another_mask_contradict(qata):
    images = qata / "Train Set" / "Images"
    shutil.copy(images / "covid_1.png", images / "covid_0.png")  # the mask of covid_0 is empty
    pair = [images / "covid_0.png", images / "covid_1.png"]
    error = _refused(qata)
    assert sorted(problem.path for problem in error.problems) == pair
    for problem in error.problems:
        (other,) = [path for path in pair if path != problem.path]
        assert f"the same image as {other} with another mask" in problem.reason
    # Which of the masks is right is not known: none is used.
    report = _prepare_qata(qata, skip_bad=True)
    assert sum(report.manifest.split_counts.values()) == 25


def test_a_patient_of_the_test_set_is_kept_out_of_training(qata):
    name = "sub-S00001_ses-E09999_run-1_bp-chest_vp-pa_dx.png"
    _write_pair(qata, "Test Set", name, 400)
    report = _prepare_qata(qata)
    assert report.manifest.split_counts["test"] == 5
    assert any(w.startswith("2 of 28 images are left out: their patients") for w in report.warnings)


@pytest.mark.parametrize(
    ("layout", "match"),
    [("qata", "unknown layout 'qata', did you mean 'qata-cov19'"), ("phantom", "'phantoms'")],
)
def test_an_unknown_layout_names_the_nearest(tmp_path, layout, match):
    with pytest.raises(UserError, match=match):
        prepare(None, layout, tmp_path / "out", size=16)


def test_unusable_folders_are_named(qata, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="nowhere: no such folder"):
        prepare(tmp_path / "nowhere", "qata-cov19", out, size=16)
    with pytest.raises(UserError, match="give the folder"):
        prepare(None, "qata-cov19", out, size=16)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="neither 'Test Set' nor 'Train Set' here"):
        prepare(tmp_path / "other", "qata-cov19", out, size=16)
    shutil.rmtree(qata / "Test Set" / "Ground-truths")
    with pytest.raises(UserError, match="Ground-truths: no such folder"):
        _prepare_qata(qata)
    assert not out.exists()


def test_empty_folders_and_splits_are_refused(qata):
    for path in (qata / "Test Set").glob("*/*.png"):
        path.unlink()
    with pytest.raises(UserError, match="no images, so the published 'Test Set' would be empty"):
        _prepare_qata(qata)
    # One patient cannot be divided.
    _write_pair(qata, "Test Set", "covid_9.png", 9)
    for path in (qata / "Train Set").glob("*/*covid_*.png"):
        path.unlink()
    for path in (qata / "Train Set").glob("*/*sub-S*.png"):
        path.unlink()
    with pytest.raises(UserError, match="val split is empty: 4 images of 2 patients"):
        _prepare_qata(qata)


def test_too_few_patients_are_refused(tmp_path):
    with pytest.raises(UserError, match="split is empty: 2 images"):
        _phantoms(tmp_path / "out", count=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), "abc", 3, None])
def test_impossible_ratios_are_refused(tmp_path, ratios):
    with pytest.raises(UserError, match="ratios: three shares"):
        _phantoms(tmp_path / "out", ratios=ratios)


@pytest.mark.parametrize("change", [{"size": 0}, {"seed": -1}])
def test_impossible_sizes_and_seeds_are_refused(tmp_path, change):
    with pytest.raises(UserError, match="size is at least 1 and seed at least 0"):
        _phantoms(tmp_path / "out", **change)


# --- real X-rays -------------------------------------------------------------------------------


def test_real_xrays_in_qata_layout(real_data, tmp_path):
    report = prepare(
        real_data / "covid19_cxr_qata_layout", "qata-cov19", tmp_path / "out", size=256
    )
    counts = report.manifest.split_counts
    assert counts["test"] == 20
    assert counts["train"] + counts["val"] == 80
    assert counts["val"] == pytest.approx(14, abs=2)
    published = real_data / "covid19_cxr_qata_layout" / "QaTa-COV19-v2"
    stored = {
        hash(image.tobytes())
        for split in counts
        for image in read_table(tmp_path / "out", Split(split))["image"]
        .combine_chunks()
        .to_numpy_ndarray()
    }
    files = {hash(np.asarray(Image.open(p)).tobytes()) for p in published.glob("*/Images/*.png")}
    assert stored == files
    empty = sum(not np.asarray(Image.open(p)).any() for p in published.glob("*/Ground-truths/*"))
    assert f"{empty} of 100 masks are all background; kept" in report.warnings


def test_a_class_that_a_split_lacks_is_said(tmp_path):
    """A single image cannot show every region: what validation lacks is in a warning."""
    report = prepare(None, "phantoms", tmp_path / "out", size=16, count=9, target="regions", seed=1)
    manifest = report.manifest
    lacking = {split: manifest.lacking(split) for split in manifest.splits}
    assert any(lacking.values())
    for split, names in lacking.items():
        shares = dict(zip(manifest.regions, manifest.mask_shares[split], strict=True))
        counts = dict(zip(manifest.classes, manifest.label_counts[split], strict=True))
        gone = [
            name
            for name in (*manifest.classes, *manifest.regions)
            if 0 in (shares.get(name, 1), counts.get(name, 1))
        ]
        assert set(names) == set(gone)
        said = [w for w in report.warnings if w.startswith(f"{split}: no sample of")]
        assert len(said) == bool(names)
        assert all(name in said[0] for name in names)
