"""Running sums over row groups: samples, patients, groups, modalities and copies.

They hold a number and a hash for each patient and sample, and nothing else that grows.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trustsweep.data_pipelines.inspection.columns import (
    IMAGE,
    array,
    held,
    mask_classes,
    mask_findings,
)
from trustsweep.data_pipelines.inspection.findings import (
    UNKNOWN,
    GroupCount,
    ModalityShare,
    Stratum,
)
from trustsweep.data_pipelines.schema import Manifest

_DECADE = 10
#: The column that says what a sample is of, the first that there is.
SOURCES = ("label", "event", "mask")
#: What `event` means, by its value.
EVENTS = ("censored", "event")


class Patients:
    """Numbers patients in the order in which they come, so that sets of them are small."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def numbers(self, table: pa.Table) -> list[int]:
        """(N,) of each row."""
        known = self._numbers
        return [known.setdefault(p, len(known)) for p in table["patient_id"].to_pylist()]


class Strata:
    """Samples, patients and classes by split and site."""

    def __init__(self, manifest: Manifest) -> None:
        names = set(manifest.columns)
        self.several = "label" in names and manifest.columns["label"] != "int64"
        self._source = next((name for name in SOURCES if name in names), None)
        self._manifest = manifest
        self.classes = manifest.classes if self._source else ()
        if self._source == "event":
            self.classes = EVENTS
        self.of_masks = self._source == "mask"
        if self.of_masks:
            self.classes = mask_classes(manifest)
            self.several = len(mask_findings(manifest)) > 1
        self._samples: Counter[tuple[str, str]] = Counter()
        self._patients: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._positive: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._unknown: dict[tuple[str, str], NDArray[np.int64]] = {}

    def add(self, split: str, table: pa.Table, patients: list[int]) -> None:
        sites = table["site"].to_pylist()
        positive, unknown = self._labels(table)
        for row, (site, patient) in enumerate(zip(sites, patients, strict=True)):
            key = (split, UNKNOWN if site is None else site)
            self._samples[key] += 1
            self._patients[key].add(patient)
            self._positive[key] = self._positive.get(key, 0) + positive[row]
            self._unknown[key] = self._unknown.get(key, 0) + unknown[row]

    def samples(self, split: str) -> int:
        return sum(count for key, count in self._samples.items() if key[0] == split)

    def patients(self, split: str) -> set[int]:
        return set().union(*(them for key, them in self._patients.items() if key[0] == split))

    def findings(self) -> Iterator[Stratum]:
        """Splits in the order in which they came, sites by name."""
        order = {split: place for place, (split, _) in enumerate(self._samples)}
        for key in sorted(self._samples, key=lambda k: (order[k[0]], k[1])):
            yield Stratum(
                split=key[0],
                site=key[1],
                samples=self._samples[key],
                patients=len(self._patients[key]),
                positive=tuple(self._positive[key].tolist()),
                unknown=tuple(self._unknown[key].tolist()),
            )

    def _labels(self, table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N, K) each: whether a row is of a class, and whether that is not known."""
        if self._source is None:
            return (np.zeros((table.num_rows, 0), np.int64),) * 2
        if self.of_masks:
            found = held(array(table, "mask"), self._manifest).astype(np.int64)
            positive = found if self.several else np.concatenate([1 - found, found], axis=1)
            return positive, np.zeros_like(positive)
        if self.several:
            labels = array(table, "label")
            return (labels == 1).astype(np.int64), np.isnan(labels).astype(np.int64)
        column = table[self._source].fill_null(-1).to_numpy()
        values: NDArray[np.int64] = np.nan_to_num(column, nan=-1).astype(np.int64)
        positive = (values[:, None] == np.arange(len(self.classes))).astype(np.int64)
        unknown = 1 - positive.sum(axis=1, keepdims=True)
        return positive, np.repeat(unknown, len(self.classes), axis=1)


class GroupTally:
    """Samples and patients by the value of each group column, ages in decades."""

    def __init__(self, manifest: Manifest) -> None:
        self._names = manifest.groups
        self._patients: dict[tuple[str, str], set[int]] = defaultdict(set)
        self._splits: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)

    def add(self, split: str, table: pa.Table, patients: list[int]) -> None:
        for name in self._names:
            for value, patient in zip(table[name].to_pylist(), patients, strict=True):
                key = (name, group_value(name, value))
                self._patients[key].add(patient)
                self._splits[key][split] += 1

    def findings(self) -> Iterator[GroupCount]:
        """By column, and then by value with the unknown last."""
        order = {name: place for place, name in enumerate(self._names)}
        for key in sorted(self._splits, key=lambda k: (order[k[0]], k[1] == UNKNOWN, _natural(k))):
            splits = dict(self._splits[key])
            yield GroupCount(
                group=key[0],
                value=key[1],
                samples=sum(splits.values()),
                patients=len(self._patients[key]),
                splits=splits,
            )


def group_value(name: str, value: Any) -> str:
    """The label a value of a group column is counted under; ages in decades."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if name == "age":
        start = int(value // _DECADE) * _DECADE
        return f"{start}–{start + _DECADE - 1}"
    return str(value)


def _natural(key: tuple[str, str]) -> tuple[int, str]:
    """Ages in the order of numbers."""
    start = key[1].partition("–")[0]
    return (int(start) if key[0] == "age" and start.lstrip("-").isdigit() else 0, key[1])


class Presence:
    """How often each modality is present."""

    def __init__(self, manifest: Manifest) -> None:
        self._modalities = manifest.modalities
        self._present: dict[str, NDArray[np.int64]] = {}
        self._samples: Counter[str] = Counter()

    def add(self, split: str, table: pa.Table) -> None:
        width = len(self._modalities)
        flags = np.ones((table.num_rows, width), np.int64)
        if "present" in table.schema.names:
            flags = array(table, "present").astype(np.int64)
        before = self._present.get(split, np.zeros(width, np.int64))
        self._present[split] = before + flags.sum(axis=0)
        self._samples[split] += table.num_rows

    def findings(self) -> Iterator[ModalityShare]:
        for place, modality in enumerate(self._modalities):
            yield ModalityShare(
                name=modality.name,
                kind=modality.kind,
                present={
                    split: float(present[place] / self._samples[split])
                    for split, present in self._present.items()
                },
            )


class Copies:
    """Contents and patients that come in more than one split, or content that comes twice.

    Content is the image, or the table and the series of data without images. What is absent or
    constant is not compared: it is alike for other reasons. Keeps 16 bytes a sample.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._columns = [c for c in (IMAGE,) if manifest.image_shape]
        self._columns = self._columns or [c for c in ("tabular", "series") if c in manifest.columns]
        self._splits: dict[bytes, int] = {}
        self._patients: dict[int, int] = {}
        self._bits: dict[str, int] = {}
        self._within: Counter[str] = Counter()

    def add(self, split: str, table: pa.Table, patients: list[int]) -> None:
        bit = self._bits.setdefault(split, 1 << len(self._bits))
        for patient in patients:
            self._patients[patient] = self._patients.get(patient, 0) | bit
        arrays = [array(table, column) for column in self._columns]
        for values in zip(*arrays, strict=True):
            if all((value == value.flat[0]).all() or np.isnan(value).all() for value in values):
                continue
            digest = hashlib.blake2b(digest_size=16)
            for value in values:
                digest.update(value.tobytes())
            before = self._splits.get(key := digest.digest(), 0)
            self._within[split] += bool(before & bit)
            self._splits[key] = before | bit

    def within(self) -> dict[str, int]:
        return {split: n for split, n in self._within.items() if n}

    def across(self) -> dict[str, int]:
        return self._named(self._splits.values())

    def shared_patients(self) -> dict[str, int]:
        return self._named(self._patients.values())

    def _named(self, flags: Iterable[int]) -> dict[str, int]:
        several = Counter(flag for flag in flags if flag.bit_count() > 1)
        return {
            " and ".join(split for split, bit in self._bits.items() if flag & bit): n
            for flag, n in sorted(several.items())
        }
