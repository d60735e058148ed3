"""The tables of MIMIC-CXR-JPG and MIMIC-IV of patients, stays and images."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.readers.tables import ColumnKind, Table, TableRow, read_table
from trustsweep.data_pipelines.schema import Split

#: As in the published tables, in their order.
CHEXPERT = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum"),
    *("Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion"),
    *("Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices"),
)
FRONTAL = ("AP", "PA")
#: MIMIC-IV gives 91 to everybody above 89.
OLDEST = 91

_PREFIX = "mimic-cxr-2.0.0"
_SUFFIXES = (".csv.gz", ".csv")
#: physionet.org/files/mimic-iv/3.1 is four below where a download starts.
_DEPTH = 5
#: Folders of patients, which are many and hold no tables.
_PATIENTS = re.compile(r"p\d{2,}")
_EPOCH = datetime(1970, 1, 1)
_SPLITS = {"train": Split.TRAIN, "validate": Split.VAL, "test": Split.TEST}
_SEXES = {"M": "male", "F": "female"}
#: What the publisher writes where race is not known.
_RACELESS = ("UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER")

Value = TypeVar("Value")


@dataclass(frozen=True)
class IcuStay:
    """A row of icustays; times in seconds since 1970 (MIMIC shifts its dates to 2100 and later)."""

    line: int
    subject: int
    admission: int
    stay_id: int
    unit: str | None
    start: int
    end: int


@dataclass(frozen=True)
class MimicPatient:
    """A row of patients: sex, and the age in the anchor year."""

    sex: str | None
    anchor_age: int | None
    anchor_year: int | None

    def age(self, second: int) -> float | None:
        """Years at that time; 91 stands for all above 89, whose age then no year can move."""
        if self.anchor_age is None or self.anchor_year is None:
            return None
        if self.anchor_age >= OLDEST:
            return float(OLDEST)
        year = (_EPOCH + timedelta(seconds=second)).year
        age = self.anchor_age + year - self.anchor_year
        return float(OLDEST if age >= OLDEST - 1 else age)


@dataclass(frozen=True)
class Admission:
    """A row of admissions; `died` in hospital."""

    died: bool | None
    race: str | None
    insurance: str | None


@dataclass(frozen=True, order=True)
class Image:
    """A row of the images' metadata, ordered by time; the time in seconds since 1970."""

    second: int
    name: str
    subject: int
    study: int

    @property
    def place(self) -> str:
        """Its path below the folder of MIMIC-CXR, without the suffix: .jpg, or .dcm as scanned."""
        patient = f"p{self.subject}"
        return f"files/{patient[:3]}/{patient}/s{self.study}/{self.name}"


@dataclass(frozen=True)
class ImageList:
    """What the metadata list.

    Attributes:
        frontal: By patient, in the order of time.
        places: Name to place of every image listed, whatever its view.
        others: How many are no frontal view, or state none.
        timeless: How many frontal views state no time.
    """

    frontal: Mapping[int, list[Image]]
    places: Mapping[str, str]
    others: int
    timeless: int


@dataclass(frozen=True)
class Findings:
    """Rows of the CheXpert table by study.

    `codes` (14,) in the order of `CHEXPERT`: 1 mentioned as there, 0 as not there, -1 as uncertain,
    NaN where the report does not mention it.
    """

    line: int
    codes: NDArray[np.float32]


