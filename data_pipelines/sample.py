"""One case in memory, between a layout that reads it and the shards that keep it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipelines.schema import Split


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
class Sample:
    """One case. What a layout does not offer is None, for all of its cases alike.

    Attributes:
        sample_id: Unique in the data set, and the same at every preparation.
        patient_id: The same for all cases of a patient; never a name or a hospital's number.
        site: Where the image was taken.
        image: (C, H, W) uint8.
        split: The publisher's, None where it is ours to choose.
        mask: (1, H, W) uint8, 0 or 1.
        label: Index into the layout's classes.
        boxes: In pixels of `image`.
        tabular: (F,) float32, NaN where missing.
        sex, age: For fairness; age in years. Layouts without them say so in `groups`.
        source: The file it was read from, for messages; not stored.
        notes: What was found while reading, to be counted in the report; not stored.
    """

    sample_id: str
    patient_id: str
    site: str
    image: NDArray[np.uint8]
    split: Split | None = None
    mask: NDArray[np.uint8] | None = None
    label: int | None = None
    boxes: Boxes | None = None
    tabular: NDArray[np.float32] | None = None
    sex: str | None = None
    age: float | None = None
    source: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def stratum(self) -> int | None:
        """What splits keep in proportion: the label, else whether the mask holds anything."""
        if self.label is not None:
            return self.label
        return None if self.mask is None else int(self.mask.any())
