"""A model of one's own, as a plug-in: logistic regression on all pixels.

trustsweep train linear --plugin docs/examples/own_model.py --data data/phantoms
"""

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import nn

from trustsweep.data_pipelines.schema import TaskName
from trustsweep.trainables.contract import Loss, Method, Prediction
from trustsweep.trainables.networks import Standardise
from trustsweep.trainables.registry import METHODS
from trustsweep.trainables.settings import number
from trustsweep.trainables.uncertainty import categorical_maps


class Linear(Method):
    """A linear classifier; cross-entropy with smoothed labels."""

    tasks = (TaskName.CLASSIFICATION,)
    uncertainties = ("entropy", "least-confidence")
    space: ClassVar = {
        "label_smoothing": {"low": 0.0, "high": 0.2, "default": 0.0, "within": [0, 1]}
    }

    def network(self):
        m = self.manifest
        scores = nn.Linear(math.prod(m.image_shape), len(m.classes))
        return nn.Sequential(Standardise(m.mean, m.std, m.spatial_dims), nn.Flatten(), scores)

    def loss(self, network, batch, progress):
        smoothing = number(self.config, "label_smoothing", low=0, high=1)
        scores = network(batch.image)
        each = F.cross_entropy(scores, batch.label, label_smoothing=smoothing, reduction="none")
        return Loss(each.mean(), each)

    def predict(self, network, batch):
        scores = network(batch.image).float()
        return Prediction(scores, categorical_maps(scores.softmax(dim=1)))


METHODS.register("linear", Linear)