class Tables:
    """Both data sets' tables, found below one folder."""

    def __init__(self, folder: Path) -> None:
        """Raises `UserError` where one is not there, or there twice."""
        self.cxr = _root(folder, f"{_PREFIX}-metadata", "MIMIC-CXR-JPG").parent
        self.iv = _root(folder, "icu/icustays", "MIMIC-IV").parent.parent
        self.metadata = self._cxr("metadata")
        self.split = self._cxr("split")
        #: Needed for its labels alone.
        self.chexpert = _table(self.cxr, f"{_PREFIX}-chexpert")
        self.patients = self._iv("hosp/patients")
        self.admissions = self._iv("hosp/admissions")
        self.labevents = self._iv("hosp/labevents")
        self.icustays = self._iv("icu/icustays")
        self.chartevents = self._iv("icu/chartevents")
        #: Optional: which items there are.
        self.items = [
            path
            for stem in ("icu/d_items", "hosp/d_labitems")
            if (path := _table(self.iv, stem)) is not None
        ]

    def all(self) -> list[Path]:
        """Every table that samples come from."""
        return [
            *(self.metadata, self.split, self.patients, self.admissions),
            *(self.labevents, self.icustays, self.chartevents),
            *(() if self.chexpert is None else (self.chexpert,)),
        ]

    def read_stays(self) -> list[IcuStay]:
        """By patient and time. Raises `BadFile` for an invalid time, or an end before its start."""
        table = read_table(
            self.icustays,
            {
                **_ids("subject_id", "hadm_id", "stay_id"),
                **dict.fromkeys(("first_careunit", "intime", "outtime"), ColumnKind.TEXT),
            },
            unique="stay_id",
            required=("subject_id", "hadm_id", "intime", "outtime"),
            private=("subject_id", "hadm_id"),
        )
        stays = [_stay(table, row) for row in table]
        return sorted(stays, key=lambda stay: (stay.subject, stay.start, stay.stay_id))

    def read_patients(self, wanted: Collection[int]) -> dict[int, MimicPatient]:
        table = read_table(
            self.patients,
            {
                "subject_id": ColumnKind.INTEGER,
                "gender": ColumnKind.TEXT,
                "anchor_age": ColumnKind.INTEGER,
                "anchor_year": ColumnKind.INTEGER,
            },
            unique="subject_id",
        )
        return {
            row["subject_id"]: MimicPatient(
                _known(table, row, "gender", _SEXES), row["anchor_age"], row["anchor_year"]
            )
            for row in table
            if row["subject_id"] in wanted
        }

    def read_admissions(self, wanted: Collection[int]) -> dict[int, Admission]:
        table = read_table(
            self.admissions,
            {
                "hadm_id": ColumnKind.INTEGER,
                "race": ColumnKind.TEXT,
                "insurance": ColumnKind.TEXT,
                "hospital_expire_flag": ColumnKind.BOOLEAN,
            },
            unique="hadm_id",
        )
        return {
            row["hadm_id"]: Admission(
                row["hospital_expire_flag"],
                None if row["race"] in _RACELESS else row["race"],
                row["insurance"],
            )
            for row in table
            if row["hadm_id"] in wanted
        }

    def read_images(self) -> ImageList:
        """Raises `BadFile` for an invalid date or time."""
        table = read_table(
            self.metadata,
            {
                "dicom_id": ColumnKind.TEXT,
                **_ids("subject_id", "study_id"),
                "ViewPosition": ColumnKind.TEXT,
                "StudyDate": ColumnKind.INTEGER,
                "StudyTime": ColumnKind.NUMBER,
            },
            unique="dicom_id",
            required=("subject_id", "study_id"),
            private=("subject_id", "study_id"),
        )
        frontal: dict[int, list[Image]] = {}
        places = {}
        others = timeless = 0
        for row in table:
            second = _study_second(table, row)
            image = Image(second or 0, row["dicom_id"], row["subject_id"], row["study_id"])
            places[image.name] = image.place
            if row["ViewPosition"] not in FRONTAL:
                others += 1
            elif second is None:
                timeless += 1
            else:
                frontal.setdefault(image.subject, []).append(image)
        for images in frontal.values():
            images.sort()
        return ImageList(frontal, places, others, timeless)

    def read_splits(self) -> dict[int, Split]:
        """By patient. Raises `BadFile` for a patient in two of them."""
        table = read_table(
            self.split,
            {
                "dicom_id": ColumnKind.TEXT,
                "subject_id": ColumnKind.INTEGER,
                "split": ColumnKind.TEXT,
            },
            unique="dicom_id",
            required=("subject_id", "split"),
            private=("subject_id",),
        )
        splits: dict[int, Split] = {}
        for row in table:
            name = _known(table, row, "split", _SPLITS)
            assert name is not None
            if splits.setdefault(row["subject_id"], name) is not name:
                raise table.bad(row, "split", "differs from an earlier line of the same patient.")
        return splits

    def read_findings(self) -> dict[int, Findings]:
        """Raises `UserError` where the table is not here."""
        table = read_table(
            self._cxr("chexpert"),
            {**_ids("study_id"), **dict.fromkeys(CHEXPERT, ColumnKind.NUMBER)},
            unique="study_id",
        )
        return {
            row["study_id"]: Findings(
                row.line, np.array([row[name] for name in CHEXPERT], np.float32)
            )
            for row in table
        }

    def unlisted(self, items: Collection[int]) -> list[int]:
        """Those of `items` that the dictionaries lack, where those are here."""
        if len(self.items) < 2:
            return []
        columns = {"itemid": ColumnKind.INTEGER}
        known = {row["itemid"] for path in self.items for row in read_table(path, columns)}
        return sorted(set(items) - known)

    def _cxr(self, part: str) -> Path:
        return _needed(self.cxr, f"{_PREFIX}-{part}")

    def _iv(self, stem: str) -> Path:
        return _needed(self.iv, stem)


