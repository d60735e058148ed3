"""What a sample, a batch and a data set are: the only part of this room that models may import.

Kept free of torch at import time, so that reading a manifest is instant.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.storage import Folder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SCHEMA_VERSION = 3
MANIFEST_NAME = "manifest.json"
#: The fields of a batch that a corruption may change, beside `more_images`; all are floats.
CHANGEABLE = ("image", "tabular", "series", "series_mask", "series_delta", "present", "severity")
#: The value of every entry where a field is None: all present, nothing corrupted.
IMPLIED = {"present": 1.0, "severity": 0.0}
#: Beside several data sets that one preparation made (folds, held-out sites).
INDEX_NAME = "index.json"


class OtherVersion(ValueError):
    """A file that another version of this program wrote; its text says which."""


class Split(StrEnum):
    """The use a sample is put to. `OOD` holds whole sites that training never sees."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    OOD = "ood"


class TaskName(StrEnum):
    """The tasks that a manifest offers and a method supports."""

    SEGMENTATION = "segmentation"
    MULTICLASS_SEGMENTATION = "multiclass-segmentation"
    REGION_SEGMENTATION = "region-segmentation"
    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    SURVIVAL = "survival"


class Kind(StrEnum):
    """The kind of data of a modality, which decides its encoder."""

    IMAGE = "image"
    SERIES = "series"
    TABULAR = "tabular"


