"""COVID-19 Image Repository, Hannover: X-rays, blood gas and laboratory values of patients."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image
from trustsweep.data_pipelines.preprocess.slices import is_whole
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque, walk
from trustsweep.data_pipelines.readers.images import read_grey
from trustsweep.data_pipelines.readers.patients import identity
from trustsweep.data_pipelines.readers.tables import ColumnKind, Table, TableRow, read_table
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, TaskName

_TABLE, _IMAGES = "data.csv", "png"
#: The repository's other entries: words, and the place of the NIfTI files.
_UNREAD = ("LICENSE", "nii", "readme.md", "utils")
_PATIENT, _IMAGE, _SEX, _PROJECTION = "patient_id", "image_id", "sex", "projection"
_ADMISSION, _RELEASE, _DEATH = "icu_admission_offset", "icu_release_offset", "death_offset"
_SEXES = ("f", "m")
_SITE = "hannover"


@dataclass(frozen=True)
class Lab:
    """A kind of laboratory value: its unit, and the least and the greatest published number."""

    unit: str
    least: float
    greatest: float

    def number(self, value: float) -> float:
        """The value; for -inf and inf the nearest published number."""
        if math.isinf(value):
            return self.least if value < 0 else self.greatest
        return value


_LABS: Mapping[str, Lab] = {
    "pco2": Lab("mmHg", 25, 80),
    "po2": Lab("mmHg", 20, 340),
    "crp": Lab("mg/l", 0, 355),
    "d-dimer": Lab("mg/l", 0.3, 33.5),
    "factor_xii": Lab("%", 35, 145),
    "ldh": Lab("U/l", 150, 1590),
    "lymphocytes": Lab("1000/µl", 0.1, 2.9),
    "neutrophils": Lab("1000/µl", 0, 17.6),
}
_GAS = ("pco2", "po2")
_PARTS = {"blood-gas": _GAS, "labs": tuple(name for name in _LABS if name not in _GAS)}
#: Below and above the limit of detection.
_LIMITS = ("-inf", "inf")
_COLUMNS = {
    **dict.fromkeys((_PATIENT, _IMAGE, _SEX, _PROJECTION), ColumnKind.TEXT),
    **dict.fromkeys((_ADMISSION, _RELEASE, _DEATH), ColumnKind.INTEGER),
    **{f"{name}_offset": ColumnKind.INTEGER for name in _LABS},
}
_TARGETS = {
    "icu": ("not in intensive care", "in intensive care"),
    "death": ("no death recorded", "death recorded"),
}
_LATER = "images have laboratory values of later days; read as missing"
_OLDER = "images have laboratory values more than {} days old; read as missing"
_LIMIT = "images have a value beyond a limit of detection, read as the nearest that is published"


class HannoverCovid(Layout[TableRow | BadFile]):
    """COVID-19 Image Repository: chest X-rays of one hospital, blood gas and laboratory values.

    `folder` holds `data.csv` (a row an image) and `png/<image_id>.png`. All offsets are whole days
    relative to the image, negative before it, as the publisher's readme says; in release 1.0 they
    may be wrong, says its erratum.

    Modalities are the X-ray, the blood gas (pCO2, pO2) and the laboratory (CRP, D-dimer, LDH,
    lymphocytes, neutrophils, and `factor_xii`, which the readme calls factor XIII). A row has at
    most one value of each, often from after the image. A value of a later day than the image's is
    read as missing, as it would let a model see the future; so is one older than `max_age_days`.
    Offsets are whole days: a value of the image's own day may be some hours younger than the image.

    `-inf` and `inf` mean below and above the limit of detection, which is not published. They are
    read as the least and the greatest number published of that value, so that their order stays
    right. 0 would not do for all units (no living patient has a pO2 of 0 mmHg), and missing would
    hide the most abnormal values, as a D-dimer above its limit.

    Shortcuts, which give away intensive care but not the disease: every X-ray taken there is ap
    (portable machines), of the others about half. `projection` is therefore no input, but a group;
    the image itself shows it all the same. Whether blood gas is arterial or venous is not stated;
    pO2 is higher in intensive care, where arterial lines are usual. Which values were measured at
    all differs too. The publisher redacted age, height and weight. Site is always "hannover".

    Args:
        target: "icu": whether the image's day lies within the stay in intensive care, the days of
            admission and release included. "death": whether a death is recorded, on the image's
            day or later. How long the others were followed is not published, and so few patients
            died that metrics of this target are imprecise.
        max_age_days: How old a value may be. Laboratory values follow the disease within days and
            blood gas within hours, but outside of intensive care blood is not drawn every day; 3
            days bridge a weekend, and few of the published values are older.
    """

    name = "hannover-covid"
    tasks = (TaskName.CLASSIFICATION,)
    tabular = tuple(Feature(name=name, unit=lab.unit) for name, lab in _LABS.items())
    modalities = (
        Modality(name="xray", kind=Kind.IMAGE, column="image"),
        *(
            Modality(
                name=part,
                kind=Kind.TABULAR,
                column="tabular",
                indices=tuple(list(_LABS).index(name) for name in names),
            )
            for part, names in _PARTS.items()
        ),
    )
    groups = ("site", _SEX, _PROJECTION)
    licence = "CC BY 3.0"
    citation = (
        "Winther, Laser, Gerbel, Maschke, Hinrichs, Vogel-Claussen, Wacker, Höper, Meyer (2020): "
        "COVID-19 Image Repository. Institute for Diagnostic and Interventional Radiology, "
        "Hannover Medical School. doi 10.6084/m9.figshare.12275009"
    )

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        target: str = "icu",
        max_age_days: int = 3,
    ) -> None:
        if target not in _TARGETS:
            raise UserError(
                f"layout {self.name}: no target {target!r}{nearest(str(target), [*_TARGETS])} "
                f"Known: {', '.join(_TARGETS)}."
            )
        if not is_whole(max_age_days, 0):
            raise UserError(f"max_age_days: a whole number of days from 0, not {max_age_days!r}.")
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: no such folder. Give the one with {_TABLE}.")
        for place in (folder / _TABLE, folder / _IMAGES):
            if not place.exists():
                raise UserError(f"{place}: not here. Give the folder with {_TABLE} and {_IMAGES}.")
        super().__init__(folder, size=size, seed=seed)
        self._folder, self._target, self._oldest = folder, target, max_age_days
        self.classes = _TARGETS[target]
        self._table, self._values = _read(folder / _TABLE)

    def cases(self) -> Iterator[TableRow | BadFile]:
        yield from self._table
        listed = {row[_IMAGE] for row in self._table}
        for path in self._files:
            if path.stem not in listed:
                yield BadFile(path, f"in no row of {_TABLE}. Remove it, or add its row.")

    def load(self, case: TableRow | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        self._check(case)
        tabular, notes = self._entries(case)
        image = self._folder / _IMAGES / f"{case[_IMAGE]}.png"
        known = np.isfinite(tabular)
        yield Sample(
            sample_id=opaque(self.name, "image", case[_IMAGE]),
            patient_id=opaque(self.name, "patient", identity(case[_PATIENT])),
            site=_SITE,
            image=resize_image(read_grey(image), self.size),
            label=int(self._positive(case)),
            tabular=tabular,
            present=(
                True,
                *(bool(known[list(modality.indices)].any()) for modality in self.modalities[1:]),
            ),
            groups={_SEX: case[_SEX], _PROJECTION: case[_PROJECTION]},
            source=image,
            notes=notes,
        )

    def source_digest(self) -> str:
        return digest(self._folder, [self._table.path, *self._files])

    def remarks(self) -> list[str]:
        known = {_TABLE, _IMAGES, *_UNREAD}
        unread = sorted(
            entry.name
            for entry in self._folder.iterdir()
            if entry.name not in known and not entry.name.startswith(".")
        )
        remarks = [f"not read, not part of the layout: {', '.join(unread)}"] if unread else []
        images = Counter(row[_PROJECTION] or "unknown" for row in self._table)
        positive = [row for row in self._table if self._positive(row)]
        positives = Counter(row[_PROJECTION] or "unknown" for row in positive)
        shares = (f"{positives[name]} of {images[name]} {name}" for name in sorted(images))
        remarks.append(
            f"{self.classes[1]!r} by projection: {', '.join(shares)}. The image shows its "
            "projection, so that a model may learn the machine instead of the disease; look at the "
            f"figures of the group {_PROJECTION!r}"
        )
        patients = {identity(row[_PATIENT]) for row in self._table}
        positive_patients = {identity(row[_PATIENT]) for row in positive}
        remarks.append(
            f"{len(positive_patients)} of {len(patients)} patients have images {self.classes[1]!r}"
        )
        return remarks

    @property
    def _files(self) -> list[Path]:
        return walk(self._folder / _IMAGES, (".png",))

    def _positive(self, row: TableRow) -> bool:
        if self._target == "death":
            return row[_DEATH] is not None
        stays = row[_ADMISSION] is not None and row[_RELEASE] is not None
        return stays and row[_ADMISSION] <= 0 <= row[_RELEASE]

    def _check(self, row: TableRow) -> None:
        """Raises `BadFile` for an impossible value."""
        if row[_SEX] not in (None, *_SEXES):
            raise self._table.bad(row, _SEX, f"is {' or '.join(_SEXES)}, or empty. Correct it.")
        admission, release, death = row[_ADMISSION], row[_RELEASE], row[_DEATH]
        self._check_pair(row, {_ADMISSION: admission, _RELEASE: release})
        if admission is not None and admission > release:
            rule = f"is earlier than {_ADMISSION} ({release} and {admission} days). Correct one."
            raise self._table.bad(row, _RELEASE, rule)
        if death is not None and death < 0:
            rule = f"is {-death} days before the image. Correct it; empty where nobody died."
            raise self._table.bad(row, _DEATH, rule)

    def _entries(self, row: TableRow) -> tuple[NDArray[np.float32], tuple[str, ...]]:
        """(8,) values, NaN where there is none of the last `max_age_days`; and the notes."""
        entries = np.full(len(_LABS), np.nan, np.float32)
        notes = set()
        for place, (name, lab) in enumerate(_LABS.items()):
            value, offset = self._values[row.line][name], row[f"{name}_offset"]
            self._check_pair(row, {f"{name}_val": value, f"{name}_offset": offset})
            if value is None:
                continue
            if math.isfinite(value) and value < 0:
                rule = "is below 0. Correct it; below the limit of detection is written -inf."
                raise self._table.bad(row, f"{name}_val", rule)
            if offset > 0:
                notes.add(_LATER)
            elif -offset > self._oldest:
                notes.add(_OLDER.format(self._oldest))
            else:
                entries[place] = lab.number(value)
                if math.isinf(value):
                    notes.add(_LIMIT)
        return entries, tuple(sorted(notes))

    def _check_pair(self, row: TableRow, pair: Mapping[str, float | None]) -> None:
        """Raises `BadFile` where one of two columns is empty and the other is not."""
        empty = [column for column, value in pair.items() if value is None]
        if len(empty) == 1:
            (other,) = pair.keys() - set(empty)
            rule = f"is empty where {other} is not. Fill in both, or neither."
            raise self._table.bad(row, empty[0], rule)


def _read(path: Path) -> tuple[Table, dict[int, dict[str, float | None]]]:
    """The table without its laboratory values; and these by line and name, maybe infinite."""
    table = read_table(path, _COLUMNS, unique=_IMAGE, required=(_PATIENT,), private=(_PATIENT,))
    columns = [f"{name}_val" for name in _LABS]
    # No column of numbers may hold "inf": they are read once as numbers, once for these.
    numbers = read_table(path, dict.fromkeys(columns, ColumnKind.NUMBER), missing=("", *_LIMITS))
    texts = read_table(path, dict.fromkeys(columns, ColumnKind.TEXT))
    values = {}
    for number, text in zip(numbers, texts, strict=True):
        labs = {name: number[f"{name}_val"] for name in _LABS}
        for name in _LABS:
            written = (text[f"{name}_val"] or "").strip()
            if written in _LIMITS:
                labs[name] = float(written)
        values[number.line] = labs
    return table, values
