"""Inexact values, as of another laboratory's assay or a sensor out of calibration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import SERIES, TABULAR, Corruption
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.needs import NUMBERS
from trustsweep.data_pipelines.schema import Batch, Feature, Manifest


class ValueNoise(Corruption[float]):
    """v + σ s_f n with n ~ N(0, 1) on every number of series and tables; σ in units of s_f.

    s_f is the standard deviation of feature f in the train split, from the manifest. Categories
    stay, and so do missing values.
    """

    name = "value-noise"
    severities = SUITES["clinical"][name]
    symbol = "σ"
    touches = frozenset({SERIES, TABULAR})
    needs = NUMBERS

    def __call__(self, batch: Batch, parameter: float, seeds: Tensor, manifest: Manifest) -> Batch:
        self._check_seeds(seeds, len(batch))
        changed: dict[str, Any] = {}
        if batch.series is not None:
            changed[SERIES] = _noisy(batch.series, manifest.series, parameter, seeds, stream=0)
        if batch.tabular is not None:
            changed[TABULAR] = _noisy(batch.tabular, manifest.tabular, parameter, seeds, stream=1)
        return dataclasses.replace(batch, **changed)


def _noisy(
    values: Tensor, features: Sequence[Feature], sigma: float, seeds: Tensor, stream: int
) -> Tensor:
    deviation = [0.0 if feature.vocabulary else sigma * feature.std for feature in features]
    noise = random.normal(seeds.to(values.device), values.shape[1:], stream)
    return values + noise.to(values) * torch.tensor(deviation).to(values)
