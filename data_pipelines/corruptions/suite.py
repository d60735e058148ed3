"""Corruptions applied to batches: the fixed ones of an evaluation, the fresh ones of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from torch import Tensor

from trustsweep.data_pipelines.corruptions import CORRUPTIONS, random
from trustsweep.data_pipelines.corruptions.base import SEVERITIES
from trustsweep.data_pipelines.corruptions.rows import with_rows
from trustsweep.data_pipelines.corruptions.seeds import draw_seeds
from trustsweep.data_pipelines.corruptions.suites import DEFAULT_SUITE, parameters
from trustsweep.data_pipelines.schema import Batch, Manifest

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

    Then it corrupts single modalities (`mixed-quality`), then it drops some (`modality-drop`).
    The draws depend on (seed, epoch, sample_id) alone, not on the batch or the worker.

    Args:
        cells: (corruption, severity) pairs, drawn with equal chances.
        share: Of the samples, 0 to 1.
        seed: The trial's.
        manifest, suite: As for `corrupt`.
        modality_corruption: Probability that a present modality is corrupted on its own.
        p_miss: Probability that a present modality is dropped; one of a sample's always stays.
    """

    def __init__(
        self,
        cells: Sequence[tuple[str, int]],
        share: float,
        seed: int,
        *,
        manifest: Manifest,
        suite: str = DEFAULT_SUITE,
        modality_corruption: float = 0.0,
        p_miss: float = 0.0,
    ) -> None:
        self._cells = list(cells)
        self._share = share
        self._seed = seed
        self._manifest = manifest
        self._suite = suite
        # In this order: dropped modalities are no longer corrupted.
        self._by_modality = {"mixed-quality": modality_corruption, "modality-drop": p_miss}

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        if not len(batch):
            return batch
        batch = self._share_corrupted(batch, epoch)
        for name, probability in self._by_modality.items():
            if probability > 0:
                seeds = draw_seeds(batch.sample_id, "training", name, self._seed, epoch)
                batch = CORRUPTIONS[name]()(batch, probability, seeds, self._manifest)
        return batch

    def _share_corrupted(self, batch: Batch, epoch: int) -> Batch:
        if self._share <= 0 or not self._cells:
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
        return with_rows(batch, changed) if changed else batch


def _apply(
    batch: Batch, name: str, severity: int, seeds: Tensor, manifest: Manifest, suite: str
) -> Batch:
    if severity not in SEVERITIES:
        raise ValueError(f"{name}: severity is 1 to 5, not {severity!r}")
    parameter = parameters(suite, name)[severity - 1]
    corrupted: Batch = CORRUPTIONS[name]()(batch, parameter, seeds, manifest)
    return corrupted
