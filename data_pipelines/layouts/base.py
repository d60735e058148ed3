"""What a layout is: how one publisher's folder is enumerated and read."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import opaque
from trustsweep.data_pipelines.readers.patients import PatientList
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Sample
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, PatientSource, TaskName

Case = TypeVar("Case")

#: Options of `prepare` itself, named beside a layout's own.
_COMMON = ("ratios", "ood_site")


class Layout(ABC, Generic[Case]):
    """A published folder. Cases are enumerated lazily and loaded one by one.

    A subclass's options are the keyword parameters of its constructor behind `folder`, `size` and
    `seed`. The constructor raises `UserError` for a folder or an option that it cannot use.
    """

    name: ClassVar[str]
    licence: str
    citation: str
    #: How `Sample.patient_id` is known where the user lists no patients.
    patients: ClassVar[PatientSource] = PatientSource.PUBLISHER
    #: The samples are images in files of their own, whose patients a user may list. Then
    #: `image_files` names them, and `load` asks `_listed_patient` first.
    takes_patients: ClassVar[bool] = False

    # What follows describes the samples. A constructor that learns them from the folder sets them
    # on the instance.
    tasks: tuple[TaskName, ...]
    #: Of `label`, or of `mask` with the background first; () for regions without labels.
    classes: tuple[str, ...]
    #: Of `mask`, where it holds regions that may overlap.
    regions: tuple[str, ...] = ()
    #: Of `boxes`.
    box_classes: tuple[str, ...] = ()
    #: The entries of `Sample.tabular`; `prepare` works out their statistics.
    tabular: tuple[Feature, ...] = ()
    #: The channels of `Sample.series`, and the width of a step in hours.
    series: tuple[Feature, ...] = ()
    series_hours: float = 0.0
    #: Of `Sample.time`; "" for data without times to an event.
    time_unit: str = ""
    #: What may be absent in a sample on its own, in the order of `Sample.present`. The default is
    #: one modality, the whole image.
    modalities: tuple[Modality, ...] = (Modality(name="image", kind=Kind.IMAGE, column="image"),)
    #: "site" and the keys of `Sample.groups`: "age" holds numbers (years), all others texts.
    groups: tuple[str, ...] = ("site",)

    def __init__(self, folder: Path | None, *, size: int, seed: int) -> None:
        self.folder = folder
        self.size = size
        self.seed = seed
        #: The user's list of patients.
        self.patient_list: PatientList | None = None

    @abstractmethod
    def cases(self) -> Iterator[Case]:
        """Every case, those that `load` will refuse included, in a fixed order."""

    @abstractmethod
    def load(self, case: Case) -> Iterator[Sample]:
        """Read or make what one case holds, at `size` pixels a side. Raises `BadFile`.

        Most cases are one sample; a volume that is cut into slices is several.
        """

    def read(self, cases: Iterable[Case] | None = None) -> Iterator[list[Sample] | BadFile]:
        """The samples of each case (of all, if not given), or the error that it raises."""
        for case in self.cases() if cases is None else cases:
            try:
                yield list(self.load(case))
            except BadFile as problem:
                yield problem

    @abstractmethod
    def source_digest(self) -> str:
        """Hex digest of everything that the samples come from, other than `size` and `seed`."""

    def image_files(self) -> Iterator[Path]:
        """Every image that `load` reads a sample from, where `takes_patients`."""
        yield from ()

    def own_size(self) -> int | None:
        """The side that all images of the folder share, where it is known without reading them."""
        return None

    @property
    def patient_source(self) -> PatientSource:
        """How `Sample.patient_id` is known."""
        return self.patients if self.patient_list is None else PatientSource.FILE

    def remarks(self) -> list[str]:
        """Remarks on the folder as a whole for the user, such as files that are not read."""
        return []

    def _listed_patient(self, image: Path) -> str | None:
        """`patient_id` after the user's list, None without one. Raises `BadFile`."""
        if self.patient_list is None:
            return None
        return opaque(self.name, "listed patient", self.patient_list.patient(image))

    def _lost(
        self, what: str, mask: NDArray[np.uint8], resized: NDArray[np.uint8]
    ) -> tuple[str, ...]:
        """The note for a mask that holds nothing any more at `size` pixels."""
        if mask.any() and not resized.any():
            return (f"images lose their {what} at {self.size} pixels; a larger size helps",)
        return ()

    def _lost_parts(self, mask: NDArray[np.uint8], resized: NDArray[np.uint8]) -> tuple[str, ...]:
        """`_lost` for each of `regions` of (R, *spatial) masks, else for each of `classes`."""
        if self.regions:
            pairs = list(zip(self.regions, mask, resized, strict=True))
        else:
            pairs = [
                (name, (mask == index).astype(np.uint8), (resized == index).astype(np.uint8))
                for index, name in enumerate(self.classes)
                if index
            ]
        return tuple(note for pair in pairs for note in self._lost(*pair))

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Option to its default."""
        parameters = inspect.signature(cls).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if name not in ("folder", "size", "seed")
        }

    @classmethod
    def create(
        cls,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        options: Mapping[str, Any],
        patients: Path | None = None,
    ) -> Layout[Case]:
        """The layout of a folder, with the user's list of patients if there is one.

        Raises `UserError` for an option that the layout lacks, for a list of patients that it has
        no use for or that cannot be read, and as the constructor. What single rows and images lack
        is in `patient_list.problems`.
        """
        own = cls.options()
        for name in options:
            if name not in own:
                known = [*own, *_COMMON]
                raise UserError(
                    f"layout {cls.name}: no option {name!r}{nearest(name, known)} "
                    f"Known: {', '.join(known)}."
                )
        if patients is not None and not cls.takes_patients:
            why = {
                PatientSource.PUBLISHER: "its patients are known",
                PatientSource.NONE: "its samples are not images in files of their own",
            }[cls.patients]
            raise UserError(f"layout {cls.name}: takes no --patients, as {why}. Leave it out.")
        layout = cls(folder, size=size, seed=seed, **options)
        if patients is not None:
            assert folder is not None
            layout.patient_list = PatientList(patients, layout.image_files(), folder)
        return layout
