"""What a train split tells without its images. Free of torch: it travels with settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from trustsweep.data_pipelines.schema import Batch, Task


@dataclass(frozen=True)
class Prior:
    """What a model can learn of the train split without looking at an image.

    Attributes:
        counts: (K,) images of each class; None for segmentations.
        mean: (*spatial) float32 in [0, 1], the share of the images with a lesion at each pixel;
            None for classifications.
        fixed: (*spatial) bool, the mask that, given for every image with a lesion, has the
            largest pooled Dice on these; None for classifications.
    """

    counts: np.ndarray | None = None
    mean: np.ndarray | None = None
    fixed: np.ndarray | None = None

    @classmethod
    def of(cls, batches: Iterable[Batch], task: Task) -> Prior:
        """From the labels or masks of the train split.

        Raises ValueError for batches without them, or for no batch at all.
        """
        from trustsweep.trainables.metrics.trivial import TRIVIAL

        kind = TRIVIAL[task]
        return kind.learn(map(kind.truth, batches))
