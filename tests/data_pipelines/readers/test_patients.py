"""A user's list of patients: names and ids however they are spelt, and what cannot be used."""

import csv
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.building.shards import read_table
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.inspection.numbers import inspect
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.problems import BadFile, BadFiles
from trustsweep.data_pipelines.readers.files import opaque
from trustsweep.data_pipelines.readers.patients import PatientList, identity
from trustsweep.data_pipelines.schema import PatientSource, Split

ROOT = Path("/data")
IMAGES = [ROOT / "train" / "a.png", ROOT / "train" / "b.png", ROOT / "test" / "c.jpg"]


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def _listed(tmp_path: Path, text: str, images: list[Path] = IMAGES, **kwargs) -> PatientList:
    return PatientList(_write(tmp_path / "who.csv", text, **kwargs), images, ROOT)


def _rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file name", "patient"), *rows])
    return path


def _qata_images(root: Path) -> list[Path]:
    return sorted((root / "QaTa-COV19-v2").glob("*/Images/*"))


def _everyone(folder: Path, path: Path, images: int = 3) -> Path:
    """A list of every infected of a miniature: so many neighbours in the order are a patient."""
    found = [p.relative_to(folder).as_posix() for p in _qata_images(folder)]
    return _rows(path, [(name, f"P{number // images}") for number, name in enumerate(found)])


# --- ids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spellings",
    [
        ("7", "00000007", "007", "7.0", " 7", "７"),
        ("P007", "p7", "P 7", "p\u00a0007", "P\u200b7"),
        ("Müller", "Mu\u0308ller", "MÜLLER"),
        ("S-01-002", "s-1-2"),
    ],
)
def test_spellings_of_one_id_are_one(spellings):
    assert len({identity(spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    "ids", [("7", "70"), ("0", "1"), ("P7", "Q7"), ("1-2", "12"), ("10", "1"), ("1.5", "15")]
)
def test_ids_that_differ_otherwise_stay_apart(ids):
    assert identity(ids[0]) != identity(ids[1])


@given(st.text())
@example("R\u00b8")  # a blank with a mark, which the letter takes on
def test_an_identity_is_its_own(text):
    assert identity(identity(text)) == identity(text)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 6))
def test_padding_alone_joins_numbers(a, b, zeros):
    assert (identity("0" * zeros + str(a)) == identity(str(b))) == (a == b)


# --- file names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "b.png",
        "b",
        "train/b.png",
        "train/b",
        "./train/b.png",
        "/elsewhere/train/b.png",
        "train\\b.png",
        "B.PNG",
        " b.png ",
        "b.jpeg",
    ],
)
def test_a_name_is_found_however_it_is_written(tmp_path, name):
    listed = _listed(tmp_path, f"file name,patient\na.png,1\n{name},2\nc.jpg,3\n")
    assert listed.problems == []
    assert [listed.patient(image) for image in IMAGES] == ["1", "2", "3"]


_PART = st.text("abcä", min_size=1, max_size=2)


@given(st.sets(st.tuples(_PART, _PART), min_size=1, max_size=8), st.data())
def test_a_name_finds_its_image_or_is_refused_as_ambiguous(tmp_path_factory, places, data):
    """As deep as it takes to be the only one it is found; any shorter it is never another's."""
    tmp_path = tmp_path_factory.mktemp("names")
    images = [ROOT / folder / f"{stem}.png" for folder, stem in sorted(places)]
    folder, stem = data.draw(st.sampled_from(sorted(places)))
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    deep, suffix = data.draw(st.booleans()), data.draw(st.sampled_from(["", ".png"]))
    name = unicodedata.normalize(form, f"{folder}/{stem}{suffix}" if deep else f"{stem}{suffix}")
    listed = _listed(tmp_path, f"file name,patient\n{name},x\n", images)
    alone = deep or sum(other == stem for _, other in places) == 1
    if alone:
        assert listed.strays == ()
        assert listed.patient(ROOT / folder / f"{stem}.png") == "x"
    else:
        (problem,) = listed.strays
        assert "Write the whole of it" in problem.reason


