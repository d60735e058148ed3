"""QaTa-COV19-v2: chest X-rays of COVID-19 patients with infection masks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.layouts.qata_cov19.controls import (
    FOLDER,
    SUFFIXES,
    Control,
    Controls,
    origin,
    parse_groups,
)
from trustsweep.data_pipelines.preprocess import resize_image, resize_mask
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_grey, read_mask
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import PatientSource, Split, TaskName

_ROOT = "QaTa-COV19-v2"
_IMAGES, _MASKS = "Images", "Ground-truths"
_SETS = {"Test Set": Split.TEST, "Train Set": None}

_NAMELESS = "images do not name their patient; each case counts as one"
#: Names of the images that come from BIMCV-COVID19+ start with the subject.
_SUBJECT = re.compile(r"^(sub-S\d+)_")
#: The part that differs between images of one case: the day, the hours since admission, the view.
_MOMENT = re.compile(r"-(?:day-?\d+|\d+-(?:hours|days)|admission|PA|AP|L|lateral)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An image and its mask; either is None where the folder lacks it."""

    image: Path | None
    mask: Path | None
    split: Split | None


class QataCov19(Layout[Pair | Control]):
    """QaTa-COV19-v2: chest X-rays of COVID-19 patients with infection masks, as on Kaggle.

    `folder` is `QaTa-COV19-v2`, or one that contains it. The published test set is kept; validation
    is split off the train set by patient, where the file name gives the patient (BIMCV subjects,
    series such as `...-day3`). Only some names do: `--patients` takes a list of the true ones.

    Args:
        controls: Which controls to read from `Control_Group`, beside `QaTa-COV19-v2`: false, "I"
            (12,544 normal images), "II" (116,365 images of ChestX-ray14 and of children with
            pneumonia) or "all". Controls have masks of background alone and the label 0, the
            infected the label 1; "cohort" separates them. ChestX-ray14's published test set is
            kept. Of the others, which the publisher does not divide, the same share of patients
            is tested as of the infected, drawn by the seed.

    The groups, their sizes and what divides them are in the publisher's readme; the folders' names
    (`Control_Group_I`, `Control_Group_II/CHESTXRAY-14/{Train,Test}`,
    `Control_Group_II/Pediatric_{Bacterial,Viral}_Pneumonia`) in the publisher's and others' code.
    Assumed is that images keep the names of the sets they were taken from; those that do not count
    as a patient each.
    """

    name = "qata-cov19"
    patients = PatientSource.FILE_NAMES
    takes_patients = True
    tasks: tuple[TaskName, ...] = (TaskName.SEGMENTATION,)
    classes = ("background", "infection")
    licence = "as stated by its publisher at kaggle.com/datasets/aysendegerli/qatacov19-dataset"
    citation = (
        "Degerli, Kiranyaz, Chowdhury, Gabbouj (2022): OSegNet: Operational Segmentation Network "
        "for COVID-19 Detection using Chest X-ray Images. arXiv 2202.10185"
    )

    def __init__(
        self, folder: Path | None, *, size: int, seed: int, controls: bool | str = False
    ) -> None:
        groups = parse_groups(controls)
        if folder is None:
            raise UserError(f"layout {self.name}: give the folder that holds {_ROOT}.")
        super().__init__(folder, size=size, seed=seed)
        self._folder = folder
        self._root = _find_root(folder)
        for published in _SETS:
            if next(self._files(published, _IMAGES), None) is None:
                raise UserError(
                    f"{self._root / published / _IMAGES}: no images, so the published "
                    f"{published!r} would be empty. Unpack the archive again."
                )
        self._controls = None
        if groups:
            inside = (self._root / FOLDER).is_dir()
            self._controls = Controls(self._root if inside else self._root.parent, groups)
            self.tasks = (TaskName.SEGMENTATION, TaskName.CLASSIFICATION)
            self.groups = ("site", "cohort")

    def cases(self) -> Iterator[Pair | Control]:
        yield from self._pairs()
        yield from self._controls or ()

    def load(self, case: Pair | Control) -> Iterator[Sample]:
        yield self._control(case) if isinstance(case, Control) else self._infected(case)

    def _pairs(self) -> Iterator[Pair]:
        for name, split in _SETS.items():
            masks = {path.name: path for path in self._files(name, _MASKS)}
            for image in self._files(name, _IMAGES):
                yield Pair(image, masks.pop(f"mask_{image.name}", None), split)
            for mask in masks.values():
                yield Pair(None, mask, split)

    def _infected(self, case: Pair) -> Sample:
        image, mask = _both(case)
        pixels = read_grey(image)
        infection = read_mask(mask, pixels.shape)
        resized = resize_mask(infection, self.size)
        subject = _SUBJECT.match(image.stem)
        listed = self._listed_patient(image)
        notes = self._lost("infection", infection, resized)
        if listed is None and subject is None:
            notes += (_NAMELESS,)
        return Sample(
            sample_id=opaque(_ROOT, image.relative_to(self._root).as_posix()),
            patient_id=listed or opaque(_ROOT, _patient(image.stem)),
            site="bimcv" if subject else "unstated",
            split=case.split,
            image=resize_image(pixels, self.size),
            mask=resized,
            label=None if self._controls is None else 1,
            groups={} if self._controls is None else {"cohort": "covid-19"},
            source=image,
            notes=notes,
        )

    def _control(self, case: Control) -> Sample:
        image, cohort = case.image, case.cohort
        site, patient = origin(image.stem)
        name = f"{cohort.place}/{image.name}"
        listed = self._listed_patient(image)
        patient_id = listed or opaque(_ROOT, FOLDER, patient or name)
        split = cohort.split
        if split is None and not cohort.trains:
            # A number in [0, 1) of the patient and the seed alone.
            draw = int(opaque(_ROOT, str(self.seed), patient_id), 16) / 16**16
            split = Split.TEST if draw < self._tested_share else None
        return Sample(
            sample_id=opaque(_ROOT, FOLDER, name),
            patient_id=patient_id,
            site=site,
            split=split,
            image=resize_image(read_grey(image, constant_alpha=True), self.size),
            mask=np.zeros((1, self.size, self.size), np.uint8),
            label=0,
            groups={"cohort": cohort.name},
            source=image,
            notes=() if listed or patient else (_NAMELESS,),
        )

    @cached_property
    def _tested_share(self) -> float:
        """Of the infected images."""
        counts = {name: sum(1 for _ in self._files(name, _IMAGES)) for name in _SETS}
        return sum(counts[name] for name in _SETS if _SETS[name]) / sum(counts.values())

    def image_files(self) -> Iterator[Path]:
        for name in _SETS:
            yield from self._files(name, _IMAGES)
        for control in self._controls or ():
            yield control.image

    def source_digest(self) -> str:
        pairs = digest(
            self._root,
            (p for case in self._pairs() for p in (case.image, case.mask) if p is not None),
        )
        if self._controls is None:
            return pairs
        images = (control.image for control in self._controls)
        both = f"{pairs} {digest(self._controls.folder, images)}"
        return hashlib.sha256(both.encode()).hexdigest()

    def remarks(self) -> list[str]:
        expected: dict[Path, tuple[str, ...]] = {self._root: tuple(_SETS)}
        if self._root != self._folder:
            expected[self._root.parent] = (_ROOT,)
        if self._controls is not None and (above := self._controls.folder.parent) in expected:
            expected[above] += (FOLDER,)
        for name in _SETS:
            expected[self._root / name] = (_IMAGES, _MASKS)
            for kind in (_IMAGES, _MASKS):
                known = tuple(path.name for path in self._files(name, kind))
                expected[self._root / name / kind] = known
        unread = sorted(
            entry.relative_to(self._folder).as_posix()
            for place, known in expected.items()
            for entry in place.iterdir()
            if entry.name not in known and not entry.name.startswith(".")
        )
        remarks = []
        if self._controls is not None:
            unread += self._controls.unread()
            remarks.append(
                "infected and controls were imaged at different hospitals: a model can predict the "
                "label from the hospital alone"
            )
            if missing := self._controls.missing():
                remarks.append(f"controls without images here: {', '.join(missing)}")
        if unread:
            remarks.append(f"not read, not part of the layout: {_some(unread)}")
        return remarks

    def _files(self, name: str, kind: str) -> Iterator[Path]:
        for path in sorted((self._root / name / kind).iterdir()):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield path


