"""Every number that an evaluation can give, by name. Free of torch: naming one is instant.

A full name (`names.MetricName`) is a condition and a metric: ``clean.dice``, ``corrupted.dice``
(mean over all corruptions and severities), ``corrupted@gaussian-noise-3.dice`` (one of them),
``attacked.dice`` (mean over all ε > 0), ``attacked@0.01.dice`` (one ε). Beside these stand the
areas (``dice_area``) and the uncertainty shift under attack (``shift.auroc``,
``shift@0.01.auroc``).

``skill.`` before the full name of a measure of discrimination or a proper score is how much of the
way from the best trivial predictor, which ignores the image, to perfection a model has gone:
``skill.clean.dice_lesion``, ``skill.balanced_accuracy_area`` (`trainables.metrics.skill`).

A metric is added by a state (see `trainables.metrics.base`) and one line in `METRICS`, from outside
of this repository by `METRICS.register` or the entry points ``trustsweep.metrics``. Where two
tasks share a name, as in ``clean.ece``, each has a state of its own for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import Table, nearest
from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables.conditions import ATTACKED, ConditionName, canonical_epsilon
from trustsweep.trainables.metrics.names import SHIFT, SKILL, MetricName
from trustsweep.trainables.registry import CONDITIONS

if TYPE_CHECKING:
    from trustsweep.trainables.evaluation.plan import EvaluationPlan

CALIBRATION_BINS = 15
#: Probabilities are kept this far from 0 and 1 before a logarithm is taken.
NLL_CLAMP = 1e-7


@dataclass(frozen=True)
class MetricInfo:
    """What a number means.

    Attributes:
        name: Bare ("dice") in `METRICS`, full ("clean.dice") as `metric_info` gives it.
        direction: Whether more or less of it is better; None for what only describes a model.
        low, high: The range it cannot leave; infinite where it has no bound.
        unit: "" for a pure number.
        meaning: One line for a reader who has not met it.
        states: The class of the streaming state that computes it, or its "module:Class", for each
            task that it applies to; empty for what no state computes and every task has.
        skilled: Whether it is set against the trivial predictors' as a skill.
        blind: Whether a model that ignores the image can reach its best value, as a constant
            answer with the right confidence has an ECE of 0.
    """

    name: str
    direction: Literal["max", "min"] | None
    low: float
    high: float
    unit: str
    meaning: str
    states: Mapping[TaskName, str | type[Any]]
    skilled: bool = False
    blind: bool = False

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """The tasks it applies to."""
        return tuple(self.states) or tuple(TaskName)


def _states(
    segmentation: str = "", classification: str = "", multilabel: str = "", survival: str = ""
) -> dict[TaskName, str]:
    """The states of a metric by task, given as "module:Class" of this package; those of
    segmentation take one lesion, several classes and regions."""
    given = {
        TaskName.SEGMENTATION: segmentation,
        TaskName.MULTICLASS_SEGMENTATION: segmentation,
        TaskName.REGION_SEGMENTATION: segmentation,
        TaskName.CLASSIFICATION: classification,
        TaskName.MULTILABEL: multilabel,
        TaskName.SURVIVAL: survival,
    }
    return {
        task: f"trustsweep.trainables.metrics.{state}" for task, state in given.items() if state
    }


_LABELS = "labels:LabelMetrics"
_FOLLOWED = "survival:SurvivalMetrics"
_SURVIVAL = _states(survival=_FOLLOWED)
_OVERLAP = _states("overlap:Overlap")
_CONFUSION = _states(classification="confusion:Confusion")
_RIGHT = _states(classification="confusion:Confusion", multilabel=_LABELS)
_RANKING = _states(classification="ranking:Ranking")
_AUROC = _states(classification="ranking:Ranking", multilabel=_LABELS)
_PRECISION = _states(multilabel=_LABELS)
_CALIBRATION = _states(
    "calibration:CalibrationBins", "calibration:ClassCalibration", "labels:LabelCalibration"
)
_ECE = _CALIBRATION | _SURVIVAL
_REGION = _states("calibration:RegionCalibration")
_SCORES = _states("scores:ProperScores", "scores:ClassScores", _LABELS)
_NLL = _SCORES | _SURVIVAL
_AUSE = _states("sparsification:Sparsification")
_SHIFT = _states(
    "shift:Shift", "shift:ClassShift", "labels:LabelShift", survival="survival:SurvivalShift"
)
_REFERRAL = _states("referral:Referral", "ranking:Ranking", _LABELS, _FOLLOWED)


def _table(*rows: MetricInfo, group: str | None = None) -> Table[MetricInfo]:
    """Metrics by name, in an order of their own."""
    return Table("metric", {row.name: row for row in rows}, group=group)


def _most(name: str, states: Mapping[TaskName, str], meaning: str) -> MetricInfo:
    """From 0 to 1; more is better."""
    return MetricInfo(name, "max", 0.0, 1.0, "", meaning, states)


def _least(
    name: str, states: Mapping[TaskName, str], meaning: str, high: float = 1.0, unit: str = ""
) -> MetricInfo:
    """From 0 to `high`; less is better."""
    return MetricInfo(name, "min", 0.0, high, unit, meaning, states)


def _merit(name: str, states: Mapping[TaskName, str], meaning: str) -> MetricInfo:
    """A measure of discrimination, from 0 to 1; more is better."""
    return replace(_most(name, states, meaning), skilled=True)


def _blind(name: str, states: Mapping[TaskName, str], meaning: str) -> MetricInfo:
    """From 0 to 1; less is better, and a model that ignores the image can have 0."""
    return replace(_least(name, states, meaning), blind=True)


def _descriptive(name: str, states: Mapping[TaskName, str], meaning: str) -> MetricInfo:
    """A description of a model, from 0 to 1, neither good nor bad."""
    return MetricInfo(name, None, 0.0, 1.0, "", meaning, states)


def _cost(name: str, meaning: str, unit: str = "") -> MetricInfo:
    return MetricInfo(f"cost.{name}", "min", 0.0, math.inf, unit, meaning, {})


_BINS = f"{CALIBRATION_BINS} bins of confidence"
_ALL = "all pixels, images or labels"
_NEAR = "pixels of lesion and prediction and next to them"
_FLOOR = "Expected calibration error that perfect calibration would show with"
_DEBIASED = "Expected calibration error less the bias that it has with so few"

#: What is measured under each condition.
METRICS = _table(
    _merit(
        "dice",
        _OVERLAP,
        "Dice overlap of lesion and prediction, mean over images (then over classes or regions); 1 "
        "where both are empty",
    ),
    _merit(
        "dice_lesion",
        _OVERLAP,
        "Dice overlap, mean over the images with a lesion (or with each class or region, then over "
        "these)",
    ),
    _merit("iou", _OVERLAP, "Intersection over union of both, mean as of Dice"),
    _merit("dice_micro", _OVERLAP, "Dice overlap of all pixels pooled"),
    _merit("iou_micro", _OVERLAP, "Intersection over union of all pixels pooled"),
    _blind(
        "false_alarms",
        _OVERLAP,
        "Share of the images without a lesion (or without each class or region, then the mean over "
        "these) where one is predicted",
    ),
    _blind(
        "false_alarm_volume",
        _OVERLAP,
        "Share of the pixels predicted to be lesion, mean over the images without one",
    ),
    _descriptive(
        "empty_share",
        _OVERLAP,
        "Share of the images in which nothing is predicted; 1 for a model that predicts nothing",
    ),
    _merit("accuracy", _RIGHT, "Share of images with the right class, or of labels that are right"),
    _merit(
        "balanced_accuracy",
        _CONFUSION,
        "Recall of a class, mean over classes",
    ),
    _merit("f1", _CONFUSION, "Harmonic mean of a class's precision and recall, mean over classes"),
    _descriptive(
        "top_class_share",
        _CONFUSION,
        "Share of images in the class predicted most; 1 for a model that predicts one class for "
        "every image",
    ),
    _merit(
        "auroc",
        _AUROC,
        "Area under the ROC curve of a class against the rest, mean over classes",
    ),
    _merit(
        "average_precision",
        _PRECISION,
        "Mean precision at the images that have a label, by its probability; mean over labels",
    ),
    _merit(
        "c_index",
        _SURVIVAL,
        "Concordance index: share of the pairs of patients in which the first to have the event "
        "has the higher risk",
    ),
    _merit(
        "c_index_ipcw",
        _SURVIVAL,
        "Concordance index weighted by the inverse probability of being censored, which does not "
        "depend on how many are censored",
    ),
    replace(
        _least(
            "integrated_brier",
            _SURVIVAL,
            "Mean squared difference of predicted and observed survival, weighted for censoring, "
            "mean over the ends of the intervals",
            high=math.inf,
        ),
        skilled=True,
    ),
    _blind(
        "ece",
        _ECE,
        f"Expected calibration error, {_BINS}, {_ALL}; of survival, predicted against observed "
        "survival in as many bins",
    ),
    _blind("mce", _CALIBRATION, f"Calibration error of the worst of {_BINS}, {_ALL}"),
    _descriptive("ece_floor", _CALIBRATION, f"{_FLOOR} so many images"),
    _blind("ece_debiased", _CALIBRATION, f"{_DEBIASED} images"),
    _blind("ece_adaptive", _RANKING, f"Expected calibration error, {_BINS} of equally many images"),
    _blind("ece_region", _REGION, f"Expected calibration error, {_BINS}, {_NEAR}"),
    _blind("mce_region", _REGION, f"Calibration error of the worst of {_BINS}, {_NEAR}"),
    _descriptive("ece_region_floor", _REGION, f"{_FLOOR} so many images, {_NEAR}"),
    _blind("ece_region_debiased", _REGION, f"{_DEBIASED} images, {_NEAR}"),
    replace(
        _least(
            "nll",
            _NLL,
            "Negative log-likelihood per pixel, image, label or patient",
            -math.log(NLL_CLAMP),
            "nats",
        ),
        skilled=True,
    ),
    replace(
        _least("brier", _SCORES, "Mean squared difference of probability and truth"), skilled=True
    ),
    _least(
        "ause",
        _AUSE,
        "Error left when the least certain pixels go, above the best order's, over the mean error; "
        "0 is perfect, a random order gives 0.5 to 1",
        high=math.inf,
    ),
    _least(
        "aurc",
        _REFERRAL,
        "Error (1 - Dice, the share of wrong images or labels, or 1 - the likelihood of a "
        "patient's time) among the most certain images, mean over how many are kept",
    ),
    # Empty masks are all equally wrong on lesions, so that any order of them is the best.
    _blind(
        "e_aurc", _REFERRAL, "aurc above that of the best order of the same images; 0 is perfect"
    ),
    group="trustsweep.metrics",
)


def _area(name: str, states: Mapping[TaskName, str], what: str) -> MetricInfo:
    meaning = f"Mean height of the curve of {what} against ε, 0 to the largest"
    return _merit(str(MetricName(name, area=True)), states, meaning)


#: What is computed from a metric's curve against ε.
AREAS = _table(
    _area("dice", _OVERLAP, "Dice"),
    _area("dice_lesion", _OVERLAP, "Dice of the images with a lesion"),
    _area("iou", _OVERLAP, "IoU"),
    _area("accuracy", _RIGHT, "accuracy"),
    _area("balanced_accuracy", _CONFUSION, "balanced accuracy"),
    _area("auroc", _AUROC, "AUROC"),
    _area("c_index", _SURVIVAL, "the concordance index"),
)

#: What compares each attacked image with itself before the attack.
SHIFTS = _table(
    MetricInfo(
        "spearman",
        "min",
        -1.0,
        1.0,
        "",
        "Rank correlation of the changes of an image's uncertainty and of its Dice or the "
        "probability of what is true; -1 means that uncertainty rises where these fall",
        _SHIFT,
    ),
    _most(
        "auroc",
        _SHIFT,
        "Area under the ROC curve of attacked against clean images by their uncertainty",
    ),
)

#: What a trial took, whatever its task; counted by the training loop.
COSTS = _table(
    _cost("seconds", "Seconds of training and evaluation, without waiting for a slot", "s"),
    _cost("gpu_seconds", "Seconds times GPUs held; 0 without a GPU", "s"),
    _cost("images", "Images seen by training steps, over all epochs"),
    _cost("gradients", "Gradient evaluations of training steps, counted by image"),
    _cost(
        "attack_gradients",
        "Gradient evaluations of attacks, in training and evaluation, counted by image",
    ),
    _cost("peak_memory", "Largest memory of a worker process, of its GPU where it has one", "MiB"),
)


def state_classes(table: Mapping[str, MetricInfo], task: TaskName) -> list[Any]:
    """The streaming states of a table's metrics for a task, each once, imported now."""
    states = [info.states[task] for info in table.values() if task in info.states]
    return list(dict.fromkeys(map(_imported, states)))


