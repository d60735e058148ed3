"""What a model predicts, and everything that depends on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks.losses import Decisions
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.resampled import Columns, Statistic
from trustsweep.trainables.metrics.trivial import TrivialPredictors


@dataclass(frozen=True)
class AttackLosses:
    """What the ensembles raise for a task, by names of `attacks.losses.LOSSES`.

    Attributes:
        first: The loss of the fast ensemble and of the masking checks, that of the task's own
            measure.
        others: The full ensemble's further ones.
        thorough: Whether samples that are wrong already are attacked on the others too, as there
            are degrees of wrong.
        to_boundary: Whether a sample is one decision, so that attacks that look for the nearest
            other class can run.
    """

    first: str
    others: tuple[str, ...]
    thorough: bool
    to_boundary: bool


class Task(ABC):
    """A kind of prediction, such as one class for each image; it has no state.

    The only place that defines a task's ground truth, what counts as correct, and how the report
    shows it. Which metrics apply to a task stands with the metrics (`metrics.catalog`).
    """

    name: ClassVar[TaskName]
    #: The metric whose skill a study may optimise: 0 for every model that ignores the image.
    skill: ClassVar[str]
    #: Whether each image has one class, by which it can be weighed.
    classed: ClassVar[bool]
    losses: ClassVar[AttackLosses]
    #: The predictors that ignore the image.
    trivial: ClassVar[type[TrivialPredictors]]
    #: Metrics of a split from the scores of its samples (`columns`), by the metric's own name.
    statistics: ClassVar[Mapping[str, Callable[[Columns], Statistic]]]
    #: Whether a pixel or an image has one class of several; else it may have any of the foregrounds
    #: or labels, each given by its log-odds. Two classes may share one column of log-odds.
    exclusive: ClassVar[bool]
    #: What a label, class or region with metrics of its own (`of_part`) is called; "" for a task
    #: whose samples have no such parts.
    part: ClassVar[str] = ""
    #: The `statistics` reported for groups; the first decides which condition is the worst.
    group_metrics: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        return str(self.name)

    @abstractmethod
    def outputs(self, manifest: Manifest) -> int:
        """The columns K of the scores. Raises `UserError` for data without what is predicted."""

    @abstractmethod
    def truth(self, batch: Batch) -> Tensor:
        """The ground truth of a batch. Raises ValueError for a batch without it."""

    def decisions(self, scores: Tensor, batch: Batch) -> Decisions:
        """The scores (`Prediction.scores`) of a batch beside its truth: of K >= 2 columns, classes
        that exclude each other."""
        size, truth = len(scores), self.truth(batch).reshape(len(scores), -1)
        if scores.shape[1] > 1:
            return Decisions(scores.reshape(size, scores.shape[1], -1), truth.long())
        return Decisions(scores.reshape(size, 1, -1), truth.float())

    @abstractmethod
    def harm(self, decisions: Decisions) -> Tensor:
        """(B,): how wrong the predictions are by the task's own measure; larger is worse, inf for
        a NaN score. Above 0 where the prediction is wrong, of a task whose `losses` are not
        thorough."""

    @abstractmethod
    def performance(self, decisions: Decisions) -> Tensor:
        """(B,) float64 in [0, 1]: how right each prediction is."""

    @abstractmethod
    def counted(self, batch: Batch) -> Tensor:
        """(B,) bool on the CPU: the samples whose mean `performance` is the model's."""

    @abstractmethod
    def chance(self, batch: Batch, outputs: int, counted: Tensor) -> float:
        """The best mean `performance` over the `counted` of one prediction for all samples of a
        batch, by a model with `outputs` columns of scores."""

    @abstractmethod
    def columns(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
        """The scores of each sample, (B, ...) by name; `doubt` is the uncertainty to evaluate."""

    def parts(self, columns: Columns) -> np.ndarray:
        """(n, parts): whether each sample has each part, 1 or 0; NaN where it is not known."""
        return np.zeros((len(next(iter(columns.values()))), 0))

    def of_part(self, columns: Columns, part: int) -> Columns:
        """The columns of one part alone, and of the samples where it is known."""
        raise NotImplementedError(f"{self} predicts one label for each sample")

    @abstractmethod
    def frequencies(self, prior: Prior) -> np.ndarray:
        """How often the train split has each class, in any unit: (K,), or of foregrounds or labels
        on their own (K, 2), absent and present."""

    @abstractmethod
    def labelled_scores(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """What a temperature is fitted to: scores (n, K) float64 and classes (n,) long, of K = 1
        log-odds and 0 or 1, on the CPU. Of large images evenly spaced pixels are enough."""

    def read_prior(self, batches: Iterable[Batch]) -> Prior:
        """The prior from the truths of the train split. Raises ValueError without a batch."""
        return self.trivial.learn(map(self.trivial.truth, batches))

    def described(self, answers: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
        """Further parts of an evaluation card, from `Evaluation.answers` by condition."""
        return {}

    @abstractmethod
    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        """The truth of a few images as the report's arrays, by name."""

    @abstractmethod
    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        """`probability` and `uncertainty` of a few images as the report's arrays."""


class SampleTask(Task):
    """A task that one row of scores for each sample predicts, so that any network with a linear
    head can have it."""

    @abstractmethod
    def loss(
        self,
        scores: Tensor,
        batch: Batch,
        smoothing: float = 0.0,
        weights: Tensor | None = None,
    ) -> Tensor:
        """(B,): the negative log-likelihood in nats, of labels smoothed by s: 1 − s + s/K of the
        target is the true one's, s/K every other one's (Szegedy et al. 2016, arXiv 1512.00567).
        `weights` are `Method.class_weights`."""

    @abstractmethod
    def maps(self, scores: Tensor) -> dict[str, Tensor]:
        """Uncertainty of each sample, (B,) by name: "entropy" and "least-confidence"."""


class OutcomeTask(SampleTask):
    """A task with exactly one of several outcomes for each sample, over which the predictions of
    stochastic passes and of modalities are averaged."""

    @abstractmethod
    def columns_of(self, manifest: Manifest) -> int:
        """The columns of scores that `log_outcomes` takes. Raises `UserError` as `outputs`."""

    @abstractmethod
    def log_outcomes(self, scores: Tensor) -> Tensor:
        """(..., columns) scores to (..., outcomes) log-probabilities."""

    @abstractmethod
    def scores_of(self, outcomes: Tensor) -> Tensor:
        """The scores of (..., outcomes) log-probabilities up to a constant."""

    @abstractmethod
    def log_likelihood(self, outcomes: Tensor, batch: Batch) -> Tensor:
        """(B, ...) of (B, ..., outcomes) log-probabilities up to a constant. Raises ValueError for
        a batch without the truth."""


def picture(values: Tensor) -> np.ndarray:
    """(n, C, H, W) or (n, C, D, H, W) to (n, H, W) float16: channels' mean, the middle slice."""
    flat = values.detach().float().mean(dim=1)
    if flat.ndim == 4:
        flat = flat[:, flat.shape[1] // 2]
    return flat.cpu().numpy().astype(np.float16)


def numbers(values: Tensor) -> np.ndarray:
    """The same values as float32."""
    return values.float().cpu().numpy()
