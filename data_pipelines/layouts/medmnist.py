"""MedMNIST: eighteen standardised sets of small medical images, flat and solid, as .npz files."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import resize_image
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest
from trustsweep.data_pipelines.readers.npz import npz_shapes, read_npz, stream_npz
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import PatientSource, Split, TaskName

_SPLITS = (Split.TRAIN, Split.VAL, Split.TEST)


@dataclass(frozen=True)
class Flag:
    """One of the sets: its class names in the order of the labels, and what an image is."""

    classes: tuple[str, ...]
    task: TaskName = TaskName.CLASSIFICATION
    colour: bool = False
    solid: bool = False
    ordinal: bool = False

    @property
    def axes(self) -> str:
        """Of its array of images."""
        return "N, D, H, W" if self.solid else "N, H, W, 3" if self.colour else "N, H, W"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of images has the published axes."""
        right = len(shape) == len(self.axes.split(", ")) and all(shape[1:])
        return right and (not self.colour or shape[-1] == 3)


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

#: After the publisher's table of sets (MedMNIST v2); names in lower case, one of them shortened.
FLAGS = {
    "pathmnist": Flag(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        colour=True,
    ),
    "chestmnist": Flag(
        (
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural",
            "hernia",
        ),
        task=TaskName.MULTILABEL,
    ),
    "dermamnist": Flag(
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        colour=True,
    ),
    "octmnist": Flag(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal")
    ),
    "pneumoniamnist": Flag(("normal", "pneumonia")),
    "retinamnist": Flag(
        ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"), colour=True, ordinal=True
    ),
    "breastmnist": Flag(("malignant", "normal, benign")),
    "bloodmnist": Flag(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        colour=True,
    ),
    "tissuemnist": Flag(
        (
            "collecting duct, connecting tubule",
            "distal convoluted tubule",
            "glomerular endothelial cells",
            "interstitial endothelial cells",
            "leukocytes",
            "podocytes",
            "proximal tubule segments",
            "thick ascending limb",
        )
    ),
    "organamnist": Flag(_ORGANS),
    "organcmnist": Flag(_ORGANS),
    "organsmnist": Flag(_ORGANS),
    "organmnist3d": Flag(
        (
            "liver",
            "kidney-right",
            "kidney-left",
            "femur-right",
            "femur-left",
            "bladder",
            "heart",
            "lung-right",
            "lung-left",
            "spleen",
            "pancreas",
        ),
        solid=True,
    ),
    "nodulemnist3d": Flag(("benign", "malignant"), solid=True),
    "adrenalmnist3d": Flag(("normal", "hyperplasia"), solid=True),
    "fracturemnist3d": Flag(
        ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"), solid=True
    ),
    "vesselmnist3d": Flag(("vessel", "aneurysm"), solid=True),
    "synapsemnist3d": Flag(("inhibitory synapse", "excitatory synapse"), solid=True),
}

_STEM = re.compile(r"(?P<flag>[a-z]+mnist(?:3d)?)(?:_(?:28|64|128|224))?")


@dataclass(frozen=True)
class ArrayEntry:
    """One image: its split and its place there."""

    split: Split
    index: int


