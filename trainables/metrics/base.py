"""What every streaming metric offers: update, merge, compute, in bounded memory.

States hold float64 numpy arrays alone, so that workers can send them to each other. The order of
batches and their split over workers changes a result by rounding of float64 sums at most. torch is
imported only where predictions are evaluated, as checking a study must be quick.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from trustsweep.trainables.contract import Prediction

StateDict = dict[str, np.ndarray]


class MergeableState(ABC):
    """Something that is gathered over batches and merged over workers.

    Args:
        uncertainty: The map of `Prediction.uncertainty` to evaluate; None for the method's first.
    """

    #: What `compute` gives, in order.
    names: ClassVar[tuple[str, ...]]

    def __init__(self, uncertainty: str | None = None) -> None:
        self.uncertainty = uncertainty

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what another worker gathered; `other` stays as it is."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The value of each of `names`. NaN before the first image and for NaN predictions."""

    @abstractmethod
    def state_dict(self) -> StateDict:
        """A copy of what was gathered, as arrays."""

    @abstractmethod
    def _load(self, state: Mapping[str, Any]) -> None:
        """Replace what was gathered by `state`."""

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any], uncertainty: str | None = None) -> Self:
        """The state that `state_dict` was taken from."""
        restored = cls(uncertainty)
        restored._load(state)
        return restored


class MetricState(MergeableState):
    """A state that takes in predictions one batch at a time."""

    @abstractmethod
    def update(self, prediction: Prediction, batch: Batch) -> None:
        """Take in a batch and what was predicted for it (same rows, same device)."""


class SumState(MetricState):
    """A metric that is a function of sums over images or pixels."""

    #: Name to shape of each sum; () also for one that takes the shape of what is added first.
    fields: ClassVar[dict[str, tuple[int, ...]]]

    def __init__(self, uncertainty: str | None = None) -> None:
        super().__init__(uncertainty)
        self.sums = {name: np.zeros(shape) for name, shape in self.fields.items()}

    def add(self, **amounts: Tensor | np.ndarray | float) -> None:
        """Add to the sums of these names."""
        for name, amount in amounts.items():
            plain = isinstance(amount, int | float | np.generic | np.ndarray)
            more = amount if plain else amount.cpu().numpy()  # type: ignore[union-attr]
            self.sums[name] = np.asarray(self.sums[name] + more)

    def merge(self, other: Self) -> None:
        for name, amount in other.sums.items():
            self.sums[name] = np.asarray(self.sums[name] + amount)

    def state_dict(self) -> StateDict:
        return {name: amount.copy() for name, amount in self.sums.items()}

    def _load(self, state: Mapping[str, Any]) -> None:
        for name in self.fields:
            self.sums[name] = np.array(state[name], dtype=np.float64)


def ratio(amount: np.ndarray | float, count: np.ndarray | float) -> float:
    """`amount` / `count`, NaN for a count of 0."""
    return float(amount) / float(count) if float(count) != 0 else math.nan


def exact_probability(prediction: Prediction) -> Tensor:
    """The probability in float64 and without gradient: float32 ties all from 17 log-odds on."""
    return dataclasses.replace(prediction, scores=prediction.scores.detach().double()).probability


def classes(prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
    """Probability of each class and true class of a batch of images.

    Returns:
        (B, K >= 2) float64, without gradient, the only one of a prediction with K = 1 made two; a
        row that is not finite is made NaN. And (B,) long.

    Raises:
        ValueError: no labels in the batch, or labels that the prediction has no column for.
    """
    if batch.label is None:
        raise ValueError("this metric needs a batch with labels")
    p, truth = exact_probability(prediction), batch.label.detach()
    if p.ndim != 2 or truth.shape != p.shape[:1]:
        raise ValueError(
            f"probability {tuple(p.shape)} and label {tuple(truth.shape)} differ; "
            "(B, K) and (B,) are expected"
        )
    if p.shape[1] == 1:
        import torch

        p = torch.cat([1 - p, p], dim=1)
    if len(truth) and not 0 <= int(truth.min()) <= int(truth.max()) < p.shape[1]:
        raise ValueError(f"labels {truth.tolist()} differ from the {p.shape[1]} classes predicted")
    return p.masked_fill(~p.isfinite().all(dim=1, keepdim=True), math.nan), truth


def findings(prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
    """Probability and truth of each label of a batch of images.

    Returns:
        Both (B, K) float64, without gradient; a probability that is not finite is made NaN, the
        truth is 0, 1, or NaN where it is unknown.

    Raises:
        ValueError: no labels in the batch, or labels of another shape than the probability.
    """
    if batch.label is None:
        raise ValueError("this metric needs a batch with labels")
    p, truth = exact_probability(prediction), batch.label.detach().double()
    if p.ndim != 2 or p.shape != truth.shape:
        raise ValueError(
            f"probability {tuple(p.shape)} and labels {tuple(truth.shape)} differ; both are to be "
            "(B, K)"
        )
    return p.masked_fill(~p.isfinite(), math.nan), truth


def uncertainty_map(prediction: Prediction, name: str | None) -> Tensor:
    """The map (B, *spatial) of that name, or the method's first; at least float32.

    Raises:
        UserError: the method offers no such map.
    """
    maps = prediction.uncertainty
    chosen = next(iter(maps), None) if name is None else name
    if chosen is None or chosen not in maps:
        raise UserError(
            f"this method offers no uncertainty map {chosen!r}; it has {', '.join(maps) or 'none'}."
        )
    import torch

    values = maps[chosen].detach()
    return values.to(torch.promote_types(values.dtype, torch.float32))
