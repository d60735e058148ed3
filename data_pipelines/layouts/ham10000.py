"""HAM10000: dermatoscopic images of skin lesions of seven diagnoses, with masks of the lesions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image, resize_mask
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_colour, read_mask
from trustsweep.data_pipelines.readers.patients import identity
from trustsweep.data_pipelines.readers.tables import ColumnKind, TableRow, read_header, read_table
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import TaskName

#: The Dataverse serves the table without an extension, or as tab-separated text.
_TABLES = {"HAM10000_metadata.csv": ",", "HAM10000_metadata": ",", "HAM10000_metadata.tab": "\t"}
_PARTS, _MASKS = "HAM10000_images_part_*", "HAM10000_segmentations_lesion_tschandl"
_MASK_END = "_segmentation.png"
#: As the table abbreviates them.
_DIAGNOSES = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}
_NUMBER = {code: index for index, code in enumerate(_DIAGNOSES)}
_LESION, _IMAGE, _SITE = "lesion_id", "image_id", "dataset"
_COLUMNS = {
    _LESION: ColumnKind.TEXT,
    _IMAGE: ColumnKind.TEXT,
    "dx": ColumnKind.TEXT,
    "age": ColumnKind.NUMBER,
    "sex": ColumnKind.TEXT,
    "localization": ColumnKind.TEXT,
}
_SEXES = ("male", "female")
_OLDEST = 120


@dataclass(frozen=True)
class LesionImage:
    """An image on disk."""

    image: Path


class Ham10000(Layout[LesionImage | BadFile]):
    """HAM10000: 10,015 dermatoscopic images of skin lesions, seven diagnoses, masks of the lesion.

    `folder` holds `HAM10000_images_part_1` and `_part_2`, `HAM10000_metadata.csv` (from the
    Dataverse also without `.csv`, or `.tab`) and `HAM10000_segmentations_lesion_tschandl` with
    `<image>_segmentation.png`; without this folder there are no masks. Rows without an image count
    as not downloaded; an image without a row or, where there are masks, without its own is refused,
    and so is a lesion of two diagnoses. There is no published test set here: splits are ours.
    ISIC_0024366 and ISIC_0029861 are one image with two masks, which is refused as well: remove
    one of them, or pass --skip-bad, which leaves out both.

    Several images may be of one lesion; `lesion_id` stands for the patient, as the publisher does
    not say which lesions are of one person. Site is the column `dataset`, where the table has it.
    Sex, age and localisation are "unknown" or empty in some rows: None.
    """

    name = "ham10000"
    classes: tuple[str, ...] = tuple(_DIAGNOSES.values())
    groups = ("site", "sex", "age", "localization")
    licence = "CC BY-NC 4.0"
    citation = (
        "Tschandl, Rosendahl, Kittler (2018): The HAM10000 dataset, a large collection of "
        "multi-source dermatoscopic images of common pigmented skin lesions. Scientific Data 5, "
        "180161. doi 10.1038/sdata.2018.161. Data: doi 10.7910/DVN/DBW86T"
    )

    def __init__(self, folder: Path | None, *, size: int, seed: int) -> None:
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: give the folder that holds {_PARTS[:-1]}1.")
        super().__init__(folder, size=size, seed=seed)
        self._folder = folder
        self._images, self._strays = _find_images(folder)
        path, delimiter = _find_table(folder)
        known = read_header(path, delimiter=delimiter)
        columns = {**_COLUMNS, **({_SITE: ColumnKind.TEXT} if _SITE in known else {})}
        self._table = read_table(
            path,
            columns,
            unique=_IMAGE,
            repeats=True,
            delimiter=delimiter,
            missing=("", "unknown"),
            private=(_LESION,),
        )
        self._rows = {row[_IMAGE]: row for row in self._table}
        self._sited = _SITE in known
        self._lesions = self._first_rows()
        self._masks = {path.name.removesuffix(_MASK_END): path for path in _masks(folder)}
        self._masked = (folder / _MASKS).is_dir()
        self.tasks = (TaskName.CLASSIFICATION,)
        if self._masked:
            self.tasks += (TaskName.SEGMENTATION,)
            self._strays += [
                BadFile(path, f"a mask of no image of {self._table.path.name}. Take it away.")
                for name, path in self._masks.items()
                if name not in self._rows
            ]

    def cases(self) -> Iterator[LesionImage | BadFile]:
        for path in self._images.values():
            yield LesionImage(path)
        yield from self._strays

    def load(self, case: LesionImage | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        name = case.image.stem
        if (row := self._rows.get(name)) is None:
            rule = f"in no row of {self._table.path.name}. Remove it, or add its row."
            raise BadFile(case.image, rule)
        lesion, label = self._lesion(row), self._label(row)
        pixels = read_colour(case.image)
        mask: NDArray[np.uint8] | None = None
        notes: tuple[str, ...] = ()
        if self._masked:
            if name not in self._masks:
                raise BadFile(case.image, f"no {name}{_MASK_END} in {_MASKS}. Fetch it.")
            drawn = read_mask(self._masks[name], pixels.shape[:2])
            mask = resize_mask(drawn, self.size)
            notes = self._lost("mask", drawn, mask)
        yield Sample(
            sample_id=opaque(self.name, "image", name),
            patient_id=opaque(self.name, "lesion", lesion),
            site=(row[_SITE] if self._sited else None) or "unstated",
            image=resize_image(pixels, self.size),
            mask=mask,
            label=label,
            groups={
                "sex": self._sex(row),
                "age": self._age(row),
                "localization": row["localization"],
            },
            source=case.image,
            notes=notes,
        )

    def source_digest(self) -> str:
        masks = [self._masks[name] for name in self._images if name in self._masks]
        return digest(self._folder, [self._table.path, *self._images.values(), *masks])

    def remarks(self) -> list[str]:
        remarks = [
            *self._table.remarks(),
            "patients are lesions: the publisher does not say which lesions are of one person, who "
            "may so be in two splits",
        ]
        if absent := len(self._rows.keys() - self._images.keys()):
            of = f"{absent} of {len(self._rows)} rows of {self._table.path.name}"
            remarks.append(f"{of} have no image here; left out as not downloaded")
        if not self._masked:
            remarks.append(f"no {_MASKS} here: the data set has no masks")
        return remarks

    def _first_rows(self) -> dict[str, TableRow]:
        """Lesion to its first row."""
        first: dict[str, TableRow] = {}
        for row in self._table:
            first.setdefault(identity(row[_LESION] or ""), row)
        return first

    def _lesion(self, row: TableRow) -> str:
        """Raises `BadFile` where the lesion's rows contradict each other."""
        if not (lesion := identity(row[_LESION] or "")):
            raise self._table.bad(row, _LESION, "is empty. Fetch the table again.")
        first = self._lesions[lesion]
        for column in ("dx", "sex"):
            if row[column] != first[column]:
                rule = f"is another one than in line {first.line}, of the same lesion. Correct one."
                raise self._table.bad(row, column, rule)
        return lesion

    def _label(self, row: TableRow) -> int:
        if row["dx"] not in _NUMBER:
            raise self._table.bad(row, "dx", f"is one of {', '.join(_DIAGNOSES)}.")
        return _NUMBER[row["dx"]]

    def _sex(self, row: TableRow) -> str | None:
        sex: str | None = row["sex"]
        if sex not in (None, *_SEXES):
            raise self._table.bad(row, "sex", f"is {' or '.join(_SEXES)}, unknown or empty.")
        return sex

    def _age(self, row: TableRow) -> float | None:
        age: float | None = row["age"]
        if age is not None and not 0 <= age <= _OLDEST:
            raise self._table.bad(row, "age", f"is 0 to {_OLDEST} years, or empty.")
        return age


