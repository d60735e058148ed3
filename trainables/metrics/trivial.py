"""What predictors that ignore the image give on a split: a function of its truth alone.

They are worked out beside every evaluation, from the same samples at the same size, so that a skill
(`trustsweep.trainables.metrics.skill`) compares like with like at a rung as well. They are numpy's
work alone: by the same code a study is checked against its data, before torch is loaded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.metrics.catalog import METRICS, NLL_CLAMP
from trustsweep.trainables.metrics.overlap import Overlap, shares
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.resampled import SURVIVAL, kaplan_meier
from trustsweep.trainables.metrics.scores import ProperScores
from trustsweep.trainables.metrics.skill import (
    BEST_CONSTANT,
    CLASS_PRIOR,
    EMPTY_MASK,
    FIXED_MASK,
    FULL_MASK,
    KAPLAN_MEIER,
    LABEL_PRIOR,
    LIFE_TABLE,
    MAJORITY_CLASS,
    MEAN_MASK,
)


class TrivialPredictors(ABC):
    """The trivial predictors of a task, gathered over batches and merged over workers.

    Args:
        prior: Of the train split; without one, only predictors that need none.
        size: How many classes, foregrounds or labels there are, where a prior does not tell.
    """

    #: The columns of the shards that hold the ground truth.
    columns: ClassVar[tuple[str, ...]] = ("label",)

    def __init__(self, prior: Prior | None = None, size: int = 0) -> None:
        self._prior = prior

    @staticmethod
    def stored_truth(columns: Sequence[np.ndarray], manifest: Manifest) -> np.ndarray:
        """The ground truth as `truth` gives it, from `columns`."""
        return columns[0]

    @staticmethod
    def names(manifest: Manifest) -> tuple[str, ...]:
        """The names of the classes, foregrounds or labels, in their order."""
        return manifest.classes

    @staticmethod
    @abstractmethod
    def truth(batch: Batch) -> np.ndarray:
        """The ground truth of a batch, as numpy. Raises ValueError where it has none."""

    @classmethod
    @abstractmethod
    def learn(cls, truths: Iterable[np.ndarray], size: int = 0) -> Prior:
        """What can be learned from the train split without its images, given its ground truths.

        Raises ValueError for none.
        """

    @abstractmethod
    def add(self, truth: np.ndarray) -> None:
        """Take in the truth of some images, as `truth` gives it."""

    def update(self, batch: Batch) -> None:
        """Take in the truth of a batch. Raises ValueError where it has none."""
        self.add(self.truth(batch))

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in what another worker gathered."""

    @abstractmethod
    def metrics(self) -> dict[str, dict[str, float]]:
        """Predictor to metric to value; every metric with a skill. NaN before the first image."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What was gathered, as arrays."""

    @abstractmethod
    def load(self, state: Mapping[str, Any]) -> None:
        """Replace what was gathered, by that of a state with or without a prior."""


class TrivialClasses(TrivialPredictors):
    """Class prior, majority class and the best constant, in closed form from the class counts.

    A constant probability q predicts the class k of its largest entry for every image: its accuracy
    is the share of k, its balanced accuracy 1 / the number of classes that occur, its AUROC ½, its
    Brier score ½ Σ_k s_k |q − e_k|² and its NLL −Σ_k s_k ln q_k with s_k the share of class k.
    """

    def __init__(self, prior: Prior | None = None, size: int = 0) -> None:
        super().__init__(prior)
        self._counts = np.zeros(0)
        self._learned = None if prior is None else prior.counts

    @staticmethod
    def truth(batch: Batch) -> np.ndarray:
        """The classes of the images, (B,)."""
        if batch.label is None:
            raise ValueError("trivial classifications need a batch with labels")
        return batch.label.detach().cpu().numpy()

    @classmethod
    def learn(cls, truths: Iterable[np.ndarray], size: int = 0) -> Prior:
        counts = np.zeros(0)
        for labels in truths:
            counts = _added(counts, np.bincount(labels))
        if not len(counts):
            raise ValueError("a prior needs the labels of the train split")
        return Prior(counts=_added(counts, np.zeros(size)))

    def add(self, truth: np.ndarray) -> None:
        self._counts = _added(self._counts, np.bincount(truth))

    def merge(self, other: Self) -> None:
        self._counts = _added(self._counts, other._counts)

    def metrics(self) -> dict[str, dict[str, float]]:
        constants: dict[str, np.ndarray] = {}
        if self._learned is not None:
            constants[CLASS_PRIOR] = self._learned / self._learned.sum()
            constants[MAJORITY_CLASS] = np.eye(len(self._learned))[self._learned.argmax()]
        total = self._counts.sum()
        constants[BEST_CONSTANT] = self._counts / total if total else self._counts
        return {name: _constant_metrics(q, self._counts) for name, q in constants.items()}

    def state_dict(self) -> dict[str, Any]:
        learned = {} if self._learned is None else {"learned": self._learned.copy()}
        return {"counts": self._counts.copy(), **learned}

    def load(self, state: Mapping[str, Any]) -> None:
        self._counts = np.array(state["counts"], dtype=np.float64)
        learned = state.get("learned")
        self._learned = None if learned is None else np.array(learned, dtype=np.float64)


