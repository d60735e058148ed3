"""Formats numbers and writes the headline of a report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeGuard

from trustsweep.distributed.run.evaluation_card import AttackCard, EvaluationCard
from trustsweep.distributed.run.folder import MASKED, Run
from trustsweep.distributed.run.ledger import SEARCH, Record, State
from trustsweep.distributed.run.optimism import front_estimates, mean_optimism, measured
from trustsweep.distributed.run.trivial import trivial_lines
from trustsweep.distributed.statistics.front import Direction, Objective
from trustsweep.distributed.statistics.inference import Estimate
from trustsweep.search_spaces.space import Value
from trustsweep.trainables.metrics.catalog import AREAS
from trustsweep.trainables.registry import FULL

BETTER: dict[Direction | None, str] = {
    "max": "higher is better",
    "min": "lower is better",
    None: "no direction",
}
STATES = (State.COMPLETED, State.STOPPED, State.FAILED, State.RUNNING)
#: Unfinished trials that are named.
NAMED = 20
#: Positive values that span more than this factor are taken to be searched in logarithm.
LOG_SPAN = 10.0


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


def parameter(value: Value) -> str:
    """A parameter's value as a study would write it; a text that is empty as \"\"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value or '""'
    return number(value)


def is_number(value: Value | None) -> TypeGuard[int | float]:
    """Whether a parameter's value lies on a scale: true and false do not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_log(values: Sequence[float]) -> bool:
    """Whether positive values span so much that a logarithmic scale shows them better."""
    return min(values) > 0 and max(values) / min(values) > LOG_SPAN


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
    """Sentences on the trials, the front and its two ends."""
    sentences = [_counts(run.search, "trial")]
    if repeats := [t for t in run.trials if t.stage != SEARCH]:
        sentences[0] += f" Under other seeds, {_counts(repeats, 'repeat')}"
    trivial = trivial_lines(run.remarks, len(run.completed))
    if not run.front:
        needed = {o.name for o in run.objectives}
        measured = any(needed <= t.metrics.keys() for t in run.completed)
        why = "meets the constraints" if measured else "has every objective yet"
        return [*sentences, f"No completed trial {why}: there is no front to show.", *trivial]
    names = " against ".join(f"{o.name} ({BETTER[o.direction]})" for o in run.objectives)
    stand = "stands" if len(run.front) == 1 else "stand"
    sentences.append(
        f"{plural(len(run.front), 'model')} {stand} on the front of {names}, by validation metrics."
    )
    if len(run.front) == 1:
        return [
            *sentences,
            f"Trial {run.front[0].id} is best at every objective: {_values(run.front[0], run)}"
            f"{_warned(run.front[0], run)}.",
            *trivial,
            *attack_lines(run),
            *optimism(run),
        ]
    ends = []
    for objective in run.objectives:
        best = _best(run, objective)
        ends.append(best)
        values = f"{_values(best, run)}{_warned(best, run)}"
        sentences.append(f"Best {objective.name}: trial {best.id}, with {values}.")
    if len(run.objectives) == 2:
        first, second = (o.name for o in run.objectives)
        gained = abs(ends[0].metrics[first] - ends[1].metrics[first])
        paid = abs(ends[0].metrics[second] - ends[1].metrics[second])
        sentences.append(
            f"Going from the best {second} to the best {first} gains {number(gained)} of {first} "
            f"and costs {number(paid)} of {second}, on validation."
        )
    return [*sentences, *trivial, *attack_lines(run), *optimism(run)]


def attacked(run: Run) -> list[tuple[EvaluationCard, AttackCard]]:
    """The cards of the front's attacked models, each with its attack."""
    return [(card, card.attack) for card in run.front_cards if card.attack is not None]


def attack_lines(run: Run) -> list[str]:
    """Caveats on the attacks that the front was evaluated under; empty without an attack."""
    cards = attacked(run)
    if not cards:
        return []
    name = cards[0][1].name
    lines = []
    if name.final != FULL:
        lines.append(
            f"The front was evaluated only under the attack of the search ({name.search}); its "
            "models may be less robust under a stronger one. For the full one: trustsweep sweep "
            f"--resume RUN --set evaluation.final={FULL}."
        )
    elif name.search != FULL:
        lines += _gap_line(run, [attack.gap for _, attack in cards], name.search)
    signed = [f"{card.id} ({'; '.join(card.signs.values())})" for card, _ in cards if card.signs]
    if signed:
        more = f" and {len(signed) - NAMED} more" if len(signed) > NAMED else ""
        lines.append(
            f"Signs of gradient masking in {len(signed)} of {plural(len(cards), 'model')} of the "
            f"front: {', '.join(signed[:NAMED])}{more}."
        )
    missing = list(dict.fromkeys(member for _, attack in cards for member in attack.left_out))
    if missing:
        lines.append(
            f"The full attack went without {', '.join(missing)}: torchattacks is not installed "
            "(pip install --no-deps torchattacks==3.5.1)."
        )
    return lines


