"""QaTa-COV19-v2: chest X-rays of COVID-19 patients with infection masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.errors import UserError
from data_pipelines.layouts.base import Layout
from data_pipelines.preprocess import resize_image, resize_mask
from data_pipelines.problems import BadFile
from data_pipelines.readers.files import digest, opaque
from data_pipelines.readers.images import read_grey, read_mask
from data_pipelines.sample import Sample
from data_pipelines.schema import Split, Task

_ROOT = "QaTa-COV19-v2"
_IMAGES, _MASKS = "Images", "Ground-truths"
_SUFFIXES = (".png", ".jpg", ".jpeg")
#: Test goes first, so that of two identical images the held-out one is kept.
_SETS = {"Test Set": Split.TEST, "Train Set": None}

#: Names of the images that come from BIMCV-COVID19+ start with the subject.
_SUBJECT = re.compile(r"^(sub-S\d+)_")
#: What tells images of one case apart: the day, the hours since admission, the view.
_MOMENT = re.compile(r"-(?:day-?\d+|\d+-(?:hours|days)|admission|PA|AP|L|lateral)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An image and its mask; either is None where the folder lacks it."""

    image: Path | None
    mask: Path | None
    split: Split | None


class QataCov19(Layout[Pair]):
    """QaTa-COV19-v2: chest X-rays of COVID-19 patients with infection masks, as on Kaggle.

    `folder` is `QaTa-COV19-v2`, or one that contains it. The published test set is kept; validation
    is split off the train set by patient, where the file name tells the patient (BIMCV subjects,
    series such as `...-day3`). The control group, which has no masks, is not read.
    """

    name = "qata-cov19"
    tasks = (Task.SEGMENTATION,)
    classes = ("background", "infection")
    licence = "as stated by its publisher at kaggle.com/datasets/aysendegerli/qatacov19-dataset"
    citation = (
        "Degerli, Kiranyaz, Chowdhury, Gabbouj (2022): OSegNet: Operational Segmentation Network "
        "for COVID-19 Detection using Chest X-ray Images. arXiv 2202.10185"
    )

    def __init__(self, folder: Path | None, *, size: int, seed: int) -> None:
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

    def cases(self) -> Iterator[Pair]:
        for name, split in _SETS.items():
            masks = {path.name: path for path in self._files(name, _MASKS)}
            for image in self._files(name, _IMAGES):
                yield Pair(image, masks.pop(f"mask_{image.name}", None), split)
            for mask in masks.values():
                yield Pair(None, mask, split)

    def load(self, case: Pair) -> Iterator[Sample]:
        image, mask = _both(case)
        pixels = read_grey(image)
        infection = read_mask(mask, pixels.shape)
        resized = resize_mask(infection, self.size)
        subject = _SUBJECT.match(image.stem)
        notes = []
        if infection.any() and not resized.any():
            notes.append(f"images lose their infection at {self.size} pixels; a larger size helps")
        if subject is None:
            notes.append("images do not name their patient; each case counts as one")
        yield Sample(
            sample_id=opaque(_ROOT, image.relative_to(self._root).as_posix()),
            patient_id=opaque(_ROOT, _patient(image.stem)),
            site="bimcv" if subject else "unstated",
            split=case.split,
            image=resize_image(pixels, self.size),
            mask=resized,
            source=image,
            notes=tuple(notes),
        )

    def source_digest(self) -> str:
        return digest(
            self._root,
            (path for case in self.cases() for path in (case.image, case.mask) if path is not None),
        )

    def remarks(self) -> list[str]:
        expected = {self._root: tuple(_SETS)}
        if self._root != self._folder:
            expected[self._root.parent] = (_ROOT,)
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
        return [f"not read, not part of the layout: {', '.join(unread)}"] if unread else []

    def _files(self, name: str, kind: str) -> Iterator[Path]:
        for path in sorted((self._root / name / kind).iterdir()):
            if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."):
                yield path


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
