"""NIH ChestX-ray14: chest X-rays with fourteen findings mined from reports, some with boxes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image
from trustsweep.data_pipelines.preprocess.rectangles import Rectangle, to_boxes
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_grey
from trustsweep.data_pipelines.readers.name_lists import read_names
from trustsweep.data_pipelines.readers.patients import identity
from trustsweep.data_pipelines.readers.tables import ColumnKind, TableRow, read_table
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split, TaskName

_ENTRIES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_BOXES = "BBox_List_2017.csv"
_LISTS = {"train_val_list.txt": None, "test_list.txt": Split.TEST}

_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_NUMBER = {name: index for index, name in enumerate(_FINDINGS)}
_NONE = "No Finding"
#: The list of boxes has a name of its own for one finding.
_BOX_NUMBER = {**_NUMBER, "Infiltrate": _NUMBER["Infiltration"]}

_NAME, _LABELS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"
_FINDING = "Finding Label"
_AGE, _SEX, _VIEW = "Patient Age", "Patient Gender", "View Position"
_COLUMNS = {
    _NAME: ColumnKind.TEXT,
    _LABELS: ColumnKind.TEXT,
    _PATIENT: ColumnKind.TEXT,
    _AGE: ColumnKind.TEXT,
    _SEX: ColumnKind.TEXT,
    _VIEW: ColumnKind.TEXT,
}
_BOX_COLUMNS = {
    _NAME: ColumnKind.TEXT,
    _FINDING: ColumnKind.TEXT,
    "Bbox [x": ColumnKind.NUMBER,
    "y": ColumnKind.NUMBER,
    "w": ColumnKind.NUMBER,
    "h]": ColumnKind.NUMBER,
}
#: Boxes are in pixels of the published images, 1024 x 1024, whatever size a copy was scaled to.
_PUBLISHED = 1024

_SEXES, _VIEWS = ("M", "F"), ("PA", "AP")
_AGES = re.compile(r"(\d{1,3})([YMD]?)")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "D": 365.25}
_OLDEST = 120


@dataclass(frozen=True)
class ImageEntry:
    """An image on disk."""

    image: Path


class ChestXray14(Layout[ImageEntry | BadFile]):
    """NIH ChestX-ray14 (112,120 images of 30,805 patients), whole or in part.

    `folder` holds `images_001` to `images_012` (or one `images`), `Data_Entry_2017_v2020.csv` (or
    the older `Data_Entry_2017.csv`), `train_val_list.txt` and `test_list.txt`. Rows without an
    image count as not downloaded; an image without a row, or in no list, is refused. The official
    test set is kept; validation is split off the rest by patient. Without either list the split is
    ours. A row that repeats another in every field counts once; two rows of one image that differ
    are refused. "No Finding" is 0 for all fourteen labels, which were mined from reports: the
    publisher puts them above 90 % right.

    `BBox_List_2017.csv`, if present, gives boxes: for eight of the findings, in 880 images,
    all of them of the test set. An image without a box was not annotated; it may have findings.

    Older tables write ages as 058Y, 011M, 001D; ages above 120 (some read 411) are taken as
    unknown. Some of the images are stored as RGBA without colour or transparency: read as grey.
    """

    name = "chestxray14"
    tasks = (TaskName.MULTILABEL,)
    classes = _FINDINGS
    groups = ("site", "sex", "age", "view")
    licence = "No restrictions; NIH Clinical Center asks to be acknowledged and the paper cited"
    citation = (
        "Wang, Peng, Lu, Lu, Bagheri, Summers (2017): ChestX-ray8: Hospital-scale Chest X-ray "
        "Database and Benchmarks on Weakly-Supervised Classification and Localization of Common "
        "Thorax Diseases. CVPR 2017. arXiv 1705.02315. Data: NIH Clinical Center, "
        "nihcc.app.box.com/v/ChestXray-NIHCC"
    )

    def __init__(self, folder: Path | None, *, size: int, seed: int) -> None:
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: give the folder that holds {_ENTRIES[0]}.")
        super().__init__(folder, size=size, seed=seed)
        self._folder = folder
        path = _first(folder, _ENTRIES)
        self._table = read_table(path, _COLUMNS, unique=_NAME, repeats=True, private=(_PATIENT,))
        self._rows = {row[_NAME]: row for row in self._table}
        self._lists = [folder / name for name in _LISTS]
        if not any(path.exists() for path in self._lists):
            self._lists = []
        self._split, self._doubly = self._read_lists()
        self._images, self._copies = _find_images(folder)
        self._boxes, self._strays = self._read_boxes()
        self.box_classes = _FINDINGS if self._boxes is not None else ()

    def cases(self) -> Iterator[ImageEntry | BadFile]:
        for image in self._images.values():
            yield ImageEntry(image)
        yield from self._copies
        yield from self._strays

    def load(self, case: ImageEntry | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        row = self._row(case.image)
        name = case.image.name
        pixels = read_grey(case.image, constant_alpha=True)
        age, notes = self._age(row)
        boxes = None
        if self._boxes is not None:
            published = (_PUBLISHED, _PUBLISHED)
            boxes, more = to_boxes(self._boxes.get(name, ()), published, self.size)
            notes += more
        yield Sample(
            sample_id=opaque(self.name, "image", name),
            patient_id=self._patient(row),
            site="nih",
            split=self._split.get(name),
            image=resize_image(pixels, self.size),
            label=self._label(row),
            boxes=boxes,
            groups={
                "sex": self._one_of(row, _SEX, _SEXES),
                "age": age,
                "view": self._one_of(row, _VIEW, _VIEWS),
            },
            source=case.image,
            notes=notes,
        )

    def source_digest(self) -> str:
        tables = [self._table.path, *self._lists]
        if self._boxes is not None:
            tables.append(self._folder / _BOXES)
        return digest(self._folder, [*tables, *self._images.values()])

    def remarks(self) -> list[str]:
        remarks = self._table.remarks()
        if not self._lists:
            remarks.append(f"neither {' nor '.join(_LISTS)} here: the split is ours, by patient")
        if absent := len(self._rows.keys() - self._images.keys()):
            of = f"{absent} of {len(self._rows)} rows of {self._table.path.name}"
            remarks.append(f"{of} have no image here; left out as not downloaded")
        if self._boxes is None:
            remarks.append(f"no {_BOXES} here: the data set has no boxes")
        return remarks

    def _read_lists(self) -> tuple[dict[str, Split | None], set[str]]:
        """Name to split, and the names that are in both lists."""
        split: dict[str, Split | None] = {}
        doubly = set()
        for path in self._lists:
            use = _LISTS[path.name]
            for member in read_names(path):
                if member in split:
                    doubly.add(member)
                split.setdefault(member, use)
        return split, doubly

    def _read_boxes(self) -> tuple[dict[str, list[Rectangle]] | None, list[BadFile]]:
        """Image name to its boxes, and a refusal for every row that belongs to no image."""
        path = self._folder / _BOXES
        if not path.is_file():
            return None, []
        table = read_table(path, _BOX_COLUMNS, required=_BOX_COLUMNS)
        boxes: dict[str, list[Rectangle]] = defaultdict(list)
        refused = []
        for row in table:
            name, finding, x, y, w, h = (row[column] for column in _BOX_COLUMNS)
            if name not in self._rows:
                rule = f"names an image that {self._table.path.name} does not. Remove the line."
                refused.append(table.bad(row, _NAME, rule))
            elif finding not in _BOX_NUMBER:
                rule = f"is not one of {', '.join(_BOX_NUMBER)}. Correct it."
                refused.append(table.bad(row, _FINDING, rule))
            else:
                edges = (x, y, x + w, y + h)
                where = f"line {row.line}"
                boxes[name].append(Rectangle(edges, _BOX_NUMBER[finding], path, where))
        return boxes, refused

    def _row(self, image: Path) -> TableRow:
        if (row := self._rows.get(image.name)) is None:
            raise BadFile(
                image, f"in no row of {self._table.path.name}. Remove it, or add its row."
            )
        if self._lists and image.name not in self._split:
            raise BadFile(image, f"in neither {' nor '.join(_LISTS)}. Add it to one.")
        if image.name in self._doubly:
            raise BadFile(image, f"in both {' and '.join(_LISTS)}. Leave it in one.")
        return row

    def _patient(self, row: TableRow) -> str:
        if not (patient := identity(row[_PATIENT] or "")):
            raise self._table.bad(row, _PATIENT, "is empty. Fetch the table again.")
        return opaque(self.name, "patient", patient)

    def _label(self, row: TableRow) -> NDArray[np.float32]:
        label = np.zeros(len(_FINDINGS), np.float32)
        names = (row[_LABELS] or "").split("|")
        if names == [_NONE]:
            return label
        if any(name not in _NUMBER for name in names):
            rule = f"is {_NONE!r}, or some of {', '.join(_FINDINGS)} with | between them."
            raise self._table.bad(row, _LABELS, rule)
        label[[_NUMBER[name] for name in names]] = 1
        return label

    def _one_of(self, row: TableRow, column: str, values: tuple[str, ...]) -> str | None:
        value: str | None = row[column]
        if value not in (None, *values):
            raise self._table.bad(row, column, f"is {' or '.join(values)}, or empty.")
        return value

    def _age(self, row: TableRow) -> tuple[float | None, tuple[str, ...]]:
        """Years, None where unknown, and notes."""
        if (value := row[_AGE]) is None:
            return None, ()
        if (match := _AGES.fullmatch(value)) is None:
            raise self._table.bad(row, _AGE, "is a number, or one with Y, M or D, as 058Y.")
        years = int(match[1]) / _PER_YEAR[match[2]]
        if years > _OLDEST:
            return None, (f"images have an age above {_OLDEST} years; taken as unknown",)
        return years, ()


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: neither {' nor '.join(names)} here. Fetch one of them.")


def _find_images(folder: Path) -> tuple[dict[str, Path], list[BadFile]]:
    """Images by name, in the order of the names, and a refusal for each further file of a name."""
    images: dict[str, Path] = {}
    copies = []
    for part in sorted(folder.glob("images*")):
        for place in (part, part / "images"):
            if not place.is_dir():
                continue
            for path in place.iterdir():
                if path.suffix.lower() != ".png" or path.name.startswith("."):
                    continue
                if images.setdefault(path.name, path) != path:
                    copies.append(BadFile(path, f"also at {images[path.name]}. Remove one."))
    if not images:
        raise UserError(f"{folder}: no images_*/images/*.png here. Unpack the archives there.")
    return dict(sorted(images.items())), sorted(copies, key=lambda problem: problem.path)
