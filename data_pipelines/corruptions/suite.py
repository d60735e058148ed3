"""Corruptions applied to batches: the fixed ones of an evaluation, the fresh ones of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from data_pipelines.corruptions import CORRUPTIONS
from data_pipelines.corruptions.seeds import draw_seeds
from data_pipelines.schema import Batch


def corrupt(batch: Batch, name: str, severity: int) -> Batch:
    """The evaluation's draw of one corruption: the same for an image whatever model it meets."""
    seeds = draw_seeds(batch.sample_id, "evaluation", name, severity)
    return batch.with_image(CORRUPTIONS[name]()(batch.image, severity, seeds))


class TrainingCorruption:
    """Gives a share of the images one random corruption of a suite, drawn anew every epoch.

    The draw depends on (seed, epoch, sample_id) alone, not on the batch or the worker.
    """

    def __init__(self, cells: Sequence[tuple[str, int]], share: float, seed: int) -> None:
        self._cells = list(cells)
        self._share = share
        self._seed = seed

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        if self._share <= 0 or not self._cells:
            return batch
        seeds = draw_seeds(batch.sample_id, "training", self._seed, epoch)
        chosen: dict[tuple[str, int], list[int]] = defaultdict(list)
        for row, seed in enumerate(seeds.tolist()):
            draw = np.random.default_rng(seed)
            if draw.random() < self._share:
                chosen[self._cells[draw.integers(len(self._cells))]].append(row)
        image = batch.image.clone()
        for (name, severity), rows in chosen.items():
            image[rows] = CORRUPTIONS[name]()(batch.image[rows], severity, seeds[rows])
        return batch.with_image(image)