class TrivialLabels(TrivialPredictors):
    """Prior and best constant of several labels, in closed form from how often each occurs.

    With r the share of the images that have a label among those where it is known, a constant
    probability q has an AUROC of ½, an average precision of r, a Brier score of
    r(1 − q)² + (1 − r)q² and an NLL of −r ln q − (1 − r) ln(1 − q); metrics are means over the
    labels of which anything is known (AUROC: that some images have and some have not; average
    precision: that some image has). Its accuracy is that of all known labels, r where q > ½ and
    1 − r elsewhere.
    """

    def __init__(self, prior: Prior | None = None, size: int = 0) -> None:
        super().__init__(prior)
        self._total = np.zeros((2, 0))
        self._learned = None if prior is None else prior.rates

    @staticmethod
    def truth(batch: Batch) -> np.ndarray:
        """The labels of the images, (B, K): 0 or 1, NaN where unknown."""
        if batch.label is None or batch.label.ndim != 2:
            raise ValueError("trivial predictions of several labels need a batch with labels")
        return batch.label.detach().double().cpu().numpy()

    @classmethod
    def learn(cls, truths: Iterable[np.ndarray], size: int = 0) -> Prior:
        total = np.zeros((2, 0))
        for labels in truths:
            total = _label_counts(total, labels)
        if not total.size:
            raise ValueError("a prior needs the labels of the train split")
        return Prior(rates=_rates(total))

    def add(self, truth: np.ndarray) -> None:
        self._total = _label_counts(self._total, truth)

    def merge(self, other: Self) -> None:
        if other._total.size:
            self._total = other._total + (self._total if self._total.size else 0)

    def metrics(self) -> dict[str, dict[str, float]]:
        rates = _rates(self._total)
        constants = {} if self._learned is None else {LABEL_PRIOR: self._learned}
        constants[BEST_CONSTANT] = rates
        return {name: _label_metrics(q, rates, self._total) for name, q in constants.items()}

    def state_dict(self) -> dict[str, Any]:
        learned = {} if self._learned is None else {"learned": self._learned.copy()}
        return {"total": self._total.copy(), **learned}

    def load(self, state: Mapping[str, Any]) -> None:
        self._total = np.array(state["total"], dtype=np.float64)
        learned = state.get("learned")
        self._learned = None if learned is None else np.array(learned, dtype=np.float64)


