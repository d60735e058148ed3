"""A page of pictures: axes placed in inches, in rows of equal samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trustsweep.data_pipelines.inspection.panels import INK

STYLE: Any = {
    # A "$" in a name is no formula.
    "text.parse_math": False,
    "text.color": INK,
    "figure.facecolor": "white",
    "savefig.dpi": 150,
}
#: Inches; of a tile, the side that is aimed at and the largest.
WIDTH, MARGIN, GAP = 11.0, 0.3, 0.1
_TILE, _LARGEST = 1.78, 2.5
_APART = 0.2
_MOST_ACROSS = 6


@dataclass(frozen=True)
class Page:
    """A figure whose parts are placed in inches from the top left corner."""

    figure: Figure
    width: float
    height: float

    @classmethod
    def blank(cls, width: float, height: float) -> Page:
        return cls(Figure(figsize=(width, height)), width, height)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes without frame and ticks; pictures keep to their top left corner."""
        axes = self.figure.add_axes(
            (
                left / self.width,
                1 - (top + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.patch.set_visible(False)
        axes.set_anchor("NW")
        return axes

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        """Text whose upper left corner is there, unless `style` says otherwise."""
        x, y = left / self.width, 1 - top / self.height
        self.figure.text(x, y, text, **{"va": "top", "ha": "left", **style})

    def save(self, path: Path) -> Path:
        """Write a PNG; the folder is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path)
        return path


@dataclass(frozen=True)
class Grid:
    """Samples of `units` tiles in `gaps` + 1 panels, `across` of them beside each other."""

    units: float
    gaps: int
    across: int
    tile: float

    @classmethod
    def fitting(cls, units: float, gaps: int) -> Grid:
        """As many across as fill the width with tiles nearest to the size aimed at."""
        room = WIDTH - 2 * MARGIN

        def tile(across: int) -> float:
            return (room - (across - 1) * _APART - across * gaps * GAP) / (across * units)

        across = min(range(1, _MOST_ACROSS + 1), key=lambda n: abs(tile(n) - _TILE))
        return cls(units, gaps, across, min(tile(across), _LARGEST))

    @property
    def breadth(self) -> float:
        """Of a sample."""
        return self.units * self.tile + self.gaps * GAP

    @property
    def step(self) -> float:
        """From the left of a sample to the left of the next."""
        return self.breadth + _APART


def fit(text: str, inches: float, size: float) -> str:
    """As much of the text as has room: a letter is about 0.62 of the font size wide."""
    most = max(int(inches * 72 / (0.62 * size)), 2)
    return text if len(text) <= most else f"{text[: most - 1]}…"
