"""Modality weights of predictions, and whether they follow the modalities' quality."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.evaluated import ModelAnswer, answer, truth_of
from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.evaluation_card import EvaluationCard, ModalityWeights
from trustsweep.distributed.run.folder import Run

#: The share of the images to answer whose threshold tells confident from doubtful.
CONFIDENT = 0.9
#: Weights that differ by less are the same but for rounding.
EQUAL = 1e-6
_BOTH = ("present", "weights", "probability", "uncertainty")
ARRAYS = (
    *_BOTH, *(f"{name}_mixed" for name in _BOTH), "severity_mixed",
)  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """Of one modality of a sample, 0 to 1; `severity` of its corruption, 0 to 5.

    Of several equal weights none is the largest.
    """

    share: float
    severity: float
    present: bool
    largest: bool


@dataclass(frozen=True)
class Carried:
    """A prediction, its modality weights, and whether the model would abstain."""

    answer: ModelAnswer
    weights: list[Weight]
    doubtful: bool


@dataclass(frozen=True)
class WeighedSample:
    """One test sample, clean and with each modality corrupted on its own."""

    truth: str
    clean: Carried
    mixed: Carried


@dataclass(frozen=True)
class Weighing:
    """One model.

    Attributes:
        modalities: Names, in the order of all weights.
        overall, within, pairs, samples: See `trustsweep.trainables.metrics.reliance.Reliance`.
        null: By "overall" and "within", what weights that know nothing of severity give (low and
            high end of 95 %), and the p-value against that; NaN where it is not known.
        limit: The uncertainty above which an answer is doubtful; NaN where it is not known.
        rows: Some test samples.
    """

    id: str
    modalities: list[str]
    overall: float
    within: float
    pairs: int
    samples: int
    null: dict[str, tuple[float, float, float]]
    limit: float
    rows: list[WeighedSample]


class WeightsSection(Section[list[Weighing]]):
    def gather(self, run: Run) -> list[Weighing] | None:
        return weighings(run) or None


def weighings(run: Run) -> list[Weighing]:
    """Those of the front's models, in its order, that weigh modalities.

    Raises `UserError` as `weighing`.
    """
    return [w for w in map(weighing, run.front_cards) if w is not None]


def weighing(card: EvaluationCard) -> Weighing | None:
    """None for a model that weighs no modalities.

    Raises `UserError` for arrays that are incomplete or do not fit each other.
    """
    weights, stored = card.weights, card.panel
    truth = next((f"sample_{n}" for n in ("label", "time") if f"sample_{n}" in stored), None)
    if weights is None or truth is None:
        return None
    count = len(stored[truth])
    names = [truth, *(f"sample_{name}" for name in ARRAYS)]
    if any(name not in stored or len(stored[name]) != count for name in names):
        raise UserError(
            f"evaluation/{card.id}.npz: needs {', '.join(names)}, each with as many rows. "
            "Evaluate the front again."
        )
    limit = card.selective.limits.get(CONFIDENT, math.nan) if card.selective else math.nan
    return Weighing(
        id=card.id,
        modalities=weights.modalities,
        overall=weights.overall,
        within=weights.within,
        pairs=int(weights.pairs),
        samples=int(weights.samples),
        null={name: _null(weights, name) for name in ("overall", "within")},
        limit=limit,
        rows=[_row(card, i, limit) for i in range(count)],
    )


def _null(weights: ModalityWeights, name: str) -> tuple[float, float, float]:
    low, high, p = (float(getattr(weights, f"{name}_{end}")) for end in ("low", "high", "p"))
    return low, high, p


def _row(card: EvaluationCard, i: int, limit: float) -> WeighedSample:
    return WeighedSample(
        truth=truth_of(card, i, "sample_"),
        clean=_carried(card, i, "", limit),
        mixed=_carried(card, i, "_mixed", limit),
    )


def _carried(card: EvaluationCard, i: int, suffix: str, limit: float) -> Carried:
    stored = card.panel
    shares = stored[f"sample_weights{suffix}"][i]
    present = stored[f"sample_present{suffix}"][i]
    severities = stored["sample_severity_mixed"][i] if suffix else [0.0] * len(shares)
    there = shares[present]
    equal = len(there) > 1 and np.ptp(there) < EQUAL
    most = math.nan if equal else max(there, default=math.nan)
    prediction = answer(card, i, "sample_", suffix)
    return Carried(
        answer=prediction,
        weights=[
            Weight(float(share), float(severity), bool(here), bool(share == most))
            for share, severity, here in zip(shares, severities, present, strict=True)
        ],
        # NaN uncertainty is not accepted either.
        doubtful=not (math.isnan(limit) or prediction.uncertainty <= limit),
    )
