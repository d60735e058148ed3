"""COVID-19 Chest X-Ray Segmentations: masks of lungs and infection, and boxes of thirteen kinds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image, resize_mask
from trustsweep.data_pipelines.preprocess.rectangles import Rectangle, to_boxes
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_grey, read_mask
from trustsweep.data_pipelines.readers.patients import identity
from trustsweep.data_pipelines.readers.tables import ColumnKind, TableRow, read_table
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Split, TaskName

_INDEX, _METADATA, _BOXES = "index.csv", "metadata.csv", "boxes_256.csv"
_ORGANS = ("lung", "infection")
_TARGETS = ("infection", "lung", "classes", "regions")
_SPLITS = ("own", "index")
#: Of index.csv, with the option split=index.
_USES = {"train": None, "test": Split.TEST}
#: Boxes are in pixels of images of 256 x 256.
_BOX_SIZE = 256

_KINDS = (
    "Airways",
    "Cardiomediastinum",
    "Central Venous Line",
    "Consolidation",
    "Endotracheal Tube",
    "Ground Glass Opacities",
    "Left Lung",
    "Monitoring Probes",
    "Nosogastric Tube",
    "Pleural Effusion",
    "Pneumothorax",
    "Right Lung",
    "Tubings",
)
_COLUMNS = {
    "filename": ColumnKind.TEXT,
    "patientid": ColumnKind.TEXT,
    "sex": ColumnKind.TEXT,
    "age": ColumnKind.NUMBER,
    "view": ColumnKind.TEXT,
    "location": ColumnKind.TEXT,
}
_BOX_COLUMNS = {
    "filename": ColumnKind.TEXT,
    "cls": ColumnKind.TEXT,
    "x": ColumnKind.NUMBER,
    "y": ColumnKind.NUMBER,
    "w": ColumnKind.NUMBER,
    "h": ColumnKind.NUMBER,
}
_NUMBER = {name: index for index, name in enumerate(_KINDS)}
_SEXES = ("M", "F")
_OLDEST = 120


@dataclass(frozen=True)
class IndexEntry:
    """A row of the index."""

    row: TableRow


class CovidCxrSegmentations(Layout[IndexEntry | BadFile]):
    """General Blockchain's annotations of a hundred X-rays of Cohen's covid-chestxray-dataset.

    `folder` holds `images/`, `masks/infection/` and `masks/lung/` (PNG files of one name),
    `index.csv` (image, its name in the metadata), `metadata.csv` as in Cohen's collection, and
    `boxes_256.csv` (x, y, w, h in pixels of 256 x 256). This is the annotations' content brought
    to plain files; the publisher ships it as COCO and SuperAnnotate projects.

    Several images may be of one patient (`patientid`); site is the country at the end of
    `location`. What the metadata leave empty is None.

    Args:
        target: What `mask` holds: "infection" (ground glass and consolidation) or "lung"; "classes"
            (background, lung, infection) that exclude each other, where an infection counts as one
            wherever it was drawn; or "regions" (lung, infection), as they were drawn.
        split: "own" divides by patient as for any data set. "index" keeps the test images of
            index.csv's `split` column. That column is not the publisher's, who states no split: it
            came with the plain files, patient by patient.
    """

    name = "covid-cxr-segmentations"
    tasks: tuple[TaskName, ...] = (TaskName.SEGMENTATION,)
    box_classes = _KINDS
    groups = ("site", "sex", "age", "view")
    licence = "Annotations: CC BY 4.0. Images: per row of metadata.csv, some of them unstated"
    citation = (
        "General Blockchain (2020): COVID-19 Chest X-Ray Segmentations Dataset. "
        "github.com/GeneralBlockchain. Images: Cohen, Morrison, Dao, Roth, Duong, Ghassemi "
        "(2020): COVID-19 Image Data Collection: Prospective Predictions Are the Future. "
        "arXiv 2006.11988"
    )

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        target: str = "infection",
        split: str = "own",
    ) -> None:
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: give the folder that holds {_INDEX}.")
        for option, value, known in (("target", target, _TARGETS), ("split", split, _SPLITS)):
            if value not in known:
                raise UserError(f"{option}: one of {', '.join(known)}, not {value!r}.")
        super().__init__(folder, size=size, seed=seed)
        self.classes = ("background", target)
        kinds = _ORGANS if target in ("classes", "regions") else (target,)
        self._exclusive = target == "classes"
        if target == "classes":
            self.tasks = (TaskName.MULTICLASS_SEGMENTATION,)
            self.classes = ("background", *_ORGANS)
        elif target == "regions":
            self.tasks = (TaskName.REGION_SEGMENTATION,)
            self.classes, self.regions = (), _ORGANS
        self._keep_split = split == "index"
        self._folder = folder
        self._masks = tuple(folder / "masks" / kind for kind in kinds)
        for place in (folder / "images", *self._masks):
            if not place.is_dir():
                raise UserError(f"{place}: no such folder. Fetch the data set again.")
        index = {"image": ColumnKind.TEXT, "orig": ColumnKind.TEXT}
        if self._keep_split:
            index["split"] = ColumnKind.TEXT
        self._index = read_table(folder / _INDEX, index, unique="image")
        self._metadata = read_table(
            folder / _METADATA, _COLUMNS, unique="filename", private=("patientid",)
        )
        self._people = {row["filename"]: row for row in self._metadata}
        self._boxes, self._strays = self._read_boxes()

    def cases(self) -> Iterator[IndexEntry | BadFile]:
        for row in self._index:
            yield IndexEntry(row)
        listed = {row["image"] for row in self._index}
        for place in (self._folder / "images", *self._masks):
            for path in sorted(place.glob("*.png")):
                if path.name not in listed and not path.name.startswith("."):
                    yield BadFile(path, f"in no row of {_INDEX}. Remove it, or add its row.")
        yield from self._strays

    def load(self, case: IndexEntry | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        name = case.row["image"]
        image = self._folder / "images" / name
        person = self._person(case.row)
        pixels = read_grey(image)
        drawn = [read_mask(folder / name, pixels.shape) for folder in self._masks]
        masks = np.stack(drawn)
        if self._exclusive:
            layers = np.arange(1, len(masks) + 1, dtype=np.uint8)
            masks = (masks * layers[:, None, None]).max(axis=0, keepdims=True)
        resized = np.concatenate([resize_mask(mask, self.size) for mask in masks])
        published = (_BOX_SIZE, _BOX_SIZE)
        boxes, notes = to_boxes(self._boxes.get(name, ()), published, self.size)
        one = len(self._masks) == 1
        notes += self._lost("mask", masks, resized) if one else self._lost_parts(masks, resized)
        if not (patient := identity(person["patientid"] or "")):
            notes += ("images do not name their patient; each counts as one",)
        yield Sample(
            sample_id=opaque(self.name, "image", name),
            patient_id=opaque(self.name, "patient" if patient else "image", patient or name),
            site=_country(person["location"]),
            split=self._split(case.row),
            image=resize_image(pixels, self.size),
            mask=resized,
            boxes=boxes,
            groups={
                "sex": self._sex(person),
                "age": self._age(person),
                "view": person["view"],
            },
            source=image,
            notes=notes,
        )

    def source_digest(self) -> str:
        tables = [self._folder / name for name in (_INDEX, _METADATA, _BOXES)]
        images = sorted((self._folder / "images").glob("*.png"))
        masks = [path for folder in self._masks for path in sorted(folder.glob("*.png"))]
        return digest(self._folder, [*tables, *images, *masks])

    def remarks(self) -> list[str]:
        if self._keep_split:
            return []
        return [f"the split column of {_INDEX} is not the publisher's and not used (split=index)"]

    def _read_boxes(self) -> tuple[dict[str, list[Rectangle]], list[BadFile]]:
        """Image name to its boxes, and a refusal for every row that belongs to no image."""
        table = read_table(self._folder / _BOXES, _BOX_COLUMNS, required=_BOX_COLUMNS)
        images = {row["image"] for row in self._index}
        boxes: dict[str, list[Rectangle]] = defaultdict(list)
        refused = []
        for row in table:
            name, kind, x, y, w, h = (row[column] for column in _BOX_COLUMNS)
            if name not in images:
                rule = f"names an image that {_INDEX} does not. Remove the line."
                refused.append(table.bad(row, "filename", rule))
            elif kind not in _NUMBER:
                rule = f"is not one of {', '.join(_KINDS)}. Correct it."
                refused.append(table.bad(row, "cls", rule))
            else:
                edges = (x, y, x + w, y + h)
                where = f"line {row.line}"
                boxes[name].append(Rectangle(edges, _NUMBER[kind], table.path, where))
        return boxes, refused

    def _person(self, row: TableRow) -> TableRow:
        if (person := self._people.get(row["orig"])) is None:
            rule = f"names a file that {_METADATA} does not. Add it there, or remove the line."
            raise self._index.bad(row, "orig", rule)
        return person

    def _split(self, row: TableRow) -> Split | None:
        if not self._keep_split:
            return None
        if row["split"] not in _USES:
            raise self._index.bad(row, "split", f"is one of {', '.join(_USES)}.")
        return _USES[row["split"]]

    def _sex(self, person: TableRow) -> str | None:
        sex: str | None = person["sex"]
        if sex not in (None, *_SEXES):
            raise self._metadata.bad(person, "sex", f"is {' or '.join(_SEXES)}, or empty.")
        return sex

    def _age(self, person: TableRow) -> float | None:
        age: float | None = person["age"]
        if age is not None and not 0 <= age <= _OLDEST:
            raise self._metadata.bad(person, "age", f"is 0 to {_OLDEST} years, or empty.")
        return age


def _country(location: str | None) -> str:
    """ "Hospital, City, Country" to its last part."""
    return (location or "").split(",")[-1].strip() or "unstated"
