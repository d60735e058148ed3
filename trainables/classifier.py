"""What a whole image shows, 2-D or 3-D: its class, its findings, or how long the patient lives."""

from __future__ import annotations

from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.needs import IMAGES
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Config, Loss, Method, Prediction, Progress
from trustsweep.trainables.networks import chosen
from trustsweep.trainables.settings import number
from trustsweep.trainables.tasks import SampleTask


class Classifier(Method):
    """A residual network or another, for whole images: their class, several labels, or survival.

    The data decide which. Training minimises the negative log-likelihood with smoothed labels
    (`SampleTask.loss`).

    Config: `network` (of those for images in `NETWORKS`) and its own, `dropout` of the features
    that its last layer sees, and `label_smoothing` (s), both in [0, 1].
    """

    tasks = (TaskName.CLASSIFICATION, TaskName.MULTILABEL, TaskName.SURVIVAL)
    needs = IMAGES
    uncertainties = ("entropy", "least-confidence")
    weighs_classes = True

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for a missing or impossible config value, or data that do not fit."""
        super().__init__(config, manifest)
        if not manifest.image_shape:
            raise UserError(f"{manifest.name}: no images here, which this classifies.")
        assert isinstance(self.task, SampleTask)
        self._head: SampleTask = self.task
        self._outputs = self._head.outputs(manifest)
        self._family = chosen(config, manifest, "images", default="resnet")
        self._smoothing = number(config, "label_smoothing", low=0, high=1)

    def network(self) -> nn.Module:
        return self._family.build(self._outputs)

    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        scores = self.scores(network, batch)
        per_sample = self._head.loss(scores, batch, self._smoothing, self.class_weights)
        total = per_sample.mean()
        return Loss(total, per_sample, {"cross-entropy": total.detach()})

    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        scores = self.scores(network, batch)
        maps = self._head.maps(scores)
        kept = {name: maps[name] for name in self.uncertainties}
        return Prediction(scores, kept, exclusive=self._head.exclusive)

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        logit: Tensor = network(batch.image).float()
        return logit