def test_the_exact_name_wins_over_others_of_its_stem(tmp_path):
    images = [ROOT / "a.png", ROOT / "A.png", ROOT / "a.jpg"]
    listed = _listed(tmp_path, "file,patient\na.png,1\nA.png,2\na.jpg,3\n", images)
    assert [listed.patient(image) for image in images] == ["1", "2", "3"]
    (problem,) = _listed(tmp_path, "file,patient\na,1\n", images).strays
    assert problem.reason.startswith("line 2, column 'file': 'a' may be ")


# --- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "file name,patient",
        "filename,patientid",
        "Image Index,Patient ID",
        "image_id,subject_id",
        "\ufeffpath,SUBJECT",
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_headers_delimiters_and_ends_of_lines(tmp_path, header, delimiter, end):
    rows = ["age,notes,view", *(f"{70 + row},x,PA" for row in range(3))]
    pairs = [header, *(f"{i.name},{p}" for i, p in zip(IMAGES, "123", strict=True))]
    lines = [f"{pair},{row}" for pair, row in zip(pairs, rows, strict=True)]
    listed = _listed(tmp_path, end.join(lines).replace(",", delimiter) + end)
    assert [listed.patient(image) for image in IMAGES] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["who.csv", "empty"]),
        (b"file name,patient\n", ["who.csv", "lists no image"]),
        (b"name,patient\na.png,1\n", ["no column of file names", "'file name'", "It has: name"]),
        (b"file name,who\na.png,1\n", ["no column of patients", "'patient'"]),
        (b"file,image,patient\na.png,a,1\n", ["'file' and 'image'", "Rename or remove"]),
        (b"file,patient,subject\na.png,a,1\n", ["'patient' and 'subject'"]),
        (b"file,patient\na.png\n", ["line 2", "1 fields where 2"]),
        (b"file,patient\na.png,M\xfcller\n", ["line 2", "not UTF-8"]),
        ("file,patient\na.png,1\n".encode("utf-16"), ["UTF-16", "Save it as UTF-8"]),
        (b'file,patient\n"a.png,1\n', ["who.csv", "line 2"]),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content, words):
    path = tmp_path / "who.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        PatientList(path, IMAGES, ROOT)
    assert all(word in str(raised.value) for word in words), str(raised.value)
    assert "ller" not in str(raised.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file. Give --patients a CSV"):
        PatientList(tmp_path / "nowhere.csv", IMAGES, ROOT)


@pytest.mark.parametrize(
    ("rows", "where", "words"),
    [
        ("a,SECRET\nb,2\n", "c.jpg", "not listed"),
        ("a,SECRET\nb,2\nc,3\nd.png,4\n", "who.csv", "line 5, column 'file': no image 'd.png'"),
        ("a,SECRET\nb,2\nc,3\nother/a.png,4\n", "who.csv", "line 5, column 'file': no image"),
        ("a,SECRET\nb,2\nc,3\n,4\n", "who.csv", "line 5, column 'file': empty"),
        ("a,SECRET\nb,2\nc,3\nb.png,4\n", "b.png", "lines 3 and 5 of"),
        ("a,SECRET\nb,\nc,3\n", "b.png", "no patient in line 3 of"),
        ("a,SECRET\nb, NaN\nc,3\n", "b.png", "no patient in line 3 of"),
        ("a,SECRET\nb,\nb,2\nc,3\n", "b.png", "no patient in line 3 of"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line_and_no_patient(tmp_path, rows, where, words):
    listed = _listed(tmp_path, f"file,patient\n{rows}")
    (problem,) = listed.problems
    assert problem.path.name == where
    assert words in problem.reason
    assert "who.csv" in str(problem)
    assert "SECRET" not in str(problem)
    if problem.path in IMAGES:
        with pytest.raises(BadFile, match=words):
            listed.patient(problem.path)
    assert listed.patient(IMAGES[0]) == "secret"


def test_the_same_line_twice_is_no_contradiction(tmp_path):
    listed = _listed(tmp_path, "file,patient\na,1\nb,2\nc,3\ntrain/a.png,1\n")
    assert listed.problems == []
    assert listed.warnings == ()


def test_two_spellings_of_an_id_are_one_patient_and_told_by_their_lines(tmp_path):
    listed = _listed(tmp_path, "file,patient\na,Doe 007\nb,doe 7\nc,Roe\n")
    assert listed.problems == []
    assert listed.patient(IMAGES[0]) == listed.patient(IMAGES[1]) != listed.patient(IMAGES[2])
    (warning,) = listed.warnings
    assert "(lines 2 and 3)" in warning
    assert "doe" not in warning.lower()


def test_the_digest_is_of_who_is_where_and_not_of_the_file(tmp_path):
    one = _listed(tmp_path, "file,patient\na,1\nb,1\nc,3\n")
    again = PatientList(one.path, IMAGES, Path("/"))
    same = _listed(tmp_path, "subject;image\n3;c.jpg\n001;train/b.png\n1;a.png\n")
    other = _listed(tmp_path, "file,patient\na,1\nb,3\nc,3\n")
    assert one.digest() == again.digest() == same.digest() != other.digest()


# --- in a preparation --------------------------------------------------------------------------


def _patients(out: Path, split: str) -> list[str]:
    return list(read_table(out, Split(split))["patient_id"].to_pylist())


def test_a_listed_patient_is_in_one_split_and_no_name_is_stored(miniature, tmp_path):
    folder = miniature("qata-cov19")
    who = _everyone(folder, tmp_path / "who.csv")
    report = prepare(folder, "qata-cov19", tmp_path / "out", size=16, patients=who)
    splits = defaultdict(set)
    for split in report.manifest.split_counts:
        for patient in _patients(tmp_path / "out", split):
            splits[patient].add(split)
    assert {len(found) for found in splits.values()} == {1}
    assert len(splits) == len(_qata_images(folder)) // 3
    assert not any("guessed" in w or "do not name" in w for w in report.warnings)
    assert report.manifest.preprocessing["patients"] == PatientSource.FILE
    written = b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert b"who.csv" not in written
    assert not any("P0" in patient or len(patient) != 16 for patient in splits)
    doubts = [source.doubt for source in PatientSource if source.doubt]
    found = inspect(tmp_path / "out").warnings
    assert not any(doubt in warning for doubt in doubts for warning in found)


def test_controls_are_listed_as_the_infected_are(miniature, tmp_path):
    folder = miniature("qata-cov19")
    layout = LAYOUTS["qata-cov19"].create(folder, size=16, seed=0, options={"controls": "all"})
    names = [p.relative_to(folder).as_posix() for p in layout.image_files()]
    assert len(names) == 126
    who = _rows(tmp_path / "who.csv", [(name, str(i % 40)) for i, name in enumerate(names)])
    report = prepare(folder, "qata-cov19", tmp_path / "out", size=16, patients=who, controls="all")
    found = {p for s in report.manifest.split_counts for p in _patients(tmp_path / "out", s)}
    assert len(found) == 40


def test_another_list_is_another_data_set(miniature, tmp_path):
    folder, out = miniature("qata-cov19"), tmp_path / "out"
    guessed = prepare(folder, "qata-cov19", out, size=16)
    threes, fours = (_everyone(folder, tmp_path / f"{n}.csv", n) for n in (3, 4))
    with pytest.raises(UserError, match="holds another data set"):
        prepare(folder, "qata-cov19", out, size=16, patients=threes)
    first = prepare(folder, "qata-cov19", out, size=16, patients=threes, overwrite=True)
    assert first.manifest.fingerprint != guessed.manifest.fingerprint
    with pytest.raises(UserError, match="holds another data set"):
        prepare(folder, "qata-cov19", out, size=16, patients=fours)
    moved = threes.rename(tmp_path / "moved.csv")
    assert prepare(folder, "qata-cov19", out, size=16, patients=moved).unchanged


def test_what_a_list_lacks_is_refused_before_an_image_is_read(miniature, tmp_path):
    folder = miniature("qata-cov19")
    who = _everyone(folder, tmp_path / "who.csv")
    lines = who.read_text(encoding="utf-8").splitlines()
    who.write_text("\n".join([*lines[:-2], "nobody.png,P1"]), encoding="utf-8")
    read: list[int] = []
    with pytest.raises(BadFiles) as raised:
        prepare(
            folder,
            "qata-cov19",
            tmp_path / "out",
            size=16,
            patients=who,
            progress=lambda done, total: read.append(done),
        )
    assert read == []
    assert not (tmp_path / "out").exists()
    assert len(raised.value.problems) == 3
    report = prepare(folder, "qata-cov19", tmp_path / "out", size=16, patients=who, skip_bad=True)
    assert sum(report.manifest.split_counts.values()) == len(_qata_images(folder)) - 2
    with (tmp_path / "out" / "skipped.csv").open(encoding="utf-8", newline="") as file:
        skipped = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in skipped].count("who.csv") == 1
    assert sum("not listed in" in row["reason"] for row in skipped) == 2


def test_guessed_patients_are_told_when_preparing_and_when_looking(miniature, tmp_path):
    report = prepare(miniature("qata-cov19"), "qata-cov19", tmp_path / "out", size=16)
    assert any("guessed" in w and "--patients FILE.csv" in w for w in report.warnings)
    assert report.manifest.preprocessing["patients"] == PatientSource.FILE_NAMES
    found = inspect(tmp_path / "out")
    assert found.patients == "file names"
    assert any("guessed" in w and "--patients FILE.csv" in w for w in found.warnings)


def test_a_layout_without_files_of_images_says_so_and_suggests_no_list(miniature, tmp_path):
    report = prepare(miniature("medmnist"), "medmnist", tmp_path / "out", size=28)
    found = inspect(tmp_path / "out")
    for warnings in (report.warnings, found.warnings):
        (warning,) = [w for w in warnings if "names no patients" in w]
        assert "--patients" not in warning


# --- real X-rays whose patients are known ------------------------------------------------------


def test_true_patients_of_real_xrays_keep_validation_apart(real_data, tmp_path):
    """By file names 7 of 14 validation images lie beside their own patients; by the list none."""
    metadata = real_data / "covid19_cxr_segmentations" / "metadata.csv"
    with metadata.open(encoding="utf-8-sig", newline="") as file:
        true = {Path(r["filename"]).stem: r["patientid"] for r in csv.DictReader(file)}
    folder = real_data / "covid19_cxr_qata_layout" / "QaTa-COV19-v2"
    person = {
        opaque("QaTa-COV19-v2", path.relative_to(folder).as_posix()): true[path.stem]
        for path in folder.glob("*/Images/*.png")
    }

    def shared(out: Path) -> tuple[int, int]:
        """Validation images, and those of a patient who is in train or test."""
        ids = {s: read_table(out, Split(s))["sample_id"].to_pylist() for s in Split if s != "ood"}
        others = {person[i] for split, own in ids.items() if split != "val" for i in own}
        return len(ids["val"]), int(np.sum([person[i] in others for i in ids["val"]]))

    prepare(folder, "qata-cov19", tmp_path / "guessed", size=32)
    report = prepare(folder, "qata-cov19", tmp_path / "true", size=32, patients=metadata)
    assert shared(tmp_path / "guessed") == (14, 7)
    images, beside = shared(tmp_path / "true")
    assert beside == 0
    assert images == pytest.approx(14, abs=2)
    assert sum(report.manifest.split_counts.values()) == 100
    stored = {p for s in report.manifest.split_counts for p in _patients(tmp_path / "true", s)}
    assert len(stored) == len(set(true.values())) == 73
