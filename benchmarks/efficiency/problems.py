"""Test problems with known fronts and curves as misleading as real ones, and recorded real curves.

**Functions.** ZDT1 to ZDT3 (Zitzler, Deb, Thiele 2000, "Comparison of multiobjective evolutionary
algorithms") of 5 variables and DTLZ2 (Deb, Thiele, Laumanns, Zitzler 2002) of 6 variables and three
objectives, all minimised.

**Curves.** At the share s = step / 64 of its training, a config x whose objective j ends at f_j(x)
shows

    v_j(x, s) = μ_j + ρ_j(s) (f_j(x) − μ_j) + √(1 − ρ_j(s)²) σ_j (p_j(x) + w_j(x, s)) / √2,

with μ_j and σ_j the mean and standard deviation of f_j over the space, and p and w standard normal
draws: half of the variance that tells nothing of the end stays with a config along its curve, half
is new at each step. So the correlation between v_j(·, s) and f_j over random configs is ρ_j(s), and
v_j(·, 1) = f_j exactly. ρ_j is what was measured on 64 real trainings (see `MEASURED`): the first
and third objective follow robustness, the second follows calibration, which begins by foretelling
the opposite of its end.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.interpolate import PchipInterpolator

from efficiency.problem import Config, Floats, Point, Problem
from trustsweep.distributed.statistics.front import Objective
from trustsweep.search_spaces.space import Suggester

STEPS = 64
#: Share of training, and the rank correlation there with the final value of the area under Dice
#: against ε and of ECE, over the 64 trainings of xray_lungs_64_configs.jsonl. Before the first
#: epoch as after it.
MEASURED = {
    "share": (0.0, 1 / 16, 2 / 16, 4 / 16, 6 / 16, 8 / 16, 12 / 16, 1.0),
    "robustness": (0.43, 0.43, 0.61, 0.79, 0.86, 0.92, 0.98, 1.0),
    "calibration": (-0.61, -0.61, -0.62, 0.05, 0.69, 0.91, 0.99, 1.0),
}
_ROLES = ("robustness", "calibration", "robustness")
_MOMENT_DRAWS = 2**14
#: What an evaluation costs, in steps: on the recorded trainings, 2.1 epochs.
EVALUATION = 2.0
_EPSILONS = (0.0, 0.01, 0.02)
_Figures = Mapping[str, float]


def _mean(point: _Figures, metric: str) -> float:
    return float(np.mean([point[f"{metric}{epsilon:g}"] for epsilon in _EPSILONS]))


def _area(point: _Figures) -> float:
    heights = [point[f"dice{epsilon:g}"] for epsilon in _EPSILONS]
    return float(np.trapezoid(heights, _EPSILONS) / _EPSILONS[-1])


#: Metrics of a recorded training: of images as they are, or attacked up to ε 0.02.
FIGURES: dict[str, tuple[Callable[[_Figures], float], Objective]] = {
    "Dice area": (_area, Objective("dice", "max")),
    "Dice at 0.02": (lambda p: p["dice0.02"], Objective("dice", "max")),
    "Dice": (lambda p: p["dice0"], Objective("dice", "max")),
    "mean ECE": (lambda p: _mean(p, "ece"), Objective("ece", "min")),
    "ECE at 0.02": (lambda p: p["ece0.02"], Objective("ece", "min")),
    "ECE": (lambda p: p["ece0"], Objective("ece", "min")),
}
#: Each measure of Dice against each of calibration.
PAIRS = tuple(
    (dice, ece)
    for dice in ("Dice area", "Dice at 0.02", "Dice")
    for ece in ("mean ECE", "ECE at 0.02", "ECE")
)


@dataclass(frozen=True)
class Function:
    """A test function on [0, 1]^variables.

    Attributes:
        values: (n, variables) to (n, m).
        front: A count n to about n points of the true front, (≤ n, m).
    """

    variables: int
    values: Callable[[Floats], Floats]
    front: Callable[[int], Floats]


def _zdt(shape: Callable[[Floats, Floats], Floats], variables: int = 5) -> Function:
    """ZDT: f₁ = x₁, f₂ = g h(f₁, g) with g = 1 + 9 · mean(x₂...); on the front, g = 1."""

    def values(x: Floats) -> Floats:
        first, g = x[:, 0], 1 + 9 * x[:, 1:].mean(axis=1)
        return np.stack([first, g * shape(first, g)], axis=1)

    def front(count: int) -> Floats:
        first = np.linspace(0, 1, count)
        second = shape(first, np.ones(count))
        # ZDT3's curve rises in places; only new minima from the left are on the front.
        lowest = np.minimum.accumulate(second)
        return np.stack([first, second], axis=1)[second <= lowest]

    return Function(variables, values, front)


def _dtlz2(variables: int = 6) -> Function:
    """DTLZ2: a part of the unit sphere, away from it by g = Σ (xᵢ − ½)² over i ≥ 3."""

    def values(x: Floats) -> Floats:
        g = ((x[:, 2:] - 0.5) ** 2).sum(axis=1, keepdims=True)
        a, b = (x[:, :2] * math.pi / 2).T
        sphere = [np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)]
        return (1 + g) * np.stack(sphere, axis=1)

    def front(count: int) -> Floats:
        side = np.linspace(0, 1, math.isqrt(count))
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        return values(np.concatenate([grid, np.full((len(grid), variables - 2), 0.5)], axis=1))

    return Function(variables, values, front)


FUNCTIONS = {
    "zdt1": _zdt(lambda f, g: 1 - np.sqrt(f / g)),
    "zdt2": _zdt(lambda f, g: 1 - (f / g) ** 2),
    "zdt3": _zdt(lambda f, g: 1 - np.sqrt(f / g) - f / g * np.sin(10 * math.pi * f)),
    "dtlz2": _dtlz2(),
}


class Analytic(Problem):
    """A test function behind curves that mislead; a step costs 1."""

    unit = "steps"
    steps = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, STEPS)

    def __init__(self, name: str) -> None:
        self.name = name
        self.function = FUNCTIONS[name]
        # DTLZ2's true front has next to nothing beyond the medians of all three objectives.
        self.reference = 0.75 if name == "dtlz2" else 0.5
        count = self.function.values(np.zeros((1, self.function.variables))).shape[1]
        self.objectives = tuple(Objective(f"f{j + 1}", "min") for j in range(count))

    def evaluation(self, config: Config) -> float:
        return EVALUATION

    def suggest(self, trial: Suggester) -> Config:
        names = [f"x{i + 1}" for i in range(self.function.variables)]
        return {name: trial.suggest_float(name, 0.0, 1.0, step=None, log=False) for name in names}

    def curve(self, config: Config, seed: int) -> Sequence[Point]:
        x = np.array([list(config.values())])
        final = self.function.values(x)[0]
        draws = np.random.default_rng(_seed(config, seed))
        stays = draws.standard_normal(len(final))
        points = []
        for step in self.steps:
            noise = (stays + draws.standard_normal(len(final))) / math.sqrt(2)
            points.append(Point(step, self._shown(final, step / STEPS, noise)))
        return points

    def _shown(self, final: Floats, share: float, noise: Floats) -> Floats:
        if share == 1:
            return final
        rho = np.array([correlation(role, share) for role in _ROLES[: len(final)]])
        mean, deviation = self._moments
        return mean + rho * (final - mean) + np.sqrt(1 - rho**2) * deviation * noise

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        shape = (_MOMENT_DRAWS, self.function.variables)
        values = self.function.values(np.random.default_rng(0).random(shape))
        return values.mean(axis=0), values.std(axis=0)


class Recorded(Problem):
    """64 recorded trainings of a small U-Net on X-rays, by two of `FIGURES`."""

    unit = "seconds"

    def __init__(self, path: Path, pair: Sequence[str] = ("Dice area", "ECE")) -> None:
        self.name = " / ".join(pair)
        read, self.objectives = zip(*(FIGURES[name] for name in pair), strict=True)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.steps = tuple(point["epoch"] for point in rows[0]["curve"])
        self.pool = len(rows)
        self._curves = [
            [Point(p["train_s"], np.array([figure(p) for figure in read])) for p in row["curve"]]
            for row in rows
        ]
        # Each was evaluated at every point of its curve, always in the same way.
        self._evaluations = [
            (row["wall"] - row["curve"][-1]["train_s"]) / len(row["curve"]) for row in rows
        ]

    def evaluation(self, config: Config) -> float:
        return float(self._evaluations[config["index"]])

    def suggest(self, trial: Suggester) -> Config:
        raise NotImplementedError("a fixed pool has no space to draw from")

    def curve(self, config: Config, seed: int) -> Sequence[Point]:
        return self._curves[config["index"]]

    @property
    def finals(self) -> Floats:
        """(64, m) what each arrives at."""
        return np.array([curve[-1].values for curve in self._curves])


def correlation(role: str, share: float) -> float:
    """ρ at a share of training in [0, 1]: monotone cubic interpolation of `MEASURED`."""
    return float(PchipInterpolator(MEASURED["share"], MEASURED[role])(share))


def _seed(config: Config, seed: int) -> int:
    text = json.dumps([seed, config], sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
