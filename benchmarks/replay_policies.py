"""Stopping policies side by side on recorded learning curves, over many orders of the trials.

Cost is that of training, as a share of what all trials cost at full length. It is counted until the
search has 95 % of the hypervolume, above the median of all final values, that all trials at full
length have; also given: the share of orders that get there, how much of that hypervolume there is
at the end (5 % quantile over the orders), and what the whole sweep costs.

The curves are (by default) 64 measured ones, judged by robust Dice and calibration. `ridge` is the
plain rule to beat: a ridge regression on value and last change, ten full trials to learn from, one
standard deviation of optimism in every objective.

    python benchmarks/replay_policies.py [CURVES.jsonl] [--orders 200] [--part 64] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from efficiency.asha import ScalarisedAsha
from efficiency.measure import ENOUGH, LOW, Trace
from replay import Floats, play
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import Ridge

from distributed.front import Objective, hypervolume, pareto_mask
from distributed.stopping import make_policy
from distributed.stopping.policy import Figures, Policy, Verdict
from distributed.stopping.ranking import losses_of
from search_spaces.study import Scheduler

CURVES = Path("../shared/data/learning_curves/xray_lungs_64_configs.jsonl")
BUDGETS = ("0", "0.01", "0.02")
Point = Mapping[str, float]

#: What a trial is judged by at a point of its curve.
FIGURES: dict[str, tuple[Callable[[Point], float], Objective]] = {
    "mean Dice": (lambda p: _mean(p, "dice"), Objective("dice", "max")),
    "Dice at 0.02": (lambda p: p["dice0.02"], Objective("dice", "max")),
    "Dice": (lambda p: p["dice0"], Objective("dice", "max")),
    "mean ECE": (lambda p: _mean(p, "ece"), Objective("ece", "min")),
    "ECE": (lambda p: p["ece0"], Objective("ece", "min")),
    "ECE at 0.02": (lambda p: p["ece0.02"], Objective("ece", "min")),
}
PAIRS = (
    ("mean Dice", "ECE"),
    ("Dice at 0.02", "ECE"),
    ("mean Dice", "mean ECE"),
    ("Dice at 0.02", "ECE at 0.02"),
    ("Dice", "ECE"),
)
#: Epochs at which each policy looks, of 16; halving's are geometric, the ridge has forecast's.
LOOKS = {
    "none": (),
    "asha": (1, 2, 4, 8),
    "halving": (1, 2, 4, 8),
    "ridge": (4, 6, 8, 12),
    "forecast": (4, 6, 8, 12),
}


class PlainRidge(Policy):
    """The rule to beat; see the file's docstring."""

    LEARN_FROM = 10
    OPTIMISM = 1.0

    def __init__(self, objectives: Sequence[Objective], *, rungs: int) -> None:
        super().__init__(objectives, rungs=rungs)
        self._curves: dict[str, list[Floats]] = {}
        self._ended: list[list[Floats]] = []

    def report(self, trial: str, rung: int, figures: Figures) -> Verdict:
        """See `Policy`."""
        curve = self._curves.setdefault(trial, [])
        curve.append(losses_of(figures, self.objectives))
        if len(self._ended) < self.LEARN_FROM:
            return Verdict()
        finals = np.array([ended[-1] for ended in self._ended])
        features = np.array([_value_and_change(ended, rung) for ended in self._ended])
        centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-12
        inputs = (features - centre) / scale
        model = Ridge().fit(inputs, finals)
        error = (model.predict(inputs) - finals).std(axis=0)
        now = model.predict([(_value_and_change(curve, rung) - centre) / scale])[0]
        front = finals[pareto_mask(finals, ["min"] * finals.shape[1])]
        return Verdict(bool((front <= now - self.OPTIMISM * error).all(axis=1).any()))

    def end(self, trial: str, figures: Figures | None) -> None:
        """See `Policy`."""
        assert figures is not None
        self._ended.append([*self._curves.pop(trial, []), losses_of(figures, self.objectives)])


