"""One case in memory, between a layout that reads it and the shards that keep it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.schema import Split


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Rectangles around findings.

    Attributes:
        xyxy: (n, 4) float32 pixel edges from the top left: x0, y0, x1, y1, the last two exclusive.
        classes: (n,) int32, indices into the layout's classes.
    """

    xyxy: NDArray[np.float32]
    classes: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Measurements on a grid of T steps and F channels.

    Attributes:
        value: (T, F) float32 in the features' units, NaN where unobserved.
        delta: (T, F) float32, hours since the channel was last observed before the step, since
            the start where it never was.
    """

    value: NDArray[np.float32]
    delta: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One case. What a layout does not offer is None, for all of its cases alike.

    A modality that is absent in this case alone is not None: its image channels are 0, its
    entries of tables and series NaN, and `present` says so.

    Attributes:
        sample_id: Unique in the data set, and the same at every preparation.
        patient_id: The same for all cases of a patient; never a name or a hospital's number.
        site: Where the image was taken.
        image: (C, *spatial), uint8, or float32 in [0, 1] where the source is finer than 8 bits.
        more_images: Images of another shape beside it, by name; types as `image`.
        split: The publisher's, None where it is ours to choose.
        mask: (1, *spatial) uint8, 0 or 1, or indices into the layout's classes; of regions that
            may overlap (R, *spatial) uint8, 0 or 1.
        label: Index into the layout's classes; or (K,) float32 of 0 and 1 for several labels, NaN
            where unknown.
        boxes: In pixels of `image`.
        tabular: (F,) float32, NaN where missing; a category is its index in the vocabulary.
        series: On the layout's grid.
        present: Per modality of the layout, in its order; None where all are present.
        time: Until the event or the end of follow-up, in the layout's `time_unit`; NaN where
            unknown.
        event: 1 where the event was observed, 0 where follow-up ended before it; NaN where unknown.
        groups: For fairness, by name (sex, age in years, ...); None where unknown. The layout's
            `groups` names them, beside "site".
        source: The file it was read from, for messages; not stored.
        notes: Remarks from reading, to be counted in the report; not stored. Each is the
            end of a sentence that starts with a count, as "masks are empty; kept".
    """

    sample_id: str
    patient_id: str
    site: str
    image: NDArray[np.uint8] | NDArray[np.float32] | None = None
    more_images: Mapping[str, NDArray[np.uint8] | NDArray[np.float32]] = field(default_factory=dict)
    split: Split | None = None
    mask: NDArray[np.uint8] | None = None
    label: int | NDArray[np.float32] | None = None
    boxes: Boxes | None = None
    tabular: NDArray[np.float32] | None = None
    series: Series | None = None
    present: tuple[bool, ...] | None = None
    time: float | None = None
    event: float | None = None
    groups: Mapping[str, str | float | None] = field(default_factory=dict)
    source: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def strata(self) -> tuple[int, ...]:
        """What splits keep in proportion: the labels, else whether the event was observed, else
        what the mask holds.

        -1 where several labels are possible and none is positive, and where the event is unknown; 0
        for an empty mask; the classes of a mask count from 1, and so do its regions.
        """
        if isinstance(self.label, np.ndarray):
            return tuple(np.flatnonzero(self.label == 1).tolist()) or (-1,)
        if self.label is not None:
            return (int(self.label),)
        if self.event is not None:
            return (-1 if math.isnan(self.event) else int(self.event),)
        if self.mask is None:
            return ()
        if len(self.mask) > 1:
            held = np.flatnonzero(self.mask.reshape(len(self.mask), -1).any(axis=1)) + 1
        else:
            held = np.flatnonzero(np.bincount(self.mask.ravel())[1:]) + 1
        return tuple(held.tolist()) or (0,)
