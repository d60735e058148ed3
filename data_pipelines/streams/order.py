"""Which samples a rank meets in which step: pure arithmetic, the same wherever the rows lie."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Batch

#: The corruption of training: (batch, epoch) to another batch of the same samples.
Transform = Callable[[Batch, int], Batch]
#: How much of an epoch is used: epoch to a share of its steps, in (0, 1].
Share = Callable[[int], float]

_GOLDEN = (math.sqrt(5) - 1) / 2


class Stream(ABC):
    """One split as a rank of a worker group sees it, however the rows come to it.

    `batch_size` is per rank. A transform's result must depend on (epoch, sample_id) alone.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Samples of the split."""

    def steps(self, batch_size: int, world: int = 1, share: float = 1.0) -> int:
        """Optimiser steps of a share of an epoch, the same on every rank.

        Raises `UserError` as `epoch`.
        """
        return part(steps(len(self), batch_size, world), share)

    @abstractmethod
    def epoch(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        transform: Transform | None = None,
        epochs: int | None = None,
        share: Share | None = None,
    ) -> Iterator[tuple[Batch, float]]:
        """One rank's part of one epoch: every sample exactly once over all ranks, shuffled.

        The order depends on (seed, epoch, world) alone. All ranks make the same number of steps
        (gradients are averaged at each), so a step's rows may differ by one between ranks; the
        second value, the rank's rows times the world size over the step's rows, makes the average
        of the ranks' weighted mean losses the mean over the step.

        Args:
            batch_size: Rows of a step at most.
            seed: Of the trial.
            epoch: From 0 on.
            rank, world: This process among those that train together.
            transform: Applied to the rows of each step, or of each piece of it.
            epochs: How many epochs of this seed and transform there will be, where known; nothing
                beyond is prepared ahead.
            share: Of each epoch, the first of whose steps are taken; None for whole epochs. What
                is left out is not prepared.

        Raises:
            UserError: if there are fewer samples than ranks, or a file is damaged.
        """

    @abstractmethod
    def sweep(
        self, batch_size: int, rank: int = 0, world: int = 1, share: float = 1.0
    ) -> Iterator[Batch]:
        """Every sample once in a fixed order, whole batches dealt to the ranks.

        The batches are the same for any world size. Of a share of the split, the samples are
        those of `spread`.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop preparing the next epoch; the stream may be used again."""


def steps(samples: int, batch_size: int, world: int) -> int:
    """Steps of an epoch, the same on every rank.

    Raises `UserError` for fewer samples than ranks.
    """
    if samples < world:
        raise UserError(f"train split: {samples} samples for {world} workers. Use fewer workers.")
    return min(math.ceil(samples / (batch_size * world)), samples // world)


def part(count: int, share: float) -> int:
    """A share, above 0, of a number of things, rounded up; products such as 0.1 · 30 =
    3.0000000000000004 are taken for what they mean."""
    return min(count, max(1, math.ceil(round(share * count, 9))))


def spread(samples: int, share: float) -> np.ndarray:
    """The places of a share of so many samples in a row, ascending: the same ones every time.

    Those where the fractional part of i φ, φ the golden ratio, is smallest. This sequence spreads
    evenly over the row and over every regular part of it (each second place, each tenth), so that
    classes in blocks and classes in turns both keep their proportions; more of it contains less.
    """
    if share == 1:
        return np.arange(samples)
    fractions = np.arange(samples) * _GOLDEN % 1
    return np.sort(np.argsort(fractions, kind="stable")[: part(samples, share)])


def dealt(
    order: np.ndarray, steps: int, rank: int, world: int
) -> Iterator[tuple[np.ndarray, float]]:
    """A rank's rows of each step, and their weight, where every rank can reach every row."""
    # Equal steps rather than a short last one, which could leave a rank without a row.
    for rows in np.array_split(order, steps):
        mine = rows[rank::world]
        yield mine, len(mine) * world / len(rows)


def shares(samples: int, parts: int) -> list[int]:
    """Where each of `parts` contiguous shares starts, and where the last ends.

    Their sizes differ by one at most, the larger first.
    """
    small, more = divmod(samples, parts)
    return [part * small + min(part, more) for part in range(parts + 1)]


def share_steps(samples: int, steps: int, rank: int, world: int) -> list[tuple[int, float]]:
    """Rows and weight of each step, where a rank works through its own contiguous share."""
    sizes = []
    edges = shares(samples, world)
    for start, stop in pairwise(edges):
        cuts = shares(stop - start, steps)
        sizes.append([b - a for a, b in pairwise(cuts)])
    return [
        (mine, mine * world / sum(rank_sizes[step] for rank_sizes in sizes))
        for step, mine in enumerate(sizes[rank])
    ]
