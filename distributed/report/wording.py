"""Numbers and the headline in words."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from distributed.front import Direction, Objective
from distributed.run_folder import Run, Trial

BETTER: dict[Direction | None, str] = {
    "max": "higher is better",
    "min": "lower is better",
    None: "no direction",
}
STATES = ("completed", "stopped", "failed", "running")


def number(value: float) -> str:
    """Three significant digits, without an exponent where the number is readable without."""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}".replace(",", "\u202f")
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as the two largest units: 75 s is "1 min 15 s"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (large, size), (small, step) in pairwise(units):
        if whole >= size:
            rest = whole % size // step
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def headline(run: Run) -> list[str]:
    """Sentences that say how the sweep went, what stands on the front and what its ends are."""
    states = Counter(t.state for t in run.trials)
    told = ", ".join(f"{states[s]} {s}" for s in STATES if states[s])
    sentences = [f"{plural(len(run.trials), 'trial')}{': ' + told if told else ''}."]
    if not run.objectives:
        return [
            *sentences,
            "The run has not written its summary yet, so there is no front to show.",
        ]
    if not run.front:
        return [
            *sentences,
            "No completed trial has every objective yet: there is no front to show.",
        ]
    names = " against ".join(f"{o.name} ({BETTER[o.direction]})" for o in run.objectives)
    stand = "stands" if len(run.front) == 1 else "stand"
    sentences.append(f"{plural(len(run.front), 'model')} {stand} on the front of {names}.")
    if len(run.front) == 1:
        return [
            *sentences,
            f"Trial {run.front[0].id} is best at all of it: {_values(run.front[0], run)}.",
        ]
    ends = []
    for objective in run.objectives:
        best = _best(run, objective)
        ends.append(best)
        sentences.append(f"Best {objective.name}: trial {best.id}, with {_values(best, run)}.")
    if len(run.objectives) == 2:
        first, second = (o.name for o in run.objectives)
        gained = abs(ends[0].metrics[first] - ends[1].metrics[first])
        paid = abs(ends[0].metrics[second] - ends[1].metrics[second])
        sentences.append(
            f"Going from the best {second} to the best {first} gains {number(gained)} of {first} "
            f"and costs {number(paid)} of {second}."
        )
    return sentences


def roles(run: Run) -> dict[str, str]:
    """What each front model is best at: "best dice_area", or "in between" where it is at no end."""
    told: dict[str, str] = {}
    for trial in run.front:
        ends = [o.name for o in run.objectives if _best(run, o) is trial]
        told[trial.id] = "best " + " and ".join(ends) if ends else "in between"
    return told


def _best(run: Run, objective: Objective) -> Trial:
    pick = max if objective.direction == "max" else min
    return pick(run.front, key=lambda t: t.metrics[objective.name])


def _values(trial: Trial, run: Run) -> str:
    return " and ".join(f"{o.name} {number(trial.metrics[o.name])}" for o in run.objectives)
