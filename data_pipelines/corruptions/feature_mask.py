"""Missing values, as of a laboratory test that was not ordered or a monitor that was off."""

from __future__ import annotations

from torch import Tensor

from trustsweep.data_pipelines.corruptions import random
from trustsweep.data_pipelines.corruptions.base import SERIES, TABULAR, Corruption
from trustsweep.data_pipelines.corruptions.observations import without_series, without_tabular
from trustsweep.data_pipelines.corruptions.suites import SUITES
from trustsweep.data_pipelines.needs import RECORDS
from trustsweep.data_pipelines.schema import Batch, Manifest


class FeatureMask(Corruption[float]):
    """Each entry of series and tables goes missing with probability p: NaN, and 0 in the mask.

    Entries are dropped completely at random; those of a series step by step, and the time since
    the last observation grows with them.
    """

    name = "feature-mask"
    severities = SUITES["clinical"][name]
    symbol = "share masked"
    touches = frozenset({SERIES, TABULAR})
    needs = RECORDS

    def __call__(self, batch: Batch, parameter: float, seeds: Tensor, manifest: Manifest) -> Batch:
        self._check_seeds(seeds, len(batch))
        if batch.series is not None:
            seeds = seeds.to(batch.series.device)
            gone = random.uniform(seeds, batch.series.shape[1:]) < parameter
            batch = without_series(batch, gone)
        if batch.tabular is not None:
            seeds = seeds.to(batch.tabular.device)
            gone = random.uniform(seeds, batch.tabular.shape[1:], stream=1) < parameter
            batch = without_tabular(batch, gone)
        return batch