def _imported(state: str | type[Any]) -> Any:
    if not isinstance(state, str):
        return state
    module, attribute = state.split(":")
    return getattr(import_module(module), attribute)


def metric_info(name: str) -> MetricInfo:
    """What a full name means; `name` and `meaning` of the result speak of its condition too.

    Whether a study's own budgets and corruptions include the one named is for `all_names` to say.

    Raises:
        UserError: no such metric or condition; names the nearest one that exists.
    """
    parsed = MetricName.parse(name)
    if parsed.skill:
        return _skill_info(parsed)
    for whole in (AREAS, COSTS):
        if name in whole:
            return whole[name]
    condition = parsed.condition or ConditionName("")
    where = _where(condition)
    table = SHIFTS if condition.kind == SHIFT else METRICS
    # A name has one spelling: no "attacked@.dice", no "attacked@1e-2.dice".
    if parsed.metric in table and where is not None and str(parsed) == name:
        info = table[parsed.metric]
        if parsed.group is not None:
            where = f"{where}, of the samples whose {parsed.group[0]} is {parsed.group[1]}"
        return replace(info, name=name, meaning=f"{info.meaning}; {where}")
    raise UserError(
        f"unknown metric {name!r}{_hint(name)} A name is a condition and a metric, such "
        "as clean.dice, corrupted.ece, attacked@0.01.dice or shift.auroc, skill. and one of these, "
        "or one of "
        f"{', '.join([*AREAS, *COSTS])}. Metrics: {', '.join(METRICS)}."
    )


