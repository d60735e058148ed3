"""Proper scores of the predicted probability, over all pixels or images."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.metrics.base import SumState, classes, ratio
from trustsweep.trainables.metrics.catalog import NLL_CLAMP

if TYPE_CHECKING:
    from trustsweep.trainables.contract import Prediction


class ProperScores(SumState):
    """Negative log-likelihood and Brier score, mean over the pixels of all images and regions.

    NLL = −ln of what was given to the truth, in nats, kept 1e-7 away from 0 and 1, so that one
    wrong pixel costs 16.1 at most. Brier = (p − y)² of the foreground or of each region alone (0 to
    1), of K classes ½ Σ_k (p_k − [k = y])², which is the same for two.
    """

    names = ("nll", "brier")
    fields: ClassVar[dict[str, tuple[int, ...]]] = {"pixels": (), "nll": (), "brier": ()}

    def update(self, prediction: Prediction, batch: Batch) -> None:
        from trustsweep.trainables.metrics.pixels import Pixels

        pixels = Pixels.of(prediction, batch)
        likelihood = (1 - pixels.miss).clamp(NLL_CLAMP, 1 - NLL_CLAMP).log()
        self.add(pixels=pixels.miss.numel(), nll=-likelihood.sum(), brier=pixels.squares.sum())

    def compute(self) -> dict[str, float]:
        return {name: ratio(self.sums[name], self.sums["pixels"]) for name in self.names}


class ClassScores(SumState):
    """The same of images, mean over all: NLL = −ln p_y, Brier = ½ Σ_k (p_k − [y = k])².

    The half (scikit-learn's `scale_by_half`) keeps Brier within 0 to 1 for any number of classes,
    and equal to (p − y)² for two.
    """

    names = ("nll", "brier")
    fields: ClassVar[dict[str, tuple[int, ...]]] = {"images": (), "nll": (), "brier": ()}

    def update(self, prediction: Prediction, batch: Batch) -> None:
        p, truth = classes(prediction, batch)
        likelihood = p.gather(1, truth.unsqueeze(1)).clamp(NLL_CLAMP, 1 - NLL_CLAMP).log()
        miss = p - p.new_zeros(p.shape).scatter(1, truth.unsqueeze(1), 1.0)
        self.add(images=len(p), nll=-likelihood.sum(), brier=(miss * miss).sum() / 2)

    def compute(self) -> dict[str, float]:
        return {name: ratio(self.sums[name], self.sums["images"]) for name in self.names}
