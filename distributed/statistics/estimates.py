"""Figures of a split with their 95 % intervals, from what each of its samples scored.

Patients are redrawn, not images: those of one patient resemble each other. Whatever is a mean over
images is resampled as one; AUROC, balanced accuracy and calibration error are recomputed from
each resample.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.inspection.counted import UNKNOWN, group_value
from trustsweep.data_pipelines.schema import Split
from trustsweep.distributed.statistics.inference import Estimate, Floats, Statistic, bootstrap
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.evaluation import CLEAN, EvaluationPlan
from trustsweep.trainables.metrics.catalog import metric_info
from trustsweep.trainables.metrics.names import MetricName
from trustsweep.trainables.metrics.resampled import Columns
from trustsweep.trainables.metrics.skill import TrivialMetrics, best_trivial, skill
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import Task

#: Groups with fewer samples are left out.
LEAST_IN_GROUP = 50


def headline_names(
    task: Task, plan: EvaluationPlan, requested: Iterable[str], split: Split | None = None
) -> list[str]:
    """The requested metrics, and all on clean images and under the strongest attack; for a split
    with conditions of its own, all under these."""
    own = [member.name for member in plan.of_split(split)] if split is not None else []
    conditions = own or dict.fromkeys((CLEAN, attacked_name(max(plan.epsilons))))
    every = [f"{condition}.{leaf}" for condition in conditions for leaf in task.statistics]
    return list(dict.fromkeys([*requested, *every]))


def estimates(
    scores: SampleScores,
    plan: EvaluationPlan,
    names: Iterable[str],
    patients: Sequence[Hashable],
    kept: NDArray[np.bool_] | None = None,
    trivial: TrivialMetrics | None = None,
    part: int | None = None,
) -> dict[str, Estimate]:
    """Estimates by full name; metrics that cannot be computed from sample scores are left out.

    Args:
        scores: Of n samples.
        plan: The evaluation plan.
        names: Such as "dice_area", "clean.auroc", "attacked.dice".
        patients: Of each sample.
        kept: (n,) the samples to use; all if None.
        part: Use this label, class or region alone, of a task with several; `kept` are then the
            samples where it is known.
        trivial: What the trivial predictors reach on the split, for skills: the interval is that of
            the model against the best of them as it stands.
    """
    there = np.ones(len(patients), dtype=bool) if kept is None else kept
    chosen = [patient for patient, here in zip(patients, there, strict=True) if here]
    by_name: dict[str, Estimate] = {}
    wanted = [MetricName.parse(name) for name in names]
    for name in dict.fromkeys(each.plain for each in wanted):
        weights = _terms(name, plan)
        make = scores.task.statistics.get(name.metric)
        if make is None or not weights or not weights.keys() <= {*scores.conditions}:
            continue
        parts = [
            (weight, make(_part(scores, condition, there, part)))
            for condition, weight in weights.items()
        ]
        by_name[str(name)] = bootstrap(_combined(parts), chosen)
    for name in wanted:
        if name.skill and str(name.plain) in by_name:
            by_name[str(name)] = _skill(name.plain, by_name[str(name.plain)], trivial or {})
    return {str(name): by_name[str(name)] for name in wanted if str(name) in by_name}


def _part(
    scores: SampleScores, condition: str, there: NDArray[np.bool_], part: int | None
) -> Columns:
    columns = {name: values[there] for name, values in scores.columns(condition).items()}
    return columns if part is None else scores.task.of_part(columns, part)


def _skill(name: MetricName, value: Estimate, trivial: TrivialMetrics) -> Estimate:
    info = metric_info(str(name))
    reference = best_trivial(trivial, name.metric)[1]
    ends = (skill(end, reference, info) for end in (value.value, value.low, value.high))
    middle, *others = ends
    return Estimate(middle, min(others), max(others))


def group_estimates(
    scores: SampleScores,
    plan: EvaluationPlan,
    patients: Sequence[Hashable],
    parts: Sequence[str] = (),
) -> dict[str, Any]:
    """Figures of each group of at least `LEAST_IN_GROUP` samples, clean and at their worst; of a
    task with several labels, classes or regions also of each of these, by the names in `parts`, as
    the group "label", "class" or "region" of the samples where it is known.

    Returns:
        - least: `LEAST_IN_GROUP`.
        - conditions: "clean" and, where anything was perturbed, the condition under which the
          whole split has the lowest Dice or balanced accuracy.
        - rows: for each group "group" (the column), "value", "images", "patients" and "figures",
          by full name an `Estimate`; of a part also "positive", how many of the images have it.
        Empty without such a group.
    """
    main, *others = scores.task.group_metrics
    make = scores.task.statistics[main]
    once = np.ones((1, len(patients)))

    def merit(condition: str) -> float:
        value = float(make(scores.columns(condition))(once)[0])
        return math.inf if math.isnan(value) else value

    shifted = [condition for condition in scores.conditions if condition != CLEAN]
    conditions = [CLEAN, *([min(shifted, key=merit)] if shifted else [])]
    names = [f"{condition}.{leaf}" for condition in conditions for leaf in (main, *others)]
    rows = []
    truth = scores.task.parts(scores.columns(CLEAN))

    def add(group: str, value: str, kept: NDArray[np.bool_], part: int | None = None) -> None:
        if kept.sum() < LEAST_IN_GROUP:
            return
        who = {patient for patient, here in zip(patients, kept, strict=True) if here}
        figures = estimates(scores, plan, names, patients, kept, part=part)
        rows.append(
            {
                "group": group, "value": value, "images": int(kept.sum()), "patients": len(who),
                "figures": figures,
                **({} if part is None else {"positive": int((truth[:, part] > 0.5).sum())}),
            }
        )  # fmt: skip

    for part, name in enumerate(parts[: truth.shape[1]]):
        add(scores.task.part, name, ~np.isnan(truth[:, part]), part)
    for group, values in scores.groups.items():
        labels = np.array([group_value(group, value) for value in values])
        for value in sorted({*labels} - {UNKNOWN}):
            add(group, str(value), labels == value)
    return {"least": LEAST_IN_GROUP, "conditions": conditions, "rows": rows} if rows else {}


def _terms(name: MetricName, plan: EvaluationPlan) -> dict[str, float]:
    """The conditions whose weighted sum a figure is; empty for one that is no such sum."""
    if name.area:
        epsilons = np.array(plan.epsilons)
        if len(epsilons) < 2:
            return {}
        steps = np.diff(epsilons) / epsilons[-1] / 2
        heights = np.append(steps, 0) + np.insert(steps, 0, 0)
        return dict(zip(map(attacked_name, plan.epsilons), heights.tolist(), strict=True))
    if name.condition is None:
        return {}
    own = str(name.condition)
    several = [m.name for m in plan.members if m.condition.several and m.condition.name == own]
    members = several or [own]
    return {member: 1 / len(members) for member in members}


def _combined(parts: Sequence[tuple[float, Statistic]]) -> Statistic:
    """The weighted sum of several, over the same resamples."""

    def statistic(weights: Floats) -> Floats:
        values = [share * part(weights) for share, part in parts]
        return np.asarray(np.sum(values, axis=0), dtype=np.float64)

    return statistic
