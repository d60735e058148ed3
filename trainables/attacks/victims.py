"""What an attack raises: a loss per sample, and per pixel for attacks that weigh pixels."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.schema import Batch, Task
from trainables.contract import Progress, Trainable


class Victim(Protocol):
    """A network under attack. Gradients flow from both results to `batch.image`.

    Attributes:
        network: Put into evaluation mode, with its parameters frozen, while the attack runs.
    """

    network: nn.Module

    def loss(self, batch: Batch) -> Tensor:
        """(B,): one loss per sample, each of its own image alone."""
        ...

    def pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, *) losses whose mean per sample is maximised, and (B, *) bool: is it right?"""
        ...


class PredictionVictim:
    """The cross-entropy of the predicted probability: the same for every method.

    Comparing methods by attacks on their own losses would measure the losses as well.
    """

    def __init__(self, trainable: Trainable, network: nn.Module) -> None:
        self.trainable = trainable
        self.network = network

    def loss(self, batch: Batch) -> Tensor:
        return self.pixels(batch)[0].reshape(len(batch), -1).mean(1)

    def pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        probability = self.trainable.predict(self.network, batch).probability
        return _cross_entropy(self.trainable.task, probability, batch)


class TrainingVictim(PredictionVictim):
    """The trainable's own loss, which adversarial training minimises again."""

    def __init__(self, trainable: Trainable, network: nn.Module, progress: Progress) -> None:
        super().__init__(trainable, network)
        self.progress = progress

    def loss(self, batch: Batch) -> Tensor:
        return self.trainable.loss(self.network, batch, self.progress).per_sample


def _cross_entropy(task: Task, probability: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Per pixel (segmentation), per label (multilabel) or per sample, with whether it is right."""
    truth = batch.mask if task is Task.SEGMENTATION else batch.label
    if truth is None:
        raise ValueError(f"{task} needs its truth in the batch")
    if task is Task.CLASSIFICATION and probability.shape[1] > 1:
        # The smallest normal number keeps the logarithm finite where a class has probability 0.
        log = probability.float().clamp_min(torch.finfo(torch.float32).tiny).log()
        return F.nll_loss(log, truth, reduction="none"), probability.argmax(1) == truth
    if task is Task.SEGMENTATION:
        probability, truth = probability[:, 0], truth[:, 0]
    elif task is Task.CLASSIFICATION:
        probability = probability[:, 0]
    # From probabilities torch refuses this loss under autocast.
    with torch.autocast(probability.device.type, enabled=False):
        loss = F.binary_cross_entropy(probability.float(), truth.float(), reduction="none")
    return loss, (probability > 0.5) == (truth > 0.5)