class _Rows:
    """The rows of an array in an .npz file, of which a piece is in memory at a time.

    The largest file unpacks to 12 GB. Quick where rows are read in order; going back starts
    over. What the file is refused for is kept, so that it is not unpacked once for every row.
    """

    def __init__(self, path: Path, name: str, count: int) -> None:
        self._path, self._name, self._count = path, name, count
        self._problem: BadFile | None = None
        self._start_over()

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Raises `BadFile`."""
        if index < self._first:
            self._start_over()
        while index >= self._first + len(self._piece):
            if self._problem is not None:
                raise BadFile(self._problem.path, self._problem.reason)
            self._advance()
        row: NDArray[Any] = self._piece[index - self._first]
        return row

    def _start_over(self) -> None:
        self._pieces = stream_npz(self._path, self._name)
        self._first, self._piece = 0, np.empty(0)

    def _advance(self) -> None:
        try:
            piece = next(self._pieces)
            if self._first + len(self._piece) + len(piece) == self._count:
                # The checksum is compared behind the last row.
                for _ in self._pieces:
                    pass
        except BadFile as problem:
            self._problem = problem
            raise
        self._first, self._piece = self._first + len(self._piece), piece


class MedMnist(Layout[ArrayEntry]):
    """MedMNIST v2 and MedMNIST+: one `<flag>.npz` or `<flag>_{28,64,128,224}.npz`.

    `folder` is such a file, or a folder that holds some; the option `flag` then names the one to
    read ("pneumoniamnist", "organmnist3d_64"). The published splits are kept. Flat images become
    (1 or 3, size, size), solid ones (1, size, size, size). RetinaMNIST's task, an ordinal
    regression, is read as a classification of its five grades.

    Assumed, as the files do not say it: solid images lie as (N, D, H, W).
    """

    name = "medmnist"
    patients = PatientSource.NONE
    licence = "CC BY 4.0; DermaMNIST: CC BY-NC 4.0"
    citation = (
        "Yang, Shi, Wei, Liu, Zhao, Ke, Pfister, Ni (2023): MedMNIST v2 - A large-scale "
        "lightweight benchmark for 2D and 3D biomedical image classification. "
        "Scientific Data 10, 41. doi 10.1038/s41597-022-01970-0"
    )

    def __init__(self, folder: Path | None, *, size: int, seed: int, flag: str = "") -> None:
        if folder is None:
            raise UserError(f"layout {self.name}: give an .npz file, or the folder that holds it.")
        super().__init__(folder, size=size, seed=seed)
        self._path, self._unread = _find(folder, flag)
        self._stem = self._path.stem
        self._flag = FLAGS[_flag_of(self._stem)]
        self.tasks = (self._flag.task,)
        self.classes = self._flag.classes
        self._labels = self._read_labels()
        self._check_shapes()
        # `prepare` reads in threads, each of which goes forwards.
        self._open = threading.local()

    def cases(self) -> Iterator[ArrayEntry]:
        for split in _SPLITS:
            for index in range(len(self._labels[split])):
                yield ArrayEntry(split, index)

    def load(self, case: ArrayEntry) -> Iterator[Sample]:
        label = self._label(case)
        pixels = self._rows(case.split)[case.index]
        if pixels.dtype != np.uint8:
            reason = f"{case.split}_images are {pixels.dtype} where uint8 is published."
            raise BadFile(self._path, f"{reason} Fetch it again.")
        identity = f"{self._stem}-{case.split}-{case.index:06d}"
        yield Sample(
            sample_id=identity,
            patient_id=identity,
            site="unstated",
            split=case.split,
            image=resize_solid(pixels, self.size)
            if self._flag.solid
            else resize_image(pixels, self.size),
            label=label,
            source=self._path,
        )

    def own_size(self) -> int | None:
        dims = 3 if self._flag.solid else 2
        shapes = npz_shapes(self._path)
        sides = {side for s in _SPLITS for side in shapes[f"{s}_images"][1 : 1 + dims]}
        return sides.pop() if len(sides) == 1 else None

    def source_digest(self) -> str:
        return digest(self._path.parent, [self._path])

    def remarks(self) -> list[str]:
        remarks = []
        if self._flag.ordinal:
            remarks.append("the grades are ordered; they are read as classes without an order")
        if self._unread:
            remarks.append(f"not read, as another flag was chosen: {', '.join(self._unread)}")
        return remarks

    def _read_labels(self) -> dict[Split, NDArray[np.integer[Any]]]:
        """(N,) class numbers of each split, or (N, K) of 0 and 1."""
        several = self._flag.task is TaskName.MULTILABEL
        arrays = read_npz(self._path, [f"{split}_labels" for split in _SPLITS])
        labels = {}
        for split in _SPLITS:
            array = arrays[f"{split}_labels"]
            if array.ndim == 2 and array.shape[1] == 1 and not several:
                array = array[:, 0]
            wanted = (len(array), len(self.classes)) if several else (len(array),)
            if array.shape != wanted or array.dtype.kind not in "iu":
                axes = f"N, {len(self.classes)}" if several else "N, 1"
                raise BadFile(
                    self._path,
                    f"{split}_labels are {array.dtype}{array.shape} where integers ({axes}) "
                    "are published. Fetch it again.",
                )
            labels[split] = array
        return labels

    def _label(self, case: ArrayEntry) -> int | NDArray[np.float32]:
        value = self._labels[case.split][case.index]
        highest = 1 if value.ndim else len(self.classes) - 1
        if (value < 0).any() or (value > highest).any():
            raise BadFile(
                self._path,
                f"{case.split}_labels[{case.index}] is {value.tolist()}; labels are 0 to {highest}."
                " Fetch it again.",
            )
        return value.astype(np.float32) if value.ndim else int(value)

    def _check_shapes(self) -> None:
        shapes = npz_shapes(self._path)
        for split, labels in self._labels.items():
            name = f"{split}_images"
            shape = shapes.get(name, ())
            if not self._flag.fits(shape) or shape[0] != len(labels):
                raise BadFile(
                    self._path,
                    f"{name} are {shape or 'missing'} where ({self._flag.axes}) with "
                    f"N = {len(labels)}, as many as labels, is expected. Fetch it again.",
                )

    def _rows(self, split: Split) -> _Rows:
        """This thread's place in the file."""
        if getattr(self._open, "split", None) is not split:
            self._open.split = split
            self._open.rows = _Rows(self._path, f"{split}_images", len(self._labels[split]))
        rows: _Rows = self._open.rows
        return rows


