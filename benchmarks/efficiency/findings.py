"""What the kept searches say: the figures of every row of the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efficiency.measure import Reached, Runs, cheaper, interval, ratio, reached, row
from efficiency.problems import FUNCTIONS, PAIRS, Analytic, Recorded
from efficiency.stopping import RULES, RUNGS
from efficiency.ways import SAMPLERS, Way

#: Exponents of forecast's threshold beside its own.
OWN_DOUBT = 4.0
DOUBTS = (0.0, 1.0, 2.0, 8.0)
UNSTOPPED = "random none"
GUIDE = "guide none"
#: What each way is set against, pair by pair and order by order.
RIVALS = (
    ("random asha 1/4", "random forecast 1/4"),
    ("random scalarised 1/4", "random forecast 1/4"),
    ("random scalarised 1/4", "random forecast four"),
    ("random scalarised 1/4", "random asha 1/4"),
)

#: Way to its runs, by problem.
ReachedByProblem = Mapping[str, Mapping[str, Reached]]


def findings(runs: Mapping[str, Runs], curves: Path) -> dict[str, Any]:
    """Figures of both parts as plain values; a part of which nothing was run is empty.

    `curves` is the file of recorded trainings.
    """
    runs = {name: {way: of[way] for way in sorted(of, key=_place)} for name, of in runs.items()}
    problems = [Recorded(curves, pair) for pair in PAIRS]
    problems = [problem for problem in problems if UNSTOPPED in runs.get(problem.name, {})]
    functions = [
        Analytic(name) for name in FUNCTIONS if {UNSTOPPED, GUIDE} <= set(runs.get(name, {}))
    ]
    return {
        "recorded": _recorded(problems, runs) if problems else {},
        "functions": {p.name: _function(p, runs[p.name]) for p in functions},
    }


def _recorded(problems: Sequence[Recorded], runs: Mapping[str, Runs]) -> dict[str, Any]:
    by_pair = {p.name: reached(p, runs[p.name], UNSTOPPED) for p in problems}
    free = {p.name: reached(p, runs[p.name], UNSTOPPED, weight=0.0) for p in problems}
    plain = [way for way in next(iter(by_pair.values())) if not _doubted(way)]
    epochs = [
        trial.evaluation / (trial.training / problems[0].steps[-1])
        for trial in runs[problems[0].name][UNSTOPPED][0]
    ]
    return {
        "evaluation_epochs": float(np.median(epochs)),
        "pairs": {
            name: {way: row(ways[way], ways[UNSTOPPED]) for way in plain}
            for name, ways in by_pair.items()
        },
        "all": {way: _over_pairs(by_pair, way) for way in plain},
        "all_training_alone": {way: _over_pairs(free, way)["expected"] for way in plain},
        "cheaper": [
            {
                "way": way,
                "than": than,
                "pairs": {name: cheaper(ways[way], ways[than]) for name, ways in by_pair.items()},
            }
            for way, than in RIVALS
        ],
        "exponent": _exponents(by_pair),
    }


def _place(way: str) -> tuple[int, int, int]:
    """Samplers, rules and rungs as they are listed, rather than as they were run."""
    sampler, rule, *rungs = way.split()
    place = list(RUNGS).index(rungs[0]) if rungs else 0
    return list(SAMPLERS).index(sampler), list(RULES).index(rule), place


def _doubted(way: str) -> bool:
    return way.split()[-1].replace(".", "").isdigit()


def _over_pairs(by_pair: ReachedByProblem, way: str) -> dict[str, Any]:
    """A way over all pairs: expected cost as a multiple of no stopping's (geometric mean over the
    pairs, bootstrap over orders, which all pairs share), of the pair where it is dearest, the share
    of runs that get there, over all pairs and of the worst, and the share of the cost spent."""
    seeds = _shared([ways[way] for ways in by_pair.values()])
    pairs = [(ways[way].only(seeds), ways[UNSTOPPED].only(seeds)) for ways in by_pair.values()]

    def mean_ratio(rows: Any) -> Any:
        return np.exp(np.mean([np.log(ratio(mine, full, rows)) for mine, full in pairs], axis=0))

    shares = [float(np.isfinite(mine.cost).mean()) for mine, _ in pairs]
    return {
        "runs": len(seeds),
        "expected": interval(mean_ratio, len(seeds)),
        "dearest": max(float(ratio(mine, full)) for mine, full in pairs),
        "reached": float(np.mean(shares)),
        "least_reached": min(shares),
        "spent": float(np.mean([mine.total.sum() / full.total.sum() for mine, full in pairs])),
    }


def _shared(runs: Sequence[Reached]) -> list[int]:
    """The seeds that all have."""
    return sorted(set.intersection(*(set(of.seeds) for of in runs)))


def _exponents(by_pair: ReachedByProblem) -> dict[str, Any]:
    """Forecast's exponent, chosen for each pair on the pairs that share neither measure with it."""
    names = {d: Way("random", "forecast", "four", d).name for d in DOUBTS}
    ways = {OWN_DOUBT: "random forecast four", **names}
    if len(by_pair) < len(PAIRS) or any(
        w not in by_pair[n] for n in by_pair for w in ways.values()
    ):
        return {}
    seeds = _shared([of_pair[way] for of_pair in by_pair.values() for way in ways.values()])
    ratios = {
        doubt: {
            name: (
                float(ratio(of_pair[way].only(seeds), of_pair[UNSTOPPED].only(seeds))),
                float(np.isfinite(of_pair[way].only(seeds).cost).mean()),
            )
            for name, of_pair in by_pair.items()
        }
        for doubt, way in ways.items()
    }
    chosen = {}
    for dice, ece in PAIRS:
        others = [" / ".join(pair) for pair in PAIRS if pair[0] != dice and pair[1] != ece]
        score = {d: geometric_mean([ratios[d][other][0] for other in others]) for d in ratios}
        chosen[f"{dice} / {ece}"] = min(score, key=lambda d: score[d])
    return {
        "orders": len(seeds),
        "by_exponent": {
            f"{doubt:g}": {
                "expected": geometric_mean([r for r, _ in of_pair.values()]),
                "reached": float(np.mean([share for _, share in of_pair.values()])),
            }
            for doubt, of_pair in sorted(ratios.items())
        },
        "chosen": chosen,
        "held_out": geometric_mean([ratios[chosen[name]][name][0] for name in chosen]),
    }


def _function(problem: Analytic, runs: Runs) -> dict[str, Any]:
    """Each way's row, beside what it costs against its own sampler without stopping."""
    by_way = reached(problem, runs, GUIDE)
    free = reached(problem, runs, GUIDE, weight=0.0)
    rows = {}
    for way, of_way in by_way.items():
        unstopped = by_way.get(f"{way.split()[0]} none")
        rows[way] = {
            **row(of_way, by_way[GUIDE]),
            "training_alone": row(free[way], free[GUIDE])["expected"][0],
            "own_sampler": row(of_way, unstopped)["expected"] if unstopped else None,
        }
    return rows


def geometric_mean(values: Sequence[float]) -> float:
    """Infinite where one of them is."""
    return float(np.exp(np.mean(np.log(values))))
