"""PhysioNet/CinC Challenge 2012: the first 48 hours of ICU stays, and who died. No images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.layouts.physionet2012.parameters import (
    CATEGORIES,
    CHANNEL,
    DESCRIPTORS,
    LABS,
    RECORD,
    SERIES,
    VITALS,
)
from trustsweep.data_pipelines.layouts.physionet2012.record import StayRecord
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque, walk
from trustsweep.data_pipelines.readers.tables import ColumnKind, read_table
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Sample, Series
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, PatientSource, Split, TaskName

_LETTERS = ("a", "b", "c")
_HOURS = 48
_DAYS = 30
_SITES = ("unstated", "icu")

Outcome = Mapping[str, float | None]
_OUTCOMES = {
    RECORD: ColumnKind.TEXT,
    "Survival": ColumnKind.INTEGER,
    "In-hospital_death": ColumnKind.INTEGER,
}


def _died_in_hospital(outcome: Outcome) -> float | None:
    return outcome["In-hospital_death"]


def _died_within_days(outcome: Outcome) -> float | None:
    """Survival is in days from admission to the ICU; -1 where no death is recorded."""
    days = outcome["Survival"]
    return None if days is None else float(0 <= days <= _DAYS)


_TARGETS: Mapping[str, tuple[Callable[[Outcome], float | None], tuple[str, str]]] = {
    "in-hospital-death": (_died_in_hospital, ("left hospital alive", "died in hospital")),
    "death-within-30-days": (_died_within_days, ("alive at day 30", "died by day 30")),
}


@dataclass(frozen=True)
class Stay:
    """A file of measurements, and its line of the outcomes; None where the table lacks it."""

    path: Path
    outcomes: Path
    outcome: Outcome | None
    split: Split | None


class Physionet2012(Layout[Stay]):
    """PhysioNet/CinC Challenge 2012: `set-a/<RecordID>.txt` and `Outcomes-a.txt`, b and c alike.

    `folder` holds at least one set with its outcomes. Sets b and c, the challenge's test sets, are
    the test split where set a is there as well; sets without outcomes are left out.

    Times are hours and minutes since admission to the ICU. Of the 37 parameters the measurements
    at one time, and within one step, are averaged (urine: the mean of the volumes recorded). -1 is
    the publisher's code for an unknown descriptor; impossible values count as missing as well
    (see `parameters`). Stays name no patient and no hospital: each counts as one patient. SAPS-I
    and SOFA are scores worked out for the table of outcomes, and no inputs. The files of the
    challenge's first weeks have no ICUType; it is unknown then.

    Options:
        target: "in-hospital-death" or "death-within-30-days" of admission to the ICU.
        hours: Length of the grid, 48 at most; measurements at or after its end are not read.
        step_hours: Width of a step; divides `hours`.
        site: "unstated", or "icu" to make the kind of ICU the site, so that it can be held out.
    """

    name = "physionet2012"
    patients = PatientSource.NONE
    tasks = (TaskName.CLASSIFICATION,)
    licence = "ODC-By 1.0"
    citation = (
        "Silva, Moody, Scott, Celi, Mark (2012): Predicting In-Hospital Mortality of ICU Patients: "
        "The PhysioNet/Computing in Cardiology Challenge 2012. Computing in Cardiology 39:245-248"
    )
    tabular = tuple(
        Feature(
            name=name, unit=p.unit, vocabulary=CATEGORIES[name][1] if name in CATEGORIES else ()
        )
        for name, p in DESCRIPTORS.items()
    )
    series = tuple(Feature(name=name, unit=p.unit) for name, p in SERIES.items())
    modalities = (
        *(
            Modality(
                name=part,
                kind=Kind.SERIES,
                column="series",
                indices=tuple(CHANNEL[name] for name in names),
            )
            for part, names in (("vitals", VITALS), ("labs", LABS))
        ),
        Modality(name="demographics", kind=Kind.TABULAR, column="tabular"),
    )
    groups = ("site", "sex", "age", "icu")

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        target: str = "in-hospital-death",
        hours: int = _HOURS,
        step_hours: int = 1,
        site: str = "unstated",
    ) -> None:
        _check_choice(self.name, "target", target, _TARGETS)
        _check_choice(self.name, "site", site, _SITES)
        _check_grid(self.name, hours, step_hours)
        self._root = _find(self.name, folder)
        super().__init__(folder, size=size, seed=seed)
        self._target, self.classes = _TARGETS[target]
        self.series_hours = float(step_hours)
        self._hours = hours
        self._steps = hours // step_hours
        self._icu_is_site = site == "icu"
        sets = [letter for letter in _LETTERS if (self._root / f"set-{letter}").is_dir()]
        self._outcomes = {
            letter: _read_outcomes(self._table(letter))
            for letter in sets
            if self._table(letter).is_file()
        }
        self._without = [letter for letter in sets if letter not in self._outcomes]

    def cases(self) -> Iterator[Stay]:
        for letter, outcomes in self._outcomes.items():
            held_out = letter != "a" and "a" in self._outcomes
            for path in self._files(letter):
                outcome = outcomes.get(path.stem)
                if outcome is None or self._target(outcome) is not None:
                    split = Split.TEST if held_out else None
                    yield Stay(path, self._table(letter), outcome, split)

    def load(self, case: Stay) -> Iterator[Sample]:
        label = self._label(case)
        record = StayRecord(case.path)
        tabular = record.descriptors()
        series = record.grid(self._steps, self.series_hours)
        present = self._present(tabular, series)
        if not any(present):
            reason = f"neither descriptors nor measurements in {self._hours} hours. Take it away."
            raise BadFile(case.path, reason)
        described = dict(zip(DESCRIPTORS, tabular.tolist(), strict=True))
        icu = _named(described, "ICUType")
        name = opaque(self.name, case.path.stem)
        yield Sample(
            sample_id=name,
            patient_id=name,
            site=(icu if self._icu_is_site else None) or "unstated",
            split=case.split,
            label=label,
            tabular=tabular,
            series=series,
            present=present,
            groups={
                "sex": _named(described, "Gender"),
                "age": None if np.isnan(described["Age"]) else described["Age"],
                "icu": icu,
            },
            source=case.path,
            notes=tuple(record.notes),
        )

    def source_digest(self) -> str:
        tables = [self._table(letter) for letter in self._outcomes]
        return digest(self._root, [*tables, *(p for s in self._outcomes for p in self._files(s))])

    def remarks(self) -> list[str]:
        remarks = [
            f"set-{letter}: {len(self._files(letter))} stays are left out, as there is no "
            f"{self._table(letter).name}"
            for letter in self._without
        ]
        for letter, outcomes in self._outcomes.items():
            stays = {path.stem for path in self._files(letter)}
            table = self._table(letter).name
            if absent := len(outcomes.keys() - stays):
                remarks.append(f"{table} lists {absent} stays that set-{letter} lacks; left out")
            if unknown := sum(
                self._target(outcomes[key]) is None for key in outcomes.keys() & stays
            ):
                remarks.append(f"{table} lacks the outcome of {unknown} stays; left out")
        return remarks

    def _table(self, letter: str) -> Path:
        return self._root / f"Outcomes-{letter}.txt"

    def _files(self, letter: str) -> list[Path]:
        return walk(self._root / f"set-{letter}", (".txt",))

    def _label(self, case: Stay) -> int:
        if case.outcome is None:
            raise BadFile(
                case.path,
                f"no line in {case.outcomes.name} for it. Complete the table, or take the file "
                "away.",
            )
        label = self._target(case.outcome)
        if label not in (0, 1):
            raise BadFile(
                case.path, f"its outcome in {case.outcomes.name} is neither 0 nor 1. Correct it."
            )
        return int(label == 1)

    def _present(self, tabular: NDArray[np.float32], series: Series) -> tuple[bool, ...]:
        observed = np.flatnonzero(np.isfinite(series.value).any(axis=0))
        vitals, labs, _ = (set(modality.indices) for modality in self.modalities)
        return (
            not vitals.isdisjoint(observed.tolist()),
            not labs.isdisjoint(observed.tolist()),
            bool(np.isfinite(tabular).any()),
        )


def _find(name: str, folder: Path | None) -> Path:
    if folder is None or not folder.is_dir():
        raise UserError(
            f"layout {name}: {folder or 'no folder'} is no folder. Give the one that holds set-a "
            "and Outcomes-a.txt."
        )
    for letter in _LETTERS:
        if (folder / f"set-{letter}").is_dir() and (folder / f"Outcomes-{letter}.txt").is_file():
            return folder
    raise UserError(
        f"{folder}: no set with its outcomes here, such as set-a and Outcomes-a.txt. Unpack the "
        "set's archive beside the table of its outcomes."
    )


def _read_outcomes(path: Path) -> dict[str, Outcome]:
    return {
        str(row[RECORD]): {name: row[name] for name in _OUTCOMES if name != RECORD}
        for row in read_table(path, _OUTCOMES, unique=RECORD)
    }


def _named(described: Mapping[str, float], name: str) -> str | None:
    index = described[name]
    return None if np.isnan(index) else CATEGORIES[name][1][int(index)]


def _check_choice(
    layout: str, option: str, value: object, known: Mapping[str, object] | tuple[str, ...]
) -> None:
    if value not in known:
        raise UserError(
            f"layout {layout}: no {option} {value!r}{nearest(str(value), [*known])} "
            f"Known: {', '.join(known)}."
        )


def _check_grid(layout: str, hours: int, step_hours: int) -> None:
    for option, value in (("hours", hours), ("step_hours", step_hours)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= _HOURS:
            raise UserError(
                f"layout {layout}: {option} is a whole number from 1 to {_HOURS}, not {value!r}."
            )
    if hours % step_hours:
        raise UserError(
            f"layout {layout}: hours ({hours}) is no multiple of step_hours ({step_hours})."
        )
