"""Which findings does this image show?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks.losses import Decisions, margin_harm
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.losses import known_cross_entropy
from trustsweep.trainables.metrics import resampled
from trustsweep.trainables.metrics.base import findings
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.resampled import Columns
from trustsweep.trainables.metrics.trivial import TrivialLabels
from trustsweep.trainables.tasks.base import AttackLosses, SampleTask, numbers
from trustsweep.trainables.uncertainty import bernoulli_maps, mean_maps


class Multilabel(SampleTask):
    """K labels, each present or absent by its log-odds: scores and labels (B, K), NaN where the
    truth is unknown; unknown labels are left out of everything.

    Columns by sample: `truth` (K; 0, 1 or NaN) and `probability` (K).
    """

    name = TaskName.MULTILABEL
    skill = "auroc"
    classed = False
    exclusive = False
    losses = AttackLosses(
        first="margin",
        others=("cross-entropy", "masked-cross-entropy"),
        thorough=True,
        to_boundary=False,
    )
    trivial = TrivialLabels
    statistics = resampled.MULTILABEL
    part = "label"
    group_metrics: ClassVar = ("auroc", "average_precision", "ece")

    def outputs(self, manifest: Manifest) -> int:
        if not manifest.classes:
            raise UserError(f"{manifest.name}: names no label.")
        return len(manifest.classes)

    def truth(self, batch: Batch) -> Tensor:
        if batch.label is None:
            raise ValueError(f"{self} needs a batch with labels")
        return batch.label

    def loss(
        self,
        scores: Tensor,
        batch: Batch,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The mean over the labels that are known."""
        label = self.truth(batch)
        count = (~label.isnan()).sum(dim=1).clamp(min=1)
        return known_cross_entropy(scores, label, smoothing, weights) / count

    def maps(self, scores: Tensor) -> dict[str, Tensor]:
        return mean_maps(bernoulli_maps(scores.sigmoid()))

    def decisions(self, scores: Tensor, batch: Batch) -> Decisions:
        size = len(scores)
        return Decisions(scores.reshape(size, 1, -1), self.truth(batch).reshape(size, -1).float())

    def harm(self, decisions: Decisions) -> Tensor:
        return margin_harm(decisions)

    def performance(self, decisions: Decisions) -> Tensor:
        """The share of the known labels that are right."""
        known = ~decisions.truth.isnan()
        right = (decisions.right & known).double().sum(dim=1)
        return right / known.sum(dim=1).clamp(min=1)

    def counted(self, batch: Batch) -> Tensor:
        """The samples with a known label."""
        known = (~self.truth(batch).isnan()).any(dim=1).cpu()
        return known if bool(known.any()) else torch.ones_like(known)

    def chance(self, batch: Batch, outputs: int, counted: Tensor) -> float:
        """The probability of the likelier value of each label."""
        truth = self.truth(batch).double().cpu()[counted]
        rate = truth.nanmean(dim=0)
        likelier = torch.where(rate > 0.5, truth, 1 - truth)
        return float(likelier.nanmean(dim=1).nanmean())

    def columns(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
        p, truth = findings(prediction, batch)
        return {"truth": truth, "probability": p}

    def parts(self, columns: Columns) -> np.ndarray:
        return columns["truth"]

    def of_part(self, columns: Columns, part: int) -> Columns:
        known = ~np.isnan(columns["truth"][:, part])
        return {name: columns[name][known, part : part + 1] for name in ("truth", "probability")}

    def frequencies(self, prior: Prior) -> np.ndarray:
        rates = np.zeros(0) if prior.rates is None else prior.rates
        return np.stack([1 - rates, rates], axis=1)

    def labelled_scores(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        truth = self.truth(batch)
        known = ~truth.isnan()
        return scores[known].unsqueeze(1).double().cpu(), truth[known].long().cpu()

    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"labels": numbers(self.truth(batch))}

    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        return {
            "probability": numbers(prediction.probability),
            "uncertainty": numbers(doubt),
        }
