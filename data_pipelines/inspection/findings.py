"""What an inspection finds, as plain data that turns into JSON. No patient is named in it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from trustsweep.data_pipelines.schema import Kind, TaskName

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class SplitCount:
    """Samples and patients of one split; `stated` is the number of samples in the manifest."""

    split: str
    samples: int
    patients: int
    stated: int


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """The samples of one site in one split.

    Attributes:
        positive: Samples of each class, in the order of `Inspection.classes`; with several labels
            a sample counts for each of its classes.
        unknown: Samples whose label for the class is not known.
    """

    split: str
    site: str
    samples: int
    patients: int
    positive: tuple[int, ...]
    unknown: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GroupCount:
    """One value of a group column; ages are in decades. `splits` holds samples."""

    group: str
    value: str
    samples: int
    patients: int
    splits: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ModalityShare:
    """Split to the share of its samples that have the modality, 0 to 1."""

    name: str
    kind: Kind
    present: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class FeatureRange:
    """One entry of the table or one channel of the series.

    Attributes:
        column: "tabular" or "series".
        observed: Split to the share of entries that are observed; a series has one entry a step.
        in_samples: Share of all samples with at least one observed entry.
        minimum, maximum, mean: Over the finite entries of all splits, in `unit`; None where there
            is none, and for categories.
        infinite: Entries that are infinite.
        categories: Category to its entries; empty for numbers.
        uncategorised: Entries that are no index into the vocabulary.
    """

    column: str
    name: str
    unit: str
    observed: dict[str, float]
    in_samples: float
    minimum: float | None
    maximum: float | None
    mean: float | None
    infinite: int = 0
    categories: dict[str, int] = dataclasses.field(default_factory=dict)
    uncategorised: int = 0


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """One channel of the present images of a split, on the [0, 1] scale of batches.

    Attributes:
        image: The column, "image" or a name of `Manifest.more_images`.
        channel: The modality's name where the channel is a modality of its own, else its index.
        images: How many were measured.
        percentiles: Percentage to the smallest value that so many pixels do not exceed.
        outside: Pixels beyond [0, 1].
    """

    split: str
    image: str
    channel: str
    images: int
    minimum: float
    maximum: float
    mean: float
    std: float
    percentiles: dict[str, float]
    outside: int


@dataclass(frozen=True, kw_only=True)
class MaskCount:
    """Masks of a split.

    Attributes:
        masks, empty: How many, and how many of them hold nothing.
        at_border: Masks that reach the edge of the image, so that the finding may go on beyond.
        foreground: Share of all pixels that are foreground.
        foreground_filled: The same over the masks that hold something; None where none does.
    """

    split: str
    masks: int
    empty: int
    at_border: int
    foreground: float
    foreground_filled: float | None


@dataclass(frozen=True, kw_only=True)
class MaskPart:
    """One of several classes or regions in the masks of a split.

    Attributes:
        masks: How many masks hold it.
        share: Of all pixels.
        share_held: Of the pixels of the masks that hold it; None where none does.
    """

    split: str
    name: str
    masks: int
    share: float
    share_held: float | None


@dataclass(frozen=True, kw_only=True)
class BoxCount:
    """Boxes of one class: all, the samples that have any, and how many are in each split."""

    name: str
    boxes: int
    samples: int
    splits: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """What should be zero or empty in a sound data set.

    Attributes:
        copies_within: Split to samples whose content is that of an earlier sample of the split.
        copies_across: Splits, joined by " and ", to contents that are in all of these.
        shared_patients: Splits, joined by " and ", to patients who are in all of these.
        constant, nan: Modality to images that hold one value only, and that hold NaN.
        odd_boxes: Boxes without area, beyond the image or of no known class.
    """

    copies_within: dict[str, int]
    copies_across: dict[str, int]
    shared_patients: dict[str, int]
    constant: dict[str, int]
    nan: dict[str, int]
    odd_boxes: int


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What `inspect` finds in a prepared data set.

    Attributes:
        image_shape: (C, *spatial); () for data without images.
        classes: What `Stratum.positive` counts: the labels, or for data with masks alone whether
            the mask holds anything, or which of several classes or regions it holds; empty where
            there is neither.
        mask_parts: Of masks of several classes or of regions.
        several: A sample may have several of the classes.
        of_masks: The classes are what masks hold, not labels.
        patients: A `PatientSource`; "" for data that were prepared before it was kept.
        warnings: What to look into before training, a sentence each.
    """

    name: str
    licence: str
    tasks: tuple[TaskName, ...]
    image_shape: tuple[int, ...]
    classes: tuple[str, ...]
    several: bool
    of_masks: bool = False
    patients: str
    splits: tuple[SplitCount, ...]
    strata: tuple[Stratum, ...]
    groups: tuple[GroupCount, ...]
    modalities: tuple[ModalityShare, ...]
    features: tuple[FeatureRange, ...]
    intensities: tuple[Intensity, ...]
    masks: tuple[MaskCount, ...]
    mask_parts: tuple[MaskPart, ...] = ()
    boxes: tuple[BoxCount, ...]
    flaws: Flaws
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
