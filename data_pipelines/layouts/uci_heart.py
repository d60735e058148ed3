"""UCI heart disease: four hospitals' tables of patients sent to angiography. No images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.tables import ColumnKind, read_table
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, PatientSource, TaskName

_HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
)
#: "?" in the published processed files, -9 in the raw ones that they come from.
_MISSING = ("", "?", "NaN", "nan", "-9", "-9.0")
#: Zero means missing here: no patient has 0 mm Hg, or 0 mg/dl of cholesterol.
_ZERO_MISSING = ("trestbps", "chol")
_SEVERITIES = 5

#: The published codes of each category, in the order of its vocabulary.
_CODES: Mapping[str, Mapping[float, str]] = {
    "sex": {0: "female", 1: "male"},
    "cp": {1: "typical angina", 2: "atypical angina", 3: "non-anginal pain", 4: "asymptomatic"},
    "fbs": {0: "up to 120 mg/dl", 1: "above 120 mg/dl"},
    "restecg": {0: "normal", 1: "ST-T abnormality", 2: "left ventricular hypertrophy"},
    "exang": {0: "no", 1: "yes"},
    "slope": {1: "upsloping", 2: "flat", 3: "downsloping"},
    "thal": {3: "normal", 6: "fixed defect", 7: "reversible defect"},
}
_UNITS = {
    "age": "years",
    "trestbps": "mm Hg",
    "chol": "mg/dl",
    "thalach": "1/min",
    "ca": "vessels",
}
_PARTS = {
    "demographics": ("age", "sex"),
    "history": ("cp", "trestbps", "chol", "fbs", "restecg"),
    "exercise": ("thalach", "exang", "oldpeak", "slope"),
    "scans": ("ca", "thal"),
}
_TARGETS = {
    "binary": ("no disease", "disease"),
    "severity": tuple(f"num {code}" for code in range(_SEVERITIES)),
}


@dataclass(frozen=True)
class HospitalRow:
    """One line of a hospital's file: numbers in the order of the columns, None where missing."""

    path: Path
    hospital: str
    line: int
    values: tuple[float | None, ...]
    repeats: bool