def _skill_info(name: MetricName) -> MetricInfo:
    info = metric_info(str(name.plain))
    if not info.skilled:
        known = ", ".join(n for table in (METRICS, AREAS) for n, i in table.items() if i.skilled)
        raise UserError(
            f"no skill of {info.name!r}: measures of discrimination and proper scores have one "
            f"({known})."
        )
    scale = "0 for the best predictor that ignores the image, 1 for perfection"
    meaning = f"Skill, {scale}: {info.meaning}"
    return MetricInfo(str(name), "max", -math.inf, 1.0, "", meaning, info.states)


def under_attack(name: str) -> bool:
    """Whether a full name is a figure of attacked images, as areas and shifts are too."""
    return MetricName.parse(name).under_attack


def all_names(plan: EvaluationPlan, task: TaskName) -> list[str]:
    """Full names of everything that an evaluation by a plan gives."""
    names = [
        f"{condition}.{info.name}"
        for condition in plan.condition_names
        for info in METRICS.values()
        if task in info.tasks
    ]
    if plan.budgets:
        names += [info.name for info in AREAS.values() if task in info.tasks]
    for shift in plan.shift_names:
        names += [f"{shift}.{info.name}" for info in SHIFTS.values() if task in info.tasks]
    return [*names, *skill_names(names)]


