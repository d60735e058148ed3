"""What predictors that ignore the image give on a split: a function of its truth alone.

They are worked out beside every evaluation, from the same samples at the same size, so that a skill
(`trustsweep.trainables.metrics.skill`) compares like with like at a rung as well.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.metrics.base import ratio
from trustsweep.trainables.metrics.catalog import NLL_CLAMP
from trustsweep.trainables.metrics.overlap import Overlap
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.scores import ProperScores
from trustsweep.trainables.metrics.skill import (
    BEST_CONSTANT,
    CLASS_PRIOR,
    EMPTY_MASK,
    FIXED_MASK,
    FULL_MASK,
    LABEL_PRIOR,
    MAJORITY_CLASS,
    MEAN_MASK,
)


def class_prior(batches: Iterable[Batch]) -> Prior:
    """Of the labels of the train split. Raises ValueError for batches without, or for none."""
    counts = np.zeros(0)
    for batch in batches:
        counts = _counted(counts, batch)
    if not len(counts):
        raise ValueError("a prior needs the labels of the train split")
    return Prior(counts=counts)


def label_prior(batches: Iterable[Batch]) -> Prior:
    """Of the labels of the train split. Raises ValueError for batches without, or for none."""
    total = np.zeros((2, 0))
    for batch in batches:
        total = _asked(total, batch)
    if not total.size:
        raise ValueError("a prior needs the labels of the train split")
    return Prior(rates=_rates(total))


def mask_prior(batches: Iterable[Batch]) -> Prior:
    """Of the masks of the train split. Raises ValueError for batches without, or for none."""
    total, images, with_lesion = np.zeros(()), 0, 0
    for batch in batches:
        mask = _mask(batch)[:, 0]
        total = total + mask.sum(dim=0, dtype=torch.float64).cpu().numpy()
        images += len(mask)
        with_lesion += int(mask.flatten(1).any(dim=1).sum())
    if not total.ndim:
        raise ValueError("a prior needs the masks of the train split")
    return Prior(mean=(total / images).astype(np.float32), fixed=_fixed(total, with_lesion))


class Trivial(ABC):
    """The trivial predictors of a task, gathered over batches and merged over workers.

    Args:
        prior: Of the train split; without one, only predictors that need none.
    """

    def __init__(self, prior: Prior | None = None) -> None:
        self._prior = prior

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take in the truth of a batch. Raises ValueError where it has none."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what another worker gathered."""

    @abstractmethod
    def figures(self) -> dict[str, dict[str, float]]:
        """Predictor to metric to value; every metric with a skill. NaN before the first image."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What was gathered, as arrays."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Replace what was gathered, by that of a state with or without a prior."""


class TrivialClasses(Trivial):
    """Class prior, majority class and the best constant, in closed form from the class counts.

    A constant probability q says the class k of its largest entry of every image: its accuracy is
    the share of k, its balanced accuracy 1 / the number of classes that occur, its AUROC ½, its
    Brier score ½ Σ_k s_k |q − e_k|² and its NLL −Σ_k s_k ln q_k with s_k the share of class k.
    """

    def __init__(self, prior: Prior | None = None) -> None:
        super().__init__(prior)
        self._counts = np.zeros(0)
        self._learned = None if prior is None else prior.counts

    def update(self, batch: Batch) -> None:
        self._counts = _counted(self._counts, batch)

    def merge(self, other: Self) -> None:
        self._counts = _added(self._counts, other._counts)

    def figures(self) -> dict[str, dict[str, float]]:
        said: dict[str, np.ndarray] = {}
        if self._learned is not None:
            said[CLASS_PRIOR] = self._learned / self._learned.sum()
            said[MAJORITY_CLASS] = np.eye(len(self._learned))[self._learned.argmax()]
        total = self._counts.sum()
        said[BEST_CONSTANT] = self._counts / total if total else self._counts
        return {name: _constant_figures(q, self._counts) for name, q in said.items()}

    def state_dict(self) -> dict[str, Any]:
        learned = {} if self._learned is None else {"learned": self._learned.copy()}
        return {"counts": self._counts.copy(), **learned}

    def load(self, state: Mapping[str, Any]) -> None:
        self._counts = np.array(state["counts"], dtype=np.float64)
        learned = state.get("learned")
        self._learned = None if learned is None else np.array(learned, dtype=np.float64)


