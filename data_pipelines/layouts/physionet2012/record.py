"""One stay's file of the challenge: Time, Parameter, Value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.layouts.physionet2012.parameters import (
    CATEGORIES,
    CHANNEL,
    DESCRIPTORS,
    KNOWN,
    RECORD,
    SERIES,
    UNKNOWN,
    ClinicalParameter,
)
from trustsweep.data_pipelines.preprocess.series import to_grid
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.tables import ColumnKind, read_table
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Series

_COLUMNS = {
    "Time": ColumnKind.TEXT,
    "Parameter": ColumnKind.TEXT,
    "Value": ColumnKind.NUMBER,
}
_TIME = re.compile(r"(\d{1,3}):([0-5]\d)")


@dataclass(frozen=True)
class Measurements:
    """Of one parameter, in the order of the file: hours since admission, and values."""

    hours: NDArray[np.float64]
    values: NDArray[np.float64]


class StayRecord:
    """A stay's measurements, without impossible ones.

    Attributes:
        notes: As `Sample.notes`.
    """

    def __init__(self, path: Path) -> None:
        """Raises `BadFile` for an unknown parameter, an invalid time, another stay's number."""
        self.notes: list[str] = []
        rows = self._read(path)
        self._descriptors = {
            name: self._possible(name, parameter, rows.get(name, []), admission=True)
            for name, parameter in DESCRIPTORS.items()
        }
        self._series = {
            name: self._possible(name, parameter, rows.get(name, []))
            for name, parameter in SERIES.items()
        }

    def descriptors(self) -> NDArray[np.float32]:
        """(5,) in the order of `DESCRIPTORS`, categories as indices, NaN where unknown."""
        return np.array([self._entry(name) for name in DESCRIPTORS], np.float32)

    def grid(self, steps: int, step_hours: float) -> Series:
        """(steps, 37) in the order of `SERIES`; what lies behind the last step is left out."""
        series, _ = to_grid(
            np.concatenate([m.hours for m in self._series.values()]),
            np.concatenate([np.full(len(m.hours), CHANNEL[n]) for n, m in self._series.items()]),
            np.concatenate([m.values for m in self._series.values()]),
            steps=steps,
            step_hours=step_hours,
            channels=len(SERIES),
        )
        return series

    def _read(self, path: Path) -> dict[str, list[tuple[float, float]]]:
        """Parameter to its (hours, value), in the order of the file."""
        rows: dict[str, list[tuple[float, float]]] = {}
        nameless = False
        for row in read_table(path, _COLUMNS):
            name, value = row["Parameter"], row["Value"]
            if name is None or value is None:
                nameless = True
                continue
            if name not in KNOWN:
                known = nearest(name, list(KNOWN))
                raise BadFile(path, f"line {row.line}: no parameter {name!r}{known}")
            if name == RECORD and f"{value:.0f}" != path.stem:
                raise BadFile(path, f"line {row.line}: another {RECORD} than the file's name.")
            rows.setdefault(name, []).append((_hours(path, row.line, row["Time"]), value))
        if nameless:
            self.notes.append("stays have lines without a parameter or a value; those are left out")
        return rows

    def _possible(
        self,
        name: str,
        parameter: ClinicalParameter,
        rows: list[tuple[float, float]],
        *,
        admission: bool = False,
    ) -> Measurements:
        table = np.array(rows, np.float64).reshape(-1, 2)
        table = table[table[:, 1] != UNKNOWN]
        if admission:
            table = table[table[:, 0] == 0]
        possible = (table[:, 1] >= parameter.least) & (table[:, 1] <= parameter.greatest)
        note = f"stays have impossible values of {name}, which are read as missing"
        if not possible.all() and note not in self.notes:
            self.notes.append(note)
        return Measurements(table[possible, 0], table[possible, 1])

    def _entry(self, name: str) -> float:
        values = self._descriptors[name].values
        different = len(np.unique(values)) > 1
        if name in CATEGORIES:
            if different:
                self.notes.append(f"stays state several values of {name}; it counts as unknown")
            return np.nan if different or not len(values) else values[0] - CATEGORIES[name][0]
        if different:
            self.notes.append(f"stays state several values of {name}; their mean is used")
        return float(values.mean()) if len(values) else np.nan


def _hours(path: Path, line: int, time: str | None) -> float:
    if time is None or (match := _TIME.fullmatch(time)) is None:
        raise BadFile(path, f"line {line}: Time is hours:minutes as 07:30, not {time or ''!r}.")
    return int(match[1]) + int(match[2]) / 60