def skill_names(names: Iterable[str]) -> list[str]:
    """The skills of those full names that have one, in their order."""
    return [f"{SKILL}.{name}" for name in names if metric_info(name).skilled]


def _where(condition: ConditionName) -> str | None:
    """The condition in words, or None where it is none."""
    kind = ATTACKED if condition.kind == SHIFT else condition.kind
    return CONDITIONS[kind]().describe(condition.detail) if kind in CONDITIONS else None


def _hint(name: str) -> str:
    """The end of a sentence that names what was probably meant."""
    known = [f"{kind}.{metric}" for kind in CONDITIONS for metric in METRICS]
    known += [*AREAS, *COSTS, *(f"{SHIFT}.{metric}" for metric in SHIFTS)]
    known += skill_names([*known]) if "." in name or SKILL in name else []
    parsed = MetricName.parse(name)
    condition = parsed.condition or ConditionName("")
    kind, detail = condition.kind, condition.detail
    epsilon = canonical_epsilon(detail)
    if epsilon:
        known += [f"{ConditionName(ATTACKED, epsilon)}.{metric}" for metric in METRICS]
        known += [f"{ConditionName(SHIFT, epsilon)}.{metric}" for metric in SHIFTS]
    elif detail:
        known += [f"{ConditionName(kind, detail)}.{metric}" for metric in METRICS]
    # A metric without its condition, and an ε written another way, are nearer than they look.
    for meant in (f"clean.{name}", f"{SHIFT}.{name}", f"{kind}@{epsilon}.{parsed.metric}"):
        if meant in known:
            return f", did you mean {meant!r}?"
    return nearest(name, known)
