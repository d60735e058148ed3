"""The contract between methods and everything that trains, attacks and evaluates them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.needs import ANYTHING, Needs
from trustsweep.data_pipelines.schema import Batch, Manifest, TaskName

if TYPE_CHECKING:
    from trustsweep.trainables.patches import Patches
    from trustsweep.trainables.tasks import Task

Config = Mapping[str, Any]
#: How far a probability may lie outside [0, 1] for the rounding of what it was computed from.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Loss:
    """What training minimises.

    Attributes:
        total: Scalar with gradient.
        parts: Named terms of `total`, detached scalars, for the logs.
        per_sample: (B,) with gradient. An attack maximises its sum, which keeps each sample's
            perturbation independent of the others in the batch; `total` is its mean.
    """

    total: Tensor
    per_sample: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """What everything downstream reads.

    A method predicts **scores in log space**, as a probability in float32
    saturates at 0 or 1: correctness, the gradients of attacks and every probability derive from
    the scores.

    Attributes:
        scores: (B, K, *spatial) for segmentation, (B, K) for classification, at least float32. Of
            K = 1, the log-odds ln p/(1 − p) of the foreground (positive) class. Of K >= 2, the
            log-probabilities up to a constant; of labels or regions, the log-odds of each. −inf and
            inf stand for 0 and 1.
        uncertainty: Name to map (B, *spatial), or (B,) for classification. The names are those of
            `trainables.uncertainty.MAPS` that the method can offer; larger is less certain.
        attention: (B, H, W), where the method has one.
        modality_weights: (B, M), where the method has one.
        exclusive: False where each of the K columns is a label of its own, given by its log-odds
            (several labels, regions that may overlap); with K = 1 there is no difference.
    """

    scores: Tensor
    uncertainty: dict[str, Tensor]
    attention: Tensor | None = None
    modality_weights: Tensor | None = None
    exclusive: bool = True

    @cached_property
    def probability(self) -> Tensor:
        """(B, K, *spatial) or (B, K) in [0, 1], of the scores: their sigmoid or softmax."""
        if self.scores.shape[1] > 1 and self.exclusive:
            return self.scores.softmax(dim=1)
        return self.scores.sigmoid()

    def select(self, rows: list[int]) -> Self:
        """The predictions for the samples at `rows`, in that order."""
        attention, weights = self.attention, self.modality_weights
        return dataclasses.replace(
            self,
            scores=self.scores[rows],
            uncertainty={name: values[rows] for name, values in self.uncertainty.items()},
            attention=None if attention is None else attention[rows],
            modality_weights=None if weights is None else weights[rows],
        )

    @classmethod
    def from_probability(
        cls, probability: Tensor, uncertainty: dict[str, Tensor], **more: Any
    ) -> Self:
        """Of a model that offers probabilities alone, in the shapes of `scores`.

        Nothing brings back what their rounding has taken: an attack on such a model is blind where
        they are 0 or 1. A value outside [0, 1] by more than rounding is made NaN.
        """
        p = probability.clamp(0, 1)
        p = p.masked_fill(~((probability - p).abs() <= _ROUNDING), torch.nan)
        one = p.shape[1] == 1 or not more.get("exclusive", True)
        return cls(p.logit() if one else p.log(), uncertainty, **more)


@dataclass(frozen=True)
class Progress:
    """How far training has come: `epoch` counts from 0 and may be fractional, of `epochs`."""

    epoch: float
    epochs: int


class Method(ABC):
    """A method: how its network is built, what it minimises and what it predicts. Pure torch.

    An instance belongs to one trial: `config` holds that trial's parameters (flat names, those of
    the method's search space), `manifest` describes the data.
    """

    #: The tasks it supports, by name; a trial uses the first that the data offer.
    tasks: ClassVar[tuple[TaskName, ...]]
    #: What it needs of the data beside a task.
    needs: ClassVar[Needs] = ANYTHING
    #: Uncertainty maps that `predict` returns; the first is the method's own default.
    uncertainties: ClassVar[tuple[str, ...]]
    #: Whether each prediction in evaluation mode is another draw; attacks then follow the mean
    #: gradient of several.
    stochastic: ClassVar[bool] = False
    #: Whether `loss` heeds `class_weights`.
    weighs_classes: ClassVar[bool] = False
    #: What the loss of each pixel or label is multiplied by: (K,) by its class, or of K answers of
    #: their own (K, 2), absent and present. Set before a training whose config asks for a
    #: `class_balance`; where each image has one class, the training loop itself weighs the images.
    class_weights: Tensor | None = None
    #: How large images are cut, for training and prediction; None where they are taken whole.
    patches: Patches | None = None

    def __init__(self, config: Config, manifest: Manifest) -> None:
        """Raises `UserError` for data that offer none of the method's tasks."""
        from trustsweep.trainables.tasks import task_named

        self.config = config
        self.manifest = manifest
        offered = [name for name in self.tasks if name in manifest.tasks]
        if not offered:
            raise UserError(
                f"{manifest.name}: offers {', '.join(manifest.tasks) or 'no task'}, and "
                f"{type(self).__name__} needs {' or '.join(self.tasks)}."
            )
        #: The task of this instance.
        self.task: Task = task_named(offered[0])

    @abstractmethod
    def network(self) -> nn.Module:
        """A freshly initialised network, (B, C, *spatial) in [0, 1] to the method's raw output.

        Standardising (z-score with the manifest's statistics) is its first layer, so that attacks
        and their ε live on [0, 1].
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch, progress: Progress) -> Loss:
        """One forward pass and the loss of each sample."""

    @abstractmethod
    def predict(self, network: nn.Module, batch: Batch) -> Prediction:
        """The prediction of one forward pass. Gradients flow if the caller enables them."""

    def scores(self, network: nn.Module, batch: Batch) -> Tensor:
        """The `scores` of `predict` alone, which attacks ask for again and again.

        Worth its own code where `predict` spends much on what stands beside them.
        """
        return self.predict(network, batch).scores

    def gradients(self, network: nn.Module) -> dict[str, Callable[[Batch], Tensor]]:
        """By name, functions that give the `scores` of a batch, each with another gradient.

        The first, "own", is what autograd makes of `scores`. A method whose own gradient can
        mislead an attack (a gate that is detached, or that saturates) adds the other ways to follow
        it, and is attacked along each of them.
        """
        return {"own": lambda batch: self.scores(network, batch)}
