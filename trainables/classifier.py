"""Classification of whole images, 2-D or 3-D."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.needs import IMAGES
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Config, Loss, Method, Prediction, Progress
from trustsweep.trainables.losses import class_weight
from trustsweep.trainables.networks import chosen
from trustsweep.trainables.settings import number
from trustsweep.trainables.uncertainty import bernoulli_maps, categorical_maps, mean_maps


class Classifier(Method):
    """A residual network or another, one class per image; cross-entropy with smoothed labels.

    Two classes share one output, the probability of the second (sigmoid); more have one output
    each (softmax). Smoothing by s gives the true class 1 − s + s/K of the target and every other
    one s/K (Szegedy et al. 2016, arXiv 1512.00567).

    Config: `network` (of those for images in `NETWORKS`) and its own, `dropout` of the features
    that its last layer sees, and `label_smoothing` (s), both in [0, 1].
    """

    tasks = (TaskName.CLASSIFICATION, TaskName.MULTILABEL)
    needs = IMAGES
    uncertainties = ("entropy", "least-confidence")
    weighs_classes = True

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        if not manifest.image_shape:
            raise UserError(f"{manifest.name}: no images here, which this classifies.")
        self._labels = not self.task.exclusive
        self._outputs = self.task.outputs(manifest)
        self._family = chosen(config, manifest, "images", default="resnet")
        self._smoothing = number(config, "label_smoothing", low=0, high=1)

    def network(self) -> nn.Module:
        return self._family.build(self._outputs)

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        per_sample = self._cross_entropy(network(batch.image).float(), self.task.truth(batch))
        total = per_sample.mean()
        return Loss(total, per_sample, {"cross-entropy": total.detach()})

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        logit = self.scores(network, batch)
        if self._labels:
            maps = mean_maps(bernoulli_maps(logit.sigmoid()))
        else:
            one = self._outputs == 1
            maps = categorical_maps(logit.sigmoid() if one else logit.softmax(dim=1))
        offered = {name: maps[name] for name in self.uncertainties}
        return Prediction(logit, offered, exclusive=not self._labels)

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        logit: Tensor = network(batch.image).float()
        return logit

    def _cross_entropy(self, logit: Tensor, label: Tensor) -> Tensor:
        """(B, outputs) and (B,), or (B, outputs) labels, to (B,), in nats; of several labels, the
        mean over those that are known."""
        if self._labels:
            known = ~label.isnan()
            target = label.nan_to_num() * (1 - self._smoothing) + self._smoothing / 2
            each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
            each = each * class_weight(
                self.class_weights, label.nan_to_num().long(), exclusive=False
            )
            return (each * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
        if self._outputs == 1:
            target = label * (1 - self._smoothing) + self._smoothing / 2
            return F.binary_cross_entropy_with_logits(logit[:, 0], target, reduction="none")
        return F.cross_entropy(logit, label, label_smoothing=self._smoothing, reduction="none")
