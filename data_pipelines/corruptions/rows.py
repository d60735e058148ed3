"""Batches of which some samples are replaced by what a corruption made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trustsweep.data_pipelines.schema import CHANGEABLE, IMPLIED, Batch


def with_rows(batch: Batch, parts: Sequence[tuple[Sequence[int], Batch]]) -> Batch:
    """The batch with the samples at some rows replaced by those of a part; rows occur once."""
    changed: dict[str, Any] = {}
    for name in CHANGEABLE:
        new = [(rows, getattr(part, name)) for rows, part in parts]
        if any(value is not None for _, value in new):
            changed[name] = _merged(getattr(batch, name), new, len(batch), IMPLIED.get(name, 0))
    more = {
        column: _merged(image, [(rows, p.more_images[column]) for rows, p in parts], len(batch))
        for column, image in batch.more_images.items()
    }
    return dataclasses.replace(batch, **changed, more_images=more)


def _merged(
    old: Tensor | None,
    new: Sequence[tuple[Sequence[int], Tensor | None]],
    count: int,
    implied: float = 0,
) -> Tensor:
    """`old` with the rows of `new`; None stands for `implied` everywhere."""
    like = next(value for value in (old, *(v for _, v in new)) if value is not None)
    whole = like.new_full((count, *like.shape[1:]), implied) if old is None else old.clone()
    for rows, value in new:
        whole[torch.tensor(rows, device=whole.device)] = implied if value is None else value
    return whole