class TrivialSurvival(TrivialPredictors):
    """One survival curve for all: of the train split, and the best of the split itself.

    - Kaplan-Meier: Kaplan and Meier's estimate where each interval ends.
    - life table: the hazards of most likelihood, events in an interval among those who reach it.
    - best constant: of the split itself, by either.

    All have a concordance of ½. Keeps 24 bytes a sample.
    """

    columns = ("time", "event")

    def __init__(self, prior: Prior | None = None, size: int = 0) -> None:
        super().__init__(prior, size)
        self._truths: list[np.ndarray] = []
        self._learned = None if prior is None else prior.survival

    @staticmethod
    def stored_truth(columns: Sequence[np.ndarray], manifest: Manifest) -> np.ndarray:
        time, event = (column.astype(np.float64) for column in columns)
        assert manifest.follow_up is not None
        interval = np.digitize(time, manifest.follow_up.edges[1:-1]).astype(np.float64)
        interval[np.isnan(time)] = math.nan
        return np.stack([time, event, interval], axis=1)

    @staticmethod
    def truth(batch: Batch) -> np.ndarray:
        """(B, 3): time, event and interval."""
        if batch.time is None or batch.event is None or batch.interval is None:
            raise ValueError("trivial survival curves need a batch with times and events")
        parts = (batch.time, batch.event, batch.interval)
        return np.stack([part.detach().double().cpu().numpy() for part in parts], axis=1)

    @staticmethod
    def names(manifest: Manifest) -> tuple[str, ...]:
        """None: intervals have no names."""
        return ()

    @classmethod
    def learn(cls, truths: Iterable[np.ndarray], size: int = 0) -> Prior:
        known = _known_times([*truths])
        if not len(known):
            raise ValueError("a prior needs the times of the train split")
        return Prior(survival=_survival_curves(known, int(known[:, 2].max()) + 1))

    def add(self, truth: np.ndarray) -> None:
        self._truths.append(np.array(truth, dtype=np.float64))

    def merge(self, other: Self) -> None:
        self._truths += other._truths

    def metrics(self) -> dict[str, dict[str, float]]:
        known = _known_times(self._truths)
        # In one order, whatever that of arrival.
        known = known[np.lexsort(known.T)]
        count = int(known[:, 2].max(initial=0)) + 1
        curves: dict[str, np.ndarray] = {}
        if self._learned is not None:
            count = self._learned.shape[1]
            curves = dict(zip((KAPLAN_MEIER, LIFE_TABLE), self._learned, strict=True))
        figures = {name: _curve_metrics(curve, known) for name, curve in curves.items()}
        best = [_curve_metrics(curve, known) for curve in _survival_curves(known, count)]
        return {
            **figures,
            BEST_CONSTANT: {n: _better(n, [row[n] for row in best]) for n in best[0]},
        }

    def state_dict(self) -> dict[str, Any]:
        learned = {} if self._learned is None else {"learned": self._learned.copy()}
        return {"truths": np.concatenate([np.zeros((0, 3)), *self._truths]), **learned}

    def load(self, state: Mapping[str, Any]) -> None:
        self._truths = [np.array(state["truths"], dtype=np.float64)]
        learned = state.get("learned")
        self._learned = None if learned is None else np.array(learned, dtype=np.float64)


class _ConstantMask(NamedTuple):
    """The prediction of a trivial predictor for every image of n pixels.

    Attributes:
        mask: (C, n / 8) uint8, the pixels called each foreground, eight to a byte.
        area: (C,) how many these are.
        nll, brier: What a pixel costs, (T, n), for each truth that it can have: one of K classes,
            or each foreground in turn absent, then each present.
    """

    mask: np.ndarray
    area: np.ndarray
    nll: np.ndarray
    brier: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray, exclusive: bool) -> Self:
        """From the probability of each foreground, (C, n) float64."""
        if exclusive:
            p = np.concatenate([1 - p.sum(axis=0, keepdims=True), p]).clip(0, 1)
            mask = p.argmax(axis=0) == np.arange(1, len(p))[:, None]
            costs = ((p * p).sum(axis=0) - 2 * p + 1) / 2
        else:
            mask = p > 0.5
            costs = np.concatenate([p * p, (1 - p) * (1 - p)])
            p = np.concatenate([1 - p, p])
        nll = -np.log(np.clip(p, NLL_CLAMP, 1 - NLL_CLAMP))
        return cls(np.packbits(mask, axis=1), mask.sum(axis=1).astype(np.float64), nll, costs)


