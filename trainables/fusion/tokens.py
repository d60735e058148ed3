"""What the networks share that fuse tokens instead of one feature vector for each modality."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from trustsweep.trainables.fusion.base import FusionNetwork
from trustsweep.trainables.fusion.encoders import Encoder, Stem


class TokenNetwork(FusionNetwork):
    """A network that pools tokens in its own way, and so has only the stems of its encoders."""

    def __init__(self, encoders: dict[str, Encoder]) -> None:
        super().__init__({name: part.stem for name, part in encoders.items()})

    @property
    def stems(self) -> list[Stem]:
        """In the order of `inputs.sources`."""
        return [cast(Stem, stem) for stem in self.encoders.values()]

    def tokens(self, values: tuple[Tensor, ...]) -> list[Tensor]:
        """(B, L, C) of each modality, L and C its own."""
        return [stem(value) for stem, value in zip(self.stems, values, strict=True)]
