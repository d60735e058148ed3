"""What an attack raises, of a network and of the truth of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.schema import Batch
from trustsweep.trainables.attacks.losses import LOSSES, Decisions, decision_losses
from trustsweep.trainables.contract import Method, Progress

#: A batch to scores, with gradient; see `Prediction.scores`.
Scores = Callable[[Batch], Tensor]


class Victim(Protocol):
    """A network under attack. Gradients flow from the losses to `batch.image`.

    Attributes:
        network: Put into evaluation mode, with its parameters frozen, while the attack runs.
    """

    network: nn.Module

    def loss(self, batch: Batch) -> Tensor:
        """(B,): one loss per sample, each of its own image alone."""
        ...

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`loss`, and (B,) without gradient: `Task.harm`, larger is worse."""
        ...

    def pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, n) losses whose mean per sample is maximised, and (B, n) bool, which are right."""
        ...


class ScoreVictim:
    """A loss of the predicted scores, the same for every method.

    Comparing methods by attacks on their own losses would measure the losses as well.

    Args:
        loss: One of `LOSSES`.
        scores: How the scores are to be differentiated, where there are several ways; see
            `Method.gradients`.
    """

    def __init__(
        self,
        method: Method,
        network: nn.Module,
        loss: str = "cross-entropy",
        scores: Scores | None = None,
    ) -> None:
        self.method = method
        self.network = network
        self._loss = LOSSES[loss]
        self._scores = scores or (lambda batch: method.scores(network, batch))

    def loss(self, batch: Batch) -> Tensor:
        loss: Tensor = self._loss(self.decisions(batch))
        return loss

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        decisions = self.decisions(batch)
        return self._loss(decisions), self.method.task.harm(decisions).detach()

    def pixels(self, batch: Batch) -> tuple[Tensor, Tensor]:
        decisions = self.decisions(batch)
        return decision_losses(decisions), decisions.right

    def decisions(self, batch: Batch) -> Decisions:
        """The predictions for a batch beside its ground truth."""
        return self.method.task.decisions(self._scores(batch), batch)


class TrainingVictim(ScoreVictim):
    """The method's own training loss; harm is that of its scores."""

    def __init__(self, method: Method, network: nn.Module, progress: Progress) -> None:
        super().__init__(method, network)
        self.progress = progress

    def loss(self, batch: Batch) -> Tensor:
        return self.method.loss(self.network, batch, self.progress).per_sample

    def look(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            done = self.method.task.harm(self.decisions(batch))
        return self.loss(batch), done


def mean_harm(victim: Victim, batch: Batch, draws: int) -> Tensor:
    """(B,) without gradient: the harm (`Victim.look`), the mean of `draws`; −inf for NaN."""
    with torch.no_grad():
        harm = torch.stack([victim.look(batch)[1] for _ in range(draws)]).mean(0)
    return harm.masked_fill(harm.isnan(), -math.inf)