class TrivialMasks(TrivialPredictors):
    """Empty and full mask, the train split's mean mask and its best fixed mask, the best constant.

    As they predict the same for every image, Brier score and NLL follow from how many images have a
    lesion at each pixel, and overlaps from counts of bits. The best constant probability is the
    share of lesion pixels among all, so that its Brier score is r(1 − r); as a mask it is empty, or
    full where r > ½.

    Here masks are those of independent regions; of a single lesion there is one.
    """

    columns = ("mask",)
    #: Whether a pixel has one class of several, the background first.
    exclusive: ClassVar[bool] = False

    def __init__(self, prior: Prior | None = None, size: int = 0) -> None:
        super().__init__(prior)
        self._size = size if self.exclusive else 0
        if prior is not None and prior.mean is not None:
            self._size = len(prior.mean)
        self._states: dict[str, tuple[Overlap, ProperScores]] = {}
        self._masks: dict[tuple[int, ...], dict[str, _ConstantMask]] = {}

    @staticmethod
    def names(manifest: Manifest) -> tuple[str, ...]:
        # Not the classes of the label that images may have beside their masks.
        return manifest.regions or manifest.mask_names[1:]

    @staticmethod
    def truth(batch: Batch) -> np.ndarray:
        """The masks, (B, 1 or R, *spatial) uint8: 0 or 1, or the class."""
        if batch.mask is None:
            raise ValueError("trivial segmentations need a batch with masks")
        return batch.mask.detach().byte().cpu().numpy()

    @classmethod
    def learn(cls, truths: Iterable[np.ndarray], size: int = 0) -> Prior:
        total, images, having = np.zeros(()), 0, np.zeros(0)
        for masks in truths:
            rows = cls._members(masks, max(size, len(having)))
            images += len(rows)
            having = _added(having, rows.any(axis=tuple(range(2, rows.ndim))).sum(axis=0))
            more = rows.sum(axis=0, dtype=np.float64)
            if total.ndim and len(total) < len(more):
                # A class that earlier images did not show.
                total = np.concatenate([total, np.zeros_like(more[len(total) :])])
            total = total + more
        if not total.ndim:
            raise ValueError("a prior needs the masks of the train split")
        fixed = np.stack([_fixed(one, int(n)) for one, n in zip(total, having, strict=True)])
        if cls.exclusive:
            commonest = np.where(fixed, total, -1).argmax(axis=0)
            fixed &= commonest == np.arange(len(total)).reshape(-1, *[1] * commonest.ndim)
        return Prior(mean=(total / images).astype(np.float32), fixed=fixed)

    def add(self, truth: np.ndarray) -> None:
        member = self._members(truth, self._size)
        if self._size not in (0, member.shape[1]):
            raise ValueError(f"{member.shape[1]} classes or regions, where there were {self._size}")
        self._size = member.shape[1]
        rows = member.reshape(*member.shape[:2], -1)
        pixels = rows.shape[2]
        present = rows.sum(axis=0, dtype=np.float64)
        absent = len(rows) - (present.sum(axis=0, keepdims=True) if self.exclusive else present)
        images = np.concatenate([absent, present])
        bits = np.packbits(rows, axis=2)
        lesion = _ones(bits)
        for name, constant in self._constant_masks(truth.shape[2:]).items():
            overlap, scores = self._state(name)
            predicted = np.broadcast_to(constant.area, lesion.shape)
            overlap.count(_ones(bits & constant.mask), predicted, lesion, pixels=pixels)
            scores.add(
                pixels=images.sum(),
                nll=(images * constant.nll).sum(),
                brier=(images * constant.brier).sum(),
            )

    def merge(self, other: Self) -> None:
        self._size = max(self._size, other._size)
        for name, states in other._states.items():
            for mine, theirs in zip(self._state(name), states, strict=True):
                mine.merge(theirs)

    def metrics(self) -> dict[str, dict[str, float]]:
        names = [EMPTY_MASK, *self._full]
        if self._prior is not None:
            names += [MEAN_MASK, FIXED_MASK]
        metrics = {
            name: {**overlap.compute(), **scores.compute()}
            for name, (overlap, scores) in ((name, self._state(name)) for name in names)
        }
        full = {name: metrics.pop(name) for name in self._full}
        # One class everywhere: the best of them.
        metrics[FULL_MASK] = max(full.values(), key=lambda row: row["dice_lesion"])
        metrics[BEST_CONSTANT] = self._best_constant()
        order = [EMPTY_MASK, FULL_MASK, *names[1 + len(full) :], BEST_CONSTANT]
        return {name: metrics[name] for name in order}

    def _best_constant(self) -> dict[str, float]:
        empty, scores = self._state(EMPTY_MASK)
        rows = 1 if self.exclusive else self._size
        # Pixels of each foreground, each counted with all others.
        pixels = scores.sums["pixels"] / max(rows, 1)
        rate = shares(np.atleast_1d(empty.sums["lesion"]), pixels)
        if self.exclusive:
            rate = np.concatenate([[1 - rate.sum()], rate])
            likelier = int(rate.argmax())
            name = EMPTY_MASK if likelier == 0 else f"{FULL_MASK} {likelier}"
            overlap = self._state(name)[0]
            nll, brier = -rate * np.log(_likely(rate)), (1 - (rate * rate).sum()) / 2
            return {**overlap.compute(), "nll": float(nll.sum()), "brier": float(brier)}
        overlap, full, large = Overlap(), self._state(FULL_MASK)[0], rate > 0.5
        for name, amount in empty.sums.items():
            # Each foreground is called empty or full by itself.
            chosen = large if np.ndim(amount) else large.any()
            overlap.sums[name] = np.where(chosen, full.sums[name], amount)
        nll = -(rate * np.log(_likely(rate)) + (1 - rate) * np.log(_likely(1 - rate)))
        brier = rate * (1 - rate)
        return {**overlap.compute(), "nll": float(nll.mean()), "brier": float(brier.mean())}

    def state_dict(self) -> dict[str, Any]:
        states = {n: [s.state_dict() for s in states] for n, states in self._states.items()}
        return {"size": self._size, "learned": self._prior is not None, "states": states}

    def load(self, state: Mapping[str, Any]) -> None:
        self._size = int(state["size"])
        # Of the prior, only whether there is one is still asked.
        self._prior = Prior() if state["learned"] else None
        self._states = {
            name: (Overlap.from_state_dict(overlap), ProperScores.from_state_dict(scores))
            for name, (overlap, scores) in state["states"].items()
        }

    @classmethod
    def _members(cls, masks: np.ndarray, size: int) -> np.ndarray:
        """(B, C, *spatial) bool: where each foreground is."""
        if not cls.exclusive:
            return np.asarray(masks != 0)
        size = max(size, int(masks.max(initial=0)))
        places = np.arange(1, size + 1).reshape(-1, *[1] * (masks.ndim - 2))
        return np.asarray(masks == places)

    @property
    def _full(self) -> list[str]:
        if not self.exclusive:
            return [FULL_MASK]
        return [f"{FULL_MASK} {k}" for k in range(1, max(self._size, 1) + 1)]

    def _state(self, name: str) -> tuple[Overlap, ProperScores]:
        return self._states.setdefault(name, (Overlap(), ProperScores()))

    def _constant_masks(self, size: tuple[int, ...]) -> dict[str, _ConstantMask]:
        """The prediction of each predictor for images of this size."""
        if size not in self._masks:
            zeros = np.zeros((self._size, math.prod(size)))
            given = {EMPTY_MASK: zeros}
            for place, name in enumerate(self._full):
                given[name] = zeros + 1
                if self.exclusive:
                    given[name] = zeros + (np.arange(self._size)[:, None] == place)
            if self._prior is not None:
                assert self._prior.mean is not None
                assert self._prior.fixed is not None
                given[MEAN_MASK] = _resized(self._prior.mean, size, "area")
                # The mask at another size is the one that its truth has there, too.
                given[FIXED_MASK] = _resized(self._prior.fixed, size, "nearest-exact")
            self._masks[size] = {
                name: _ConstantMask.of(p, self.exclusive) for name, p in given.items()
            }
        return self._masks[size]


