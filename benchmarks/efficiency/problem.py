"""What a search is let loose on: configs, and the curve that each of them makes as it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trustsweep.distributed.statistics.front import Objective
from trustsweep.search_spaces.space import Suggester

Floats: TypeAlias = NDArray[np.float64]
Config: TypeAlias = dict[str, Any]


class Point(NamedTuple):
    """A trial at one of the steps at which it is measured.

    Attributes:
        cost: Of training it so far, from its start, in the problem's unit.
        values: (m,) objectives.
    """

    cost: float
    values: Floats


class Problem(ABC):
    """Configs with learning curves.

    Attributes:
        name: Of the problem.
        objectives: Names and directions of the m objectives.
        steps: Where a trial is measured, ascending; the last is its full length.
        unit: Of costs.
        reference: Quantile of final values, from the best, where hypervolumes are measured from.
        pool: How many configs there are, where there is no space to draw from but a fixed set
            (a config is then ``{"index": i}``); else None.
    """

    name: str
    objectives: tuple[Objective, ...]
    steps: tuple[int, ...]
    unit: str
    reference: float = 0.5
    pool: int | None = None

    @abstractmethod
    def evaluation(self, config: Config) -> float:
        """What one evaluation of a trial costs, at a rung or at its end, in the unit of costs."""

    @abstractmethod
    def suggest(self, trial: Suggester) -> Config:
        """A config, asked of an Optuna trial."""

    @abstractmethod
    def curve(self, config: Config, seed: int) -> Sequence[Point]:
        """A point for each of `steps`."""
