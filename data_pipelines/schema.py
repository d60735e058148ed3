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

from data_pipelines.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"


class Split(StrEnum):
    """The use a sample is put to. `OOD` holds whole sites that training never sees."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"
    OOD = "ood"


class Task(StrEnum):
    """What a manifest offers to learn, and what a trainable asks of it."""

    SEGMENTATION = "segmentation"
    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The JSON beside the shards; everything that a model needs to know of its data.

    Attributes:
        name: Layout that the data came from.
        tasks: Tasks that the columns allow.
        image_shape: (C, H, W) or (C, D, H, W) of every image.
        image_scale: Stored value that stands for 1.0 (255 for uint8); a batch is stored / scale.
        classes: Names of the classes, background first for masks.
        mean, std: Per channel, of the train split, on the [0, 1] scale.
        split_counts: Samples per split.
        columns: Columns of the shards, name to "dtype[shape]".
        groups: Columns that name a group for fairness (sex, age, site, ...).
        tabular_names: Names of the entries of the `tabular` column, in order.
        fingerprint: Hash of the source's content and of the preprocessing parameters (hex).
        preprocessing: Parameters that made the shards.
        licence, citation: As the publisher states them.
    """

    name: str
    tasks: tuple[Task, ...]
    image_shape: tuple[int, ...]
    image_scale: float
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_counts: dict[str, int]
    columns: dict[str, str]
    fingerprint: str
    preprocessing: dict[str, Any] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    tabular_names: tuple[str, ...] = ()
    licence: str = "unstated"
    citation: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def channels(self) -> int:
        return self.image_shape[0]

    @property
    def spatial_dims(self) -> int:
        return len(self.image_shape) - 1

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises ValueError for a manifest of another version or with other keys."""
        raw = json.loads(text)
        known = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(raw, dict) or set(raw) != known:
            raise ValueError(f"keys differ from schema version {SCHEMA_VERSION}")
        if raw["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {raw['schema_version']}, expected {SCHEMA_VERSION}")
        raw["tasks"] = tuple(Task(t) for t in raw["tasks"])
        for key in ("image_shape", "classes", "mean", "std", "groups", "tabular_names"):
            raw[key] = tuple(raw[key])
        return cls(**raw)

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read `<folder>/manifest.json`. Raises `UserError` if it is absent or unreadable."""
        path = Path(folder) / MANIFEST_NAME
        if not path.is_file():
            raise UserError(
                f"{folder}: no prepared data set here (no {MANIFEST_NAME}). "
                "Make one with `trustsweep prepare`."
            )
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: unreadable manifest ({error}). Prepare it again.") from error


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples on one device. Fields that the manifest does not offer are None.

    Attributes:
        sample_id: B identifiers.
        image: (B, C, *spatial) float in [0, 1].
        mask: (B, 1, *spatial) float, 0 or 1.
        label: (B,) long, or (B, K) float for several labels.
        tabular: (B, F) float, NaN where missing.
        series: (B, T, F) float; series_mask: (B, T, F), 1 where observed.
        present: (B, M), 1 where the modality is there.
        groups: Column name to B values.
    """

    sample_id: tuple[str, ...]
    image: Tensor
    mask: Tensor | None = None
    label: Tensor | None = None
    tabular: Tensor | None = None
    series: Tensor | None = None
    series_mask: Tensor | None = None
    present: Tensor | None = None
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
        return dataclasses.replace(self, **moved)