class PatientSource(StrEnum):
    """How it is known which samples are of one patient; `preprocessing["patients"]` of a manifest.

    From the publisher, from a file that the user gave, guessed from file names, or not at all.
    """

    PUBLISHER = "publisher"
    FILE = "file"
    FILE_NAMES = "file names"
    NONE = "none"

    @property
    def doubt(self) -> str:
        """What a user should know of it, without an end; "" where patients are known."""
        if self is PatientSource.FILE_NAMES:
            return (
                "patients are guessed from file names, so that one may be in two splits and the "
                "figures too good"
            )
        if self is PatientSource.NONE:
            return (
                "the source names no patients: each sample counts as one of its own, so that one "
                "may be in two splits and the figures too good"
            )
        return ""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One entry of a table or one channel of a series.

    Attributes:
        name: As the publisher names it.
        unit: Of the stored values; "" where there is none.
        vocabulary: The categories, for values that are indices into it; empty for numbers.
        mean, std: Over the observed values of the train split, in `unit`; 0 and 1 for categories.
    """

    name: str
    unit: str = ""
    vocabulary: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Feature:
        """The inverse of `dataclasses.asdict` after JSON."""
        return cls(**{**raw, "vocabulary": tuple(raw["vocabulary"])})


@dataclass(frozen=True, kw_only=True)
class Modality:
    """A source of information that may be absent from a sample on its own.

    Attributes:
        name: Unique in the data set, as "flair" or "labs".
        kind: What it is made of.
        column: Where its values are in a batch: "image", "series", "tabular" or a key of
            `Batch.more_images`.
        indices: Its channels (image) or features (series, tabular) there; empty for all.
    """

    name: str
    kind: Kind
    column: str
    indices: tuple[int, ...] = ()

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Modality:
        """The inverse of `dataclasses.asdict` after JSON."""
        return cls(**{**raw, "kind": Kind(raw["kind"]), "indices": tuple(raw["indices"])})


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """Shape (C, *spatial) and train statistics on [0, 1], per channel, of a further image."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> ImageSpec:
        """The inverse of `dataclasses.asdict` after JSON."""
        return cls(**{key: tuple(value) for key, value in raw.items()})


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """How `time` and `event` of the samples are measured, and the intervals that models predict.

    Attributes:
        unit: Of `time`, such as "days".
        edges: Ascending, K + 1 for K intervals [edges[k], edges[k + 1]): 0, the quartiles of the
            times of the train patients with an event, and the longest follow-up of a train patient.
            The last interval holds everything later, too.
    """

    unit: str
    edges: tuple[float, ...]

    @property
    def intervals(self) -> int:
        """K."""
        return len(self.edges) - 1

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> FollowUp:
        """The inverse of `dataclasses.asdict` after JSON."""
        return cls(**{**raw, "edges": tuple(raw["edges"])})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The JSON beside the shards; everything that a model needs to know of its data.

    Attributes:
        name: Layout that the data came from.
        tasks: Tasks that the columns allow.
        image_shape: (C, H, W) or (C, D, H, W) of every image; () for data without images.
        image_scale: Stored value that stands for 1.0 (255 for uint8, 1 for float16); a batch is
            stored / scale.
        classes: Names of the classes of `label`, or of `mask` with the background first.
        regions: Names of the regions of `mask`, which may overlap; empty where its classes exclude
            each other.
        mean, std: Per channel of the images that are present, of the train split, on [0, 1].
        split_counts: Samples per split.
        stored_bytes: Bytes of each split in memory, as stored.
        columns: Columns of the shards, name to "dtype[shape]".
        groups: Columns that name a group for fairness (sex, age, site, ...).
        box_classes: Names of the classes of `boxes`.
        tabular: The entries of the `tabular` column, in order.
        series: The channels of the `series` column, in order.
        series_hours: Width of a step of `series`, in hours.
        more_images: Images beside `image`, of another shape, by name; stored with the same scale.
        modalities: What may be absent on its own, in the order of the `present` column.
        follow_up: Of data with times to an event; None for others.
        label_counts: Split to its samples of each of `classes`; with several labels, to those for
            which each is 1. Empty without labels.
        mask_shares: Split to the share of its pixels that each of `mask_names` covers. Shares of
            classes add up to 1, those of regions need not. Empty without masks.
        fingerprint: Hash of the source's content and of the preprocessing parameters (hex).
        preprocessing: Parameters that made the shards. "patients" is a `PatientSource`.
        licence, citation: As the publisher states them.
    """

    name: str
    tasks: tuple[TaskName, ...]
    image_shape: tuple[int, ...]
    image_scale: float
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_counts: dict[str, int]
    columns: dict[str, str]
    fingerprint: str
    stored_bytes: dict[str, int] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    box_classes: tuple[str, ...] = ()
    tabular: tuple[Feature, ...] = ()
    series: tuple[Feature, ...] = ()
    series_hours: float = 0.0
    more_images: dict[str, ImageSpec] = field(default_factory=dict)
    modalities: tuple[Modality, ...] = ()
    follow_up: FollowUp | None = None
    label_counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    mask_shares: dict[str, tuple[float, ...]] = field(default_factory=dict)
    licence: str = "unstated"
    citation: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that the data set has, train first."""
        return tuple(split for split in Split if split in self.split_counts)

    @property
    def channels(self) -> int:
        """Of `image`; 0 for data without images."""
        return self.image_shape[0] if self.image_shape else 0

    @property
    def spatial_dims(self) -> int:
        """2 or 3; 0 for data without images."""
        return max(len(self.image_shape) - 1, 0)

    @property
    def mask_names(self) -> tuple[str, ...]:
        """Of the values of `mask`, the background first, or of its regions; () without masks."""
        if "mask" not in self.columns:
            return ()
        if self.regions:
            return self.regions
        if TaskName.MULTICLASS_SEGMENTATION in self.tasks or len(self.classes) == 2:
            return self.classes
        return ("background", "foreground")

    def lacking(self, split: Split) -> tuple[str, ...]:
        """The classes and regions of which no label and no mask of a split holds any."""
        counted = (
            (self.classes, self.label_counts.get(split, ())),
            (self.mask_names, self.mask_shares.get(split, ())),
        )
        names = [
            name
            for known, counts in counted
            for name, count in zip(known, counts, strict=False)
            if not count
        ]
        return tuple(dict.fromkeys(names))

    @property
    def sources(self) -> tuple[Modality, ...]:
        """`modalities`; where none are named, one for each column of data, called like it."""
        if self.modalities:
            return self.modalities
        kinds = {"image": Kind.IMAGE} if self.image_shape else {}
        kinds |= dict.fromkeys(self.more_images, Kind.IMAGE)
        kinds |= {"series": Kind.SERIES} if self.series else {}
        kinds |= {"tabular": Kind.TABULAR} if self.tabular else {}
        return tuple(Modality(name=name, kind=kind, column=name) for name, kind in kinds.items())

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises `OtherVersion` for a manifest of another version, or with other keys than this
        one's; ValueError, TypeError or KeyError for text that is no manifest."""
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("no JSON object")
        if (stated := raw.get("schema_version")) != SCHEMA_VERSION:
            raise OtherVersion("none stated" if stated is None else stated)
        known = {f.name for f in dataclasses.fields(cls)}
        if differing := sorted(known ^ set(raw)):
            raise OtherVersion(f"{stated}, but other keys: {', '.join(differing)}")
        raw["tasks"] = tuple(TaskName(t) for t in raw["tasks"])
        for key in ("image_shape", "classes", "mean", "std", "groups", "box_classes", "regions"):
            raw[key] = tuple(raw[key])
        for key in ("label_counts", "mask_shares"):
            raw[key] = {split: tuple(values) for split, values in raw[key].items()}
        for key in ("tabular", "series"):
            raw[key] = tuple(Feature.from_dict(entry) for entry in raw[key])
        raw["modalities"] = tuple(Modality.from_dict(entry) for entry in raw["modalities"])
        raw["follow_up"] = raw["follow_up"] and FollowUp.from_dict(raw["follow_up"])
        raw["more_images"] = {k: ImageSpec.from_dict(v) for k, v in raw["more_images"].items()}
        return cls(**raw)

    @classmethod
    def load(cls, location: str | Path | Folder) -> Manifest:
        """Read `manifest.json` of a data set. Raises `UserError` if it is absent or unreadable."""
        folder = Folder(location)
        try:
            text = folder.read(MANIFEST_NAME).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(_no_manifest(folder)) from error
        try:
            return cls.from_json(text)
        except OtherVersion as error:
            raise UserError(
                f"{folder}: a prepared data set of another version (schema: {error}; this "
                f"trustsweep reads {SCHEMA_VERSION}). Prepare it again with `trustsweep prepare`."
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{folder}/{MANIFEST_NAME}: unreadable manifest ({error}). Prepare it again."
            ) from error


