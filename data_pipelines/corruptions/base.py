"""What every corruption is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from data_pipelines.errors import UserError


class Corruption(ABC):
    """A degradation of images in [0, 1], of any number of spatial dimensions.

    `severities` are the parameters of severities 1 to 5, those of MedMNIST-C's chest set
    (Di Salvo et al., 2406.17536).
    """

    name: ClassVar[str]
    severities: ClassVar[tuple[float, float, float, float, float]]

    def __call__(self, image: Tensor, severity: int, seeds: Tensor) -> Tensor:
        """Corrupt a batch.

        Args:
            image: (B, C, *spatial) float in [0, 1].
            severity: 1 (mild) to 5.
            seeds: (B,) long. What is drawn for an image depends on its own seed alone, not on the
                batch or the device.

        Returns:
            (B, C, *spatial) in [0, 1], of the same type and on the same device.

        Raises:
            UserError: for a severity outside 1 to 5.
        """
        if severity not in range(1, 6):
            raise UserError(f"{self.name}: severity {severity} is not one of 1 to 5.")
        return self.apply(image, self.severities[severity - 1], seeds).clamp(0, 1)

    @abstractmethod
    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        """Corrupt with one of `severities`; the caller clamps to [0, 1]."""
