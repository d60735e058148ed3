"""A cohort of The Cancer Genome Atlas: histology tiles, gene values and MRI, with a label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.layouts.tcga.gdc import (
    SURVIVAL,
    Genomics,
    classes_of,
    patient_of,
    read_clinical,
)
from trustsweep.data_pipelines.layouts.tcga.gdc import read_genomics as read_genes
from trustsweep.data_pipelines.preprocess import resize_image
from trustsweep.data_pipelines.preprocess.slices import is_whole
from trustsweep.data_pipelines.preprocess.volumes import VolumeRecipe, apply
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import digest, opaque, walk
from trustsweep.data_pipelines.readers.images import read_colour
from trustsweep.data_pipelines.readers.nifti import read_nifti
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, TaskName

_TILES, _MRI = "tiles", "mri"
_TILE_SUFFIXES, _MRI_SUFFIXES = (".png", ".jpg", ".jpeg"), (".nii", ".nii.gz")
_TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
#: More sequences than this are files that are named after something else.
_SEQUENCES = 8


@dataclass(frozen=True)
class TcgaPatient:
    """What there is of one patient: tiles that were drawn, sequence to volume."""

    barcode: str
    tiles: tuple[Path, ...]
    mri: Mapping[str, Path]


class Tcga(Layout[TcgaPatient | BadFile]):
    """A TCGA cohort in the form in which studies assemble it from GDC and TCIA.

    TCGA publishes no folder of this kind; this is the convention that the layout reads:

    - `clinical.csv` or `.tsv`, as GDC's portal exports it (`case_submitter_id`, `gender`, `race`,
      `age_at_index` in years or `age_at_diagnosis` in days, `vital_status`, ...; missing is `'--`),
      or with `bcr_patient_barcode` and capitals as its forerunner did;
    - `tiles/<barcode>/*.png|jpg`: H&E tiles in colour;
    - `genomics.csv` or `.tsv`: a barcode and columns of numbers;
    - `mri/<barcode>/<sequence>.nii.gz`: sequences of one name for all patients, with or without
      the folder's name before.

    The last three may each be missing, as a whole or for a patient, but not all. Barcodes may be of
    samples or slides (TCGA-XX-YYYY-01A-...); the first three fields are the patient, the second is
    the tissue source site. Of gene values, normal tissue is left out and the primary tumour counts
    first. A sample is a tile with its patient's gene values and MRI, or a patient without tiles.

    Args:
        label: Clinical column whose values are the classes; or "survival", the days to death, or
            to the last contact of those alive (`vital_status`, `days_to_death`,
            `days_to_last_follow_up`). Patients without one are left out.
        tiles_per_patient: So many, drawn at random by `seed`, or all where there are fewer.
        genes: Columns of `genomics` at most. More are refused, as choosing among them, for instance
            by variance, must not look at test patients.
        depth: Slices of a volume; 0 stands for `size`.
        spacing: Voxel width in mm to resample to; 0 keeps the spacing.
        crop: Cut away the border that is 0 in all sequences.
        template: NIfTI file to register every MRI to (affine; needs trustsweep[registration]).
    """

    name = "tcga"
    tasks: tuple[TaskName, ...] = (TaskName.CLASSIFICATION,)
    groups = ("site", "sex", "age", "race")
    licence = "open-access TCGA data: no restriction beyond NIH's and TCIA's data usage policies"
    citation = (
        "The Cancer Genome Atlas Research Network, Weinstein, Collisson, et al. (2013): The Cancer "
        "Genome Atlas Pan-Cancer analysis project. Nature Genetics 45, 1113-1120. "
        "doi 10.1038/ng.2764. cancer.gov/tcga"
    )

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        label: str = "vital_status",
        tiles_per_patient: int = 1,
        genes: int = 2000,
        depth: int = 0,
        spacing: float = 0.0,
        crop: bool = True,
        template: str = "",
    ) -> None:
        for option, value, least in (
            ("tiles_per_patient", tiles_per_patient, 1),
            ("genes", genes, 1),
            ("depth", depth, 0),
        ):
            if not is_whole(value, least):
                raise UserError(f"{option}: a whole number from {least}, not {value!r}.")
        if isinstance(spacing, bool) or not isinstance(spacing, int | float) or not spacing >= 0:
            raise UserError(f"spacing: a width in mm, or 0 to keep the spacing, not {spacing!r}.")
        if crop not in (True, False):
            raise UserError(f"crop: True or False, not {crop!r}.")
        if folder is None or not folder.is_dir():
            raise UserError(f"{folder or self.name}: no such folder. Give the cohort's.")
        super().__init__(folder, size=size, seed=seed)
        self._root = folder
        self._clinical = _table(folder, "clinical")
        if self._clinical is None:
            raise UserError(f"{folder}: no clinical.csv or clinical.tsv here. Export it from GDC.")
        self._recipe = VolumeRecipe(
            size=(depth or size, size, size),
            spacing=(float(spacing),) * 3 if spacing else None,
            crop=crop,
            template=Path(template) if template else None,
        )
        self._survival = label == SURVIVAL
        self._people, self._strays = read_clinical(self._clinical, label)
        self._genes_path = _table(folder, "genomics")
        self._genes = Genomics((), {}, 0, ())
        if self._genes_path is not None:
            self._genes = read_genes(self._genes_path, genes)
        self._tiles = self._find_tiles(tiles_per_patient)
        self._mri = self._find_mri()
        self._sequences = self._name_sequences()
        self._describe(label)

    def cases(self) -> Iterator[TcgaPatient | BadFile]:
        yield from self._strays
        yield from self._genes.strays
        for patient in sorted(self._data - self._people.keys()):
            where = self._where(patient)
            yield BadFile(where, "data of a patient without a clinical row. Add it, or remove it.")
        for patient in self._usable:
            yield TcgaPatient(patient, self._tiles.get(patient, ()), self._mri.get(patient, {}))

    def load(self, case: TcgaPatient | BadFile) -> Iterator[Sample]:
        if isinstance(case, BadFile):
            raise case
        person = self._people[case.barcode]
        genes = self._genes.values.get(case.barcode)
        volume, notes = self._volume(case)
        sequences = tuple(name in case.mri for name in self._sequences)
        has_genes = genes is not None and not np.isnan(genes).all()
        present = (
            *([bool(case.tiles)] if self._tiles else []),
            *([has_genes] if self._genes.names else []),
            *sequences,
        )
        if not any(present):
            return
        blank = np.full(len(self._genes.names), np.nan, np.float32)
        for tile in case.tiles or (None,):
            name = case.barcode if tile is None else tile.relative_to(self._root).as_posix()
            yield Sample(
                sample_id=opaque(self.name, "sample", name),
                patient_id=opaque(self.name, "patient", case.barcode),
                site=case.barcode.split("-")[1],
                image=self._tile(tile) if self._tiles else None,
                more_images={} if volume is None else {_MRI: volume},
                label=None if self._survival else self.classes.index(str(person.label)),
                time=person.time,
                event=person.event,
                tabular=(blank if genes is None else genes) if self._genes.names else None,
                present=present,
                groups={"sex": person.sex, "age": person.age, "race": person.race},
                source=tile or self._where(case.barcode),
                notes=notes,
            )

    def source_digest(self) -> str:
        tables = [path for path in (self._clinical, self._genes_path) if path is not None]
        tiles = [path for paths in self._tiles.values() for path in paths]
        volumes = [path for files in self._mri.values() for path in files.values()]
        return digest(self._root, sorted([*tables, *tiles, *volumes]))

    def remarks(self) -> list[str]:
        read = {_TILES, _MRI, *(p.name for p in (self._clinical, self._genes_path) if p)}
        unread = sorted(
            entry.name
            for entry in self._root.iterdir()
            if entry.name not in read and not entry.name.startswith(".")
        )
        people = len(self._people)
        unlabelled = len([p for p in self._data & self._people.keys() if p not in self._usable])
        counted = {
            f"of {people} patients have no tile, gene values or MRI": people
            - len(self._data & self._people.keys()),
            "patients with data have no label and are left out": unlabelled,
            "rows of gene values are of normal tissue and left out": self._genes.normals,
        }
        remarks = [f"not read, not part of the layout: {', '.join(unread)}"] if unread else []
        return remarks + [f"{count} {what}" for what, count in counted.items() if count]

    def _describe(self, label: str) -> None:
        """Set what follows from the folder."""
        assert self._clinical is not None
        self._data = self._tiles.keys() | self._genes.values.keys() | self._mri.keys()
        if not self._data and not self._strays:
            raise UserError(f"{self._root}: neither {_TILES}, genomics.csv nor {_MRI} here.")
        known = {
            patient: self._people[patient]
            for patient in sorted(self._data)
            if patient in self._people
        }
        if self._survival:
            self.tasks, self.classes, self.time_unit = (TaskName.SURVIVAL,), (), "days"
            self._usable = [patient for patient, p in known.items() if p.time is not None]
        else:
            self._usable = [patient for patient, p in known.items() if p.label is not None]
            values = [str(known[patient].label) for patient in self._usable]
            self.classes = classes_of(self._clinical, label, values)
        self.tabular = tuple(Feature(name=name) for name in self._genes.names)
        tiles = [Modality(name=_TILES, kind=Kind.IMAGE, column="image")] if self._tiles else []
        genes = (
            [Modality(name="genomics", kind=Kind.TABULAR, column="tabular")] if self.tabular else []
        )
        mri = [
            Modality(name=f"{_MRI}-{name}", kind=Kind.IMAGE, column=_MRI, indices=(channel,))
            for channel, name in enumerate(self._sequences)
        ]
        self.modalities = (*tiles, *genes, *mri)

    def _find_tiles(self, count: int) -> dict[str, tuple[Path, ...]]:
        """Patient to the tiles that are drawn."""
        tiles = self._by_patient(_TILES, _TILE_SUFFIXES)
        drawn = {}
        for patient, paths in tiles.items():
            draw = np.random.default_rng((self.seed, int(opaque(self.name, patient), 16)))
            chosen = draw.choice(len(paths), min(count, len(paths)), replace=False)
            drawn[patient] = tuple(paths[index] for index in sorted(chosen.tolist()))
        return drawn

    def _find_mri(self) -> dict[str, dict[str, Path]]:
        """Patient to sequence to file."""
        volumes: dict[str, dict[str, Path]] = {}
        for patient, paths in self._by_patient(_MRI, _MRI_SUFFIXES).items():
            files: dict[str, Path] = {}
            for path in paths:
                folder = path.relative_to(self._root / _MRI).parts[0]
                sequence = _sequence(path, folder, patient)
                if sequence in files:
                    rule = f"a second {sequence} of one patient, beside {files[sequence]}."
                    self._strays.append(BadFile(path, f"{rule} Remove one of them."))
                files.setdefault(sequence, path)
            volumes[patient] = files
        return volumes

    def _by_patient(self, name: str, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
        """Patient to files of `<name>/<barcode>/`, in order."""
        files: dict[str, list[Path]] = defaultdict(list)
        root = self._root / name
        if not root.is_dir():
            return files
        for path in walk(root, suffixes):
            first, *rest = path.relative_to(root).parts
            patient = patient_of(first) if rest else None
            if patient is None:
                rule = f"not below a folder {name}/TCGA-XX-YYYY. Move it, or take it away."
                self._strays.append(BadFile(path, rule))
            else:
                files[patient].append(path)
        return files

    def _name_sequences(self) -> tuple[str, ...]:
        names = sorted({name for files in self._mri.values() for name in files})
        if len(names) > _SEQUENCES:
            raise UserError(
                f"{self._root / _MRI}: {len(names)} different sequences ({', '.join(names[:4])}, "
                "...). Name the files after their sequence, alike for all patients."
            )
        return tuple(names)

    def _where(self, patient: str) -> Path:
        """A path for messages."""
        if paths := self._tiles.get(patient):
            return paths[0].parent
        if files := self._mri.get(patient):
            return next(iter(files.values())).parent
        assert self._genes_path is not None
        return self._genes_path

    def _tile(self, path: Path | None) -> NDArray[np.uint8]:
        if path is None:
            return np.zeros((3, self.size, self.size), np.uint8)
        return resize_image(read_colour(path), self.size)

    def _volume(self, case: TcgaPatient) -> tuple[NDArray[np.float32] | None, tuple[str, ...]]:
        """(C, D, H, W) in [0, 1], 0 where absent; None where no patient has any."""
        if not self._sequences:
            return None, ()
        depth, height, width = self._recipe.size
        assert depth is not None
        image = np.zeros((len(self._sequences), depth, height, width), np.float32)
        if not case.mri:
            return image, ()
        available = [name for name in self._sequences if name in case.mri]
        try:
            prepared = apply(self._recipe, {name: read_nifti(case.mri[name]) for name in available})
        except ValueError as error:
            raise BadFile(self._mri[case.barcode][available[0]], str(error)) from error
        image[[self._sequences.index(name) for name in available]] = prepared.image
        return image, prepared.notes


def _table(root: Path, name: str) -> Path | None:
    paths = [root / f"{name}{suffix}" for suffix in _TABLE_SUFFIXES]
    paths = [path for path in paths if path.is_file()]
    if len(paths) > 1:
        raise UserError(f"{paths[1]}: also here as {paths[0].name}. Remove one of the two.")
    return paths[0] if paths else None


def _sequence(path: Path, folder: str, patient: str) -> str:
    """What a file is named after, without barcode: "flair" for "TCGA-02-0003_flair.nii.gz"."""
    stem = path.name.lower().removesuffix(".gz").removesuffix(".nii")
    for barcode in (folder, patient):
        stem = stem.removeprefix(barcode.lower())
    return stem.strip("-_ .") or "mri"
