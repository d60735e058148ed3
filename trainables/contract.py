"""The contract between methods and everything that trains, attacks and judges them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from data_pipelines.schema import Batch, Manifest, Task

Config = Mapping[str, Any]


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

    Attributes:
        probability: (B, K, *spatial) for segmentation, (B, K) for classification, in [0, 1].
            K = 1 means the probability of the foreground (positive) class.
        uncertainty: Name to map (B, *spatial), or (B,) for classification. The names are those of
            `trainables.uncertainty.MAPS` that the method can offer; larger is less certain.
        attention: (B, H, W), where the method has one.
        reliability: (B, M), where the method has one.
    """

    probability: Tensor
    uncertainty: dict[str, Tensor]
    attention: Tensor | None = None
    reliability: Tensor | None = None


@dataclass(frozen=True)
class Progress:
    """How far training has come: `epoch` counts from 0 and may be fractional, of `epochs`."""

    epoch: float
    epochs: int


class Trainable(ABC):
    """A method: how its network is built, what it minimises and what it predicts. Pure torch.

    An instance belongs to one trial: `config` holds that trial's parameters (flat names, those of
    the trainable's search space), `manifest` describes the data.
    """

    task: ClassVar[Task]
    #: Uncertainty maps that `predict` returns; the first is the method's own default.
    uncertainties: ClassVar[tuple[str, ...]]

    def __init__(self, config: Config, manifest: Manifest) -> None:
        self.config = config
        self.manifest = manifest

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
        """One forward pass and what it says. Gradients flow if the caller enables them."""