class TrivialLabels(Trivial):
    """Prior and best constant of several labels, in closed form from how often each occurs.

    With r the share of the images that have a label among those where it is known, a constant
    probability q has an AUROC of ½, an average precision of r, a Brier score of
    r(1 − q)² + (1 − r)q² and an NLL of −r ln q − (1 − r) ln(1 − q); figures are means over the
    labels of which anything is known (AUROC: that some images have and some have not; average
    precision: that some image has). Its accuracy is that of all known labels, r where q > ½ and
    1 − r elsewhere.
    """

    def __init__(self, prior: Prior | None = None) -> None:
        super().__init__(prior)
        self._total = np.zeros((2, 0))
        self._learned = None if prior is None else prior.rates

    def update(self, batch: Batch) -> None:
        self._total = _asked(self._total, batch)

    def merge(self, other: Self) -> None:
        if other._total.size:
            self._total = other._total + (self._total if self._total.size else 0)

    def figures(self) -> dict[str, dict[str, float]]:
        rates = _rates(self._total)
        said = {} if self._learned is None else {LABEL_PRIOR: self._learned}
        said[BEST_CONSTANT] = rates
        return {name: _label_figures(q, rates, self._total) for name, q in said.items()}

    def state_dict(self) -> dict[str, Any]:
        learned = {} if self._learned is None else {"learned": self._learned.copy()}
        return {"total": self._total.copy(), **learned}

    def load(self, state: Mapping[str, Any]) -> None:
        self._total = np.array(state["total"], dtype=np.float64)
        learned = state.get("learned")
        self._learned = None if learned is None else np.array(learned, dtype=np.float64)


