"""Modalities of unequal quality, as of a patient whose X-ray is blurred and whose labs are not."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import CORRUPTIONS, random
from trustsweep.data_pipelines.corruptions.alone import alone, manifest_of
from trustsweep.data_pipelines.corruptions.base import (
    IMAGE,
    SERIES,
    SEVERITIES,
    TABULAR,
    Corruption,
)
from trustsweep.data_pipelines.corruptions.rows import with_rows
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.needs import ANYTHING
from trustsweep.data_pipelines.schema import Batch, Kind, Manifest, Modality

#: The corruptions of each kind of modality.
_SUITED = {
    Kind.IMAGE: ("gaussian-noise", "pixelate", "jpeg"),
    Kind.SERIES: ("value-noise", "feature-mask"),
    Kind.TABULAR: ("value-noise", "feature-mask"),
}
#: The stream of what happens to a modality; the corruptions' own count from 0.
_CHOICE = 1 << 16


class MixedQuality(Corruption[float]):
    """Corrupts each present modality on its own with probability p, in a random severity.

    Images by gaussian-noise, pixelate or jpeg, series and tables by value-noise or feature-mask,
    whichever can act on the modality, with the corruption's own parameter of severity 1 to 5; all
    equally likely. `Batch.severity` has what was drawn, and 0 where no value changed, as where
    feature-mask took nothing.
    """

    name = "mixed-quality"
    severities = SUITES["clinical"][name]
    symbol = "share of modalities"
    touches = frozenset({IMAGE, SERIES, TABULAR})
    needs = ANYTHING

    def __call__(self, batch: Batch, parameter: float, seeds: Tensor, manifest: Manifest) -> Batch:
        """As `Corruption.__call__`. Of two severities of a sample, the larger one stays."""
        self._check_seeds(seeds, len(batch))
        seeds = seeds.to(batch.image.device)
        sources = manifest.sources
        severity = batch.image.new_zeros(len(batch), len(sources), dtype=torch.float32)
        present = torch.ones_like(severity) if batch.present is None else batch.present
        for number, modality in enumerate(sources):
            mask = present[:, number] > 0
            draw = _Draw.of(random.fork(seeds, modality.name), parameter, mask)
            batch, severity[:, number] = _worsened(batch, modality, manifest, draw)
        if batch.severity is not None:
            severity = torch.maximum(severity, batch.severity)
        return dataclasses.replace(batch, severity=severity)


def acting_on(modality: Modality, manifest: Manifest) -> list[str]:
    """The corruptions that suit the modality and can change it: no noise on categories alone."""
    own = manifest_of(modality, manifest)
    return [name for name in _SUITED[modality.kind] if CORRUPTIONS[name].acts_on(own)]


class _Draw(NamedTuple):
    """What happens to one modality of each of B samples.

    Attributes:
        seeds: (B,) long, the modality's own.
        hit: (B,) bool, whether anything does.
        severity: (B,) long, 1 to 5.
        kind: (B,) float in [0, 1), picks among any number of corruptions.
    """

    seeds: Tensor
    hit: Tensor
    severity: Tensor
    kind: Tensor

    @classmethod
    def of(cls, seeds: Tensor, probability: float, present: Tensor) -> _Draw:
        chance, strength, kind = random.uniform(seeds, (3,), _CHOICE).unbind(dim=1)
        severity = (strength * len(SEVERITIES)).long() + 1
        return cls(seeds, present & (chance < probability), severity, kind)

    def cells(self, names: Sequence[str]) -> dict[tuple[str, int], list[int]]:
        """The rows that each (corruption, severity) befalls."""
        kind = (self.kind * len(names)).long().tolist()
        severity = self.severity.tolist()
        rows: dict[tuple[str, int], list[int]] = defaultdict(list)
        for row in self.hit.nonzero()[:, 0].tolist():
            rows[names[kind[row]], severity[row]].append(row)
        return rows


def _worsened(
    batch: Batch, modality: Modality, manifest: Manifest, draw: _Draw
) -> tuple[Batch, Tensor]:
    """The batch, and (B,) the severity of what changed."""
    names = acting_on(modality, manifest)
    cells = draw.cells(names) if names else {}
    if not cells:
        return batch, torch.zeros_like(draw.severity)

    def corrupt(part: Batch, own: Manifest) -> Batch:
        changed = []
        for (name, severity), rows in cells.items():
            corruption = CORRUPTIONS[name]()
            parameter = corruption.severities[severity - 1]
            corrupted = corruption(part.select(rows), parameter, draw.seeds[rows], own)
            changed.append((rows, corrupted))
        return with_rows(part, changed)

    batch, changed = alone(batch, modality, manifest, corrupt)
    return batch, draw.severity * changed
