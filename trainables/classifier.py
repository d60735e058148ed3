"""What a whole image shows, 2-D or 3-D: its class, its findings, or how long the patient lives."""

from __future__ import annotations

from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.needs import IMAGES
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName
from trustsweep.trainables.contract import Config, Loss, Method, Prediction, Progress
from trustsweep.trainables.networks import resnet
from trustsweep.trainables.settings import number, whole
from trustsweep.trainables.tasks import SampleTask


class Classifier(Method):
    """A residual network for whole images: their class, several labels, or survival.

    The data decide which. Training minimises the negative log-likelihood with smoothed labels
    (`SampleTask.loss`).

    Config: `width`, `depth` (>= 1), `convolutions` (1 or 2) of each of so many units, `full_size`,
    how many of them come before the first that halves the image; `dropout` and `label_smoothing`
    (s), both in [0, 1].
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
        self._width = whole(config, "width", low=1)
        self._depth = whole(config, "depth", low=1)
        self._convolutions = whole(config, "convolutions", low=1, high=2)
        self._full_size = whole(config, "full_size", low=0, high=self._depth)
        self._dropout = number(config, "dropout", low=0, high=1)
        self._smoothing = number(config, "label_smoothing", low=0, high=1)

    def network(self) -> nn.Module:
        return resnet(
            self.manifest,
            self._width,
            self._depth,
            self._outputs,
            self._dropout,
            convolutions=self._convolutions,
            full_size=self._full_size,
        )

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
