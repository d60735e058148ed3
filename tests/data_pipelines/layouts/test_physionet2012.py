"""PhysioNet Challenge 2012: grids, codes and outcomes, on real stays and on the known oddities."""

import csv
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from trustsweep.data_pipelines.building.prepare import prepare
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.layouts.physionet2012.parameters import CHANNEL, DESCRIPTORS, SERIES
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import opaque
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split

FIRST = 132539
AGE, GENDER, HEIGHT, ICU, WEIGHT = range(5)


def _layout(folder: Path | None, **options):
    return LAYOUTS["physionet2012"].create(folder, size=16, seed=0, options=options)


def _samples(folder: Path, **options) -> list[Sample]:
    layout = _layout(folder, **options)
    return [sample for case in layout.cases() for sample in layout.load(case)]


def _odd(miniature, index: int, **options) -> Sample:
    name = opaque("physionet2012", str(FIRST + index))
    return next(s for s in _samples(miniature("physionet2012"), **options) if s.sample_id == name)


@pytest.fixture
def copy(miniature, tmp_path) -> Path:
    return Path(shutil.copytree(miniature("physionet2012"), tmp_path / "copy"))


def _hours(time: str) -> float:
    return int(time[:-3]) + int(time[-2:]) / 60


def test_every_cell_is_the_mean_of_its_hour(real_data):
    """Against a loop over the rows of the file, parameter by parameter."""
    folder = real_data / "physionet_challenge2012"
    layout = _layout(folder)
    for case in list(layout.cases())[:12]:
        sample = next(layout.load(case))
        with case.path.open() as file:
            rows = [(_hours(t), n, float(v)) for t, n, v in list(csv.reader(file))[1:]]
        for name, parameter in SERIES.items():
            for step in range(48):
                inside = [
                    value
                    for hour, parameter_name, value in rows
                    if parameter_name == name
                    and step <= hour < step + 1
                    and parameter.least <= value <= parameter.greatest
                ]
                expected = np.mean(inside) if inside else np.nan
                np.testing.assert_allclose(
                    sample.series.value[step, CHANNEL[name]], expected, rtol=1e-5
                )


def test_outcomes_are_the_tables(real_data):
    folder = real_data / "physionet_challenge2012"
    with (folder / "Outcomes-a.txt").open() as file:
        table = {row["RecordID"]: row for row in csv.DictReader(file)}
    layout, within = _layout(folder), _layout(folder, target="death-within-30-days")
    some = islice(zip(layout.cases(), within.cases(), strict=True), 40)
    for case, same in some:
        row = table[case.path.stem]
        assert next(layout.load(case)).label == int(row["In-hospital_death"])
        days = int(row["Survival"])
        assert next(within.load(same)).label == int(days != -1 and days <= 30)
    assert len(list(layout.cases())) == 400


@pytest.mark.slow
def test_values_that_cannot_be_are_counted_on_real_stays(real_data):
    notes = [n for s in _samples(real_data / "physionet_challenge2012") for n in s.notes]
    assert notes.count("stays have impossible values of Age, which are read as missing") == 3
    assert notes.count("stays have impossible values of Height, which are read as missing") == 1


@pytest.mark.parametrize(("index", "place", "name"), [(0, HEIGHT, "Height"), (3, WEIGHT, "Weight")])
def test_an_impossible_descriptor_is_missing_and_noted(miniature, index, place, name):
    sample = _odd(miniature, index)
    assert np.isnan(sample.tabular[place])
    assert np.isfinite(sample.tabular[AGE])
    assert f"stays have impossible values of {name}, which are read as missing" in sample.notes


@pytest.mark.parametrize(("index", "name"), [(1, "pH"), (2, "Temp")])
def test_an_impossible_measurement_is_missing_and_noted(miniature, index, name):
    sample = _odd(miniature, index)
    assert np.isnan(sample.series.value[47, CHANNEL[name]])
    assert sample.notes == (f"stays have impossible values of {name}, which are read as missing",)


def test_minus_one_is_unknown_and_no_oddity(miniature):
    sample = _odd(miniature, 4)
    np.testing.assert_array_equal(
        np.isnan(sample.tabular), [False, True, True, False, True], strict=True
    )
    assert sample.groups["sex"] is None
    assert sample.notes == ()


def test_descriptors_alone_leave_no_series(miniature):
    sample = _odd(miniature, 5)
    observed = np.isfinite(sample.series.value)
    # The weight at admission is a measurement as well.
    assert observed.sum() == 1
    assert observed[0, CHANNEL["Weight"]]
    assert sample.present == (True, False, True)


def test_values_at_one_time_are_averaged(miniature):
    assert _odd(miniature, 6).series.value[47, CHANNEL["GCS"]] == 4


def test_the_icu_may_be_unknown_or_be_the_site(miniature):
    assert _odd(miniature, 7).groups["icu"] is None
    assert _odd(miniature, 7, site="icu").site == "unstated"
    surgical = _odd(miniature, 3, site="icu")
    assert surgical.site == surgical.groups["icu"] == "surgical"
    assert surgical.tabular[ICU] == 3
    assert _odd(miniature, 3).site == "unstated"


