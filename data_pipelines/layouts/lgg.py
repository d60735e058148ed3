"""LGG Segmentation Dataset: brain MRI of lower-grade gliomas with masks of FLAIR abnormality."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image, resize_mask
from trustsweep.data_pipelines.preprocess import slices as choice
from trustsweep.data_pipelines.preprocess.volumes import VolumeRecipe, apply
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque, walk
from trustsweep.data_pipelines.readers.images import read_colour, read_mask
from trustsweep.data_pipelines.readers.nifti import Volume
from trustsweep.data_pipelines.readers.tables import ColumnKind, Table, TableRow, read_table
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, TaskName

_ROOT, _TABLE = "kaggle_3m", "data.csv"
_SEQUENCES = ("pre-contrast", "flair", "post-contrast")
_FLAIR = 1
_CLUSTERS = (
    "RNASeqCluster",
    "MethylationCluster",
    "miRNACluster",
    "CNCluster",
    "RPPACluster",
    "OncosignCluster",
    "COCCluster",
)
_COLUMNS = {
    "Patient": ColumnKind.TEXT,
    **dict.fromkeys(_CLUSTERS, ColumnKind.INTEGER),
    "gender": ColumnKind.INTEGER,
    "age_at_initial_pathologic": ColumnKind.NUMBER,
    "race": ColumnKind.INTEGER,
}
#: Site, patient, day.
_FOLDER = re.compile(r"TCGA_([A-Z0-9]{2})_([A-Z0-9]{4})_\d{8}")
_OLDEST = 120
#: Rows run from front to back and columns from right to left, slices from below, as is usual; the
#: publisher does not say. RAS millimetres of (D, H, W), of unknown size.
_AFFINE = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)


@dataclass(frozen=True)
class PatientFolder:
    """A folder: slice number to image and mask, where both exist."""

    folder: Path
    slices: Mapping[int, tuple[Path, Path]]


class Lgg(Layout[PatientFolder | BadFile]):
    """LGG Segmentation Dataset (kaggle_3m): 110 TCGA patients, 256 x 256 slices, from five sites.

    `folder` is `kaggle_3m`, or one that contains it: a folder `TCGA_<site>_<patient>_<day>` a
    patient with `<folder>_<n>.tif` and `<folder>_<n>_mask.tif`, and `data.csv`. A folder without a
    row in `data.csv` is refused; rows without a folder are counted. Without `data.csv` at all there
    are no genomic clusters, sex, age or race; the patient and the site are in the folders' names.

    The three channels are pre-contrast, FLAIR and post-contrast. Where a sequence was missing the
    publisher put FLAIR in its place; a channel that equals FLAIR in all slices counts as absent and
    becomes 0. Site is the patient's tissue source site, the second part of the name.

    `tabular` are the seven genomic clusters of `data.csv`, as categories. Grade, histology and
    death are outcomes, location and laterality follow from the mask, and the ethnicity is mostly
    one: none of them is read. `gender` and `race` are codes whose meaning the publisher does not
    state; as groups they stay codes ("1", "2", ...).

    Args:
        dims: 2 for slices, labelled by whether they hold tumour; 3 for a volume a patient, which
            all hold tumour, and so have masks alone. The distance of slices is not published:
            volumes are scaled along each axis on its own.
        slices: With dims=2, "all", "tumour" (those with tumour and as many without), or n for
            every n-th.
        depth: With dims=3, slices of a volume; 0 stands for `size`.
    """

    name = "lgg"
    groups: tuple[str, ...] = ("site", "sex", "age", "race")
    classes = ("background", "tumour")
    licence = "CC BY-NC-SA 4.0"
    citation = (
        "Buda, Saha, Mazurowski (2019): Association of genomic subtypes of lower-grade gliomas "
        "with shape features automatically extracted by a deep learning algorithm. Computers in "
        "Biology and Medicine 109, 218-225. doi 10.1016/j.compbiomed.2019.05.002"
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
    ) -> None:
        choice.check_options(dims, slices, depth)
        super().__init__(folder, size=size, seed=seed)
        self._root = _find_root(folder)
        self._recipe: VolumeRecipe | None = None
        if dims == 3:
            whole = (depth or size, size, size)
            self._recipe = VolumeRecipe(size=whole, crop=False, stretch_depth=True)
        self._rule = slices
        self._table: Table | None = None
        if (self._root / _TABLE).exists():
            self._table = read_table(self._root / _TABLE, _COLUMNS, unique="Patient")
        self._rows = {row["Patient"]: row for row in self._table or ()}
        self.tasks = (
            (TaskName.SEGMENTATION,)
            if dims == 3
            else (TaskName.SEGMENTATION, TaskName.CLASSIFICATION)
        )
        self.modalities = tuple(
            Modality(name=name, kind=Kind.IMAGE, column="image", indices=(channel,))
            for channel, name in enumerate(_SEQUENCES)
        )
        if self._table is None:
            self.groups = ("site",)
        else:
            table = self._table
            self.tabular = tuple(_cluster(table, name) for name in _CLUSTERS)
            self.modalities += (Modality(name="genomics", kind=Kind.TABULAR, column="tabular"),)

    def cases(self) -> Iterator[PatientFolder | BadFile]:
        for folder in self._folders:
            patient, problems = _listed(folder)
            yield from problems
            if patient.slices:
                yield patient
            elif not problems:
                yield BadFile(folder, "no slices here. Unpack the archive again.")

    def load(self, case: PatientFolder | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        person = self._person(case.folder)
        scan = [_slice(image, mask) for image, mask in case.slices.values()]
        if len({pixels.shape for pixels, _ in scan}) > 1:
            raise BadFile(case.folder, "its slices differ in size. Unpack the archive again.")
        pixels = np.stack([pixels for pixels, _ in scan])
        masks = np.stack([mask for _, mask in scan])
        available = tuple(
            channel == _FLAIR or bool((pixels[..., channel] != pixels[..., _FLAIR]).any())
            for channel in range(len(_SEQUENCES))
        )
        pixels[..., ~np.array(available)] = 0
        if self._recipe is not None:
            made = self._volume(case, self._recipe, pixels, masks, available)
        else:
            made = self._slices(case, pixels, masks, available)
        for sample in made:
            yield Sample(**{**sample, **person, "present": (*available, *person["present"])})

    def source_digest(self) -> str:
        table = [] if self._table is None else [self._table.path]
        return digest(self._root, [*table, *walk(self._root, (".tif", ".tiff"))])

    def remarks(self) -> list[str]:
        known = {folder.name for folder in self._folders} | {_TABLE, "README.md"}
        unread = sorted(
            entry.name
            for entry in self._root.iterdir()
            if entry.name not in known and not entry.name.startswith(".")
        )
        remarks = [f"not read, not part of the layout: {', '.join(unread)}"] if unread else []
        if self._table is None:
            remarks.append(
                f"no {_TABLE} here: no genomic clusters, sex, age or race; patients and sites are "
                "read from the folders' names"
            )
        absent = len(self._rows.keys() - {_patient(folder) for folder in self._folders})
        if absent:
            remarks.append(f"{absent} of {len(self._rows)} patients of {_TABLE} have no folder")
        return remarks

    @cached_property
    def _folders(self) -> list[Path]:
        return sorted(
            p for p in self._root.iterdir() if p.is_dir() and p.name.upper().startswith("TCGA")
        )

    def _slices(
        self,
        case: PatientFolder,
        pixels: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        available: tuple[bool, ...],
    ) -> Iterator[dict[str, Any]]:
        tumour = np.array([mask.any() for mask in masks])
        places = list(case.slices.items())
        key = opaque(self.name, case.folder.name)
        for index in choice.choose(self._rule, tumour, seed=self.seed, key=key):
            number, (source, _) = places[index]
            mask = resize_mask(masks[index], self.size)
            yield {
                "sample_id": opaque(self.name, "slice", case.folder.name, str(number)),
                "image": resize_image(pixels[index], self.size),
                "mask": mask,
                "label": int(tumour[index]),
                "source": source,
                "notes": (*_absent(available), *self._lost("tumour", masks[index], mask)),
            }

    def _volume(
        self,
        case: PatientFolder,
        recipe: VolumeRecipe,
        pixels: NDArray[np.uint8],
        masks: NDArray[np.uint8],
        available: tuple[bool, ...],
    ) -> Iterator[dict[str, Any]]:
        numbers = list(case.slices)
        if gaps := sorted(set(range(numbers[0], numbers[-1])) - set(numbers)):
            raise BadFile(case.folder, f"slice {gaps[0]} is missing. Unpack the archive again.")
        volumes = {
            name: Volume(pixels[..., channel].astype(np.float32), (1.0, 1.0, 1.0), _AFFINE)
            for channel, name in enumerate(_SEQUENCES)
            if available[channel]
        }
        prepared = apply(recipe, volumes, masks)
        assert prepared.mask is not None
        image = np.zeros((len(_SEQUENCES), *prepared.image.shape[1:]), np.float32)
        image[np.array(available)] = prepared.image
        yield {
            "sample_id": opaque(self.name, "volume", case.folder.name),
            "image": image,
            "mask": prepared.mask,
            "source": case.folder,
            "notes": (
                *_absent(available),
                *prepared.notes,
                *self._lost("tumour", masks, prepared.mask),
            ),
        }

    def _person(self, folder: Path) -> dict[str, Any]:
        """Of every sample of the patient; `present` of the table alone."""
        if not _FOLDER.fullmatch(folder.name):
            raise BadFile(folder, "not named TCGA_<site>_<patient>_<day>. Rename it.")
        person: dict[str, Any] = {
            "patient_id": opaque(self.name, "patient", _patient(folder)),
            "site": folder.name.split("_")[1],
            "present": (),
        }
        if self._table is None:
            return person
        if (row := self._rows.get(_patient(folder))) is None:
            raise BadFile(folder, f"in no row of {_TABLE}. Add its row, or remove the folder.")
        clusters = self._clusters(row)
        return {
            **person,
            "groups": _groups(self._table, row),
            "tabular": clusters,
            "present": (not np.isnan(clusters).all(),),
        }

    def _clusters(self, row: TableRow) -> NDArray[np.float32]:
        """(7,) indices into the vocabularies, NaN where unknown."""
        values = [
            np.nan if (code := row[f.name]) is None else f.vocabulary.index(str(code))
            for f in self.tabular
        ]
        return np.array(values, np.float32)


def _find_root(folder: Path | None) -> Path:
    if folder is None or not folder.is_dir():
        raise UserError(f"{folder or Lgg.name}: no such folder. Give the one that holds {_ROOT}.")
    roots = (folder, folder / _ROOT, folder / "lgg-mri-segmentation" / _ROOT)
    for root in roots:
        if (root / _TABLE).exists():
            return root
    for root in roots:
        if root.is_dir() and any(_FOLDER.fullmatch(entry.name) for entry in root.iterdir()):
            return root
    raise UserError(
        f"{folder}: neither {_TABLE} nor a folder TCGA_<site>_<patient>_<day> here. "
        f"Give the folder {_ROOT} of the archive."
    )


def _cluster(table: Table, name: str) -> Feature:
    codes = sorted({row[name] for row in table if row[name] is not None})
    if not codes:
        raise UserError(f"{table.path}: column {name!r} is empty. Fetch it again.")
    return Feature(name=name, vocabulary=tuple(map(str, codes)))


def _groups(table: Table, row: TableRow) -> dict[str, str | float | None]:
    age = row["age_at_initial_pathologic"]
    if age is not None and not 0 <= age <= _OLDEST:
        raise table.bad(row, "age_at_initial_pathologic", f"is 0 to {_OLDEST} years, or empty.")
    code = {name: None if row[name] is None else str(row[name]) for name in ("gender", "race")}
    return {"sex": code["gender"], "age": age, "race": code["race"]}


def _patient(folder: Path) -> str:
    """TCGA_<site>_<patient>, as in the table."""
    return "_".join(folder.name.split("_")[:3])


def _listed(folder: Path) -> tuple[PatientFolder, list[BadFile]]:
    """The pairs of a folder in the order of their numbers, and a refusal for every other file."""
    images: dict[int, Path] = {}
    masks: dict[int, Path] = {}
    problems = []
    pattern = re.compile(rf"{re.escape(folder.name)}_(\d+)(_mask)?\.tiff?", re.IGNORECASE)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if (named := pattern.fullmatch(path.name)) is None:
            problems.append(BadFile(path, f"not named {folder.name}_<n>.tif. Take it away."))
            continue
        number, kind = int(named[1]), masks if named[2] else images
        if number in kind:
            problems.append(BadFile(path, f"slice {number} a second time. Remove one of the two."))
        kind.setdefault(number, path)
    for number in sorted(images.keys() - masks.keys()):
        problems.append(BadFile(images[number], "has no mask. Add it (all 0 without tumour)."))
    for number in sorted(masks.keys() - images.keys()):
        problems.append(BadFile(masks[number], "a mask without its image. Add it, or remove this."))
    pairs = {n: (images[n], masks[n]) for n in sorted(images.keys() & masks.keys())}
    return PatientFolder(folder, pairs), problems


def _slice(image: Path, mask: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pixels = read_colour(image)
    return pixels, read_mask(mask, pixels.shape[:2])


def _absent(available: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(
        f"images have no {name} sequence (the publisher put FLAIR there); set to 0"
        for name, present in zip(_SEQUENCES, available, strict=True)
        if not present
    )