class TrivialMasks(Trivial):
    """Empty and full mask, the train split's mean mask and its best fixed mask, the best constant.

    The best constant probability is the share of lesion pixels among all, so that its Brier score
    is r(1 − r); as a mask it is empty, or full where r > ½.
    """

    def __init__(self, prior: Prior | None = None) -> None:
        super().__init__(prior)
        names = [EMPTY_MASK, FULL_MASK]
        if prior is not None:
            names += [MEAN_MASK, FIXED_MASK]
        self._states = {name: (Overlap(), ProperScores()) for name in names}
        self._masks: dict[tuple[int, ...], dict[str, Tensor]] = {}

    def update(self, batch: Batch) -> None:
        mask = _mask(batch)
        truth = mask.detach().to(torch.float64).flatten(1)
        for name, p in self._said(mask).items():
            for state in self._states[name]:
                state.judge(p.expand_as(truth), truth)

    def merge(self, other: Self) -> None:
        for name, states in self._states.items():
            for mine, theirs in zip(states, other._states[name], strict=True):
                mine.merge(theirs)

    def figures(self) -> dict[str, dict[str, float]]:
        found = {
            name: {**overlap.compute(), **scores.compute()}
            for name, (overlap, scores) in self._states.items()
        }
        overlap, scores = self._states[EMPTY_MASK]
        rate = ratio(overlap.sums["lesion"], scores.sums["pixels"])
        likely = np.clip([1 - rate, rate], NLL_CLAMP, 1 - NLL_CLAMP)
        found[BEST_CONSTANT] = {
            **found[FULL_MASK if rate > 0.5 else EMPTY_MASK],
            "nll": float(-(np.array([1 - rate, rate]) * np.log(likely)).sum()),
            "brier": rate * (1 - rate),
        }
        return found

    def state_dict(self) -> dict[str, Any]:
        return {n: [s.state_dict() for s in states] for n, states in self._states.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self._states = {
            name: (Overlap.from_state_dict(overlap), ProperScores.from_state_dict(scores))
            for name, (overlap, scores) in state.items()
        }

    def _said(self, mask: Tensor) -> dict[str, Tensor]:
        """The probability (1, n) of each predictor, at the size and on the device of the masks."""
        size = tuple(mask.shape[2:])
        if size not in self._masks:
            zeros = mask.new_zeros((1, math.prod(size)), dtype=torch.float64)
            said = {EMPTY_MASK: zeros, FULL_MASK: zeros + 1}
            if self._prior is not None:
                assert self._prior.mean is not None
                assert self._prior.fixed is not None
                # The mask at another size is the one that its truth has there, too.
                for name, values, mode in (
                    (MEAN_MASK, self._prior.mean, "area"),
                    (FIXED_MASK, self._prior.fixed, "nearest-exact"),
                ):
                    whole = torch.from_numpy(values).to(mask.device, torch.float64)[None, None]
                    said[name] = F.interpolate(whole, size, mode=mode).flatten(1)
            self._masks[size] = said
        return self._masks[size]


def _mask(batch: Batch) -> Tensor:
    if batch.mask is None:
        raise ValueError("trivial segmentations need a batch with masks")
    return batch.mask


def _counted(counts: np.ndarray, batch: Batch) -> np.ndarray:
    if batch.label is None:
        raise ValueError("trivial classifications need a batch with labels")
    return _added(counts, torch.bincount(batch.label.detach().cpu()).numpy())


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of counts of which either may know of more classes."""
    total = np.zeros(max(len(one), len(other)))
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def _asked(total: np.ndarray, batch: Batch) -> np.ndarray:
    """(2, K) with a batch's labels added: images that have each, and images where it is known."""
    if batch.label is None or batch.label.ndim != 2:
        raise ValueError("trivial answers to several labels need a batch with them")
    truth = batch.label.detach().to(torch.float64).cpu().numpy()
    more = np.stack([np.nansum(truth, axis=0), (~np.isnan(truth)).sum(axis=0)])
    return more + (total if total.size else 0)


def _rates(total: np.ndarray) -> np.ndarray:
    return np.divide(total[0], total[1], out=np.full(total.shape[1], math.nan), where=total[1] > 0)


def _label_figures(q: np.ndarray, rates: np.ndarray, total: np.ndarray) -> dict[str, float]:
    """What the probabilities q of the labels give; `total` as `_asked` has it."""
    known = ~np.isnan(rates) & ~np.isnan(q) if q.shape == rates.shape else np.zeros(0, dtype=bool)
    if not known.any():
        names = ("accuracy", "auroc", "average_precision", "nll", "brier")
        return dict.fromkeys(names, math.nan)
    q, r, count = q[known], rates[known], total[1][known]
    likely = np.clip(q, NLL_CLAMP, 1 - NLL_CLAMP)
    return {
        "accuracy": float((np.where(q > 0.5, r, 1 - r) * count).sum() / count.sum()),
        "auroc": 0.5 if bool(((r > 0) & (r < 1)).any()) else math.nan,
        "average_precision": float(r[r > 0].mean()) if (r > 0).any() else math.nan,
        "nll": float(-(r * np.log(likely) + (1 - r) * np.log(1 - likely)).mean()),
        "brier": float((r * (1 - q) ** 2 + (1 - r) * q**2).mean()),
    }


def _fixed(total: np.ndarray, images: int) -> np.ndarray:
    """The mask S with the largest pooled Dice 2 Σ_S c / (Σ c + m |S|) over m images, where c
    (*spatial) counts their lesions; empty where there is no lesion.

    Of all masks of one size, the one with the largest counts has it, so sorting finds the best.
    """
    counts = total.ravel()
    order = np.argsort(-counts, kind="stable")
    hits = np.cumsum(counts[order])
    sizes = np.arange(1, len(counts) + 1)
    best = int(np.argmax(2 * hits / np.maximum(counts.sum() + images * sizes, 1)))
    fixed = np.zeros(len(counts), dtype=bool)
    fixed[order[: best + 1]] = counts.any()
    return fixed.reshape(total.shape)


def _constant_figures(q: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """What the probabilities q give on images of which there are `counts` of each class."""
    classes = max(len(q), len(counts))
    q, counts = _added(q, np.zeros(classes)), _added(counts, np.zeros(classes))
    total, occurring = counts.sum(), int((counts > 0).sum())
    if not total:
        names = ("accuracy", "balanced_accuracy", "f1", "auroc", "nll", "brier")
        return dict.fromkeys(names, math.nan)
    shares, said = counts / total, int(q.argmax())
    # F1 averages over the classes that occur in truth or prediction.
    averaged = occurring + (counts[said] == 0)
    distance = ((q - np.eye(classes)) ** 2).sum(axis=1)
    return {
        "accuracy": float(shares[said]),
        "balanced_accuracy": float(counts[said] > 0) / occurring,
        "f1": float(2 * shares[said] / (1 + shares[said]) / averaged),
        "auroc": 0.5 if occurring > 1 else math.nan,
        "nll": float(-(shares * np.log(np.clip(q, NLL_CLAMP, 1 - NLL_CLAMP))).sum()),
        "brier": float((shares * distance).sum() / 2),
    }