def resize_solid(voxels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(1, size, size, size) from (D, H, W): averages where it shrinks, trilinear where it grows."""
    import torch
    from torch.nn.functional import interpolate

    if voxels.shape == (size, size, size):
        return voxels[None].copy()
    grown = [max(size, extent) for extent in voxels.shape]
    values = torch.from_numpy(np.ascontiguousarray(voxels, dtype=np.float32))[None, None]
    if grown != list(voxels.shape):
        values = interpolate(values, size=grown, mode="trilinear", align_corners=False)
    values = interpolate(values, size=(size, size, size), mode="area")
    return np.rint(values[0].numpy()).clip(0, 255).astype(np.uint8)


def _find(folder: Path, flag: str) -> tuple[Path, list[str]]:
    """The file to read, and the stems of the others there."""
    if not isinstance(flag, str):
        raise UserError(f"flag: the name of a file without .npz, as pneumoniamnist, not {flag!r}.")
    if folder.suffix == ".npz" and folder.is_file():
        if not _flag_of(folder.stem):
            raise UserError(f"{folder}: no file of MedMNIST by its name. {_known(folder.stem)}")
        if flag not in ("", folder.stem):
            raise UserError(f"flag: {flag!r} is not {folder.name}. Leave it out, or give a folder.")
        return folder, []
    if not folder.is_dir():
        raise UserError(f"{folder}: neither an .npz file nor a folder that holds one.")
    stems = sorted(p.stem for p in folder.glob("*.npz") if _flag_of(p.stem))
    if not stems:
        raise UserError(f"{folder}: no <flag>.npz of MedMNIST here. {_known(flag)}")
    if not flag and len(stems) > 1:
        raise UserError(
            f"{folder}: several sets. Choose one with --set flag=..., of {', '.join(stems)}."
        )
    chosen = flag or stems[0]
    if chosen not in stems:
        raise UserError(
            f"flag: no {chosen}.npz in {folder}{nearest(chosen, stems)} There: {', '.join(stems)}."
        )
    return folder / f"{chosen}.npz", [stem for stem in stems if stem != chosen]


def _flag_of(stem: str) -> str:
    """The flag that a file's name begins with; "" where it is no name of MedMNIST."""
    match = _STEM.fullmatch(stem)
    return match["flag"] if match and match["flag"] in FLAGS else ""


def _known(word: str) -> str:
    unknown = f"No flag {word!r}{nearest(word, list(FLAGS))} " if word else ""
    return f"{unknown}Known flags: {', '.join(FLAGS)}."