class UciHeart(Layout[HospitalRow]):
    """UCI heart disease, the four `processed.*.data` files with 14 columns and no header.

    `folder` holds at least one of them. The hospital is the site. Each row counts as a patient of
    its own, as the publisher gives no patients; files are read on their own, so that a hospital
    can be left out by taking its file away. There are no images: all is in `tabular`, in the
    published coding, as four modalities of which each is absent where none of its entries is known.
    Oddities of the published files, read as missing: `?` and -9, and a `chol` or `trestbps` of 0
    (all of Switzerland's cholesterol).

    Options:
        target: "binary" (no disease for num 0, disease for 1 to 4, which is narrowing of more than
            half of a vessel's diameter) or "severity" (num itself, five classes).
    """

    name = "uci-heart"
    patients = PatientSource.NONE
    tasks = (TaskName.CLASSIFICATION,)
    licence = "CC BY 4.0"
    citation = (
        "Janosi, Steinbrunn, Pfisterer, Detrano (1989): Heart Disease. UCI Machine Learning "
        "Repository, doi:10.24432/C52P4X"
    )
    tabular = tuple(
        Feature(
            name=column,
            unit=_UNITS.get(column, ""),
            vocabulary=tuple(_CODES.get(column, {}).values()),
        )
        for column in _COLUMNS[:-1]
    )
    modalities = tuple(
        Modality(
            name=part,
            kind=Kind.TABULAR,
            column="tabular",
            indices=tuple(_COLUMNS.index(column) for column in columns),
        )
        for part, columns in _PARTS.items()
    )
    groups = ("site", "sex", "age")

    def __init__(
        self, folder: Path | None, *, size: int, seed: int, target: str = "binary"
    ) -> None:
        if target not in _TARGETS:
            raise UserError(
                f"layout {self.name}: no target {target!r}{nearest(str(target), [*_TARGETS])} "
                f"Known: {', '.join(_TARGETS)}."
            )
        self._folder, self._paths = _find(self.name, folder)
        super().__init__(folder, size=size, seed=seed)
        self.classes = _TARGETS[target]
        self._target = target
        self._rows = [row for hospital in self._paths for row in self._read(hospital)]

    def cases(self) -> Iterator[HospitalRow]:
        yield from self._rows

    def load(self, case: HospitalRow) -> Iterator[Sample]:
        numbers = {
            column: np.nan if value is None else value
            for column, value in zip(_COLUMNS, case.values, strict=True)
        }
        num = numbers.pop("num")
        if num not in range(_SEVERITIES):
            raise _bad(case, "num", "is a whole number from 0 to 4")
        notes = []
        for column in _ZERO_MISSING:
            if numbers[column] == 0:
                numbers[column] = np.nan
                notes.append(f"rows have a {column} of 0, which is read as missing")
        if case.repeats:
            notes.append("rows repeat an earlier one of their hospital; kept")
        tabular = np.array([_entry(case, c, v) for c, v in numbers.items()], np.float32)
        if np.isnan(tabular).all():
            raise BadFile(case.path, f"line {case.line}: no entry is known. Take the line away.")
        name = opaque(self.name, case.hospital, str(case.line))
        yield Sample(
            sample_id=name,
            patient_id=name,
            site=case.hospital,
            label=int(num) if self._target == "severity" else int(num > 0),
            tabular=tabular,
            present=self._present(tabular),
            groups={
                "sex": _CODES["sex"].get(numbers["sex"]),
                "age": None if np.isnan(numbers["age"]) else float(numbers["age"]),
            },
            source=case.path,
            notes=tuple(notes),
        )

    def source_digest(self) -> str:
        return digest(self._folder, self._paths.values())

    def remarks(self) -> list[str]:
        remarks = []
        if absent := [_file(hospital) for hospital in _HOSPITALS if hospital not in self._paths]:
            remarks.append(f"not here, and so left out: {', '.join(absent)}")
        known = {path.name for path in self._paths.values()}
        unread = sorted(
            entry.name
            for entry in self._folder.iterdir()
            if entry.name not in known and not entry.name.startswith(".")
        )
        if unread:
            remarks.append(f"not read, not part of the layout: {', '.join(unread)}")
        if self._target == "severity":
            remarks += [
                f"{self._paths[hospital].name} grades no severity: its num is 0 or 1, disease or "
                "not, so that its 1 is another class than the others'"
                for hospital in self._paths
                if self._ungraded(hospital)
            ]
        return remarks

    def _read(self, hospital: str) -> Iterator[HospitalRow]:
        path = self._paths[hospital]
        columns = dict.fromkeys(_COLUMNS, ColumnKind.NUMBER)
        seen = set()
        for row in read_table(path, columns, header=_COLUMNS, missing=_MISSING):
            values = tuple(row[column] for column in _COLUMNS)
            yield HospitalRow(path, hospital, row.line, values, repeats=values in seen)
            seen.add(values)

    def _present(self, tabular: NDArray[np.float32]) -> tuple[bool, ...]:
        return tuple(
            bool(np.isfinite(tabular[list(modality.indices)]).any()) for modality in self.modalities
        )

    def _ungraded(self, hospital: str) -> bool:
        codes = {row.values[-1] for row in self._rows if row.hospital == hospital}
        return codes <= {0, 1}


def _file(hospital: str) -> str:
    return f"processed.{hospital}.data"


def _find(name: str, folder: Path | None) -> tuple[Path, dict[str, Path]]:
    """The folder that holds the files, and hospital to file."""
    if folder is None or not folder.is_dir():
        raise UserError(
            f"layout {name}: {folder or 'no folder'} is no folder. Give the one that holds "
            f"{_file(_HOSPITALS[0])}."
        )
    paths = {h: path for h in _HOSPITALS if (path := folder / _file(h)).is_file()}
    if not paths:
        raise UserError(
            f"{folder}: none of {', '.join(map(_file, _HOSPITALS))} here. Give the folder of the "
            "unpacked archive; files under other names are in another coding."
        )
    return folder, paths


def _entry(case: HospitalRow, column: str, number: float) -> float:
    """As stored: the number, or the index of a code in its vocabulary."""
    if column not in _CODES or np.isnan(number):
        return number
    codes = list(_CODES[column])
    if number not in codes:
        raise _bad(case, column, f"is one of {', '.join(f'{code:g}' for code in codes)}")
    return codes.index(number)


def _bad(case: HospitalRow, column: str, rule: str) -> BadFile:
    value = case.values[_COLUMNS.index(column)]
    shown = "missing" if value is None else f"{value:g}"
    return BadFile(case.path, f"line {case.line}: {column} {rule}, not {shown}. Correct it.")
