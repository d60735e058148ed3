"""`inspect`: one pass over a prepared data set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from trustsweep.data_pipelines.building.shards import row_groups
from trustsweep.data_pipelines.inspection.counted import (
    Copies,
    GroupTally,
    Patients,
    Presence,
    Strata,
)
from trustsweep.data_pipelines.inspection.findings import Flaws, Inspection, SplitCount
from trustsweep.data_pipelines.inspection.measured import BoxTally, Features, Intensities, MaskTally
from trustsweep.data_pipelines.inspection.remarks import warnings
from trustsweep.data_pipelines.schema import Manifest
from trustsweep.data_pipelines.storage import Folder

#: Columns that no count or measure uses.
_UNREAD = ("sample_id", "split", "series_delta")


def inspect(location: str | Path | Folder) -> Inspection:
    """Count and measure a prepared data set, a row group in memory at a time.

    Unlike a sweep it takes a data set whose splits share patients, or hold other than the stated
    number of rows: it says so in the warnings.

    Raises `UserError` if there is no data set, or if a file of it is missing or damaged.
    """
    folder = Folder(location)
    manifest = Manifest.load(folder)
    columns = [name for name in manifest.columns if name not in _UNREAD]
    patients = Patients()
    strata, groups, presence = Strata(manifest), GroupTally(manifest), Presence(manifest)
    copies, intensities = Copies(manifest), Intensities(manifest)
    masks, boxes = MaskTally(manifest), BoxTally(manifest)
    tables = {
        name: Features(name, listed)
        for name, listed in (("tabular", manifest.tabular), ("series", manifest.series))
        if listed
    }
    for split in manifest.splits:
        for table in row_groups(folder, split, columns):
            numbers = patients.numbers(table)
            strata.add(split, table, numbers)
            groups.add(split, table, numbers)
            copies.add(split, table, numbers)
            presence.add(split, table)
            intensities.add(split, table)
            for features in tables.values():
                features.add(split, table)
            if "mask" in columns:
                masks.add(split, table)
            if "boxes" in columns:
                boxes.add(split, table)
    inspection = Inspection(
        name=manifest.name,
        licence=manifest.licence,
        tasks=manifest.tasks,
        image_shape=manifest.image_shape,
        classes=strata.classes,
        several=strata.several,
        of_masks=strata.of_masks,
        patients=manifest.preprocessing.get("patients", ""),
        splits=tuple(
            SplitCount(
                split=split,
                samples=strata.samples(split),
                patients=len(strata.patients(split)),
                stated=manifest.split_counts[split],
            )
            for split in manifest.splits
        ),
        strata=tuple(strata.findings()),
        groups=tuple(groups.findings()),
        modalities=tuple(presence.findings()),
        features=tuple(row for features in tables.values() for row in features.findings()),
        intensities=tuple(intensities.findings()),
        masks=tuple(masks.findings()),
        mask_parts=tuple(masks.parts()),
        boxes=tuple(boxes.findings()),
        flaws=Flaws(
            copies_within=copies.within(),
            copies_across=copies.across(),
            shared_patients=copies.shared_patients(),
            constant=dict(+intensities.constant),
            nan=dict(+intensities.nan),
            odd_boxes=boxes.odd,
        ),
    )
    return dataclasses.replace(inspection, warnings=tuple(warnings(inspection)))
