"""nnU-Net and Medical Segmentation Decathlon: NIfTI volumes and labels that a JSON describes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import slices as choice
from trustsweep.data_pipelines.preprocess.volumes import VolumeRecipe, apply
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import checked_size, digest, opaque, walk
from trustsweep.data_pipelines.readers.nifti import (
    Volume,
    check_grid,
    read_labels,
    read_nifti,
    volume_name,
)
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Kind, Modality, PatientSource, Split, TaskName

_JSON = "dataset.json"
_SUFFIXES = (".nii", ".nii.gz")
#: Folder of images, of their labels, and the split where the publisher chose it.
_FOLDERS = (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", Split.TEST))
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
_MAX_JSON = 2**26
_HIGHEST = 255
_IGNORE = "ignore"


@dataclass(frozen=True)
class Labelled:
    """A case: its files of channels (one of several channels in the Decathlon's form), its labels.

    `image` maps the channel to its file; `None` is a file with all channels.
    """

    name: str
    image: Mapping[int | None, Path]
    labels: Path
    split: Split | None


@dataclass(frozen=True)
class Description:
    """What `dataset.json` says.

    Attributes:
        channels: Names, in the order of their numbers.
        values: Stored values of the labels, ascending, the background (0) first.
        names: Of the classes in the order of `values`, or of the regions.
        regions: The stored values that each region holds; empty for classes that exclude each
            other.
        licence, reference: As stated, "" where they are not.
        listed: File names of labels that "training" names; None where it names none.
    """

    channels: tuple[str, ...]
    values: tuple[int, ...]
    names: tuple[str, ...]
    regions: tuple[tuple[int, ...], ...]
    licence: str
    reference: str
    listed: frozenset[str] | None


class Nnunet(Layout[Labelled | BadFile]):
    """nnU-Net's raw data (versions 1 and 2) and the Medical Segmentation Decathlon: NIfTI volumes.

    `folder` holds `dataset.json`, `imagesTr/` and `labelsTr/`, with `.nii` or `.nii.gz`:

    - nnU-Net: `imagesTr/<case>_0000.nii.gz` a channel and `labelsTr/<case>.nii.gz`;
    - Decathlon: `imagesTr/<case>.nii.gz`, whose fourth axis are the channels, if there are several.

    Channels come from "modality" (version 1, Decathlon) or "channel_names" (version 2), classes
    from "labels": `{"0": "background", "1": "anterior"}`, or `{"background": 0, "anterior": 1}`.
    Version 2's regions (`{"whole tumour": [1, 2]}`) overlap. A label "ignore" is refused.

    With one class beside the background the task is binary segmentation, with more of them several
    classes. Cases of `imagesTs` with labels in `labelsTs` are the test split; those without labels
    are not read. The layout names no patients: each case counts as one unless `--patients` lists
    the label files (or cases). Written from the publishers' description of the layouts and tried on
    generated miniatures of them alone.

    Args:
        dims: 2 for axial slices, 3 for volumes.
        slices: With dims=2, "all", "foreground" (those with any and as many without), or n for
            every n-th.
        depth: With dims=3, slices of a volume; 0 stands for `size`.
        spacing: Voxel width in mm to resample to; 0 keeps each volume's own.
        crop: Cut away what is 0 or below in all channels around the body, as of skull-stripped MRI.
    """

    name = "nnunet"
    patients = PatientSource.FILE_NAMES
    takes_patients = True
    licence = "as stated by the publisher of the folder (Decathlon: CC BY-SA 4.0)"
    citation = (
        "Isensee, Jaeger, Kohl, Petersen, Maier-Hein (2021): nnU-Net: a self-configuring method "
        "for deep learning-based biomedical image segmentation. Nature Methods 18, 203-211. doi "
        "10.1038/s41592-020-01008-z. Antonelli, Reinke, Bakas, et al. (2022): The Medical "
        "Segmentation Decathlon. Nature Communications 13, 4128. doi 10.1038/s41467-022-30695-9"
    )

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        dims: int = 2,
        slices: str | int = "all",
        depth: int = 0,
        spacing: float = 0.0,
        crop: bool = False,
    ) -> None:
        choice.check_options(dims, slices, depth, some="foreground")
        if not isinstance(crop, bool):
            raise UserError(f"crop: one of True, False, not {crop!r}.")
        if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not spacing >= 0:
            raise UserError(f"spacing: a width in mm, or 0 to keep the spacing, not {spacing!r}.")
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: give the folder that holds {_JSON}.")
        super().__init__(folder, size=size, seed=seed)
        self._root, self._rule, self._volumes = folder, slices, dims == 3
        self._recipe = VolumeRecipe(
            size=((depth or size) if dims == 3 else None, size, size),
            spacing=(float(spacing),) * 3 if spacing else None,
            crop=crop,
        )
        self._description = _described(folder / _JSON)
        self._describe(self._description)
        self._cases, self._strays, self._unlabelled = self._find_cases()

    def cases(self) -> Iterator[Labelled | BadFile]:
        yield from self._strays
        yield from self._cases

    def load(self, case: Labelled | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        patient = self._listed_patient(case.labels)
        channels, stored = self._read(case)
        try:
            prepared = apply(self._recipe, channels, stored)
        except ValueError as error:
            raise BadFile(case.labels, str(error)) from error
        assert prepared.mask is not None
        mask = self._mask(prepared.mask)
        notes = (*prepared.notes, *self._lost_parts(self._mask(stored[None]), mask))
        for index, part in self._parts(case, np.any(prepared.mask, axis=(0, 2, 3))):
            yield Sample(
                sample_id=opaque(self.name, "scan", case.labels.parent.name, case.name, str(index)),
                patient_id=patient or opaque(self.name, "case", case.name),
                site="unstated",
                split=case.split,
                image=prepared.image[part],
                mask=mask[part],
                source=case.labels,
                notes=notes,
            )

    def image_files(self) -> Iterator[Path]:
        for case in self._cases:
            yield case.labels

    def source_digest(self) -> str:
        files = [path for case in self._cases for path in (*case.image.values(), case.labels)]
        return digest(self._root, [self._root / _JSON, *sorted(files)])

    def remarks(self) -> list[str]:
        if not self._unlabelled:
            return []
        return [f"{self._unlabelled} cases of imagesTs have no labels and are not read"]

    def _describe(self, known: Description) -> None:
        """Set what follows from `dataset.json`."""
        self.licence = known.licence or self.licence
        self.citation = "; ".join(filter(None, [known.reference, self.citation]))
        if known.regions:
            self.tasks = (TaskName.REGION_SEGMENTATION,)
            self.classes, self.regions = (), known.names
        else:
            several = len(known.names) > 2
            task = TaskName.MULTICLASS_SEGMENTATION if several else TaskName.SEGMENTATION
            self.tasks, self.classes = (task,), known.names
        self.modalities = tuple(
            Modality(name=name, kind=Kind.IMAGE, column="image", indices=(channel,))
            for channel, name in enumerate(known.channels)
        )

    def _find_cases(self) -> tuple[list[Labelled], list[BadFile], int]:
        """The labelled cases, a refusal for every file of none, and how many have no labels."""
        cases: list[Labelled] = []
        strays: list[BadFile] = []
        unlabelled = 0
        for images, labels, split in _FOLDERS:
            if split is None and not (self._root / images).is_dir():
                raise UserError(f"{self._root / images}: no such folder. Fetch the data set again.")
            masks = _by_name(self._root / labels, strays)
            stems = _by_name(self._root / images, strays)
            channels = _by_case(stems, masks, len(self._description.channels), strays)
            if split is None:
                strays += self._unlike_training(channels.keys() | masks.keys(), masks)
            for name in sorted(masks.keys() - channels.keys()):
                strays.append(BadFile(masks[name], f"no image of it in {images}. Add it."))
            known = self._description.listed
            for name, files in sorted(channels.items()):
                if name in masks and split is None and known is not None and name not in known:
                    continue  # refused above
                if name in masks:
                    cases.append(Labelled(name, files, masks[name], split))
                elif split is None:
                    first = next(iter(files.values()))
                    strays.append(BadFile(first, f"no {name}.nii.gz in {labels}. Add it."))
                else:
                    unlabelled += 1
        if not cases and not strays:
            raise UserError(f"{self._root / 'imagesTr'}: no .nii or .nii.gz files here.")
        return cases, strays, unlabelled

    def _unlike_training(
        self, here: AbstractSet[str], masks: Mapping[str, Path]
    ) -> Iterator[BadFile]:
        """A refusal for each case that `dataset.json` lists and is not here, or the reverse."""
        listed = self._description.listed
        if listed is None:
            return
        for name in sorted(listed - here):
            yield BadFile(
                self._root / _JSON, f"training: names {name}, which is not here. Fetch it."
            )
        for name in sorted(masks.keys() - listed):
            yield BadFile(masks[name], f'not in "training" of {_JSON}. Add it, or take it away.')

    def _read(self, case: Labelled) -> tuple[dict[str, Volume], NDArray[np.uint8]]:
        """The channels on the grid of the first, and the stored labels on it."""
        names = self._description.channels
        volumes: dict[str, Volume] = {}
        if None in case.image:
            path = case.image[None]
            if len(names) == 1:
                volumes = {names[0]: read_nifti(path)}
            else:
                whole = read_nifti(path, dims=4)
                if whole.values.shape[3] != len(names):
                    raise BadFile(
                        path,
                        f"{whole.values.shape[3]} channels where {_JSON} names {len(names)}. "
                        "Correct one of the two.",
                    )
                volumes = {
                    name: Volume(whole.values[..., channel], whole.spacing, whole.affine)
                    for channel, name in enumerate(names)
                }
        else:
            for channel, name in enumerate(names):
                if channel not in case.image:
                    missing = f"{case.name}_{channel:04d}.nii.gz"
                    raise BadFile(case.labels, f"no {missing} ({name}) in imagesTr. Fetch it.")
                volumes[name] = read_nifti(case.image[channel])
                check_grid(case.image[channel], volumes[name], volumes[names[0]])
        first = volumes[names[0]]
        return volumes, read_labels(case.labels, first, self._description.values)

    def _mask(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(1, *spatial) of stored values to classes, or to (R, *spatial) of regions."""
        known = self._description
        if known.regions:
            layers = [np.isin(stored, values) for values in known.regions]
            return np.concatenate(layers).astype(np.uint8)
        return np.searchsorted(known.values, stored).astype(np.uint8)

    def _parts(self, case: Labelled, held: NDArray[np.bool_]) -> Iterator[tuple[int, Any]]:
        """Number and index of every sample within (C, D, H, W); `held` is (D,)."""
        if self._volumes:
            yield 0, slice(None)
            return
        key = opaque(self.name, case.labels.parent.name, case.name)
        for index in choice.choose(self._rule, held, seed=self.seed, key=key):
            yield index, (slice(None), index)


def _described(path: Path) -> Description:
    """Raises `BadFile` for a file that cannot be read or does not describe volumes."""
    checked_size(path, _MAX_JSON)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadFile(path, f"no JSON in UTF-8 ({error}). Fetch it again.") from error
    if not isinstance(raw, dict):
        raise BadFile(path, "no JSON object. Fetch it again.")
    ending = raw.get("file_ending", _SUFFIXES[1])
    if ending not in _SUFFIXES:
        raise BadFile(path, f"file_ending: {ending!r}; only NIfTI files are read. Convert them.")
    values, names, regions = _labels(path, raw.get("labels"))
    return Description(
        channels=_channels(path, raw),
        values=values,
        names=names,
        regions=regions,
        licence=_text(raw, "licence", "license"),
        reference=_text(raw, "reference"),
        listed=_listed(path, raw.get("training")),
    )


def _channels(path: Path, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names by number; a name that comes twice gets its number behind."""
    key = "channel_names" if "channel_names" in raw else "modality"
    named = raw.get(key)
    if not isinstance(named, dict) or not named:
        raise BadFile(path, 'no "modality" or "channel_names" as {"0": "CT"}. Add it.')
    numbers = {number: str(name).strip() for number, name in named.items()}
    wanted = [str(number) for number in range(len(named))]
    if sorted(numbers) != sorted(wanted):
        raise BadFile(path, f"{key}: numbered {', '.join(sorted(numbers))}, not from 0 on.")
    names = [numbers[number] for number in wanted]
    return tuple(
        name if name and names.count(name) == 1 else f"{name or 'channel'} {number}"
        for number, name in enumerate(names)
    )


def _labels(
    path: Path, raw: object
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Stored values, names, and the values of each region where there are regions."""
    if not isinstance(raw, dict) or len(raw) < 2:
        raise BadFile(path, 'no "labels" as {"0": "background", "1": "tumour"}. Add them.')
    if all(str(key).isdigit() for key in raw):
        # Version 1 and the Decathlon: value to name.
        pairs = {str(name).strip(): _whole(path, number) for number, name in raw.items()}
        if len(pairs) < len(raw):
            raise BadFile(path, "labels: two values of one name. Rename one of them.")
        held: dict[str, tuple[int, ...]] = {name: (value,) for name, value in pairs.items()}
    else:
        held = {
            str(name).strip(): tuple(
                _whole(path, v) for v in (value if isinstance(value, list) else [value])
            )
            for name, value in raw.items()
        }
    if _IGNORE in held:
        raise BadFile(path, 'labels: "ignore" (pixels without a label) is not supported.')
    singles = [values[0] for values in held.values() if len(values) == 1]
    if len(singles) == len(held):
        if len(set(singles)) < len(singles):
            raise BadFile(path, "labels: two names of one value. Remove one of them.")
        if 0 not in singles:
            raise BadFile(path, "labels: no value 0, the background. Add it.")
        names = tuple(sorted(held, key=lambda name: held[name][0]))
        return tuple(sorted(singles)), names, ()
    if (0,) not in held.values():
        raise BadFile(path, "labels: no value 0, the background. Add it.")
    regions = {name: values for name, values in held.items() if values != (0,)}
    if any(not values or 0 in values for values in regions.values()):
        raise BadFile(path, "labels: a region holds no value, or the background. Correct it.")
    everything = tuple(sorted({0, *(value for values in regions.values() for value in values)}))
    return everything, tuple(regions), tuple(regions.values())


def _whole(path: Path, value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or int(text) > _HIGHEST:
        raise BadFile(path, f"labels: {text[:20]!r} is no whole number from 0 to {_HIGHEST}.")
    return int(text)


def _text(raw: Mapping[str, Any], *keys: str) -> str:
    return next((str(raw[key]).strip() for key in keys if raw.get(key)), "")


def _listed(path: Path, raw: object) -> frozenset[str] | None:
    """The cases that version 1 and the Decathlon list; version 2 lists none."""
    if raw is None:
        return None
    entries = raw if isinstance(raw, list) else []
    labels = [entry.get("label") for entry in entries if isinstance(entry, dict)]
    names = [label for label in labels if isinstance(label, str)]
    if not isinstance(raw, list) or len(names) != len(entries):
        raise BadFile(path, 'training: a list of {"image": ..., "label": ...}. Correct it.')
    return frozenset(volume_name(Path(name)) for name in names)


def _by_name(folder: Path, strays: list[BadFile]) -> dict[str, Path]:
    """Case to file, and a refusal for each further file of a case."""
    files: dict[str, Path] = {}
    for path in walk(folder, _SUFFIXES) if folder.is_dir() else ():
        if files.setdefault(name := volume_name(path), path) != path:
            strays.append(BadFile(path, f"also here as {files[name].name}. Remove one of them."))
    return files


def _by_case(
    stems: Mapping[str, Path], masks: Container[str], channels: int, strays: list[BadFile]
) -> dict[str, dict[int | None, Path]]:
    """Case to its files of channels, and a refusal for each file that is none.

    A name with labels is a case, whatever it ends in.
    """
    cases: dict[str, dict[int | None, Path]] = defaultdict(dict)
    for stem, path in stems.items():
        match = None if stem in masks else _CHANNEL.fullmatch(stem)
        if match is None:
            cases[stem][None] = path
        elif int(match["channel"]) < channels:
            cases[match["case"]][int(match["channel"])] = path
        else:
            rule = f"a channel beyond the {channels} that {_JSON} names. Correct one of the two."
            strays.append(BadFile(path, rule))
    for name, files in cases.items():
        if None in files and len(files) > 1:
            rule = f"beside files of channels ({name}_0000 and so on). Remove it, or those."
            strays.append(BadFile(files.pop(None), rule))
    return cases
