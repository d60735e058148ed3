"""One pass over a split: every metric on clean, corrupted and attacked images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch, Split
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.conditions import ConditionName, Tools, attacked_name
from trustsweep.trainables.contract import Method, Prediction
from trustsweep.trainables.evaluation.plan import CLEAN, EvaluationPlan, PlannedCondition
from trustsweep.trainables.metrics.base import MetricState, uncertainty_map
from trustsweep.trainables.metrics.calibration import CalibrationBins
from trustsweep.trainables.metrics.catalog import (
    AREAS,
    METRICS,
    SHIFTS,
    metric_info,
    skill_names,
    state_classes,
)
from trustsweep.trainables.metrics.labels import Labelled, LabelMetrics
from trustsweep.trainables.metrics.names import MetricName
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.ranking import Answers, Ranking
from trustsweep.trainables.metrics.referral import Referral, Segmented
from trustsweep.trainables.metrics.shift import Shift
from trustsweep.trainables.metrics.skill import best_trivial, skill
from trustsweep.trainables.metrics.survival import FollowedUp, SurvivalMetrics
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import Task, task_named
from trustsweep.trainables.tasks.base import picture

#: See `Tools`.
Corrupt = Callable[[Batch, str, int], Batch]
Attack = Callable[[Batch, float, Tensor | None], Batch]


class Evaluation:
    """What one or several workers have gathered: the metric states of each condition.

    Args:
        plan: Fixes the conditions.
        task: Fixes the metrics.
        prior: What the trivial predictors, the references of skills, learned from the train split;
            without one, only those that need no training are evaluated.
        scores: Gathers the scores of each sample, beside the states; stays in this process.
        size: How many classes, foregrounds or labels there are, where no prior tells.
    """

    def __init__(
        self,
        plan: EvaluationPlan,
        task: Task,
        prior: Prior | None = None,
        scores: SampleScores | None = None,
        size: int = 0,
    ) -> None:
        self.plan = plan
        self.task = task
        self._scores = scores
        self._members = list(plan.members)
        #: By split: that of the conditions with a split of their own, and None for any other.
        self._trivial = {
            member.condition.split: task.trivial(prior, size) for member in self._members
        }
        self._metrics = [name for name, info in METRICS.items() if task.name in info.tasks]
        states: list[type[MetricState]] = state_classes(METRICS, task.name)
        self._states = {
            member.name: [cls(plan.uncertainty) for cls in states] for member in self._members
        }
        #: By condition; none for a task without a metric of this kind.
        self._shifts: dict[str, Shift] = {
            member.name: cls(plan.uncertainty)
            for cls in state_classes(SHIFTS, task.name)
            for member in self._members
            if member.condition.shifts
        }

    def update(self, condition: str, prediction: Prediction, batch: Batch) -> None:
        """Take in what was predicted for a batch under a condition ("clean", "attacked@0.01")."""
        for state in self._states[condition]:
            state.update(prediction, batch)
        if self._scores is not None:
            self._scores.update(condition, prediction, batch)

    def update_truth(self, batch: Batch, split: Split | None = None) -> None:
        """Take in a batch for the trivial predictors, which see its truth alone; once a batch."""
        self._trivial[split].update(batch)

    def update_shift(
        self, condition: str, clean: Prediction, shifted: Prediction, batch: Batch
    ) -> None:
        """Take in what was predicted for a batch as it is, and under a condition."""
        if condition in self._shifts:
            self._shifts[condition].update(clean, shifted, batch)

    def merge(self, other: Evaluation) -> None:
        """Take in another worker's part. Raises ValueError if it followed another plan."""
        if (other.plan, other.task) != (self.plan, self.task):
            raise ValueError("evaluations of different plans or tasks cannot be merged")
        for condition, states in self._states.items():
            for mine, theirs in zip(states, other._states[condition], strict=True):
                mine.merge(theirs)
        for condition, shift in self._shifts.items():
            shift.merge(other._shifts[condition])
        for split, trivial in self._trivial.items():
            trivial.merge(other._trivial[split])

    def compute(self) -> dict[str, float]:
        """Every metric by its full name: those of `catalog.all_names`, in that order."""
        values = {condition: self._condition(condition) for condition in self._states}
        result: dict[str, float] = {}
        for name in self.plan.condition_names:
            mean = name not in values
            metrics = _mean([values[m] for m in self._members_of(name)]) if mean else values[name]
            result |= _prefixed(name, metrics)
        if self.plan.budgets:
            result |= self._areas()
        if self._shifts:
            shifts = [shift.compute() for shift in self._shifts.values()]
            for name, metrics in zip(self.plan.shift_names, [_mean(shifts), *shifts], strict=True):
                result |= _prefixed(name, metrics)
        return result | self._skills(result)

    def trivial(self, split: Split | None = None) -> dict[str, dict[str, float]]:
        """What each predictor that ignores the image gives, under every condition of a split
        alike."""
        return self._trivial[split].metrics()

    def curves(self) -> dict[str, list[float]]:
        """The metrics of the task that have an area, against ε.

        Returns:
            "epsilon", from 0 up, and of the same length those metrics by name ("dice_lesion").
        """
        points = [self._condition(attacked_name(e)) for e in self.plan.epsilons]
        drawn = [
            MetricName.parse(n).metric for n, info in AREAS.items() if self.task.name in info.tasks
        ]
        curves = {name: [point[name] for point in points] for name in drawn}
        return {"epsilon": list(self.plan.epsilons), **curves}

    def reliability(self, condition: str = CLEAN) -> dict[str, list[float | None]]:
        """The reliability diagram of a condition; see `CalibrationBins.curve`."""
        for state in self._states[condition]:
            if isinstance(state, CalibrationBins | SurvivalMetrics) and "ece" in state.names:
                return state.curve()
        raise ValueError(f"{self.task} has no reliability diagram")

    def answers(self, condition: str = CLEAN) -> Answers | Segmented | Labelled | FollowedUp:
        """What was answered to each image under a condition.

        Of more images than a `SampleState` keeps, those of its sample.
        """
        for state in self._states[condition]:
            if isinstance(state, Ranking | Referral | LabelMetrics | SurvivalMetrics):
                return state.answers
        raise ValueError(f"{self.task} has no predictions of images")

    def state_dict(self) -> dict[str, Any]:
        """Everything gathered, as plain values and arrays, for another process."""
        return {
            "plan": dataclasses.asdict(self.plan),
            "task": str(self.task.name),
            "states": {c: [s.state_dict() for s in states] for c, states in self._states.items()},
            "shifts": [shift.state_dict() for shift in self._shifts.values()],
            "trivial": [trivial.state_dict() for trivial in self._trivial.values()],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The evaluation that `state_dict` was taken from."""
        raw = dict(state["plan"])
        raw["epsilons"] = tuple(raw["epsilons"])
        raw["corruptions"] = tuple((name, level) for name, level in raw["corruptions"])
        raw["conditions"] = tuple(raw["conditions"])
        plan = EvaluationPlan(**raw)
        evaluation = cls(plan, task_named(state["task"]))
        for condition, states in evaluation._states.items():
            stored = zip(states, state["states"][condition], strict=True)
            evaluation._states[condition] = [
                type(empty).from_state_dict(full, plan.uncertainty) for empty, full in stored
            ]
        shifts = zip(evaluation._shifts.items(), state["shifts"], strict=True)
        evaluation._shifts = {
            condition: type(empty).from_state_dict(full, plan.uncertainty)
            for (condition, empty), full in shifts
        }
        for trivial, full in zip(evaluation._trivial.values(), state["trivial"], strict=True):
            trivial.load(full)
        return evaluation

    def _members_of(self, kind: str) -> list[str]:
        return [member.name for member in self._members if member.condition.name == kind]

    def _split_of(self, condition: str) -> Split | None:
        """Of a member, or a kind."""
        kind = ConditionName.parse(condition).kind
        return next(m.condition.split for m in self._members if m.condition.name == kind)

    def _condition(self, condition: str) -> dict[str, float]:
        values: dict[str, float] = {}
        for state in self._states[condition]:
            values |= state.compute()
        return {name: values[name] for name in self._metrics}

    def _skills(self, values: Mapping[str, float]) -> dict[str, float]:
        """Of all values by full name that have one."""
        trivial_metrics = {split: trivial.metrics() for split, trivial in self._trivial.items()}
        skills = {}
        for name in map(MetricName.parse, skill_names(values)):
            split = None if name.condition is None else self._split_of(str(name.condition))
            plain = str(name.plain)
            trivial = best_trivial(trivial_metrics[split], name.metric)[1]
            skills[str(name)] = skill(values[plain], trivial, metric_info(plain))
        return skills

    def _areas(self) -> dict[str, float]:
        """Trapezoids under the curves over the largest ε, so that a flat curve keeps its height."""
        curves = self.curves()
        epsilons = np.array(curves.pop("epsilon"))
        areas = {}
        for name, values in curves.items():
            height = np.trapezoid(values, epsilons) / epsilons[-1]
            # Rounding must not carry it past the curve, and so out of the metric's range.
            area = float(np.clip(height, min(values), max(values)))
            areas[str(MetricName(name, area=True))] = area
        return areas


def evaluate(
    method: Method,
    network: nn.Module,
    batches: Iterable[Batch],
    plan: EvaluationPlan,
    *,
    corrupt: Corrupt,
    attack: Attack,
    prior: Prior | None = None,
    scores: SampleScores | None = None,
    split: Split | None = None,
) -> Evaluation:
    """Evaluate a network on every batch under every condition of the plan.

    The network is put into evaluation mode, and every module's mode and every parameter's
    `requires_grad` are left as found. Batches lie on the network's device. `scores` gathers the
    scores of each sample. `split` is that of the batches; where the plan has conditions of its own
    for it (`Condition.split`), only these are evaluated.
    """
    size = len(method.task.trivial.names(method.manifest))
    evaluation = Evaluation(plan, method.task, prior, scores, size)
    members, tools = plan.of_split(split), Tools(corrupt, attack)
    with frozen(network):
        for batch in batches:
            evaluation.update_truth(batch, split)
            _evaluate_batch(method, network, batch, evaluation, members, tools)
    return evaluation


def panel(
    method: Method,
    network: nn.Module,
    batch: Batch,
    attack: Attack,
    epsilon: float,
    uncertainty: str | None = None,
) -> dict[str, np.ndarray]:
    """What the report shows of a few images, before and after the attack within ε.

    Returns:
        image, probability and uncertainty, and for ε > 0 the same with the suffix "_attacked".
        Pictures are (n, H, W) float16: the mean of an image's channels, the middle slice of a
        volume. Segmentation: all are pictures, and mask is one; of several classes or regions,
        mask and probability are (n, columns, H, W). Classification: image is a picture,
        probability (n, K) float32 with a column for each class, at least two, uncertainty (n,)
        float32, and label (n,) int64. Survival: probability (n, K) is that of no event up to the
        end of each interval, and the truth is time and event, (n,) float32.

    Raises:
        ValueError: a batch without the truth that the task needs.
    """
    result = method.task.shown_truth(batch)
    with frozen(network):
        attacked = {"_attacked": attack(batch, epsilon, None)} if epsilon > 0 else {}
        for suffix, shown in {"": batch, **attacked}.items():
            with torch.inference_mode():
                prediction = method.predict(network, shown)
            doubt = uncertainty_map(prediction, uncertainty)
            result["image" + suffix] = picture(shown.image)
            arrays = method.task.shown(prediction, batch, doubt)
            result |= {name + suffix: values for name, values in arrays.items()}
    return result


def _evaluate_batch(
    method: Method,
    network: nn.Module,
    batch: Batch,
    evaluation: Evaluation,
    members: Sequence[PlannedCondition],
    tools: Tools,
) -> None:
    clean: Prediction | None = None
    for _, kind in groupby(members, key=lambda member: member.condition.name):
        before = None
        for name, condition, value in kind:
            before = condition.perturb(batch, value, tools, before)
            with torch.inference_mode():
                prediction = method.predict(network, before)
                evaluation.update(name, prediction, before)
            if name == CLEAN:
                clean = prediction
            elif condition.shifts and clean is not None:
                evaluation.update_shift(name, clean, prediction, batch)


def _prefixed(condition: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{condition}.{name}": value for name, value in values.items()}


def _mean(points: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([point[name] for point in points])) for name in points[0]}
