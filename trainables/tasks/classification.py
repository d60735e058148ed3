"""Which class is this image, or patient, of?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks.losses import Decisions, margin_harm
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics import resampled
from trustsweep.trainables.metrics.base import classes
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.trivial import TrivialClasses
from trustsweep.trainables.tasks.base import AttackLosses, OutcomeTask, numbers
from trustsweep.trainables.uncertainty import categorical_maps


class Classification(OutcomeTask):
    """One class of K, which exclude each other: scores (B, K), or log-odds (B, 1) of the second.

    Columns by sample: `truth`, `predicted` (-1 where a score is NaN), `probability_of_truth`,
    `correct` (0 or 1) and `probability` (K >= 2), NaN where a score is.
    """

    name = TaskName.CLASSIFICATION
    skill = "balanced_accuracy"
    classed = True
    exclusive = True
    losses = AttackLosses(
        first="margin", others=("cross-entropy", "dlr"), thorough=False, to_boundary=True
    )
    trivial = TrivialClasses
    statistics = resampled.CLASSIFICATION
    group_metrics: ClassVar = ("balanced_accuracy", "auroc", "ece")

    def truth(self, batch: Batch) -> Tensor:
        if batch.label is None:
            raise ValueError(f"{self} needs a batch with labels")
        return batch.label

    def outputs(self, manifest: Manifest) -> int:
        """Two classes share one."""
        classes = self.columns_of(manifest)
        return classes if classes > 2 else 1

    def columns_of(self, manifest: Manifest) -> int:
        if len(manifest.classes) < 2:
            raise UserError(f"{manifest.name}: a single class. A classifier needs at least two.")
        return len(manifest.classes)

    def loss(
        self,
        scores: Tensor,
        batch: Batch,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        label = self.truth(batch)
        if scores.shape[1] > 1:
            return F.cross_entropy(scores, label, label_smoothing=smoothing, reduction="none")
        target = label * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(scores[:, 0], target, reduction="none")

    def maps(self, scores: Tensor) -> dict[str, Tensor]:
        return categorical_maps(scores.softmax(dim=1) if scores.shape[1] > 1 else scores.sigmoid())

    def log_outcomes(self, scores: Tensor) -> Tensor:
        return scores.log_softmax(dim=-1)

    def scores_of(self, outcomes: Tensor) -> Tensor:
        return outcomes

    def log_likelihood(self, outcomes: Tensor, batch: Batch) -> Tensor:
        label = self.truth(batch).reshape(-1, *(1,) * (outcomes.ndim - 1))
        place = label.expand(*outcomes.shape[:-1], 1)
        return outcomes.log_softmax(dim=-1).gather(-1, place).squeeze(-1)

    def harm(self, decisions: Decisions) -> Tensor:
        return margin_harm(decisions)

    def performance(self, decisions: Decisions) -> Tensor:
        return decisions.right.double().mean(dim=1)

    def counted(self, batch: Batch) -> Tensor:
        return torch.ones(len(batch), dtype=torch.bool)

    def chance(self, batch: Batch, outputs: int, counted: Tensor) -> float:
        return 1 / max(2, outputs)

    def columns(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
        p, truth = classes(prediction, batch)
        known = ~p.isnan().any(dim=1)
        predicted = torch.where(known, p.argmax(dim=1), -1)
        correct = (predicted == truth).to(torch.float64)
        return {
            "truth": truth,
            "predicted": predicted,
            "probability_of_truth": p.gather(1, truth.unsqueeze(1)).squeeze(1),
            "correct": torch.where(known, correct, torch.nan),
            "probability": p,
        }

    def frequencies(self, prior: Prior) -> np.ndarray:
        return np.zeros(0) if prior.counts is None else prior.counts

    def labelled_scores(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return scores.double().cpu(), self.truth(batch).long().cpu()

    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"label": self.truth(batch).cpu().numpy()}

    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        """`probability` has a column for each class, at least two."""
        return {
            "probability": numbers(classes(prediction, batch)[0]),
            "uncertainty": numbers(doubt),
        }