def _no_manifest(folder: Folder) -> str:
    try:
        names = json.loads(folder.read(INDEX_NAME))["folders"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return (
            f"{folder}: no prepared data set here (no {MANIFEST_NAME}). "
            "Make one with `trustsweep prepare`."
        )
    return f"{folder}: holds several data sets, name one of them: {', '.join(names)}."


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples on one device. Fields that the manifest does not offer are None.

    Attributes:
        sample_id: B identifiers.
        image: (B, C, *spatial) float in [0, 1]; (B, 0) for data without images.
        mask: (B, 1, *spatial) float: 0 or 1, or the index of one of several classes; of regions
            that may overlap (B, R, *spatial) float, 0 or 1, in the order of `Manifest.regions`.
        label: (B,) long, or (B, K) float 0 or 1 for several labels, NaN where unknown.
        tabular: (B, F) float, NaN where missing; a category is its index in the vocabulary.
        series: (B, T, F) float in the features' units, NaN where unobserved.
        series_mask: (B, T, F) float, 1 where observed.
        series_delta: (B, T, F) float, hours since the channel was last observed before this step
            (since the start where it never was).
        present: (B, M) float, 1 where the modality is present; None where all of them always are.
            What is absent is 0 in images and NaN in series and tables.
        severity: (B, M) float, how strongly each of `Manifest.sources` was corrupted on its own: 0
            (clean, or absent) to 5; None where nothing was to be corrupted so.
        more_images: Name to (B, C, *spatial) float in [0, 1].
        time: (B,) float, until the event or the end of follow-up, in `Manifest.follow_up.unit`; NaN
            where unknown.
        event: (B,) float, 1 where the event was observed, 0 where follow-up ended before it
            (censored); NaN where unknown.
        interval: (B,) float, the index of the interval of `FollowUp.edges` that `time` is in; NaN
            where unknown.
        groups: Column name to B values, None where unknown.
    """

    sample_id: tuple[str, ...]
    image: Tensor
    mask: Tensor | None = None
    label: Tensor | None = None
    tabular: Tensor | None = None
    series: Tensor | None = None
    series_mask: Tensor | None = None
    series_delta: Tensor | None = None
    present: Tensor | None = None
    severity: Tensor | None = None
    time: Tensor | None = None
    event: Tensor | None = None
    interval: Tensor | None = None
    more_images: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)

    def with_image(self, image: Tensor) -> Batch:
        """The same samples with other pixels."""
        return dataclasses.replace(self, image=image)

    def select(self, rows: Sequence[int]) -> Batch:
        """The samples at `rows`, in that order."""
        index = list(rows)

        def pick(value: Any) -> Any:
            if value is None:
                return None
            if isinstance(value, tuple):
                return tuple(value[i] for i in index)
            if isinstance(value, dict):
                return {k: pick(v) for k, v in value.items()}
            return value[index]

        return Batch(**{f.name: pick(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def to(self, device: torch.device | str) -> Batch:
        """The same samples on `device`."""
        import torch

        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        more = {k: v.to(device, non_blocking=True) for k, v in self.more_images.items()}
        return dataclasses.replace(self, **moved, more_images=more)