def test_the_grid_follows_its_options(miniature):
    fine = _odd(miniature, 8)
    coarse = _odd(miniature, 8, hours=24, step_hours=6)
    layout = _layout(miniature("physionet2012"), hours=24, step_hours=6)
    assert layout.series_hours == 6
    assert coarse.series.value.shape == (4, len(SERIES))
    assert fine.series.value.shape == (48, len(SERIES))
    seen = np.isfinite(fine.series.value[:24]).reshape(4, 6, -1).any(axis=1)
    np.testing.assert_array_equal(np.isfinite(coarse.series.value), seen)
    assert set(np.unique(coarse.series.delta)) <= {0, 6, 12, 18}


def test_stays_without_outcome_are_counted(copy):
    layout = _layout(copy)
    assert len(list(layout.cases())) == 60
    assert layout.remarks() == [
        "set-b: 4 stays are left out, as there is no Outcomes-b.txt",
    ]
    (copy / "set-a" / f"{FIRST}.txt").unlink()
    table = copy / "Outcomes-a.txt"
    lines = table.read_text().splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0] + ","
    table.write_text("\n".join(lines) + "\n")
    layout = _layout(copy)
    assert len(list(layout.cases())) == 58
    assert layout.remarks()[1:] == [
        "Outcomes-a.txt lists 1 stays that set-a lacks; left out",
        "Outcomes-a.txt lacks the outcome of 1 stays; left out",
    ]


def test_a_challenge_test_set_with_outcomes_is_the_test_split(copy):
    lines = ["RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"]
    lines += [f"{path.stem},1,1,5,-1,0" for path in (copy / "set-b").iterdir()]
    (copy / "Outcomes-b.txt").write_text("\n".join(lines) + "\n")
    splits = [s.split for s in _samples(copy)]
    assert (splits.count(None), splits.count(Split.TEST)) == (60, 4)
    shutil.rmtree(copy / "set-a")
    assert [s.split for s in _samples(copy)] == [None] * 4


def _refusal(folder: Path) -> BadFile:
    layout = _layout(folder)
    problems = []
    for case in layout.cases():
        try:
            list(layout.load(case))
        except BadFile as problem:
            problems.append(problem)
    assert len(problems) == 1
    return problems[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("01:00,HeartRate,80", r"line 2: no parameter 'HeartRate'.*did you mean"),
        ("1.5,HR,80", "line 2: Time is hours:minutes as 07:30, not '1.5'"),
        ("00:00,RecordID,1", "line 2: another RecordID than the file's name"),
        ("01:00,HR,high", "line 2, column 'Value': 'high' is no number"),
        ("01:00,HR", "line 2: 2 fields where 3 columns are named"),
    ],
)
def test_a_line_that_cannot_be_is_named(copy, line, words):
    path = copy / "set-a" / f"{FIRST + 9}.txt"
    header, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, line, *rest]) + "\n")
    problem = _refusal(copy)
    assert problem.path == path
    with pytest.raises(BadFile, match=words):
        raise problem


def test_a_stay_in_no_table_is_refused(copy):
    shutil.copy(copy / "set-a" / f"{FIRST + 9}.txt", copy / "set-a" / "999999.txt")
    assert "no line in Outcomes-a.txt" in _refusal(copy).reason


def test_an_outcome_of_another_kind_is_refused(copy):
    table = copy / "Outcomes-a.txt"
    table.write_text(
        table.read_text().replace(f"{FIRST + 3},2,2,11,6,1", f"{FIRST + 3},2,2,11,6,2")
    )
    assert "neither 0 nor 1" in _refusal(copy).reason


def test_a_stay_of_which_nothing_is_known_is_refused(copy):
    path = copy / "set-a" / f"{FIRST + 9}.txt"
    path.write_text(f"Time,Parameter,Value\n00:00,RecordID,{FIRST + 9}\n00:00,Height,-1\n")
    assert "neither descriptors nor measurements in 48 hours" in _refusal(copy).reason


def test_a_blank_line_of_a_parameter_is_noted(copy):
    path = copy / "set-a" / f"{FIRST + 9}.txt"
    path.write_text(path.read_text() + "47:59,,\n")
    notes = [n for s in _samples(copy) for n in s.notes]
    assert notes.count("stays have lines without a parameter or a value; those are left out") == 1


def test_a_folder_or_option_that_cannot_be(tmp_path, miniature):
    with pytest.raises(UserError, match=r"set-a and Outcomes-a\.txt"):
        _layout(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        _layout(None)
    folder = miniature("physionet2012")
    with pytest.raises(UserError, match="did you mean 'in-hospital-death'"):
        _layout(folder, target="hospital-death")
    for hours, step in ((49, 1), (0, 1), (True, 1), (12.5, 1), (10, 4), (4, 8)):
        with pytest.raises(UserError, match="hours"):
            _layout(folder, hours=hours, step_hours=step)


def test_a_table_without_its_columns_is_refused(copy):
    (copy / "Outcomes-a.txt").write_text("RecordID,Survival,In-hospital-death\n1,2,0\n")
    with pytest.raises(BadFile, match=r"Outcomes-a\.txt: no column 'In-hospital_death', did you"):
        _layout(copy)


def test_prepared(miniature, tmp_path):
    report = prepare(miniature("physionet2012"), "physionet2012", tmp_path / "out", size=16)
    manifest = report.manifest
    assert sum(manifest.split_counts.values()) == 60
    assert [f.name for f in manifest.tabular] == [*DESCRIPTORS]
    rate = manifest.series[CHANNEL["HR"]]
    assert 80 < rate.mean < 100
    assert any("set-b" in warning for warning in report.warnings)
