"""Parallel coordinates: every trial a line across its parameters and objectives."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.thinning import MOST_LINES, thinned
from trustsweep.distributed.report.wording import is_log, is_number, number, parameter
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record
from trustsweep.search_spaces.space import Value

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Axis:
    """One upright axis: tick positions in [0, 1] and their labels."""

    name: str
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """One completed trial: its position on every axis, None where a parameter does not apply."""

    id: str
    positions: list[float | None]


class Coordinates(NamedTuple):
    """Axes of the parameters first, then of the objectives; lines across all of them."""

    axes: list[Axis]
    lines: list[Line]


class ParallelSection(Section[Coordinates]):
    figure = "parallel"

    def gather(self, run: Run) -> Coordinates:
        return parallel(run)

    def payload(self, run: Run, data: Coordinates) -> dict[str, Any]:
        return {
            "axes": [dataclasses.asdict(axis) for axis in data.axes],
            "lines": [dataclasses.asdict(line) for line in data.lines],
        }

    def draw(self, run: Run, data: Coordinates) -> Figure | None:
        from trustsweep.distributed.report.sections.parallel.figure import draw

        return draw(run, data)


def parallel(run: Run) -> Coordinates:
    """Axes for every parameter that varies and for the objectives; a line per completed trial.

    Of a long run the front's lines and some of the others.
    """
    names = [o.name for o in run.objectives]
    trials = [t for t in run.completed if all(n in t.metrics for n in names)]
    trials = thinned(trials, MOST_LINES, {t.id for t in run.front})
    keys = [k for k in run.config_keys if len({t.config[k] for t in trials if k in t.config}) > 1]
    axes: list[Axis] = []
    columns: list[list[float | None]] = []
    for values in (*([t.config.get(k) for t in trials] for k in keys), *_columns(trials, names)):
        axis, positions = _axis([*keys, *names][len(axes)], values)
        axes.append(axis)
        columns.append(positions)
    lines = [Line(t.id, [c[i] for c in columns]) for i, t in enumerate(trials)]
    return Coordinates(axes, lines)


def _columns(trials: list[Record], names: list[str]) -> list[list[Value | None]]:
    return [[t.metrics[n] for t in trials] for n in names]


def _axis(name: str, values: list[Value | None]) -> tuple[Axis, list[float | None]]:
    present = [v for v in values if v is not None]
    numbers = [v for v in present if is_number(v)]
    # An axis is a scale only as a whole: 3 among names is a name.
    if len(numbers) < len(present) or not present:
        levels = sorted({parameter(v) for v in present})
        place = {level: (i + 0.5) / len(levels) for i, level in enumerate(levels)}
        positions = [None if v is None else place[parameter(v)] for v in values]
        return Axis(name, [(place[level], level) for level in levels]), positions
    log = is_log(numbers)
    scale = math.log10 if log else float
    low, high = scale(min(numbers)), scale(max(numbers))
    extent = (high - low) or 1.0
    marks = [low + share * (high - low) for share in (0.0, 0.5, 1.0)]
    ticks = [((m - low) / extent, number(10**m if log else m)) for m in marks]
    placed = [None if v is None else (scale(float(v)) - low) / extent for v in values]
    return Axis(name, ticks), placed
