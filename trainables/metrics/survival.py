"""Metrics of times to an event that follow-up may end before (censoring)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.base import MetricState, uncertainty_map
from trustsweep.trainables.metrics.resampled import (
    SURVIVAL,
    Columns,
    kaplan_meier,
    survival_bins,
    survival_likelihood,
)
from trustsweep.trainables.metrics.samples import SampleState
from trustsweep.trainables.metrics.shift import Shift
from trustsweep.trainables.metrics.sparsification import mean_risks
from trustsweep.trainables.survival import log_survival, risk

_NAMES = ("time", "event", "interval", "risk")
#: Thirds of the patients by predicted risk.
RISK_GROUPS = ("low risk", "middle risk", "high risk")


@dataclass(frozen=True)
class FollowedUp:
    """The predictions of a model for n patients with a known time, and what became of them.

    Attributes:
        columns: See `tasks.survival.Survival`.
        uncertainty: (n,) float64, any order-preserving scale; larger is less certain.
    """

    columns: Columns
    uncertainty: np.ndarray

    def __len__(self) -> int:
        return len(self.uncertainty)

    @property
    def error(self) -> np.ndarray:
        """(n,) float64 in [0, 1]: 1 less the likelihood of what was observed."""
        return 1 - survival_likelihood(self.columns)

    def select(self, kept: np.ndarray) -> FollowedUp:
        """The patients where `kept` (n,) is true."""
        chosen = {name: values[kept] for name, values in self.columns.items()}
        return FollowedUp(chosen, self.uncertainty[kept])

    def quality(self) -> dict[str, float]:
        """Concordance index and integrated Brier score; NaN where they do not exist."""
        return _whole(self.columns, ("c_index", "integrated_brier"))


class SurvivalMetrics(SampleState, MetricState):
    """Exact up to 65,536 patients, above that of a fixed sample of so many (see `SampleState`).

    Inner edges are those between two intervals. Censoring is made up for by weights 1/G (IPCW),
    G the Kaplan-Meier estimate of not being censored yet, of the same patients: w = 1/G(T) of a
    patient with the event before an edge, 1/G(edge) of one who was followed beyond it, 0 of one who
    was censored before it (Graf et al. 1999, Stat. Med. 18).

    - c_index: share of the comparable pairs in which the patient who has the event first has the
      higher risk, equal risks half (Harrell et al. 1982, JAMA 247). Of two with equal times, one
      censored is taken to live longer; two events at one time are not comparable.
    - c_index_ipcw: the same pairs weighted by 1/G(T)² of the one with the event, so that the index
      does not depend on how many are censored (Uno et al. 2011, Stat. Med. 30).
    - integrated_brier: mean over the inner edges of the mean of w (alive − S)²; as edges are
      quantiles of the events' times, the integral over their distribution.
    - nll: −ln of the likelihood of what was observed (`trainables.survival`).
    - ece: Σ_b |Σ w (alive − S)| / Σ w over 15 equal bins of the predicted survival S, all patients
      and inner edges pooled: expected survival against the observed.
    - aurc: mean over i = 1..n of the mean of 1 less the likelihood of what was observed, among the
      i least uncertain patients (Geifman & El-Yaniv 2017, arXiv:1705.08500).
    - e_aurc: aurc less that of the best order.
    """

    names = ("c_index", "c_index_ipcw", "integrated_brier", "nll", "ece", "aurc", "e_aurc")

    def update(self, prediction: Prediction, batch: Batch) -> None:
        prediction, batch = _known(prediction, batch)
        columns = followed_up(prediction, batch)
        doubt = uncertainty_map(prediction, self.uncertainty)
        self.add(batch.sample_id, [doubt, *columns.values()])

    @property
    def answers(self) -> FollowedUp:
        """The patients themselves, in the order of `rows`."""
        rows = self.rows if len(self.rows) else np.zeros((0, 2 + len(_NAMES)))
        columns = {name: rows[:, 1 + place] for place, name in enumerate(_NAMES)}
        return FollowedUp({**columns, "survival": rows[:, 1 + len(_NAMES) :]}, rows[:, 0])

    def compute(self) -> dict[str, float]:
        answers = self.answers
        error = answers.error
        if not len(answers) or np.isnan(error).any():
            return dict.fromkeys(self.names, math.nan)
        area, best = mean_risks(
            torch.from_numpy(error).unsqueeze(0),
            torch.from_numpy(answers.uncertainty.copy()).unsqueeze(0),
        )
        return {
            **_whole(answers.columns, self.names[:5]),
            "aurc": float(area),
            "e_aurc": float((area - best).clamp(min=0)),
        }

    def curve(self) -> dict[str, list[float | None]]:
        """Predicted survival ("confidence") against the observed ("accuracy"), by the bins of
        `ece`, and the patients behind them ("count", weighted); as `CalibrationBins.curve`."""
        weight, predicted, observed = survival_bins(self.answers.columns)

        def mean(total: np.ndarray) -> list[float | None]:
            return [float(t / n) if n else None for t, n in zip(total, weight, strict=True)]

        return {
            "confidence": mean(predicted),
            "accuracy": mean(observed),
            "count": [float(n) for n in weight],
        }


class SurvivalShift(Shift):
    """The likelihood of what was observed, in place of Dice."""

    def update(self, clean: Prediction, attacked: Prediction, batch: Batch) -> None:
        before, kept = _known(clean, batch)
        super().update(before, _known(attacked, batch)[0], kept)

    def _merit(self, prediction: Prediction, batch: Batch) -> Tensor:
        columns = {n: v.cpu().numpy() for n, v in followed_up(prediction, batch).items()}
        return torch.from_numpy(survival_likelihood(columns))


def risk_groups(answers: FollowedUp) -> list[dict[str, Any]]:
    """Thirds of the patients by predicted risk, the lowest first, ready for JSON.

    Returns:
        Of each "name", "patients" and "events"; "time" and "alive", Kaplan and Meier's estimate
        from time 0 on; and "predicted", the mean S_k. Patients of equal risk stay in their order.
        None at all for fewer than three patients, or where a risk is NaN.
    """
    risks = answers.columns["risk"]
    if len(risks) < len(RISK_GROUPS) or np.isnan(risks).any():
        return []
    order = np.argsort(risks, kind="stable")
    groups = []
    for name, rows in zip(RISK_GROUPS, np.array_split(order, len(RISK_GROUPS)), strict=True):
        theirs = answers.select(rows).columns
        times, alive = kaplan_meier(theirs["time"], theirs["event"])
        groups.append(
            {
                "name": name,
                "patients": len(rows),
                "events": int(theirs["event"].sum()),
                "time": [0.0, *times.tolist()],
                "alive": [1.0, *alive.tolist()],
                "predicted": theirs["survival"].mean(axis=0).tolist(),
            }
        )
    return groups


def followed_up(prediction: Prediction, batch: Batch) -> dict[str, Tensor]:
    """The columns of `tasks.survival.Survival` of a batch, float64, without gradient; scores that
    are NaN give NaN.

    Raises ValueError for a batch without times, or other predictions than one row for each sample.
    """
    if batch.time is None or batch.event is None or batch.interval is None:
        raise ValueError("this metric needs a batch with times and events")
    scores = prediction.scores.detach().double()
    if scores.ndim != 2 or len(scores) != len(batch.time):
        raise ValueError(
            f"scores {tuple(scores.shape)} and times {tuple(batch.time.shape)} differ; (B, K) and "
            "(B,) are expected"
        )
    if len(scores) and bool((batch.interval >= scores.shape[1]).any()):
        raise ValueError(
            f"intervals {batch.interval.tolist()} differ from the {scores.shape[1]} predicted"
        )
    truth = {
        name: values.detach().double()
        for name, values in zip(_NAMES[:3], (batch.time, batch.event, batch.interval), strict=True)
    }
    return {**truth, "risk": risk(scores), "survival": log_survival(scores).exp()}


def _known(prediction: Prediction, batch: Batch) -> tuple[Prediction, Batch]:
    """Without the patients whose time is not known."""
    if batch.time is None:
        raise ValueError("this metric needs a batch with times and events")
    rows = (~batch.time.isnan()).nonzero().flatten().tolist()
    return prediction.select(rows), batch.select(rows)


def _whole(columns: Columns, names: tuple[str, ...]) -> dict[str, float]:
    """Statistics of all patients alike."""
    once = np.ones((1, len(columns["time"])))
    return {name: float(SURVIVAL[name](columns)(once)[0]) for name in names}
