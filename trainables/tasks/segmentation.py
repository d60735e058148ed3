"""Which pixels belong to the lesion?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch, TaskName
from trustsweep.trainables.attacks.losses import Decisions, overlap_harm
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.metrics import resampled
from trustsweep.trainables.metrics.base import foreground
from trustsweep.trainables.metrics.calibration import image_gaps, region_of
from trustsweep.trainables.metrics.overlap import dice, image_counts
from trustsweep.trainables.metrics.sparsification import ause
from trustsweep.trainables.metrics.trivial import TrivialMasks
from trustsweep.trainables.tasks.base import AttackLosses, Task, picture

#: Pixels of an image beyond which a temperature is fitted on as many of them, evenly spaced.
_PIXELS = 16_384


class Segmentation(Task):
    """One foreground: scores (B, 1, *spatial) are its log-odds, masks 0 or 1.

    Columns by image: `dice`, `lesion_pixels` and `predicted_pixels`, `pixels`, `brier` (mean of its
    pixels), `ause` (see `Sparsification`), `gap` (15: Σ (correct − confidence) of the pixels of
    each bin of confidence), and `region_pixels` and `region_gap` (15), the same of the pixels of
    `RegionCalibration`.
    """

    name = TaskName.SEGMENTATION
    skill = "dice_lesion"
    classed = False
    losses = AttackLosses(
        first="dice",
        others=("soft-dice", "cross-entropy", "masked-cross-entropy", "jensen-shannon"),
        thorough=True,
        to_boundary=False,
    )
    trivial = TrivialMasks
    statistics = resampled.SEGMENTATION
    group_metrics: ClassVar = ("dice_lesion", "false_alarms", "ece_region")

    def truth(self, batch: Batch) -> Tensor:
        if batch.mask is None:
            raise ValueError(f"{self} needs a batch with masks")
        return batch.mask

    def harm(self, decisions: Decisions) -> Tensor:
        return overlap_harm(decisions)

    def performance(self, decisions: Decisions) -> Tensor:
        return (1 - overlap_harm(decisions)).clamp(0, 1)

    def counted(self, batch: Batch) -> Tensor:
        """The images with a lesion; all, if none has one."""
        lesion = self.truth(batch).flatten(1).any(dim=1).cpu()
        return lesion if bool(lesion.any()) else torch.ones_like(lesion)

    def chance(self, batch: Batch, outputs: int, counted: Tensor) -> float:
        """Of the full mask."""
        area = self.truth(batch).flatten(1).double().mean(dim=1).cpu()[counted]
        return float((2 * area / (1 + area)).mean())

    def columns(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
        p, truth = foreground(prediction, batch)
        miss = (truth - p).abs()
        _, predicted, lesion = image_counts(p, truth)
        region = region_of(p, truth, prediction.probability.shape[2:])
        return {
            "dice": dice(p, truth),
            "lesion_pixels": lesion,
            "predicted_pixels": predicted,
            "pixels": torch.full_like(lesion, p.shape[1]),
            "brier": miss.square().mean(dim=1),
            "ause": ause(miss, doubt.flatten(1)),
            "gap": image_gaps(p, truth),
            "region_pixels": region.sum(dim=1).to(torch.float64),
            "region_gap": image_gaps(p, truth, region),
        }

    def labelled_scores(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        step = -(-scores[0, 0].numel() // _PIXELS)
        flat = scores.flatten(2)[..., ::step].transpose(1, 2).flatten(0, 1)
        truth = self.truth(batch).flatten(1)[:, ::step].flatten()
        return flat.double().cpu(), truth.long().cpu()

    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"mask": picture(self.truth(batch))}

    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        return {
            "probability": picture(prediction.probability),
            "uncertainty": picture(doubt.unsqueeze(1)),
        }
