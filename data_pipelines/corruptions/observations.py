"""Taking observations out of series and tables, so that all the columns of a batch agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import Batch


def without_series(batch: Batch, gone: Tensor) -> Batch:
    """The batch with NaN, mask 0 and longer deltas where `gone` (B, T, F) is true.

    Raises ValueError for a batch without series.
    """
    if batch.series is None:
        raise ValueError("the batch has no series")
    changed: dict[str, Any] = {"series": batch.series.masked_fill(gone, torch.nan)}
    if batch.series_mask is not None:
        changed["series_mask"] = batch.series_mask.masked_fill(gone, 0)
        if batch.series_delta is not None:
            changed["series_delta"] = elapsed(
                batch.series_delta, batch.series_mask, changed["series_mask"]
            )
    return dataclasses.replace(batch, **changed)


def without_tabular(batch: Batch, gone: Tensor) -> Batch:
    """The batch with NaN where `gone` (B, F) is true. Raises ValueError for one without a table."""
    if batch.tabular is None:
        raise ValueError("the batch has no table")
    return dataclasses.replace(batch, tabular=batch.tabular.masked_fill(gone, torch.nan))


def elapsed(delta: Tensor, mask: Tensor, fewer: Tensor) -> Tensor:
    """Hours since the last observation of `fewer`, given those (`delta`) of `mask`.

    All (B, T, F); `fewer` keeps some of the observations of `mask`. A step is δ_t − δ_{t−1} long
    where nothing was observed at t − 1 and δ_t where something was (Che et al., GRU-D,
    arXiv 1606.01865); their sum is the clock, and δ' counts from the last clock time kept.
    """
    before = torch.where(mask[:, :-1] > 0, 0, delta[:, :-1])
    steps = torch.cat([delta[:, :1], delta[:, 1:] - before], dim=1)
    clock = steps.double().cumsum(dim=1)
    # The clock never runs back, so that the largest kept time is the last one; 0 is the start.
    kept = torch.where(fewer > 0, clock, 0).cummax(dim=1).values
    last = torch.cat([torch.zeros_like(kept[:, :1]), kept[:, :-1]], dim=1)
    return (clock - last).to(delta)
