"""Tables of the Genomic Data Commons: clinical data and gene values of a patient."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.tables import ColumnKind, Table, TableRow, read_table
from trustsweep.data_pipelines.registry import nearest

#: GDC's mark for no value, and those of its forerunner and of data frames.
MISSING = ("", "'--", "--", "NA", "NaN", "nan", "[Not Available]", "[Not Applicable]")
#: The label that stands for time and event, and the columns that these are read from.
SURVIVAL, VITAL_STATUS = "survival", "vital_status"
_DEATH, _CONTACT = "days_to_death", "days_to_last_follow_up"
#: Words for an unknown value.
_UNKNOWN = ("not reported", "unknown", "unspecified", "not evaluated", "[unknown]")
_IDS = ("case_submitter_id", "cases.submitter_id", "bcr_patient_barcode", "submitter_id")
_BARCODE = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?:-(\d\d)[A-Z]?)?(?:-.*)?")
_OLDEST = 120
_YEAR = 365.25
#: A column of more values is a measurement, not classes.
_CLASSES = 20
#: Sample types from here on are normal tissue and controls.
_NORMAL = 10
_PRIMARY = 1


@dataclass(frozen=True)
class Person:
    """The clinical data of a patient; None where missing.

    `time` is in days from diagnosis to death (`event` 1) or the last contact (0).
    """

    label: str | None
    sex: str | None
    age: float | None
    race: str | None
    time: float | None = None
    event: float | None = None


@dataclass(frozen=True)
class Genomics:
    """Values by patient.

    Attributes:
        names: Columns.
        values: Patient to (F,) float32, NaN where missing.
        normals: Rows of normal tissue, which are left out.
        strays: A refusal for every row that names no patient.
    """

    names: tuple[str, ...]
    values: Mapping[str, NDArray[np.float32]]
    normals: int
    strays: tuple[BadFile, ...]


def patient_of(barcode: str) -> str | None:
    """The patient's part (TCGA-XX-YYYY) of a barcode of any length; None for any other text."""
    match = _BARCODE.fullmatch(barcode)
    return match[1] if match else None


def read_clinical(path: Path, label: str) -> tuple[dict[str, Person], list[BadFile]]:
    """Patient to clinical data, and a refusal for every row that cannot be used.

    GDC writes a row a treatment, so a patient may have several; they must agree. Columns may carry
    GDC's newer prefixes (`demographic.vital_status`).

    For the label `SURVIVAL` that is `vital_status`, with `days_to_death` and
    `days_to_last_follow_up`.

    Raises `BadFile` for a table that cannot be read and `UserError` for one that lacks the barcode
    or the column `label`.
    """
    survival = label == SURVIVAL
    label = VITAL_STATUS if survival else label
    header = _read(path, {}).header
    own = _id_column(path, header)
    columns = {
        "label": _column(header, label),
        "sex": _column(header, "gender"),
        "race": _column(header, "race"),
        "years": _column(header, "age_at_index"),
        "days": _column(header, "age_at_diagnosis"),
    }
    if columns["label"] is None:
        known = [name.rsplit(".", 1)[-1] for name in header]
        raise UserError(f"{path}: no column {label!r}{nearest(label, known)} Choose it by label.")
    if columns["label"] in (columns["years"], columns["days"]):
        raise UserError(f"{path}: {label!r} is a measurement. Choose a column of classes by label.")
    if survival:
        columns |= {"death": _column(header, _DEATH), "contact": _column(header, _CONTACT)}
        if lacking := [n for n in (_DEATH, _CONTACT) if _column(header, n) is None]:
            raise UserError(
                f"{path}: no column {' and '.join(lacking)}, which survival needs. Export it from "
                "GDC, or choose a column of classes by label."
            )
    numbers = ("years", "days", "death", "contact")
    kinds = {
        column: ColumnKind.NUMBER if key in numbers else ColumnKind.TEXT
        for key, column in columns.items()
        if column is not None
    }
    table = _read(path, {own: ColumnKind.TEXT, **kinds}, private=(own, *kinds))
    people: dict[str, Person] = {}
    refused = []
    for row in table:
        patient = patient_of(row[own] or "")
        if patient is None:
            refused.append(table.bad(row, own, "holds no barcode (TCGA-XX-YYYY). Correct it."))
            continue
        person = _person(table, row, columns)
        if people.setdefault(patient, person) != person:
            refused.append(table.bad(row, own, "contradicts an earlier row. Correct one of them."))
    return people, refused


