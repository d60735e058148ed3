"""How long until the event?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables import survival
from trustsweep.trainables.attacks.losses import Decisions, survival_harm
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.losses import known_cross_entropy
from trustsweep.trainables.metrics import resampled
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.survival import followed_up, risk_groups
from trustsweep.trainables.metrics.trivial import TrivialSurvival
from trustsweep.trainables.tasks.base import AttackLosses, OutcomeTask, numbers
from trustsweep.trainables.uncertainty import categorical_maps


class Survival(OutcomeTask):
    """Time to an event, which follow-up may end before (censoring): scores (B, K) are the log-odds
    of the hazards of the K intervals of `Manifest.follow_up` (see `trainables.survival`).

    The K + 1 outcomes are the event in each interval, and none. Patients without a known time are
    left out of everything.

    Columns by sample: `time`, `event` and `interval` as in `Batch`, `risk` (`survival.risk`) and
    `survival` (K), the probabilities S_k of no event up to the end of each interval.
    """

    name = TaskName.SURVIVAL
    skill = "c_index"
    classed = False
    exclusive = False
    losses = AttackLosses(
        first="survival-risk",
        others=("cross-entropy", "margin"),
        thorough=True,
        to_boundary=False,
    )
    trivial = TrivialSurvival
    statistics = resampled.SURVIVAL
    group_metrics: ClassVar = ("c_index", "integrated_brier", "ece")

    def truth(self, batch: Batch) -> Tensor:
        """(B, 3): `Batch.time`, `Batch.event` and `Batch.interval`."""
        if batch.time is None or batch.event is None or batch.interval is None:
            raise ValueError(f"{self} needs a batch with times and events")
        return torch.stack([batch.time, batch.event, batch.interval], dim=1)

    def outputs(self, manifest: Manifest) -> int:
        if manifest.follow_up is None:
            raise UserError(f"{manifest.name}: no times and events here. Prepare the data again.")
        return manifest.follow_up.intervals

    def columns_of(self, manifest: Manifest) -> int:
        return self.outputs(manifest)

    def loss(
        self,
        scores: Tensor,
        batch: Batch,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        return known_cross_entropy(scores, self._labels(scores, batch), smoothing, weights)

    def maps(self, scores: Tensor) -> dict[str, Tensor]:
        """Of the distribution over the outcomes: which interval the event comes in, if at all."""
        return categorical_maps(survival.log_outcomes(scores.float()).exp())

    def log_outcomes(self, scores: Tensor) -> Tensor:
        return survival.log_outcomes(scores)

    def scores_of(self, outcomes: Tensor) -> Tensor:
        return survival.log_odds(outcomes)

    def log_likelihood(self, outcomes: Tensor, batch: Batch) -> Tensor:
        _, event, interval = self.truth(batch).unbind(dim=1)
        return survival.log_likelihood(outcomes, event, interval)

    def decisions(self, scores: Tensor, batch: Batch) -> Decisions:
        """A decision is a hazard of an interval that the patient is known to have reached."""
        return Decisions(scores.unsqueeze(1), self._labels(scores, batch))

    def harm(self, decisions: Decisions) -> Tensor:
        return survival_harm(decisions)

    def performance(self, decisions: Decisions) -> Tensor:
        """The mean of S_k of a patient who lived long, and of 1 − S_k of one who died early."""
        return torch.sigmoid(-survival_harm(decisions))

    def counted(self, batch: Batch) -> Tensor:
        """The samples whose time is known."""
        known = (~self.truth(batch).isnan().any(dim=1)).cpu()
        return known if bool(known.any()) else torch.ones_like(known)

    def chance(self, batch: Batch, outputs: int, counted: Tensor) -> float:
        """Of the likelier of both."""
        _, event, interval = self.truth(batch).cpu()[counted].unbind(dim=1)
        labels = survival.hazard_labels(event, interval, outputs)
        early = float(survival.dies_early(labels).double().mean())
        return max(early, 1 - early)

    def columns(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
        return followed_up(prediction, batch)

    def frequencies(self, prior: Prior) -> np.ndarray:
        """Of each interval's hazard among those who reach the interval."""
        if prior.survival is None:
            return np.zeros((0, 2))
        survived = prior.survival[1]
        reached = np.append(1.0, survived[:-1])
        return np.stack([survived, reached - survived], axis=1)

    def labelled_scores(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = self._labels(scores, batch)
        known = ~labels.isnan()
        return scores[known].unsqueeze(1).double().cpu(), labels[known].long().cpu()

    def described(self, answers: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
        """ "survival": unit and edges of the manifest, and `risk_groups` by condition."""
        assert manifest.follow_up is not None
        groups = {condition: risk_groups(theirs) for condition, theirs in answers.items()}
        return {"survival": {**dataclasses.asdict(manifest.follow_up), "groups": groups}}

    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        return {
            name: numbers(values)
            for name, values in zip(("time", "event"), self.truth(batch).T, strict=False)
        }

    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        """`probability` is that of no event up to the end of each interval."""
        return {
            "probability": numbers(survival.log_survival(prediction.scores.double()).exp()),
            "uncertainty": numbers(doubt),
        }

    def _labels(self, scores: Tensor, batch: Batch) -> Tensor:
        _, event, interval = self.truth(batch).unbind(dim=1)
        return survival.hazard_labels(event, interval, scores.shape[1])
