"""What can be learned from a train split without its images. Free of torch, as it travels with
settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Prior:
    """What a model can learn of the train split without looking at an image.

    Attributes:
        counts: (K,) images of each class; None but for classifications.
        mean: (C, *spatial) float32 in [0, 1], the share of the images with each foreground (the
            lesion; each class but the background; each region) at each pixel; None but for
            segmentations.
        fixed: (C, *spatial) bool, for each foreground the mask that, given for every image that has
            it, has the largest pooled Dice on these; of classes that exclude each other, pixels of
            several are left to the commonest there. None but for segmentations.
        rates: (K,) share of the images, among those where it is known, that have each label; NaN
            where it is never known. None but for several labels.
        survival: (2, K) probabilities of no event up to the end of each interval, by Kaplan and
            Meier's estimate and by maximum likelihood; None but for survival.
    """

    counts: np.ndarray | None = None
    mean: np.ndarray | None = None
    fixed: np.ndarray | None = None
    rates: np.ndarray | None = None
    survival: np.ndarray | None = None