def read_genomics(path: Path, limit: int) -> Genomics:
    """Every column but the barcodes' as numbers, of one sample a patient.

    Rows of normal tissue (sample types from 10) are left out; of several tumour samples the one of
    the lowest type counts (primary before recurrent before metastatic).

    Raises `BadFile` for a file that is no table of numbers, `UserError` for more than `limit`
    columns.
    """
    header = _read(path, {}).header
    own = _id_column(path, header)
    names = tuple(name for name in header if name not in _IDS)
    if not names:
        raise UserError(f"{path}: no column of values beside {own}.")
    if len(names) > limit:
        raise UserError(
            f"{path}: {len(names):,} columns, more than genes={limit:,}. Choose columns on grounds "
            "that the test patients have no part in (a gene panel, a publication), or raise genes."
        )
    table = _read(
        path, {own: ColumnKind.TEXT, **dict.fromkeys(names, ColumnKind.NUMBER)}, private=(own,)
    )
    best: dict[str, tuple[int, TableRow]] = {}
    normals = 0
    strays = []
    for row in table:
        match = _BARCODE.fullmatch(row[own] or "")
        if match is None:
            strays.append(table.bad(row, own, "holds no barcode (TCGA-XX-YYYY). Correct it."))
            continue
        kind = int(match[2] or _PRIMARY)
        if kind >= _NORMAL:
            normals += 1
        elif match[1] not in best or kind < best[match[1]][0]:
            best[match[1]] = (kind, row)
        elif kind == best[match[1]][0]:
            line = best[match[1]][1].line
            rule = f"is of the same patient and tissue as line {line}. Keep one of the two."
            strays.append(table.bad(row, own, rule))
    values = {
        patient: np.array([np.nan if row[n] is None else row[n] for n in names], np.float32)
        for patient, (_, row) in best.items()
    }
    return Genomics(names, values, normals, tuple(strays))


def classes_of(path: Path, label: str, values: Sequence[str]) -> tuple[str, ...]:
    """The different values in order. Raises `UserError` for too few or many to be classes."""
    classes = tuple(sorted(set(values)))
    if not 2 <= len(classes) <= _CLASSES:
        raise UserError(
            f"{path}: column {label!r} has {len(classes)} different values among the patients with "
            f"data. Choose, by label, a column of 2 to {_CLASSES} classes."
        )
    return classes


def _read(path: Path, columns: Mapping[str, ColumnKind], private: Sequence[str] = ()) -> Table:
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    return read_table(path, columns, delimiter=delimiter, missing=MISSING, private=private)


def _id_column(path: Path, header: Sequence[str]) -> str:
    for name in _IDS:
        if name in header:
            return name
    raise UserError(f"{path}: no column of barcodes. Name it {_IDS[0]} or {_IDS[2]}.")


def _column(header: Sequence[str], name: str) -> str | None:
    """The column of this name, with or without GDC's prefix."""
    return next((c for c in header if c == name or c.endswith(f".{name}")), None)


def _person(table: Table, row: TableRow, columns: Mapping[str, str | None]) -> Person:
    def value(key: str) -> Any:
        column = columns[key]
        return None if column is None else row[column]

    age: float | None = value("years")
    if age is None and (days := value("days")) is not None:
        age = days / _YEAR
    if age is not None and not 0 <= age <= _OLDEST:
        column = columns["years"] if value("years") is not None else columns["days"]
        raise table.bad(row, str(column), f"is an age of at most {_OLDEST} years, or empty.")
    time, event = _follow_up(table, row, columns)
    return Person(
        label=_known(value("label")),
        sex=_lower(value("sex")),
        age=age,
        race=_lower(value("race")),
        time=time,
        event=event,
    )


def _follow_up(
    table: Table, row: TableRow, columns: Mapping[str, str | None]
) -> tuple[float | None, float | None]:
    """Time and event of a row; None each where either is missing, or nothing was asked for."""
    keys = {"alive": "contact", "dead": "death"}
    label = columns["label"]
    status = None if "death" not in columns or label is None else _lower(row[label])
    column = columns[keys[status]] if status in keys else None
    days = None if column is None else row[column]
    if days is None:
        return None, None
    if days < 0:
        raise table.bad(row, str(column), "is a time in days from 0 up, or empty.")
    return float(days), float(status == "dead")


def _known(text: Any) -> str | None:
    if text is None or str(text).strip().lower() in _UNKNOWN:
        return None
    return str(text).strip()


def _lower(text: Any) -> str | None:
    """GDC writes small letters, its forerunner capitals."""
    known = _known(text)
    return known if known is None else known.lower()
