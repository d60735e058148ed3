"""Pascal VOC: photographs with a box around every object, also as BCCD ships blood cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image
from trustsweep.data_pipelines.preprocess.rectangles import Rectangle, exclusive, filled, to_boxes
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_colour
from trustsweep.data_pipelines.readers.name_lists import read_names
from trustsweep.data_pipelines.readers.xml import read_xml
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import PatientSource, Split, TaskName

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_XML, _IMAGES, _SETS = "Annotations", "JPEGImages", Path("ImageSets/Main")
_SUFFIXES = (".jpg", ".jpeg", ".png")

#: "trainval" adds what the lists of its parts do not name; there the choice is ours.
_LISTS: Mapping[str, Split | None] = {
    "train": Split.TRAIN,
    "val": Split.VAL,
    "test": Split.TEST,
    "trainval": None,
}
_TARGETS = ("labels", "classes", "regions")
_DIFFICULT = ("unknown", "present")
_OVERLAP = "images have overlapping boxes of several classes; the smaller box is on top"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class ListEntry:
    """A name of the lists, and the split that the publisher put it in."""

    name: str
    split: Split | None


@dataclass(frozen=True)
class Annotated:
    """An object of an annotation: its class, its box, and whether it is hard to recognise."""

    rectangle: Rectangle
    difficult: bool


class Voc(Layout[ListEntry | BadFile]):
    """Pascal VOC's layout: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/{train,...}.txt`.

    `folder` holds these three, or one folder that does (VOCdevkit/VOC2007). The task is to tell
    which classes are in an image; the classes are those that the annotations name, sorted. Splits
    are kept as listed; without any list every annotation is read and the split is ours.

    VOC counts pixels from 1 and a box includes its last ones: (xmin, ymin, xmax, ymax) is read as
    the edges (xmin - 1, ymin - 1, xmax, ymax). Boxes that reach beyond the image, as some of BCCD
    do, which counts from 0, are cut with a note. The layout names no patients; `--patients` takes
    them.

    The masks of `target` are the boxes, filled: they show where an object is, not its outline.

    Args:
        target: "labels", which classes are in an image, without masks; "classes", a mask of
            background and classes that exclude each other, the smaller box on top where boxes of
            two classes overlap (counted in a note), without labels; "regions", a mask of each
            class, which may overlap, beside the labels.
        difficult: What an object flagged so stands for. "unknown", as in VOC's own evaluation: its
            box is left out (of masks too), and a class with no other object has the label NaN.
            "present": the flag is ignored.
    """

    name = "voc"
    patients = PatientSource.NONE
    takes_patients = True
    tasks: tuple[TaskName, ...] = (TaskName.MULTILABEL,)
    groups = ("site",)
    licence = "as stated by the publisher of the folder (VOC: Flickr's terms of use; BCCD: MIT)"
    citation = (
        "Everingham, Van Gool, Williams, Winn, Zisserman (2010): The PASCAL Visual Object Classes "
        "(VOC) Challenge. IJCV 88(2), 303-338. doi 10.1007/s11263-009-0275-4"
    )

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        target: str = "labels",
        difficult: str = "unknown",
    ) -> None:
        if folder is None:
            raise UserError(f"layout {self.name}: give the folder that holds {_XML} and {_IMAGES}.")
        for option, value, known in (
            ("target", target, _TARGETS),
            ("difficult", difficult, _DIFFICULT),
        ):
            if value not in known:
                raise UserError(f"{option}: one of {', '.join(known)}, not {value!r}.")
        super().__init__(folder, size=size, seed=seed)
        self._root = _find_root(folder)
        self._keep_difficult = difficult == "present"
        self._annotations = _by_stem(self._root / _XML, (".xml",))
        self._images = _by_stem(self._root / _IMAGES, _SUFFIXES)
        self._entries, self._refused = self._listed()
        self._target = target
        self.classes = self.box_classes = self._learn_classes()
        self._number = {name: index for index, name in enumerate(self.box_classes)}
        if target == "classes":
            self.tasks = (TaskName.MULTICLASS_SEGMENTATION,)
            self.classes = ("background", *self.box_classes)
        elif target == "regions":
            self.tasks = (TaskName.REGION_SEGMENTATION, TaskName.MULTILABEL)
            self.regions = self.box_classes

    def cases(self) -> Iterator[ListEntry | BadFile]:
        yield from self._entries
        yield from self._refused

    def load(self, case: ListEntry | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        path, image = self._files(case)
        pixels = read_colour(image)
        root = read_xml(path)
        _check_size(path, root, pixels.shape)
        objects = self._objects(path, root)
        sure = [o for o in objects if self._keep_difficult or not o.difficult]
        boxes, notes = to_boxes([o.rectangle for o in sure], pixels.shape, self.size)
        if len(sure) < len(objects):
            notes += ("images have objects that are hard to recognise; their boxes are left out",)
        if not objects:
            notes += ("images have no object; kept",)
        mask = None
        if self._target != "labels":
            regions = filled(boxes, len(self.box_classes), self.size)
            mask = regions if self._target == "regions" else exclusive(boxes, self.size)
            if self._target == "classes" and (regions.sum(axis=0) > 1).any():
                notes += (_OVERLAP,)
        identity = opaque(self.name, case.name)
        yield Sample(
            sample_id=identity,
            patient_id=self._listed_patient(image) or identity,
            site="unstated",
            split=case.split,
            image=resize_image(pixels, self.size),
            mask=mask,
            label=None if self._target == "classes" else self._label(objects),
            boxes=boxes,
            source=image,
            notes=notes,
        )

    def image_files(self) -> Iterator[Path]:
        for entry in self._entries:
            if entry.name in self._images:
                yield self._images[entry.name]

    def source_digest(self) -> str:
        used = {entry.name for entry in self._entries}
        lists = [path for name in _LISTS if (path := self._list(name)).is_file()]
        files = [
            folder[name]
            for folder in (self._annotations, self._images)
            for name in sorted(used & set(folder))
        ]
        return digest(self._root, [*lists, *files])

    def remarks(self) -> list[str]:
        remarks = []
        if self._target != "labels":
            remarks.append(
                "masks are boxes, filled: Dice measures agreement with boxes, not with outlines"
            )
        if unlisted := len(set(self._annotations) - {entry.name for entry in self._entries}):
            remarks.append(f"{unlisted} annotations are in no list of {_SETS} and not read")
        return remarks

    def _list(self, name: str) -> Path:
        return self._root / _SETS / f"{name}.txt"

    def _listed(self) -> tuple[list[ListEntry], list[BadFile]]:
        lists = {name: read_names(p) for name in _LISTS if (p := self._list(name)).is_file()}
        if not lists:
            strays = [
                BadFile(path, f"no {stem}.xml in {_XML}. Add it, or remove the image.")
                for stem, path in self._images.items()
                if stem not in self._annotations
            ]
            return [ListEntry(stem, None) for stem in self._annotations], strays
        entries: dict[str, ListEntry] = {}
        refused: dict[str, BadFile] = {}
        for name, members in lists.items():
            for member in members:
                split = _LISTS[name]
                earlier = entries.setdefault(member, ListEntry(member, split)).split
                if split not in (None, earlier):
                    reason = f"{member} is in {earlier}.txt as well. Leave it in one."
                    refused[member] = BadFile(self._list(name), reason)
        usable = [entry for name, entry in entries.items() if name not in refused]
        return usable, list(refused.values())

    def _files(self, case: ListEntry) -> tuple[Path, Path]:
        if (path := self._annotations.get(case.name)) is None:
            missing = self._root / _XML / f"{case.name}.xml"
            raise BadFile(missing, f"no such file, but a list of {_SETS} names it. Add it.")
        if (image := self._images.get(case.name)) is None:
            raise BadFile(path, f"no {case.name}.jpg in {_IMAGES}. Add it, or remove this.")
        return path, image

    def _learn_classes(self) -> tuple[str, ...]:
        names = set()
        for entry in self._entries:
            try:
                root = read_xml(self._annotations[entry.name])
            except (BadFile, KeyError):
                continue  # `load` refuses this one and says why.
            names |= {name for o in root.iter("object") if (name := _text(o, "name"))}
        if not names:
            raise UserError(f"{self._root / _XML}: no listed annotation names an object.")
        return tuple(sorted(names))

    def _objects(self, path: Path, root: Element) -> list[Annotated]:
        objects = []
        for place, element in enumerate(root.iter("object"), start=1):
            where = f"object {place}"
            name, box = _text(element, "name"), element.find("bndbox")
            if not name or box is None:
                raise BadFile(path, f"{where}: no name or no bndbox. Correct it, or remove it.")
            x0, y0, x1, y1 = (_number(path, box, corner, where) for corner in _CORNERS)
            rectangle = Rectangle((x0 - 1, y0 - 1, x1, y1), self._number[name], path, where)
            flag = _text(element, "difficult") or "0"
            if flag not in ("0", "1"):
                raise BadFile(path, f"{where}: difficult is 0 or 1, not {flag[:20]!r}.")
            objects.append(Annotated(rectangle, flag == "1"))
        return objects

    def _label(self, objects: list[Annotated]) -> NDArray[np.float32]:
        label = np.zeros(len(self.box_classes), np.float32)
        if not self._keep_difficult:
            label[[o.rectangle.cls for o in objects if o.difficult]] = np.nan
        label[[o.rectangle.cls for o in objects if self._keep_difficult or not o.difficult]] = 1
        return label


def _find_root(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give the one that holds {_XML} and {_IMAGES}.")
    if (folder / _XML).is_dir():
        roots = [folder]
    else:
        roots = sorted(entry for entry in folder.iterdir() if (entry / _XML).is_dir())
    if len(roots) > 1:
        names = ", ".join(root.name for root in roots)
        raise UserError(f"{folder}: several sets ({names}). Give one of these folders.")
    if not roots:
        raise UserError(f"{folder}: no {_XML} here. Give the folder that holds it.")
    if not (roots[0] / _IMAGES).is_dir():
        raise UserError(f"{roots[0] / _IMAGES}: no such folder. Unpack the archive again.")
    return roots[0]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by name without suffix, sorted. Raises `UserError` for two of one name."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in files:
            raise UserError(f"{path}: {files[path.stem].name} has the same name. Remove one.")
        files[path.stem] = path
    return files


def _check_size(path: Path, root: Element, shape: tuple[int, ...]) -> None:
    """Raises `BadFile` where boxes were drawn on an image of another size; 0 is "unstated"."""
    if (size := root.find("size")) is None:
        return
    stated = tuple(_text(size, side) for side in ("width", "height"))
    if stated not in (("0", "0"), (None, None), (str(shape[1]), str(shape[0]))):
        raise BadFile(
            path,
            f"drawn on {stated[0]} x {stated[1]} pixels, but the image has {shape[1]} x "
            f"{shape[0]}. Give the image that belongs to it.",
        )


def _text(element: Element, tag: str) -> str | None:
    return (element.findtext(tag) or "").strip() or None


def _number(path: Path, box: Element, corner: str, where: str) -> float:
    """A coordinate; VOC has a few with a fraction."""
    try:
        return float(_text(box, corner) or "")
    except ValueError as error:
        raise BadFile(path, f"{where}: {corner} is not a number. Correct it.") from error