def _root(folder: Path, stem: str, what: str) -> Path:
    """The one table of that name below `folder`."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give the one that holds both data sets.")
    paths = []
    level = [folder]
    for _ in range(_DEPTH + 1):
        paths += [path for place in level if (path := _table(place, stem)) is not None]
        level = [
            entry
            for place in level
            for entry in sorted(place.iterdir())
            if entry.is_dir() and not entry.name.startswith(".")
            if not _PATIENTS.fullmatch(entry.name)
        ]
    if not paths:
        raise UserError(
            f"{folder}: no {what} below it ({stem}{_SUFFIXES[0]}). Give both data sets."
        )
    if len(paths) > 1:
        raise UserError(
            f"{folder}: {what} is here twice ({paths[0]}, {paths[1]}). Give a folder with one."
        )
    return paths[0]


def _table(folder: Path, stem: str) -> Path | None:
    return next((p for s in _SUFFIXES if (p := folder / f"{stem}{s}").is_file()), None)


def _needed(folder: Path, stem: str) -> Path:
    path = _table(folder, stem)
    if path is None:
        raise UserError(
            f"{folder}: no {stem}{_SUFFIXES[0]}, plain or gzipped. Download it as well."
        )
    return path


def _ids(*columns: str) -> dict[str, ColumnKind]:
    return dict.fromkeys(columns, ColumnKind.INTEGER)


def _stay(table: Table, row: TableRow) -> IcuStay:
    stay = IcuStay(
        line=row.line,
        subject=row["subject_id"],
        admission=row["hadm_id"],
        stay_id=row["stay_id"],
        unit=row["first_careunit"],
        start=_second(table, row, "intime"),
        end=_second(table, row, "outtime"),
    )
    if stay.end < stay.start:
        raise table.bad(row, "outtime", "is before intime. Correct it.")
    return stay


def _second(table: Table, row: TableRow, column: str) -> int:
    # strptime takes ten times as long, which half a million rows would feel.
    text = row[column]
    time: datetime | None = None
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
    if time is None or time.tzinfo is not None or len(text) != len("2180-07-23 14:00:00"):
        raise table.bad(row, column, "is no time such as 2180-07-23 14:00:00.")
    return int((time - _EPOCH).total_seconds())


def _study_second(table: Table, row: TableRow) -> int | None:
    """StudyDate is yyyymmdd, StudyTime hhmmss.fff without leading zeros."""
    if row["StudyDate"] is None or row["StudyTime"] is None:
        return None
    date, clock = row["StudyDate"], int(row["StudyTime"])
    try:
        time = datetime(
            *(date // 10_000, date // 100 % 100, date % 100),
            *(clock // 10_000, clock // 100 % 100, clock % 100),
        )
    except (ValueError, OverflowError):
        rule = "and StudyTime are no time such as 21800723 and 140000.000."
        raise table.bad(row, "StudyDate", rule) from None
    return int((time - _EPOCH).total_seconds())


def _known(table: Table, row: TableRow, column: str, known: Mapping[str, Value]) -> Value | None:
    text = row[column]
    if text is None or text in known:
        return None if text is None else known[text]
    raise table.bad(row, column, f"is one of {', '.join(known)}, not {text!r}.")
