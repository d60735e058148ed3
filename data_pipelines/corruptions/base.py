"""What a corruption is.

The five severities are those of MedMNIST-C's chest X-ray set (Di Salvo et al., arXiv 2406.17536),
re-implemented on [0, 1] images of any size and dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(ABC):
    """A way in which an image gets worse, in five severities.

    A subclass sets `name`, the `severities` (the parameter at 1 to 5) and `apply`.
    """

    name: ClassVar[str]
    severities: ClassVar[tuple[float, ...]]

    def __call__(self, image: Tensor, severity: int, seeds: Tensor) -> Tensor:
        """Corrupt a batch.

        Args:
            image: (B, C, *spatial) float in [0, 1], two or three spatial dimensions.
            severity: 1 (mild) to 5.
            seeds: (B,) long; what is drawn for a sample depends on its own seed alone, not on the
                batch it is in or on the device.

        Returns:
            A new tensor of the same shape, device and type, in [0, 1].

        Raises:
            ValueError: for another severity, or a number of seeds that is not the batch's.
        """
        if severity not in SEVERITIES:
            raise ValueError(f"{self.name}: severity is 1 to 5, not {severity!r}")
        if seeds.shape != image.shape[:1]:
            raise ValueError(f"{self.name}: {tuple(seeds.shape)} seeds for {len(image)} images")
        return self.apply(image, self.severities[severity - 1], seeds).clamp(0, 1)

    @abstractmethod
    def apply(self, image: Tensor, parameter: float, seeds: Tensor) -> Tensor:
        """As `__call__` with the severity's parameter; the result may leave [0, 1]."""
