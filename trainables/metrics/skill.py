"""Is a model better than one that ignores the image? Free of torch.

A trivial predictor predicts the same for every image. With M a model's value of a metric, M_t that
of a trivial predictor on the same samples and `best` the end of the metric's range that is perfect,

    skill = (M − M*) / (best − M*),   M* the best of all M_t,

1 for perfection, 0 for the best trivial predictor and below 0 for anything worse. This is the skill
score of forecasting (Murphy 1988, Mon. Weather Rev. 116) with the strongest of several references.
Trivial predictors do not see perturbations of an image, so theirs is one value for all conditions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from trustsweep.trainables.metrics.catalog import METRICS, MetricInfo
from trustsweep.trainables.metrics.names import SKILL

#: Predictor to metric ("dice") to its value on one split.
TrivialMetrics = Mapping[str, Mapping[str, float]]

#: Segmentation: nothing, everything, the mean of the train masks as a probability, the fixed mask
#: with the largest pooled Dice on the train images with a lesion.
EMPTY_MASK, FULL_MASK, MEAN_MASK, FIXED_MASK = "empty mask", "full mask", "mean mask", "fixed mask"
#: Classification: the shares of the classes in the train split as probabilities, and the largest.
CLASS_PRIOR, MAJORITY_CLASS = "class prior", "majority class"
#: Several labels: how often each occurs in the train split.
LABEL_PRIOR = "label prior"
#: Survival: the curve of all train patients by Kaplan and Meier, and that of most likely hazards.
KAPLAN_MEIER, LIFE_TABLE = "Kaplan-Meier curve", "life table"
#: All: the constant probability that is best on the split it is evaluated on.
BEST_CONSTANT = "best constant"

#: What decides whether a model is better than a trivial predictor, the first that exists.
DECISIVE = ("dice_lesion", "dice", "balanced_accuracy", "auroc", "c_index")
#: Less than this to gain is rounding (of the clamped likelihood, say).
_LEAST_ROOM = 1e-6


def best_trivial(trivial: TrivialMetrics, metric: str) -> tuple[str, float]:
    """The predictor that is best at a metric, and its value; ("", NaN) where it is undefined."""
    values = {name: row.get(metric, math.nan) for name, row in trivial.items()}
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    if not values:
        return "", math.nan
    pick = max if METRICS[metric].direction == "max" else min
    name = pick(values, key=values.__getitem__)
    return name, values[name]


def skill(value: float, trivial: float, info: MetricInfo) -> float:
    """(value − trivial) / (best − trivial); NaN where a trivial predictor is perfect already."""
    room = (info.high if info.direction == "max" else info.low) - trivial
    return math.nan if abs(room) < _LEAST_ROOM else (value - trivial) / room


def triviality(metrics: Mapping[str, float], trivial: TrivialMetrics | None = None) -> str:
    """What is trivial about a model, as a phrase ("predicts nothing"); "" for a model that is not.

    Args:
        metrics: Its metrics by full name, of the clean images of a split.
        trivial: The trivial predictors' on the same split, to name the best of them.
    """
    if metrics.get("clean.empty_share") == 1:
        return "predicts nothing"
    if metrics.get("clean.top_class_share") == 1:
        return "predicts one class for every image"
    for metric in DECISIVE:
        value = metrics.get(f"{SKILL}.clean.{metric}", math.nan)
        if not math.isnan(value):
            name = best_trivial(trivial or {}, metric)[0]
            what = f"the {name}" if name else "the best trivial predictor"
            return f"no better than {what} ({metric})" if value <= 0 else ""
    return ""