def _some(names: list[str], listed: int = 20) -> str:
    more = f" and {len(names) - listed} more" if len(names) > listed else ""
    return ", ".join(names[:listed]) + more


def _find_root(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give the one that holds {_ROOT}.")
    for root in (folder, folder / _ROOT, folder / "QaTa-COV19" / _ROOT):
        if any((root / name).is_dir() for name in _SETS):
            break
    else:
        raise UserError(
            f"{folder}: neither {' nor '.join(map(repr, _SETS))} here. "
            f"Give the folder {_ROOT} of the unpacked archive."
        )
    for name in _SETS:
        for kind in (_IMAGES, _MASKS):
            if not (root / name / kind).is_dir():
                raise UserError(f"{root / name / kind}: no such folder. Unpack the archive again.")
    return root


def _both(case: Pair) -> tuple[Path, Path]:
    if case.image is None:
        assert case.mask is not None
        raise BadFile(case.mask, f"a mask without an image in {_IMAGES}. Add it, or remove this.")
    if case.mask is None:
        raise BadFile(
            case.image,
            f"no mask_{case.image.name} in {_MASKS}. Add it (all 0 if nothing is infected), "
            "or remove the image.",
        )
    return case.image, case.mask


def _patient(stem: str) -> str:
    """The part of a file name that the patient's other images share."""
    if subject := _SUBJECT.match(stem):
        return subject.group(1)
    while (shorter := _MOMENT.sub("", stem)) != stem:
        stem = shorter
    return stem
