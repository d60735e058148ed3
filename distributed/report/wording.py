"""Numbers and the headline in words."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from distributed.front import Direction, Objective
from distributed.ledger import SEARCH
from distributed.optimism import choices, estimate, mean_optimism, measured
from distributed.run_folder import Run, Trial
from distributed.statistics import Estimate
from distributed.trivial import trivial_lines

BETTER: dict[Direction | None, str] = {
    "max": "higher is better",
    "min": "lower is better",
    None: "no direction",
}
STATES = ("completed", "stopped", "failed", "running")
#: Unfinished trials that are named.
NAMED = 20


def number(value: float) -> str:
    """Three significant digits, without an exponent where the number is readable without.

    "" for NaN, which stands for what does not exist.
    """
    if not math.isfinite(value):
        return "" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e12:
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
    sentences = [_counts(run.search, "trial")]
    if repeats := [t for t in run.trials if t.stage != SEARCH]:
        sentences[0] += f" Under other seeds, {_counts(repeats, 'repeat')}"
    if not run.objectives:
        return [
            *sentences,
            "The run has not written its summary yet, so there is no front to show.",
        ]
    trivial = trivial_lines(run.remarks, len(run.completed))
    if not run.front:
        needed = {o.name for o in run.objectives}
        measured = any(needed <= t.metrics.keys() for t in run.completed)
        why = "keeps the constraints" if measured else "has every objective yet"
        return [*sentences, f"No completed trial {why}: there is no front to show.", *trivial]
    names = " against ".join(f"{o.name} ({BETTER[o.direction]})" for o in run.objectives)
    stand = "stands" if len(run.front) == 1 else "stand"
    sentences.append(
        f"{plural(len(run.front), 'model')} {stand} on the front of {names}, by figures of the "
        "validation split."
    )
    if len(run.front) == 1:
        return [
            *sentences,
            f"Trial {run.front[0].id} is best at all of it: {_values(run.front[0], run)}"
            f"{_warned(run.front[0], run)}.",
            *trivial,
            *optimism(run),
        ]
    ends = []
    for objective in run.objectives:
        best = _best(run, objective)
        ends.append(best)
        told = f"{_values(best, run)}{_warned(best, run)}"
        sentences.append(f"Best {objective.name}: trial {best.id}, with {told}.")
    if len(run.objectives) == 2:
        first, second = (o.name for o in run.objectives)
        gained = abs(ends[0].metrics[first] - ends[1].metrics[first])
        paid = abs(ends[0].metrics[second] - ends[1].metrics[second])
        sentences.append(
            f"Going from the best {second} to the best {first} gains {number(gained)} of {first} "
            f"and costs {number(paid)} of {second}, on validation."
        )
    return [*sentences, *trivial, *optimism(run)]


def optimism(run: Run) -> list[str]:
    """What of the validation figures is left on the test split; empty where nothing was judged."""
    means = mean_optimism(choices(run))
    if not means:
        return []
    told = ", ".join(f"{name} {'+' * (gap > 0)}{number(gap)}" for name, gap in means.items())
    return [
        f"Optimism of choosing: {told}. By so much the validation split looks better (worse, where "
        "negative) than the test split, which no choice has seen; mean over the front."
    ]


def roles(run: Run) -> dict[str, str]:
    """What each front model is best at: "best dice_area", or "in between" where it is at no end.

    With it stands what is trivial about the model: "best clean.ece, predicts nothing".
    """
    told: dict[str, str] = {}
    for trial in run.front:
        ends = [o.name for o in run.objectives if _best(run, o) is trial]
        told[trial.id] = "best " + " and ".join(ends) if ends else "in between"
        told[trial.id] += _warned(trial, run)
    return told


def unfinished(run: Run) -> list[str]:
    """What became of a run that is not at its end, and how to go on; empty for a whole one."""
    running = [t.id for t in run.trials if t.state == "running"]
    reason = run.summary.get("interrupted")
    if not reason and not running and run.summary:
        return []
    sentences = []
    if reason:
        sentences.append(f"This run stopped before its end: {reason}.")
    elif not run.summary:
        sentences.append("This run has not written its summary: it is still going, or was killed.")
    else:
        sentences.append("This run is not at its end: it is still going, or was killed.")
    if running:
        named = ", ".join(running[:NAMED]) + (", ..." if len(running) > NAMED else "")
        sentences.append(f"{plural(len(running), 'trial')} unfinished: {named}.")
    return sentences


def resume_line(run: Run) -> str:
    """The command that goes on with the run."""
    return f"trustsweep sweep --resume {shlex.quote(str(run.path))}"


def _counts(trials: Sequence[Trial], noun: str) -> str:
    states = Counter(t.state for t in trials)
    told = ", ".join(f"{states[s]} {s}" for s in STATES if states[s])
    return f"{plural(len(trials), noun)}{': ' + told if told else ''}."


def _best(run: Run, objective: Objective) -> Trial:
    pick = max if objective.direction == "max" else min
    return pick(run.front, key=lambda t: t.metrics[objective.name])


def _warned(trial: Trial, run: Run) -> str:
    return f", {run.remarks[trial.id]}" if trial.id in run.remarks else ""


def _values(trial: Trial, run: Run) -> str:
    """Its objectives on validation, and on test with intervals where it was judged there."""
    told = " and ".join(f"{o.name} {number(trial.metrics[o.name])}" for o in run.objectives)
    card = run.evaluations.get(trial.id)
    if card is None or card.split != "test" or not measured(run):
        return f"{told} on validation"
    test = [(o, estimate(card, o)) for o in measured(run)]
    seen = " and ".join(
        f"{o.name} {number(e.value)}{interval(e)}" for o, e in test if not math.isnan(e.value)
    )
    return f"{told} on validation; on test {seen}" if seen else f"{told} on validation"


def interval(found: Estimate) -> str:
    """The interval behind a figure; nothing where there is none."""
    if math.isnan(found.low):
        return ""
    return f" (95 %: {number(found.low)} to {number(found.high)})"