def _find_table(folder: Path) -> tuple[Path, str]:
    """The table, and what separates its fields."""
    found = [(folder / name, d) for name, d in _TABLES.items() if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder}: none of {', '.join(_TABLES)} here. Fetch it.")
    if len(found) > 1:
        raise UserError(f"{found[1][0]}: also here as {found[0][0].name}. Remove one of the two.")
    return found[0]


def _find_images(folder: Path) -> tuple[dict[str, Path], list[BadFile]]:
    """Images by name, sorted, and a refusal for each further file of a name."""
    images: dict[str, Path] = {}
    copies = []
    for part in sorted(folder.glob(_PARTS)):
        for path in sorted(part.iterdir()) if part.is_dir() else ():
            if path.suffix.lower() not in (".jpg", ".jpeg", ".png") or path.name.startswith("."):
                continue
            if images.setdefault(path.stem, path) != path:
                copies.append(BadFile(path, f"also at {images[path.stem]}. Remove one."))
    if not images:
        raise UserError(f"{folder}: no {_PARTS}/*.jpg here. Unpack the archives there.")
    return dict(sorted(images.items())), copies


def _masks(folder: Path) -> list[Path]:
    place = folder / _MASKS
    return sorted(place.glob(f"*{_MASK_END}")) if place.is_dir() else []
