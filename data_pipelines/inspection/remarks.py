"""Warnings from an inspection: what to check before training on a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from trustsweep.data_pipelines.inspection.findings import UNKNOWN, Inspection
from trustsweep.data_pipelines.layouts import LAYOUTS
from trustsweep.data_pipelines.schema import PatientSource, Split

#: With fewer patients, a group's metric is mostly chance.
LEAST_PATIENTS = 50
#: Names that a sentence lists before it only counts.
_LISTED = 8


def warnings(inspection: Inspection) -> Iterator[str]:
    """A sentence for each, those that would spoil a result first."""
    yield from _leaks(inspection)
    yield from _patients(inspection)
    yield from _images(inspection)
    yield from _masks_and_boxes(inspection)
    yield from _labels(inspection)
    yield from _sites(inspection)
    yield from _groups(inspection)
    yield from _absences(inspection)
    if inspection.licence.strip() in ("", "unstated"):
        yield "the licence is unstated: ask the publisher before anything is shared."


def _leaks(inspection: Inspection) -> Iterator[str]:
    for split in inspection.splits:
        if split.samples != split.stated:
            yield (
                f"{split.split}: {split.samples} rows, the manifest says {split.stated}. "
                "Prepare the data again."
            )
    for splits, patients in inspection.flaws.shared_patients.items():
        yield (
            f"{_count(patients, 'patient is', 'patients are')} in {splits}: the test would measure "
            "memory. Prepare the data again."
        )
    what = "image" if inspection.image_shape else "case"
    for splits, copies in inspection.flaws.copies_across.items():
        yield (
            f"{_count(copies, f'{what} is', f'{what}s are')} the same in {splits}: the test would "
            "measure memory."
        )
    for name, copies in inspection.flaws.copies_within.items():
        yield f"{name}: {_count(copies, f'{what} is a copy', f'{what}s are copies')} of another."


def _patients(inspection: Inspection) -> Iterator[str]:
    if inspection.patients in list(PatientSource) and (
        doubt := PatientSource(inspection.patients).doubt
    ):
        takes = inspection.name in LAYOUTS and LAYOUTS[inspection.name].takes_patients
        hint = " If the true ones are known, prepare the data again with --patients FILE.csv."
        yield f"{doubt}.{hint if takes else ''}"


def _images(inspection: Inspection) -> Iterator[str]:
    for name, images in inspection.flaws.nan.items():
        yield f"{name}: {_count(images, 'image holds', 'images hold')} NaN; training would too."
    for name, images in inspection.flaws.constant.items():
        yield f"{name}: {_count(images, 'image is', 'images are')} constant, one value everywhere."
    outside = Counter[str]()
    for channel in inspection.intensities:
        outside[channel.channel] += channel.outside
    for name, pixels in (+outside).items():
        yield f"{name}: {_count(pixels, 'pixel is', 'pixels are')} beyond [0, 1]."


def _masks_and_boxes(inspection: Inspection) -> Iterator[str]:
    total = sum(count.masks for count in inspection.masks)
    if empty := sum(count.empty for count in inspection.masks):
        yield f"{empty} of {total} masks are empty."
    for split in inspection.splits if not inspection.of_masks else ():
        lost = [p.name for p in inspection.mask_parts if p.split == split.split and not p.masks]
        if lost:
            yield f"{split.split}: no mask holds {_named(lost)}; metrics of it are undefined."
    if border := sum(count.at_border for count in inspection.masks):
        yield f"{border} of {total} masks touch the border: the finding may go on beyond the image."
    if odd := inspection.flaws.odd_boxes:
        yield (
            f"{_count(odd, 'box has', 'boxes have')} no area, no known class or a corner beyond "
            "the image."
        )


def _labels(inspection: Inspection) -> Iterator[str]:
    samples = Counter[str]()
    positive: dict[str, Counter[str]] = defaultdict(Counter)
    unknown: dict[str, Counter[str]] = defaultdict(Counter)
    for stratum in inspection.strata:
        samples[stratum.split] += stratum.samples
        positive[stratum.split].update(dict(zip(inspection.classes, stratum.positive, strict=True)))
        unknown[stratum.split].update(dict(zip(inspection.classes, stratum.unknown, strict=True)))
    # A class that every mask holds has its Dice.
    labelled = inspection.several and not inspection.of_masks
    for split in samples:
        if absent := [name for name in inspection.classes if not positive[split][name]]:
            yield f"{split}: no sample of {_named(absent)}; metrics of the class are undefined."
        universal = [
            name
            for name in inspection.classes
            if labelled
            and positive[split][name]
            and positive[split][name] + unknown[split][name] == samples[split]
        ]
        if universal:
            yield f"{split}: no sample without {_named(universal)}; metrics of it are undefined."
    if inspection.classes and not inspection.several:
        missing = sum(stratum.unknown[0] for stratum in inspection.strata)
        if missing:
            yield f"{_count(missing, 'sample has', 'samples have')} no label."


def _sites(inspection: Inspection) -> Iterator[str]:
    splits: dict[str, list[str]] = defaultdict(list)
    for stratum in inspection.strata:
        splits[stratum.site].append(stratum.split)
    # A site that is held out is alone there by design.
    others = [s.split for s in inspection.splits if s.split != Split.OOD]
    for split in others if len(others) > 1 else ():
        if alone := [site for site, where in splits.items() if where == [split]]:
            noun = "site" if len(alone) == 1 else "sites"
            yield f"{noun} {_named(alone)}: in {split} only, so that site and split are one."


def _groups(inspection: Inspection) -> Iterator[str]:
    small: dict[str, list[str]] = defaultdict(list)
    for count in inspection.groups:
        if count.value != UNKNOWN and count.patients < LEAST_PATIENTS:
            small[count.group].append(f"{count.value} ({count.patients})")
    for group, values in small.items():
        yield (
            f"{group}: fewer than {LEAST_PATIENTS} patients in {_named(values)}; metrics of "
            "these groups are mostly chance."
        )


def _absences(inspection: Inspection) -> Iterator[str]:
    for modality in inspection.modalities:
        if not any(modality.present.values()):
            yield f"modality {modality.name} is absent everywhere."
        elif none := [split for split, share in modality.present.items() if not share]:
            yield f"modality {modality.name} is absent from the whole of {_named(none)}."
    for feature in inspection.features:
        what = f"{feature.column} {feature.name}"
        if not any(feature.observed.values()):
            yield f"{what} is never observed."
        elif none := [split for split, share in feature.observed.items() if not share]:
            yield f"{what} is never observed in {_named(none)}."
        if feature.infinite:
            yield f"{what}: {_count(feature.infinite, 'value is', 'values are')} infinite."
        if feature.uncategorised:
            wrong = _count(feature.uncategorised, "value is", "values are")
            yield f"{what}: {wrong} none of its {len(feature.categories)} categories."


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _named(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