class TrivialClassMasks(TrivialMasks):
    """The same of several classes that exclude each other, (B, 1, *spatial) their index.

    The full mask is the foreground that is best at `dice_lesion` everywhere; the mean mask gives
    every class its share of the train images at each pixel.
    """

    exclusive = True

    @staticmethod
    def names(manifest: Manifest) -> tuple[str, ...]:
        return manifest.classes[1:]


#: By task; each is its task's own `trivial`, found without loading torch.
TRIVIAL: dict[TaskName, type[TrivialPredictors]] = {
    TaskName.SEGMENTATION: TrivialMasks,
    TaskName.MULTICLASS_SEGMENTATION: TrivialClassMasks,
    TaskName.REGION_SEGMENTATION: TrivialMasks,
    TaskName.CLASSIFICATION: TrivialClasses,
    TaskName.MULTILABEL: TrivialLabels,
    TaskName.SURVIVAL: TrivialSurvival,
}


def _ones(bits: np.ndarray) -> np.ndarray:
    """How many bits of each row are set: (B, C, n / 8) to (B, C) float64."""
    return np.bitwise_count(bits).sum(axis=2, dtype=np.float64)


def _resized(values: np.ndarray, size: tuple[int, ...], mode: str) -> np.ndarray:
    """Values (C, *spatial) at another size, in C lines of float64."""
    if values.shape[1:] == size:
        return values.reshape(len(values), -1).astype(np.float64)
    # At a rung alone: a study is checked at full size.
    import torch
    import torch.nn.functional as F

    whole = torch.from_numpy(values).double()[None]
    return F.interpolate(whole, size, mode=mode).numpy().reshape(len(values), -1)


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of counts of which either may know of more classes."""
    total = np.zeros(max(len(one), len(other)))
    total[: len(one)] += one
    total[: len(other)] += other
    return total


def _likely(p: np.ndarray) -> np.ndarray:
    return np.clip(p, NLL_CLAMP, 1 - NLL_CLAMP)


def _label_counts(total: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(2, K) with labels (B, K) added: images that have each, and images where it is known."""
    known = ~np.isnan(labels)
    more = np.stack([np.where(known, labels, 0).sum(axis=0, dtype=np.float64), known.sum(axis=0)])
    return more + (total if total.size else 0)


