"""BraTS 2018 to 2023: brain tumour MRI of four sequences with masks of three tissues."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.preprocess import slices as choice
from trustsweep.data_pipelines.preprocess.volumes import VolumeRecipe, apply
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque, walk
from trustsweep.data_pipelines.readers.nifti import (
    Volume,
    check_grid,
    read_labels,
    read_nifti,
    volume_name,
)
from trustsweep.data_pipelines.readers.tables import ColumnKind, read_table
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Kind, Modality, TaskName

_SUFFIXES = (".nii", ".nii.gz")
_SEQUENCES = ("flair", "t1", "t1ce", "t2")
_MASK = "seg"
#: The tissues of a mask by their place in `_TISSUES`, whatever number the year gives them; regions
#: hold several of them.
_TISSUES = ("background", "necrotic core", "oedema", "enhancing tumour")
_REGIONS = {"whole": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
_NAMES = {"whole": "whole tumour", "core": "tumour core", "enhancing": "enhancing tumour"}
_TARGETS = ("region", "regions", "tissues")
_MAPPING = "name_mapping.csv"
_SURVIVAL = ("survival_info.csv", "survival_data.csv")
#: A label of 2024 and later, of patients after treatment; 4 was the enhancing tumour until 2021.
_CAVITY = 4
_GRADES = ("HGG", "LGG")
_OLDEST = 120


@dataclass(frozen=True)
class Naming:
    """How one year names its cases.

    Attributes:
        year: Of the challenge.
        case: Folder and start of every file; group `patient` is what a patient's scans share,
            `site` the institution.
        files: Sequence, or `seg`, to the end of its file's name.
        enhancing: Label of the enhancing tumour.
        subject: Column of the survival table that names the case.
    """

    year: int
    case: re.Pattern[str]
    files: Mapping[str, str]
    enhancing: int = 4
    subject: str = ""


_EARLY = {name: f"_{name}" for name in (*_SEQUENCES, _MASK)}
_LATE = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", _MASK: "-seg"}
_INSTITUTION = r"_(?P<site>[A-Za-z0-9]+)_[A-Za-z0-9]+)_\d+"
_NAMINGS = (
    Naming(2018, re.compile(rf"(?P<patient>Brats18{_INSTITUTION}"), _EARLY, subject="Brats18ID"),
    Naming(2019, re.compile(rf"(?P<patient>BraTS19{_INSTITUTION}"), _EARLY, subject="BraTS19ID"),
    Naming(
        2020,
        re.compile(r"(?P<patient>BraTS20_(Training|Validation)_\d+)"),
        _EARLY,
        subject="Brats20ID",
    ),
    Naming(2021, re.compile(r"(?P<patient>BraTS2021_\d+)"), _EARLY),
    Naming(2023, re.compile(r"(?P<patient>BraTS-GLI-\d+)-\d+"), _LATE, enhancing=3),
)


@dataclass(frozen=True)
class Scan:
    """A case's folder, and its files by sequence (or `seg`)."""

    folder: Path
    naming: Naming
    files: Mapping[str, Path]

    @property
    def name(self) -> str:
        return self.folder.name

    def named(self, group: str) -> str | None:
        match = self.naming.case.fullmatch(self.name)
        assert match is not None
        return match.groupdict().get(group)


