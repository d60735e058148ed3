"""The control group of QaTa-COV19: chest X-rays without COVID-19, and so without masks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Split

FOLDER = "Control_Group"
SUFFIXES = (".png", ".jpg", ".jpeg")
GROUPS = ("I", "II")


@dataclass(frozen=True)
class Cohort:
    """A folder of controls: where it is below `FOLDER`, its name in the data set, its split."""

    place: str
    name: str
    #: None where the publisher divides nothing.
    split: Split | None = None
    #: The publisher did divide, and these are for training.
    trains: bool = False


_COHORTS = {
    "I": (Cohort("Control_Group_I", "normal"),),
    "II": (
        Cohort("Control_Group_II/CHESTXRAY-14/Test", "chestx-ray14", Split.TEST),
        Cohort("Control_Group_II/CHESTXRAY-14/Train", "chestx-ray14", trains=True),
        Cohort("Control_Group_II/Pediatric_Bacterial_Pneumonia", "pediatric bacterial pneumonia"),
        Cohort("Control_Group_II/Pediatric_Viral_Pneumonia", "pediatric viral pneumonia"),
    ),
}

#: File names of the sets that the controls were taken from: their site, and a pattern whose first
#: group is the patient. ChestX-ray14 writes patient_follow-up; the pediatric set disease-patient-
#: image, in its first version person1_bacteria_2.
_ORIGINS = (
    ("nih", re.compile(r"(\d{8})_\d{3}")),
    ("guangzhou", re.compile(r"(?:NORMAL\d*|BACTERIA|VIRUS)-(\d+)-\d+", re.IGNORECASE)),
    ("guangzhou", re.compile(r"(person\d+)_(?:bacteria|virus)_\d+", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Control:
    """One image of a control."""

    image: Path
    cohort: Cohort


class Controls:
    """What of the control group is read.

    Args:
        root: The folder that holds `FOLDER`.
        groups: Of `GROUPS`.

    Raises `UserError` where a requested group holds no image.
    """

    def __init__(self, root: Path, groups: tuple[str, ...]) -> None:
        self.folder = root / FOLDER
        self._cohorts = [cohort for group in groups for cohort in _COHORTS[group]]
        for group in groups:
            if not any(self._there(cohort) for cohort in _COHORTS[group]):
                raise UserError(
                    f"{self.folder / f'Control_Group_{group}'}: no images. "
                    "Unpack it, or choose other controls."
                )

    def __iter__(self) -> Iterator[Control]:
        for cohort in self._cohorts:
            for image in sorted(self._images(cohort)):
                yield Control(image, cohort)

    def missing(self) -> list[str]:
        """Folders of the groups that are not here, or hold no image."""
        return [cohort.place for cohort in self._cohorts if not self._there(cohort)]

    def unread(self) -> list[str]:
        """Files and folders below `FOLDER` that are not read, as paths below its parent."""
        known = {self.folder / cohort.place for cohort in self._cohorts}
        above = {place for path in known for place in path.parents}
        unread = []
        for folder in sorted({self.folder, *above}):
            if folder != self.folder and self.folder not in folder.parents:
                continue
            if folder.is_dir():
                unread += [p for p in folder.iterdir() if p not in known and p not in above]
        for cohort in self._cohorts:
            place = self.folder / cohort.place
            if place.is_dir():
                images = set(self._images(cohort))
                unread += [path for path in place.iterdir() if path not in images]
        return sorted(
            path.relative_to(self.folder.parent).as_posix()
            for path in unread
            if not path.name.startswith(".")
        )

    def _there(self, cohort: Cohort) -> bool:
        return next(self._images(cohort), None) is not None

    def _images(self, cohort: Cohort) -> Iterator[Path]:
        place = self.folder / cohort.place
        for path in place.iterdir() if place.is_dir() else ():
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield path


def parse_groups(controls: bool | str) -> tuple[str, ...]:
    """The groups that the option `controls` asks for. Raises `UserError` for another value."""
    known: dict[bool | str, tuple[str, ...]] = {
        False: (),
        True: GROUPS,
        "all": GROUPS,
        "I": ("I",),
        "II": ("II",),
    }
    if isinstance(controls, bool | str) and controls in known:
        return known[controls]
    raise UserError(f"controls: false, I, II or all, not {controls!r}.")


def origin(stem: str) -> tuple[str, str | None]:
    """The site in a file name, else "unstated", and its patient, else None."""
    for site, pattern in _ORIGINS:
        if match := pattern.fullmatch(stem):
            return site, f"{site}/{match[1].lower()}"
    return "unstated", None