def _rates(total: np.ndarray) -> np.ndarray:
    return np.divide(total[0], total[1], out=np.full(total.shape[1], math.nan), where=total[1] > 0)


def _label_metrics(q: np.ndarray, rates: np.ndarray, total: np.ndarray) -> dict[str, float]:
    """What the probabilities q of the labels give; `total` as `_label_counts` has it."""
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


def _known_times(truths: Sequence[np.ndarray]) -> np.ndarray:
    """(n, 3) of those whose time is known."""
    every = np.concatenate([np.zeros((0, 3)), *truths])
    return every[~np.isnan(every).any(axis=1)]


def _survival_curves(truth: np.ndarray, intervals: int) -> np.ndarray:
    """(2, K): Kaplan and Meier's estimate where each interval ends, and that of the hazards d/n of
    most likelihood; 1 where nobody is at risk."""
    time, event, interval = truth.T
    _, alive = kaplan_meier(time, event)
    # Times of an interval are all before those of the next.
    until = [np.unique(time[interval <= k]).size for k in range(intervals)]
    here = np.bincount(interval.astype(int), event, intervals)[:intervals]
    reached = np.bincount(interval.astype(int), minlength=intervals)[:intervals][::-1].cumsum()[
        ::-1
    ]
    return np.stack([np.append(1.0, alive)[until], np.cumprod(1 - here / np.maximum(reached, 1))])


def _curve_metrics(curve: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """What one curve (K,) for all gives; NaN where nothing can be told."""
    names = ("c_index", "c_index_ipcw", "integrated_brier", "nll")
    if not len(truth):
        return dict.fromkeys(names, math.nan)
    columns = {
        **dict(zip(("time", "event", "interval"), truth.T, strict=True)),
        "risk": np.zeros(len(truth)),
        "survival": np.tile(curve, (len(truth), 1)),
    }
    once = np.ones((1, len(truth)))
    return {name: float(SURVIVAL[name](columns)(once)[0]) for name in names}


def _better(metric: str, values: Sequence[float]) -> float:
    return max(values) if METRICS[metric].direction == "max" else min(values)


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


def _constant_metrics(q: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """What the probabilities q give on images of which there are `counts` of each class."""
    classes = max(len(q), len(counts))
    q, counts = _added(q, np.zeros(classes)), _added(counts, np.zeros(classes))
    total, occurring = counts.sum(), int((counts > 0).sum())
    if not total:
        names = ("accuracy", "balanced_accuracy", "f1", "auroc", "nll", "brier")
        return dict.fromkeys(names, math.nan)
    shares, predicted = counts / total, int(q.argmax())
    # F1 averages over the classes that occur in truth or prediction.
    averaged = occurring + (counts[predicted] == 0)
    distance = ((q - np.eye(classes)) ** 2).sum(axis=1)
    return {
        "accuracy": float(shares[predicted]),
        "balanced_accuracy": float(counts[predicted] > 0) / occurring,
        "f1": float(2 * shares[predicted] / (1 + shares[predicted]) / averaged),
        "auroc": 0.5 if occurring > 1 else math.nan,
        "nll": float(-(shares * np.log(np.clip(q, NLL_CLAMP, 1 - NLL_CLAMP))).sum()),
        "brier": float((shares * distance).sum() / 2),
    }