def _gap_line(run: Run, models: Sequence[Mapping[str, float]], search: str) -> list[str]:
    """How much more robust the models look under the attack of the search than under the full."""
    known = list(dict.fromkeys(name for gap in models for name in gap))
    areas = [name for name in known if name in AREAS]
    objectives = [o.name for o in run.objectives if o.name in known]
    gaps_by_metric = []
    for name in objectives or areas:
        gaps = [gap.get(name, math.nan) for gap in models]
        if gaps := [gap for gap in gaps if not math.isnan(gap)]:
            mean = math.fsum(gaps) / len(gaps)
            gaps_by_metric.append(f"{name} by {mean:.3f} on average, {max(gaps):.3f} at most")
    if not gaps_by_metric:
        return []
    return [
        f"Under the attack of the search ({search}) the front looks more robust on test than under "
        f"the full one: {'; '.join(gaps_by_metric)}."
    ]


def gap_number(gap: float) -> str:
    """Three decimals; gaps between attacks are rarely known more precisely."""
    return "" if math.isnan(gap) else f"{gap:+.3f}".replace("-0.000", "0").replace("+0.000", "0")


def optimism(run: Run) -> list[str]:
    """How much better validation looks than test; empty until the front is evaluated."""
    means = mean_optimism(front_estimates(run))
    if not means:
        return []
    gaps = ", ".join(f"{name} {'+' * (gap > 0)}{number(gap)}" for name, gap in means.items())
    return [
        f"Optimism of choosing: {gaps}. This is how much better (worse if negative) the validation "
        "metrics look than the test metrics, which the search never used; mean over the front."
    ]


def roles(run: Run) -> dict[str, str]:
    """What each front model is best at, such as "best dice_area", or "in between".

    Warnings follow: "best clean.ece, predicts nothing".
    """
    role_of: dict[str, str] = {}
    for trial in run.front:
        ends = [o.name for o in run.objectives if _best(run, o) is trial]
        role_of[trial.id] = "best " + " and ".join(ends) if ends else "in between"
        remark = [run.remarks[trial.id]] if trial.id in run.remarks else []
        masked = [MASKED] if trial.id in run.masked else []
        role_of[trial.id] = ", ".join([role_of[trial.id], *remark, *masked])
    return role_of


def unfinished(run: Run) -> list[str]:
    """Why a run is incomplete, and its unfinished trials; empty for a complete one."""
    running = [t.id for t in run.trials if t.state is State.RUNNING]
    if run.finished and not running:
        return []
    sentences = []
    if run.interrupted:
        sentences.append(f"This run was interrupted: {run.interrupted}.")
    else:
        sentences.append("This run is incomplete: it is still running, or was killed.")
    if running:
        named = ", ".join(running[:NAMED]) + (", ..." if len(running) > NAMED else "")
        sentences.append(f"{plural(len(running), 'trial')} unfinished: {named}.")
    return sentences


def _counts(trials: Sequence[Record], noun: str) -> str:
    states = Counter(t.state for t in trials)
    by_state = ", ".join(f"{states[s]} {s}" for s in STATES if states[s])
    return f"{plural(len(trials), noun)}{': ' + by_state if by_state else ''}."


def _best(run: Run, objective: Objective) -> Record:
    pick = max if objective.direction == "max" else min
    return pick(run.front, key=lambda t: t.metrics[objective.name])


def _warned(trial: Record, run: Run) -> str:
    return f", {run.warnings[trial.id]}" if trial.id in run.warnings else ""


def _values(trial: Record, run: Run) -> str:
    """Its objectives on validation, and on test with intervals where it was evaluated there."""
    values = " and ".join(f"{o.name} {number(trial.metrics[o.name])}" for o in run.objectives)
    card = run.cards.get(trial.id)
    if card is None or not card.on_test or not measured(run):
        return f"{values} on validation"
    test = [
        c for c in front_estimates(run) if c.model == trial.id and not math.isnan(c.quoted.value)
    ]
    on_test = " and ".join(
        f"{c.objective.name} {number(c.quoted.value)}{interval(c.quoted)}"
        f"{' under the full attack' if c.attacked else ''}"
        for c in test
    )
    return f"{values} on validation; on test {on_test}" if on_test else f"{values} on validation"


def interval(estimate: Estimate) -> str:
    """The interval in brackets; empty where there is none."""
    if math.isnan(estimate.low):
        return ""
    return f" (95 %: {number(estimate.low)} to {number(estimate.high)})"
