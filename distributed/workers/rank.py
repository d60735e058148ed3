"""A worker process among those of its slot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class Rank:
    """This process among the workers of a slot."""

    index: int = 0
    world: int = 1

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """The largest over all ranks."""
        if self.world > 1:
            torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        return values
