"""UCI heart disease: the published coding, gaps and hospitals, on the real files and in small."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Sample

#: Rows and rows with disease, as the publisher counts them.
COUNTS = {
    "cleveland": (303, 139),
    "hungarian": (294, 106),
    "switzerland": (123, 115),
    "va": (200, 149),
}
#: Code of the first category of each vocabulary, and the codes in its order.
CODES = {
    "sex": (0, 1),
    "cp": (1, 2, 3, 4),
    "fbs": (0, 1),
    "restecg": (0, 1, 2),
    "exang": (0, 1),
    "slope": (1, 2, 3),
    "thal": (3, 6, 7),
}


def _layout(folder: Path | None, **options):
    return LAYOUTS["uci-heart"].create(folder, size=16, seed=0, options=options)


def _samples(folder: Path, **options) -> list[Sample]:
    layout = _layout(folder, **options)
    return [sample for case in layout.cases() for sample in layout.load(case)]


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature("uci_heart"), tmp_path / "copy"))


def _change(path: Path, line: int, column: int, value: str) -> None:
    lines = path.read_text().splitlines()
    fields = lines[line - 1].split(",")
    fields[column] = value
    lines[line - 1] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")


def test_counts_are_the_publishers(real_data):
    samples = _samples(real_data / "uci_heart_disease")
    for site, (rows, diseased) in COUNTS.items():
        labels = [s.label for s in samples if s.site == site]
        assert (len(labels), sum(labels)) == (rows, diseased)


def test_entries_decode_to_the_files_numbers(real_data):
    folder = real_data / "uci_heart_disease"
    layout = _layout(folder)
    samples = _samples(folder)
    for site in COUNTS:
        published = np.genfromtxt(folder / f"processed.{site}.data", delimiter=",")[:, :13]
        ours = np.array([s.tabular for s in samples if s.site == site], np.float64)
        for column, feature in enumerate(layout.tabular):
            if feature.vocabulary:
                codes = np.array([*CODES[feature.name], np.nan])
                assert len(feature.vocabulary) == len(codes) - 1
                index = np.where(np.isnan(ours[:, column]), -1, ours[:, column]).astype(int)
                ours[:, column] = codes[index]
        for column in (3, 4):  # trestbps and chol, where 0 is no value
            published[published[:, column] == 0, column] = np.nan
        np.testing.assert_allclose(ours, published, rtol=1e-6)


def test_no_cholesterol_is_known_of_switzerland(real_data):
    swiss = [s for s in _samples(real_data / "uci_heart_disease") if s.site == "switzerland"]
    assert np.isnan([s.tabular[4] for s in swiss]).all()
    assert all("rows have a chol of 0, which is read as missing" in s.notes for s in swiss)


def test_a_modality_is_present_where_an_entry_is_known(miniature):
    layout, samples = _layout(miniature("uci_heart")), _samples(miniature("uci_heart"))
    assert sorted(i for m in layout.modalities for i in m.indices) == list(range(13))
    for sample in samples:
        known = [np.isfinite(sample.tabular[list(m.indices)]).any() for m in layout.modalities]
        assert list(sample.present) == known
    assert {True, False} == {s.present[2] for s in samples}  # the exercise test
    assert {True, False} == {s.present[3] for s in samples}


def test_severity_keeps_num_and_says_who_does_not_grade(miniature):
    binary = _samples(miniature("uci_heart"))
    graded = _samples(miniature("uci_heart"), target="severity")
    assert [int(s.label > 0) for s in graded] == [s.label for s in binary]
    assert {s.label for s in graded if s.site != "hungarian"} == set(range(5))
    remarks = _layout(miniature("uci_heart"), target="severity").remarks()
    assert sum("grades no severity" in remark for remark in remarks) == 1


def test_rows_keep_their_identity_and_name_nobody(miniature, copy):
    ours, again = _samples(miniature("uci_heart")), _samples(copy)
    assert [s.sample_id for s in ours] == [s.sample_id for s in again]
    assert len({s.patient_id for s in ours}) == len(ours) == 131
    (copy / "processed.cleveland.data").unlink()
    without = _samples(copy)
    assert [s.sample_id for s in without] == [s.sample_id for s in ours if s.site != "cleveland"]


def test_a_repeated_row_is_noted_and_kept(miniature):
    repeated = [s for s in _samples(miniature("uci_heart")) if any("repeat" in n for n in s.notes)]
    assert [s.site for s in repeated] == ["va"]


def test_what_is_absent_or_unread_is_said(copy):
    (copy / "processed.hungarian.data").unlink()
    remarks = _layout(copy).remarks()
    assert "not here, and so left out: processed.hungarian.data" in remarks
    assert "not read, not part of the layout: heart-disease.names" in remarks


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (2, "9", "line 5: cp is one of 1, 2, 3, 4, not 9"),
        (13, "7", "line 5: num is a whole number from 0 to 4, not 7"),
        (13, "?", "line 5: num is a whole number from 0 to 4, not missing"),
        (1, "0.5", "line 5: sex is one of 0, 1"),
    ],
)
def test_a_code_that_means_nothing_is_refused_alone(copy, column, value, words):
    _change(copy / "processed.va.data", 5, column, value)
    layout = _layout(copy)
    read, problems = 0, []
    for case in layout.cases():
        try:
            read += len(list(layout.load(case)))
        except BadFile as problem:
            problems.append(problem)
    assert read == 130
    assert len(problems) == 1
    assert words in str(problems[0])
    assert problems[0].path.name == "processed.va.data"


def test_an_age_that_is_missing_is_a_case(copy):
    _change(copy / "processed.va.data", 5, 0, "-9")
    _change(copy / "processed.va.data", 5, 1, "?")
    sample = next(s for s in _samples(copy) if s.site == "va" and s.groups["age"] is None)
    assert sample.groups == {"sex": None, "age": None}
    assert not sample.present[0]


def test_a_row_of_gaps_alone_is_refused(copy):
    path = copy / "processed.va.data"
    path.write_text(path.read_text() + ",".join(["?"] * 13 + ["1"]) + "\n")
    layout = _layout(copy)
    *_, last = layout.cases()
    with pytest.raises(BadFile, match="line 32: no entry is known"):
        list(layout.load(last))


@pytest.mark.parametrize("value", ["male", "inf", ""])
def test_text_for_a_number_is_refused_at_once(copy, value):
    _change(copy / "processed.cleveland.data", 2, 1, value)
    if value:
        with pytest.raises(BadFile, match=r"processed\.cleveland\.data: line 2.*'sex'"):
            _layout(copy)
    else:
        assert np.isnan(_samples(copy)[1].tabular[1])


def test_a_folder_or_option_that_cannot_be(tmp_path, miniature):
    with pytest.raises(UserError, match=r"processed\.cleveland\.data"):
        _layout(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        _layout(None)
    with pytest.raises(UserError, match="did you mean 'severity'"):
        _layout(miniature("uci_heart"), target="severe")
    with pytest.raises(UserError, match="did you mean 'target'"):
        _layout(miniature("uci_heart"), targets="binary")


def test_hospitals_can_be_held_out(real_data, tmp_path):
    report = prepare(
        real_data / "uci_heart_disease", "uci-heart", tmp_path / "out", size=16, ood_site="va"
    )
    assert report.manifest.split_counts["ood"] == 200
    assert report.manifest.image_shape == ()
    age = report.manifest.tabular[0]
    assert 45 < age.mean < 60
    assert age.unit == "years"
