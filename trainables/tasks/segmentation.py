"""Which pixels belong to the lesion, to each class, to each region?"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.attacks.losses import Decisions, overlap_harm
from trustsweep.trainables.contract import Prediction
from trustsweep.trainables.losses import members
from trustsweep.trainables.metrics import resampled
from trustsweep.trainables.metrics.calibration import image_gaps
from trustsweep.trainables.metrics.overlap import dice, image_counts
from trustsweep.trainables.metrics.pixels import Pixels
from trustsweep.trainables.metrics.prior import Prior
from trustsweep.trainables.metrics.resampled import Columns
from trustsweep.trainables.metrics.sparsification import ause
from trustsweep.trainables.metrics.trivial import TrivialClassMasks, TrivialMasks
from trustsweep.trainables.tasks.base import AttackLosses, Task, picture

#: Pixels of an image beyond which a temperature is fitted on as many of them, evenly spaced.
_PIXELS = 16_384
#: The columns of one foreground against the rest.
_OWN = "own_"


class Segmentation(Task):
    """One foreground: scores (B, 1, *spatial) are its log-odds, masks 0 or 1.

    Columns by image: `dice`, `lesion_pixels` and `predicted_pixels`, `pixels`, `brier` (mean of its
    pixels), `ause` (see `Sparsification`), `gap` (15: Σ (correct − confidence) of the pixels of
    each bin of confidence), and `region_pixels` and `region_gap` (15), the same of the pixels of
    `RegionCalibration`.

    Of several classes or regions the first three are (C,), one for each but the background, and
    the others of all together; `own_brier`, `own_gap`, `own_region_pixels` and `own_region_gap`
    are those of each against the rest (gaps 15 · C, foreground by foreground).
    """

    name = TaskName.SEGMENTATION
    skill = "dice_lesion"
    classed = False
    exclusive = False
    losses = AttackLosses(
        first="dice",
        others=("soft-dice", "cross-entropy", "masked-cross-entropy", "jensen-shannon"),
        thorough=True,
        to_boundary=False,
    )
    trivial = TrivialMasks
    statistics = resampled.SEGMENTATION
    group_metrics: ClassVar = ("dice_lesion", "false_alarms", "ece_region")

    def outputs(self, manifest: Manifest) -> int:
        return 1

    def truth(self, batch: Batch) -> Tensor:
        if batch.mask is None:
            raise ValueError(f"{self} needs a batch with masks")
        return batch.mask

    def harm(self, decisions: Decisions) -> Tensor:
        return overlap_harm(decisions)

    def performance(self, decisions: Decisions) -> Tensor:
        return (1 - overlap_harm(decisions)).clamp(0, 1)

    def counted(self, batch: Batch) -> Tensor:
        """The images with a lesion, or anything of a class or region; all, if none has one."""
        lesion = self.truth(batch).flatten(1).any(dim=1).cpu()
        return lesion if bool(lesion.any()) else torch.ones_like(lesion)

    def chance(self, batch: Batch, outputs: int, counted: Tensor) -> float:
        """Of the full mask; of several classes, of the best of them everywhere."""
        member = self.members(batch, outputs).flatten(2).double().cpu()[counted]
        area = member.mean(dim=2)
        there = (area > 0).double()
        each = 2 * area / (1 + area) / there.sum(dim=1, keepdim=True).clamp(min=1)
        return float(each.mean(dim=0).max() if self.exclusive else each.sum(dim=1).mean())

    def members(self, batch: Batch, outputs: int) -> Tensor:
        """(B, C, *spatial) bool: the pixels of each foreground, of scores with so many columns."""
        return self.truth(batch) > 0.5

    def columns(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, Tensor]:
        pixels = Pixels.of(prediction, batch)
        _, predicted, lesion = image_counts(pixels)
        columns = {
            "dice": self._flat(dice(pixels)),
            "lesion_pixels": self._flat(lesion),
            "predicted_pixels": self._flat(predicted),
            "pixels": torch.full_like(lesion[:, 0], pixels.right[0].numel() if len(lesion) else 0),
            "brier": pixels.squares.mean(dim=(1, 2)),
            "ause": ause(pixels.miss.mean(dim=1), doubt.flatten(1)),
            "gap": image_gaps(pixels).sum(dim=1),
            "region_pixels": pixels.region.sum(dim=(1, 2)).to(torch.float64),
            "region_gap": image_gaps(pixels, pixels.region).sum(dim=1),
        }
        if not self.part:
            return columns
        each = pixels.each
        own = {
            "brier": each.squares.mean(dim=2),
            "gap": image_gaps(each).flatten(1),
            "region_pixels": each.region.sum(dim=2).to(torch.float64),
            "region_gap": image_gaps(each, each.region).flatten(1),
        }
        return columns | {f"{_OWN}{name}": values for name, values in own.items()}

    def _flat(self, values: Tensor) -> Tensor:
        """(B, C), or (B,) of a single lesion."""
        return values if self.part else values[:, 0]

    def frequencies(self, prior: Prior) -> np.ndarray:
        share = np.zeros((0, 1)) if prior.mean is None else prior.mean
        share = share.reshape(len(share), -1).mean(axis=1, dtype=np.float64)
        return np.stack([1 - share, share], axis=1)

    def labelled_scores(self, scores: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        step = -(-scores[0, 0].numel() // _PIXELS)
        # Columns of their own are as many decisions.
        flat, truth = scores.flatten(2)[..., ::step], self.truth(batch).flatten(2)[..., ::step]
        size = scores.shape[1] if self.exclusive else 1
        flat = flat.transpose(1, 2) if self.exclusive else flat
        return flat.reshape(-1, size).double().cpu(), truth.flatten().long().cpu()

    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"mask": picture(self.truth(batch))}

    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        return {
            "probability": picture(prediction.probability),
            "uncertainty": picture(doubt.unsqueeze(1)),
        }


class _Several(Segmentation):
    """What several classes and several regions have in common: metrics of each, and of all.

    The report's arrays `mask` and `probability` are (n, columns, H, W); of a volume, its middle
    slice.
    """

    def parts(self, columns: Columns) -> np.ndarray:
        return (columns["lesion_pixels"] > 0).astype(np.float64)

    def of_part(self, columns: Columns, part: int) -> Columns:
        alone = {name: columns[name][:, part] for name in ("dice", "lesion_pixels")}
        alone["predicted_pixels"] = columns["predicted_pixels"][:, part]
        size = columns["lesion_pixels"].shape[1]
        alone["pixels"] = columns["pixels"] / (1 if self.exclusive else size)
        for name in ("brier", "gap", "region_pixels", "region_gap"):
            values = columns[f"{_OWN}{name}"]
            alone[name] = values.reshape(len(values), size, -1)[:, part]
        return {name: np.squeeze(v, 1) if v.shape[1:] == (1,) else v for name, v in alone.items()}

    def shown_truth(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"mask": _pictures(self.truth(batch))}

    def shown(self, prediction: Prediction, batch: Batch, doubt: Tensor) -> dict[str, np.ndarray]:
        return {
            "probability": _pictures(prediction.probability),
            "uncertainty": picture(doubt.unsqueeze(1)),
        }


class MulticlassSegmentation(_Several):
    """One class of K for each pixel, the background first: scores (B, K, *spatial) are
    log-probabilities up to a constant, masks (B, 1, *spatial) the index of the class.

    The background is no foreground: Dice and what resembles it are means over the other classes.
    """

    name = TaskName.MULTICLASS_SEGMENTATION
    exclusive = True
    part = "class"
    trivial = TrivialClassMasks

    def outputs(self, manifest: Manifest) -> int:
        if len(manifest.classes) < 2:
            raise UserError(f"{manifest.name}: a single class. A mask needs at least two.")
        return len(manifest.classes)

    def members(self, batch: Batch, outputs: int) -> Tensor:
        return members(self.truth(batch)[:, 0].long(), outputs)

    def frequencies(self, prior: Prior) -> np.ndarray:
        share = super().frequencies(prior)[:, 1]
        return np.concatenate([[1 - share.sum()], share])


class RegionSegmentation(_Several):
    """R regions that may overlap: scores (B, R, *spatial) are the log-odds of each, masks of the
    same shape 0 or 1."""

    name = TaskName.REGION_SEGMENTATION
    part = "region"

    def outputs(self, manifest: Manifest) -> int:
        if not manifest.regions:
            raise UserError(f"{manifest.name}: names no region of its masks.")
        return len(manifest.regions)

    def decisions(self, scores: Tensor, batch: Batch) -> Decisions:
        truth = self.truth(batch).flatten(1).float()
        return Decisions(scores.reshape(len(scores), 1, -1), truth, regions=scores.shape[1])


def _pictures(values: Tensor) -> np.ndarray:
    """(n, C, *spatial) to (n, C, H, W) float16, a channel each."""
    return np.stack([picture(one) for one in values.split(1, dim=1)], axis=1)