def _value_and_change(curve: Sequence[Floats], rung: int) -> Floats:
    before = curve[rung - 1] if rung else curve[rung]
    return np.concatenate([curve[rung], curve[rung] - before])


def _mean(point: Point, metric: str) -> float:
    return float(np.mean([point[f"{metric}{budget}"] for budget in BUDGETS]))


def compare(
    points: Sequence[Sequence[Point]], pair: Sequence[str], orders: int, part: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Each policy's figures over random orders of `part` of the trials.

    `points` are curves: a point for each epoch that was measured, the same epochs for all.
    """
    readers, objectives = zip(*(FIGURES[name] for name in pair), strict=True)
    curves = np.array([[[read(p) for read in readers] for p in curve] for curve in points])
    costs = np.array([[p["train_s"] for p in curve] for curve in points])
    epochs = [int(p["epoch"]) for p in points[0]]
    draws = np.random.default_rng(seed)
    chosen = [draws.permutation(len(curves))[:part] for _ in range(orders)]
    rows = {}
    for name, looks in LOOKS.items():
        picks = [epochs.index(epoch) for epoch in looks] + [len(epochs) - 1]
        seen = [_run(name, objectives, curves[o][:, picks], costs[o][:, picks]) for o in chosen]
        rows[name] = _summary(np.array(seen))
    return rows


def _run(name: str, objectives: Sequence[Objective], curves: Floats, costs: Floats) -> Floats:
    """(3,) cost to 95 %, final hypervolume and whole cost of one order, as shares."""
    directions = [o.direction for o in objectives]
    finals = curves[:, -1]
    reference = np.median(finals, axis=0)
    full = hypervolume(finals, directions, reference.tolist())
    policy = _policy(name, objectives, finals, rungs=curves.shape[1] - 1)
    trace = Trace.of(list(play(policy, curves, costs, range(len(curves)))), directions, reference)
    total = costs[:, -1].sum()
    return np.array([trace.cost_to(ENOUGH * full) / total, trace.final / full, trace.total / total])


def _policy(name: str, objectives: Sequence[Objective], finals: Floats, rungs: int) -> Policy:
    if name == "ridge":
        return PlainRidge(objectives, rungs=rungs)
    if name == "asha":
        return ScalarisedAsha(objectives, [*LOOKS["asha"], 2 * LOOKS["asha"][-1]], finals)
    shares = np.linspace(0, 1, rungs + 2)[1:-1].tolist()
    return make_policy(Scheduler.model_validate({"policy": name, "rungs": shares}), objectives)


def _summary(runs: Floats) -> dict[str, float]:
    cost, final, whole = runs.T
    return {
        # Infinite costs sort last: of runs that get there or not.
        "cost": float(np.quantile(cost, 0.5, method="lower")),
        "reached": float(np.isfinite(cost).mean()),
        "final": float(np.quantile(final, LOW)),
        "kept": float((final >= 0.98).mean()),
        "whole": float(whole.mean()),
    }


def _table(pair: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table(title=" against ".join(pair))
    for column in ("policy", "cost to 95 %", "get there", "final, 5 %", ">= 0.98", "whole cost"):
        table.add_column(column)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['cost']:.3f}",
            f"{row['reached']:.0%}",
            f"{row['final']:.3f}",
            f"{row['kept']:.0%}",
            f"{row['whole']:.3f}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("curves", nargs="?", type=Path, default=CURVES)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--part", type=int, default=64, help="trials drawn for each order")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    lines = arguments.curves.read_text(encoding="utf-8").splitlines()
    points = [json.loads(line)["curve"] for line in lines]
    results: dict[str, Any] = {}
    for pair in PAIRS:
        rows = compare(points, pair, arguments.orders, arguments.part)
        Console().print(_table(pair, rows))
        results[" / ".join(pair)] = rows
    if arguments.json:
        report = {"orders": arguments.orders, "part": arguments.part, "results": results}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
