"""Corruptions applied to batches: the fixed ones of an evaluation, the fresh ones of training."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from data_pipelines.corruptions import CORRUPTIONS, random
from data_pipelines.corruptions.base import SEVERITIES
from data_pipelines.corruptions.seeds import draw_seeds
from data_pipelines.corruptions.suites import DEFAULT_SUITE, parameters
from data_pipelines.schema import Batch, Manifest

#: What a corruption may change, beside `more_images`.
_FIELDS = ("image", "tabular", "series", "series_mask", "series_delta", "present")
#: The stream of which samples are corrupted and how; the corruptions' own count from 0.
_CHOICE = 1 << 16


def corrupt(
    batch: Batch, name: str, severity: int, *, manifest: Manifest, suite: str = DEFAULT_SUITE
) -> Batch:
    """The evaluation's draw of one corruption: the same for a sample whatever model it meets.

    Args:
        batch: Left as it is.
        name: Of the corruption.
        severity: 1 (mild) to 5.
        manifest: Of the batch's data set.
        suite: Gives the parameter of the severity; see `suites.parameters`.

    Raises:
        ValueError: for another severity.
        UserError: for an unknown corruption or suite.
    """
    seeds = draw_seeds(batch.sample_id, "evaluation", name, severity)
    return _apply(batch, name, severity, seeds, manifest, suite)


class TrainingCorruption:
    """Gives a share of the samples one random corruption, drawn anew every epoch.

    The draw depends on (seed, epoch, sample_id) alone, not on the batch or the worker.

    Args:
        cells: (corruption, severity) pairs, drawn with equal chances.
        share: Of the samples, 0 to 1.
        seed: The trial's.
        manifest, suite: As for `corrupt`.
    """

    def __init__(
        self,
        cells: Sequence[tuple[str, int]],
        share: float,
        seed: int,
        *,
        manifest: Manifest,
        suite: str = DEFAULT_SUITE,
    ) -> None:
        self._cells = list(cells)
        self._share = share
        self._seed = seed
        self._manifest = manifest
        self._suite = suite

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        if self._share <= 0 or not self._cells or not len(batch):
            return batch
        seeds = draw_seeds(batch.sample_id, "training", self._seed, epoch)
        draw = random.uniform(seeds, (2,), _CHOICE)
        cells = (draw[:, 1] * len(self._cells)).long().tolist()
        chosen: dict[int, list[int]] = defaultdict(list)
        for row in (draw[:, 0] < self._share).nonzero()[:, 0].tolist():
            chosen[cells[row]].append(row)
        changed = [
            (
                rows,
                _apply(
                    batch.select(rows), *self._cells[cell], seeds[rows], self._manifest, self._suite
                ),
            )
            for cell, rows in chosen.items()
        ]
        return _with_rows(batch, changed) if changed else batch


def _apply(
    batch: Batch, name: str, severity: int, seeds: Tensor, manifest: Manifest, suite: str
) -> Batch:
    if severity not in SEVERITIES:
        raise ValueError(f"{name}: severity is 1 to 5, not {severity!r}")
    parameter = parameters(suite, name)[severity - 1]
    worse: Batch = CORRUPTIONS[name]()(batch, parameter, seeds, manifest)
    return worse


def _with_rows(batch: Batch, parts: Sequence[tuple[list[int], Batch]]) -> Batch:
    """The batch with some samples replaced by those of `parts`."""
    changed: dict[str, Any] = {}
    for name in _FIELDS:
        new = [(rows, getattr(part, name)) for rows, part in parts]
        if any(value is not None for _, value in new):
            changed[name] = _merged(getattr(batch, name), new, len(batch))
    more = {
        column: _merged(
            image, [(rows, part.more_images[column]) for rows, part in parts], len(batch)
        )
        for column, image in batch.more_images.items()
    }
    return dataclasses.replace(batch, **changed, more_images=more)


def _merged(
    old: Tensor | None, new: Sequence[tuple[list[int], Tensor | None]], count: int
) -> Tensor:
    """`old` with the rows of `new`; None, of `present` alone, stands for ones."""
    like = next(value for value in (old, *(v for _, v in new)) if value is not None)
    whole = like.new_ones(count, *like.shape[1:]) if old is None else old.clone()
    for rows, value in new:
        whole[torch.tensor(rows, device=whole.device)] = 1 if value is None else value
    return whole