class Brats(Layout[Scan | BadFile]):
    """BraTS training data of one year from 2018 to 2023 (adult glioma): four sequences, masks.

    `folder` holds, at any depth, a folder a case, named as its files are:

    - 2018, 2019: `Brats18_<institution>_<patient>_1`, below `HGG` and `LGG`;
    - 2020: `BraTS20_Training_001`, 2021: `BraTS2021_00000`;
    - 2023: `BraTS-GLI-00000-000`, where scans that differ in the last number are one patient's.

    With `_flair`, `_t1`, `_t1ce`, `_t2`, `_seg` (2023: `-t2f`, `-t1n`, `-t1c`, `-t2w`, `-seg`) and
    `.nii` or `.nii.gz` behind. All years' scans are skull-stripped, in SRI24 space at 1 mm.
    Validation cases, which have no published masks, are not read.

    Labels are 1 (necrotic core), 2 (oedema) and 4 (enhancing; 3 in 2023). Site is the institution
    in the names of 2018 and 2019; for 2020 `name_mapping.csv` gives those names. "grade" (HGG,
    LGG) comes from folders or from that table, "age" from `survival_info.csv` or
    `survival_data.csv`, where these exist. Written from the organisers' description of the
    layouts and tried on generated miniatures of them alone.

    Args:
        target: What the mask holds: one "region"; the three "regions" that the challenge is judged
            by, one within the other (whole tumour, tumour core, enhancing tumour); or the three
            "tissues", which exclude each other, without a label of the slice.
        region: With target=region: "whole" tumour (1, 2, 4), "core" (1, 4) or "enhancing" (4).
        dims: 2 for axial slices, labelled by whether their mask, at this size, holds any; 3 for
            volumes.
        slices: With dims=2, "all", "tumour" (those with tumour and as many without), or n for
            every n-th.
        depth: With dims=3, slices of a volume; 0 stands for `size`.
        spacing: Voxel width in mm to resample to; 0 keeps the published millimetre.
        crop: Cut away the air around the head.
        missing: What to do where a sequence's file is missing: "refuse" the case, or take the
            sequence as "absent".
    """

    name = "brats"
    licence = "as stated by its organisers at synapse.org (registration; CC BY 4.0 since 2021)"
    citation = (
        "Menze, Jakab, Bauer, et al. (2015): The Multimodal Brain Tumor Image Segmentation "
        "Benchmark (BRATS). IEEE Transactions on Medical Imaging 34(10), 1993-2024. "
        "doi 10.1109/TMI.2014.2377694. Baid, Ghodasara, Mohan, et al. (2021): The RSNA-ASNR-MICCAI "
        "BraTS 2021 Benchmark. arXiv 2107.02314"
    )
    modalities = tuple(
        Modality(name=name, kind=Kind.IMAGE, column="image", indices=(channel,))
        for channel, name in enumerate(_SEQUENCES)
    )

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        target: str = "region",
        region: str = "whole",
        dims: int = 2,
        slices: str | int = "all",
        depth: int = 0,
        spacing: float = 0.0,
        crop: bool = True,
        missing: str = "refuse",
    ) -> None:
        choice.check_options(dims, slices, depth)
        for option, value, known in (
            ("target", target, _TARGETS),
            ("region", region, tuple(_REGIONS)),
            ("missing", missing, ("refuse", "absent")),
            ("crop", crop, (True, False)),
        ):
            if value not in known:
                raise UserError(f"{option}: one of {', '.join(map(str, known))}, not {value!r}.")
        if target != "region" and region != "whole":
            raise UserError(f"region: chooses with target=region; leave it out with {target}.")
        if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not spacing >= 0:
            raise UserError(f"spacing: a width in mm, or 0 to keep the spacing, not {spacing!r}.")
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: no such folder. Give the training data's.")
        super().__init__(folder, size=size, seed=seed)
        self._root = folder
        self._target, self._rule, self._refuse = target, slices, missing == "refuse"
        self._volumes = dims == 3
        self._recipe = VolumeRecipe(
            size=((depth or size) if dims == 3 else None, size, size),
            spacing=(float(spacing),) * 3 if spacing else None,
            crop=crop,
        )
        self._regions = (region,) if target == "region" else tuple(_REGIONS)
        self.classes = ("background", f"{region} tumour")
        task = TaskName.SEGMENTATION
        if target == "regions":
            task = TaskName.REGION_SEGMENTATION
            self.regions = tuple(_NAMES.values())
        elif target == "tissues":
            task = TaskName.MULTICLASS_SEGMENTATION
            self.classes = _TISSUES
        self._labelled = dims == 2 and target != "tissues"
        self.tasks = (task, TaskName.CLASSIFICATION) if self._labelled else (task,)
        self._scans, self._unlabelled, self._strays = self._find_scans()
        self._naming = self._one_year()
        self._mapped = self._read_mapping()
        self._ages = self._read_ages()
        graded = any(self._grade(scan) for scan in self._scans)
        self.groups = ("site", *(["grade"] if graded else []), *(["age"] if self._ages else []))

    def cases(self) -> Iterator[Scan | BadFile]:
        yield from self._strays
        yield from self._scans

    def load(self, case: Scan | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        sequences, tissues = self._read(case)
        try:
            prepared = apply(self._recipe, sequences, tissues)
        except ValueError as error:
            raise BadFile(case.folder, str(error)) from error
        assert prepared.mask is not None
        mask = self._mask(prepared.mask)
        available = tuple(name in sequences for name in _SEQUENCES)
        image = np.zeros((len(_SEQUENCES), *prepared.image.shape[1:]), np.float32)
        image[np.array(available)] = prepared.image
        notes = prepared.notes + tuple(
            f"images have no {name} sequence; set to 0"
            for name, present in zip(_SEQUENCES, available, strict=True)
            if not present
        )
        before = self._mask(tissues[None])
        one = self._target == "region"
        notes += self._lost("tumour", before, mask) if one else self._lost_parts(before, mask)
        for index, part in self._parts(case, np.any(mask, axis=(0, 2, 3))):
            yield Sample(
                sample_id=opaque(self.name, "scan", case.name, str(index)),
                patient_id=opaque(self.name, "patient", case.named("patient") or case.name),
                site=self._site(case),
                image=image[part],
                mask=mask[part],
                label=int(mask[part].any()) if self._labelled else None,
                present=available,
                groups=self._groups(case),
                source=case.files[_MASK],
                notes=notes,
            )

    def source_digest(self) -> str:
        scans = [path for scan in self._scans for path in sorted(scan.files.values())]
        tables = [self._tables[name] for name in (_MAPPING, *_SURVIVAL) if name in self._tables]
        return digest(self._root, [*tables, *scans])

    def remarks(self) -> list[str]:
        if not self._unlabelled:
            return []
        return [
            f"{len(self._unlabelled)} validation cases have no published masks and are not read"
        ]

    def _find_scans(self) -> tuple[list[Scan], list[Scan], list[BadFile]]:
        """The labelled cases, the unlabelled ones, and a refusal for every file of neither."""
        folders: dict[Path, list[Path]] = defaultdict(list)
        for path in walk(self._root, _SUFFIXES):
            folders[path.parent].append(path)
        labelled, unlabelled, strays = [], [], []
        for folder, paths in sorted(folders.items()):
            naming = next((n for n in _NAMINGS if n.case.fullmatch(folder.name)), None)
            if folder.name.lower().endswith(_SUFFIXES):
                rule = "in a folder that is named like a file. Put the file in its place."
                strays += [BadFile(path, rule) for path in paths]
                continue
            if naming is None:
                rule = "in a folder that is not named as a case of BraTS 2018 to 2023."
                strays += [BadFile(path, f"{rule} Take it away.") for path in paths]
                continue
            scan, problems = _scan(folder, naming, paths)
            strays += problems
            if _MASK in scan.files or not _of_validation(folder, self._root):
                labelled.append(scan)
            else:
                unlabelled.append(scan)
        return labelled, unlabelled, strays

    def _one_year(self) -> Naming:
        years = sorted({scan.naming.year for scan in self._scans})
        if not years:
            raise UserError(
                f"{self._root}: no labelled case of BraTS 2018 to 2023 here (such as "
                "BraTS2021_00000/BraTS2021_00000_flair.nii.gz). Give the training data's folder."
            )
        if len(years) > 1:
            raise UserError(
                f"{self._root}: cases of {' and '.join(map(str, years))}, which share patients "
                "under different names. Give the folder of one year."
            )
        return self._scans[0].naming

    @cached_property
    def _tables(self) -> dict[str, Path]:
        tables: dict[str, Path] = {}
        for path in walk(self._root, (".csv",)):
            if path.name in (_MAPPING, *_SURVIVAL):
                if path.name in tables:
                    raise UserError(f"{path}: also at {tables[path.name]}. Remove one of the two.")
                tables[path.name] = path
        return tables

    def _read_mapping(self) -> dict[str, tuple[str | None, str | None]]:
        """Case to grade and site, for the years whose table has them."""
        if (path := self._tables.get(_MAPPING)) is None:
            return {}
        year = self._naming.year
        own, before = f"BraTS_{year}_subject_ID", f"BraTS_{year - 1}_subject_ID"
        columns = {"Grade": ColumnKind.TEXT, own: ColumnKind.TEXT}
        if year == 2020:
            columns[before] = ColumnKind.TEXT
        table = read_table(path, columns, missing=("", "NA"), private=(own, *list(columns)[2:]))
        earlier = next(n for n in _NAMINGS if n.year == 2019)
        mapped = {}
        for row in table:
            if row["Grade"] not in (None, *_GRADES):
                raise table.bad(row, "Grade", f"is {' or '.join(_GRADES)}, or NA.")
            match = earlier.case.fullmatch(row[before] or "") if before in columns else None
            mapped[row[own]] = (row["Grade"], match["site"] if match else None)
        return mapped

    def _read_ages(self) -> dict[str, float]:
        path = next((self._tables[name] for name in _SURVIVAL if name in self._tables), None)
        if path is None or not self._naming.subject:
            return {}
        subject = self._naming.subject
        columns = {subject: ColumnKind.TEXT, "Age": ColumnKind.NUMBER}
        table = read_table(path, columns, unique=subject, missing=("", "NA"))
        for row in table:
            if row["Age"] is not None and not 0 <= row["Age"] <= _OLDEST:
                raise table.bad(row, "Age", f"is 0 to {_OLDEST} years, or NA.")
        return {row[subject]: row["Age"] for row in table if row["Age"] is not None}

    def _read(self, case: Scan) -> tuple[dict[str, Volume], NDArray[np.uint8]]:
        """The sequences on one grid, and the tissues on it (indices into `_TISSUES`)."""
        absent = [name for name in (*_SEQUENCES, _MASK) if name not in case.files]
        if _MASK in absent or (absent and (self._refuse or len(absent) == len(_SEQUENCES))):
            ending = case.naming.files[absent[0] if _MASK not in absent else _MASK]
            hint = "" if _MASK in absent else ", or set missing=absent"
            raise BadFile(case.folder, f"no {case.name}{ending}.nii.gz. Fetch it{hint}.")
        sequences: dict[str, Volume] = {}
        for name in _SEQUENCES:
            if name in case.files:
                sequences[name] = read_nifti(case.files[name])
                check_grid(case.files[name], sequences[name], next(iter(sequences.values())))
        enhancing = case.naming.enhancing
        first, known = next(iter(sequences.values())), {0, 1, 2, enhancing}
        labels = read_labels(case.files[_MASK], first, known | {_CAVITY})
        if _CAVITY not in known and (labels == _CAVITY).any():
            raise BadFile(
                case.files[_MASK],
                f"label {_CAVITY}: a resection cavity, of BraTS 2024, which is not read. Take the "
                "cases of that year away.",
            )
        labels[labels == enhancing] = _TISSUES.index("enhancing tumour")
        return sequences, labels

    def _mask(self, tissues: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(1, *spatial) of tissues to (R, *spatial), or to itself where tissues are the target."""
        if self._target == "tissues":
            return tissues
        regions = [np.isin(tissues, _REGIONS[region]) for region in self._regions]
        return np.concatenate(regions).astype(np.uint8)

    def _parts(self, case: Scan, tumour: NDArray[np.bool_]) -> Iterator[tuple[int, Any]]:
        """Number and index of every sample within (C, D, H, W); `tumour` is (D,)."""
        if self._volumes:
            yield 0, slice(None)
            return
        key = opaque(self.name, case.name)
        for index in choice.choose(self._rule, tumour, seed=self.seed, key=key):
            yield index, (slice(None), index)

    def _site(self, case: Scan) -> str:
        return case.named("site") or self._mapped.get(case.name, (None, None))[1] or "unstated"

    def _grade(self, case: Scan) -> str | None:
        if case.folder.parent.name in _GRADES:
            return case.folder.parent.name
        return self._mapped.get(case.name, (None, None))[0]

    def _groups(self, case: Scan) -> dict[str, str | float | None]:
        known = {"grade": self._grade(case), "age": self._ages.get(case.name)}
        return {name: known[name] for name in self.groups if name != "site"}


def _scan(folder: Path, naming: Naming, paths: list[Path]) -> tuple[Scan, list[BadFile]]:
    """A case, and a refusal for every file beside it."""
    kinds = {f"{folder.name}{ending}": name for name, ending in naming.files.items()}
    files: dict[str, Path] = {}
    problems = []
    for path in paths:
        kind = kinds.get(volume_name(path))
        if kind is None:
            # 2020's case 355 is known for a mask of another name.
            known = ", ".join(naming.files.values())
            problems.append(BadFile(path, f"not named {folder.name} with {known}. Rename it."))
        elif kind in files:
            problems.append(BadFile(path, f"also here as {files[kind].name}. Remove one of them."))
        else:
            files[kind] = path
    return Scan(folder, naming, files), problems


def _of_validation(folder: Path, root: Path) -> bool:
    parts = (root.name, *folder.relative_to(root).parts)
    return any("validation" in part.lower() for part in parts)
