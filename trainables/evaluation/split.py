"""One pass over a split: every metric on clean, corrupted and attacked images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.engine import frozen
from trustsweep.trainables.contract import Method, Prediction
from trustsweep.trainables.evaluation.plan import CLEAN, EvaluationPlan
from trustsweep.trainables.metrics.base import MetricState, uncertainty_map
from trustsweep.trainables.metrics.calibration import Calibration
from trustsweep.trainables.metrics.catalog import (
    AREAS,
    METRICS,
    SHIFTS,
    SKILL,
    attacked_name,
    corrupted_name,
    epsilon_text,
    leaf,
    metric_info,
    skill_names,
    state_classes,
)
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.ranking import Answers, Ranking
from trustsweep.trainables.metrics.referral import Referral, Segmented
from trustsweep.trainables.metrics.shift import Shift
from trustsweep.trainables.metrics.skill import best_trivial, skill
from trustsweep.trainables.sample_scores import SampleScores
from trustsweep.trainables.tasks import Task, task_named
from trustsweep.trainables.tasks.base import picture

#: (batch, name, severity 1 to 5) to the same samples corrupted.
Corrupt = Callable[[Batch, str, int], Batch]
#: (batch, ε, the images found within a smaller ε or None) to the same samples attacked; minds its
#: own gradient mode.
Attack = Callable[[Batch, float, Tensor | None], Batch]


class Evaluation:
    """What one or several workers have gathered: the metric states of each condition.

    Args:
        plan: Fixes the conditions.
        task: Fixes the metrics.
        prior: What the trivial predictors, which skills are against, know of the train split;
            without one, only those are asked that need no training.
        scores: Gathers what each sample scored, beside the states; stays in this process.
    """

    def __init__(
        self,
        plan: EvaluationPlan,
        task: Task,
        prior: Prior | None = None,
        scores: SampleScores | None = None,
    ) -> None:
        self.plan = plan
        self.task = task
        self._scores = scores
        self._trivial = task.trivial(prior)
        self._metrics = [name for name, info in METRICS.items() if task.name in info.tasks]
        states: list[type[MetricState]] = state_classes(METRICS, task.name)
        self._states = {
            condition: [cls(plan.uncertainty) for cls in states]
            for condition in (CLEAN, *self._corrupted, *self._attacked)
        }
        #: By ε; none for a task without a metric of this kind.
        self._shifts: dict[float, Shift] = {
            epsilon: cls(plan.uncertainty)
            for cls in state_classes(SHIFTS, task.name)
            for epsilon in plan.budgets
        }

    def update(self, condition: str, prediction: Prediction, batch: Batch) -> None:
        """Take in what was predicted for a batch under a condition ("clean", "attacked@0.01")."""
        for state in self._states[condition]:
            state.update(prediction, batch)
        if self._scores is not None:
            self._scores.update(condition, prediction, batch)

    def update_truth(self, batch: Batch) -> None:
        """Take in a batch for the trivial predictors, which see its truth alone; once a batch."""
        self._trivial.update(batch)

    def update_shift(
        self, epsilon: float, clean: Prediction, attacked: Prediction, batch: Batch
    ) -> None:
        """Take in what was predicted for a batch before and after the attack within ε."""
        if epsilon in self._shifts:
            self._shifts[epsilon].update(clean, attacked, batch)

    def merge(self, other: Evaluation) -> None:
        """Take in another worker's part. Raises ValueError if it followed another plan."""
        if (other.plan, other.task) != (self.plan, self.task):
            raise ValueError("evaluations of different plans or tasks cannot be merged")
        for condition, states in self._states.items():
            for mine, theirs in zip(states, other._states[condition], strict=True):
                mine.merge(theirs)
        for epsilon, shift in self._shifts.items():
            shift.merge(other._shifts[epsilon])
        self._trivial.merge(other._trivial)

    def compute(self) -> dict[str, float]:
        """Every metric by its full name: those of `catalog.all_names`, in that order."""
        values = {condition: self._condition(condition) for condition in self._states}
        result = dict(_prefixed(CLEAN, values[CLEAN]))
        for kind, members in (("corrupted", self._corrupted), ("attacked", self._attacked)):
            if members:
                result |= _prefixed(kind, _mean([values[m] for m in members]))
            for member in members:
                result |= _prefixed(member, values[member])
        if self.plan.budgets:
            result |= self._areas()
        if self._shifts:
            shifts = {e: shift.compute() for e, shift in self._shifts.items()}
            result |= _prefixed("shift", _mean(list(shifts.values())))
            for epsilon, shift in shifts.items():
                result |= _prefixed(f"shift@{epsilon_text(epsilon)}", shift)
        return result | self._skills(result)

    def trivial(self) -> dict[str, dict[str, float]]:
        """What each predictor that ignores the image gives, under every condition alike."""
        return self._trivial.figures()

    def curves(self) -> dict[str, list[float]]:
        """The metrics of the task that have an area, against ε.

        Returns:
            "epsilon", from 0 up, and of the same length those metrics by name ("dice_lesion").
        """
        points = [self._condition(attacked_name(e)) for e in self.plan.epsilons]
        drawn = [
            n.removesuffix("_area") for n, info in AREAS.items() if self.task.name in info.tasks
        ]
        curves = {name: [point[name] for point in points] for name in drawn}
        return {"epsilon": list(self.plan.epsilons), **curves}

    def reliability(self, condition: str = CLEAN) -> dict[str, list[float | None]]:
        """The reliability diagram of a condition; see `Calibration.curve`."""
        for state in self._states[condition]:
            if isinstance(state, Calibration) and "ece" in state.names:
                return state.curve()
        raise ValueError(f"{self.task} has no reliability diagram")

    def answers(self, condition: str = CLEAN) -> Answers | Segmented:
        """What was answered to each image under a condition.

        Of more images than a `SampleState` keeps, those of its sample.
        """
        for state in self._states[condition]:
            if isinstance(state, Ranking | Referral):
                return state.answers
        raise ValueError(f"{self.task} has no answers to images")

    def state_dict(self) -> dict[str, Any]:
        """Everything gathered, as plain values and arrays, for another process."""
        return {
            "plan": dataclasses.asdict(self.plan),
            "task": str(self.task.name),
            "states": {c: [s.state_dict() for s in states] for c, states in self._states.items()},
            "shifts": [shift.state_dict() for shift in self._shifts.values()],
            "trivial": self._trivial.state_dict(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """The evaluation that `state_dict` was taken from."""
        raw = dict(state["plan"])
        raw["epsilons"] = tuple(raw["epsilons"])
        raw["corruptions"] = tuple((name, level) for name, level in raw["corruptions"])
        plan = EvaluationPlan(**raw)
        evaluation = cls(plan, task_named(state["task"]))
        for condition, states in evaluation._states.items():
            stored = zip(states, state["states"][condition], strict=True)
            evaluation._states[condition] = [
                type(empty).from_state_dict(full, plan.uncertainty) for empty, full in stored
            ]
        shifts = zip(evaluation._shifts.items(), state["shifts"], strict=True)
        evaluation._shifts = {
            epsilon: type(empty).from_state_dict(full, plan.uncertainty)
            for (epsilon, empty), full in shifts
        }
        evaluation._trivial.load(state["trivial"])
        return evaluation

    @property
    def _corrupted(self) -> list[str]:
        return [corrupted_name(*cell) for cell in self.plan.corruptions]

    @property
    def _attacked(self) -> list[str]:
        return [attacked_name(e) for e in self.plan.budgets]

    def _condition(self, condition: str) -> dict[str, float]:
        values: dict[str, float] = {}
        for state in self._states[condition]:
            values |= state.compute()
        return {name: values[name] for name in self._metrics}

    def _skills(self, values: Mapping[str, float]) -> dict[str, float]:
        """Of all values by full name that have one."""
        figures = self.trivial()
        found = {}
        for name in skill_names(values):
            metric = leaf(name)
            whole = name.removeprefix(f"{SKILL}.")
            trivial = best_trivial(figures, metric)[1]
            found[name] = skill(values[whole], trivial, metric_info(whole))
        return found

    def _areas(self) -> dict[str, float]:
        """Trapezoids under the curves over the largest ε, so that a flat curve keeps its height."""
        curves = self.curves()
        epsilons = np.array(curves.pop("epsilon"))
        areas = {}
        for name, values in curves.items():
            height = np.trapezoid(values, epsilons) / epsilons[-1]
            # Rounding must not carry it past the curve, and so out of the metric's range.
            areas[f"{name}_area"] = float(np.clip(height, min(values), max(values)))
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
) -> Evaluation:
    """Judge a network on every batch under every condition of the plan.

    The network is put into evaluation mode, and every module's mode and every parameter's
    `requires_grad` are left as found. Batches lie on the network's device. `scores` gathers what
    each sample scored.
    """
    evaluation = Evaluation(plan, method.task, prior, scores)
    with frozen(network):
        for batch in batches:
            evaluation.update_truth(batch)
            clean = _judge(method, network, batch, evaluation, CLEAN)
            for name, severity in plan.corruptions:
                condition = corrupted_name(name, severity)
                _judge(method, network, corrupt(batch, name, severity), evaluation, condition)
            worst = None
            for epsilon in plan.budgets:
                # What is found within a smaller ε lies in the larger ball too.
                worse = attack(batch, epsilon, worst)
                worst = worse.image
                found = _judge(method, network, worse, evaluation, attacked_name(epsilon))
                evaluation.update_shift(epsilon, clean, found, batch)
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
        volume. Segmentation: all are pictures, and mask is one. Classification: image is a
        picture, probability (n, K) float32 with a column for each class, at least two, uncertainty
        (n,) float32, and label (n,) int64.

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
            said = method.task.shown(prediction, batch, doubt)
            result |= {name + suffix: values for name, values in said.items()}
    return result


def _judge(
    method: Method, network: nn.Module, batch: Batch, evaluation: Evaluation, condition: str
) -> Prediction:
    with torch.inference_mode():
        prediction = method.predict(network, batch)
        evaluation.update(condition, prediction, batch)
    return prediction


def _prefixed(condition: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{condition}.{name}": value for name, value in values.items()}


def _mean(points: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([point[name] for point in points])) for name in points[0]}
