"""What the samples are: which stay, which image and which hours each is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trustsweep.data_pipelines.layouts.mimic.alignment import (
    HOUR,
    before,
    covering,
    images_of,
    stay_window,
)
from trustsweep.data_pipelines.layouts.mimic.events import Span
from trustsweep.data_pipelines.layouts.mimic.tables import (
    FRONTAL,
    Admission,
    Findings,
    IcuStay,
    Image,
    ImageList,
    MimicPatient,
    Tables,
)
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.files import walk
from trustsweep.data_pipelines.schema import Split

#: Suffix of the images of MIMIC-CXR; MIMIC-CXR-JPG has the same in 8 bits.
DICOM = ".dcm"


@dataclass(frozen=True)
class Rules:
    """How samples are made.

    Attributes:
        hours: Length of the series.
        of_findings: The label is the image's findings, else the stay's mortality.
        by_image: One sample an image, else one a stay.
        official: The publisher's split, else ours.
    """

    hours: int
    of_findings: bool
    by_image: bool
    official: bool


@dataclass(frozen=True)
class MimicCase:
    """A sample to load, or the reason why it is left out.

    Attributes:
        identity: Unique among the cases.
        subject: The patient.
        time: At which the patient's age counts, in seconds since 1970.
        origin: Start of the series, likewise.
        stay, image: None where the sample has none.
        path: The image's file.
        notes: As in `Sample`.
    """

    identity: tuple[str, ...]
    subject: int = 0
    time: int = 0
    origin: int = 0
    stay: IcuStay | None = None
    image: Image | None = None
    path: Path | None = None
    notes: tuple[str, ...] = ()
    problem: BadFile | None = None


@dataclass(frozen=True)
class Plan:
    """All cases, and the facts of their patients; `spans` are the events to read."""

    cases: Sequence[MimicCase]
    spans: Mapping[IcuStay, Span]
    patients: Mapping[int, MimicPatient]
    admissions: Mapping[int, Admission]
    splits: Mapping[int, Split]
    findings: Mapping[int, Findings]
    remarks: Sequence[str]


def plan(tables: Tables, rules: Rules) -> Plan:
    """Raises `UserError` and `BadFile` for tables that cannot be used as a whole."""
    return _Planner(tables, rules).plan()


class _Planner:
    def __init__(self, tables: Tables, rules: Rules) -> None:
        self._tables = tables
        self._rules = rules
        self._left: Counter[str] = Counter()
        self._images = tables.read_images()
        self._here, self._strays = _on_disk(tables, self._images)
        self._available = {
            subject: usable
            for subject, images in self._images.frontal.items()
            if (usable := [image for image in images if image.name in self._here])
        }
        self._stays: dict[int, list[IcuStay]] = {}
        for stay in tables.read_stays():
            self._stays.setdefault(stay.subject, []).append(stay)
        subjects = self._stays.keys() | self._available.keys()
        admissions = {stay.admission for stays in self._stays.values() for stay in stays}
        self._patients = tables.read_patients(subjects)
        self._admissions = tables.read_admissions(admissions)
        self._splits = tables.read_splits() if rules.official else {}
        self._findings = tables.read_findings() if rules.of_findings else {}

    def plan(self) -> Plan:
        cases = list(self._of_images() if self._rules.by_image else self._of_stays())
        return Plan(
            cases=[*cases, *(MimicCase(("stray", str(p.path)), problem=p) for p in self._strays)],
            spans=self._spans(cases),
            patients=self._patients,
            admissions=self._admissions,
            splits=self._splits,
            findings=self._findings,
            remarks=self._remarks(),
        )

    def _of_stays(self) -> Iterator[MimicCase]:
        used = 0
        for subject in sorted(self._stays):
            for stay in self._stays[subject]:
                images = images_of(stay, self._rules.hours, self._available.get(subject, ()))
                used += len(images)
                if self._rules.of_findings and not images:
                    self._left["stays have no frontal image in time and so no labels"] += 1
                elif not self._rules.of_findings and self._too_short(stay):
                    self._left["stays end within the window and so would tell their outcome"] += 1
                else:
                    yield self._of_stay(stay, images)
        everything = sum(map(len, self._available.values()))
        self._left["frontal images lie in no stay's time"] = max(everything - used, 0)

    def _of_stay(self, stay: IcuStay, images: Sequence[Image]) -> MimicCase:
        image = images[-1] if images else None
        notes = ["stays have several frontal images in time; the last is used"]
        return MimicCase(
            identity=("stay", str(stay.stay_id)),
            subject=stay.subject,
            time=stay.start,
            origin=stay.start,
            stay=stay,
            image=image,
            path=self._path(image),
            notes=(*(notes if len(images) > 1 else ()), *self._unlabelled(image)),
            problem=self._problem(stay, image),
        )

    def _of_images(self) -> Iterator[MimicCase]:
        for subject in sorted(self._available):
            for image in self._available[subject]:
                stay = covering(image, self._stays.get(subject, ()))
                if stay is None and not self._rules.of_findings:
                    self._left["frontal images lie in no stay and so have no outcome"] += 1
                else:
                    yield self._of_image(image, stay)

    def _of_image(self, image: Image, stay: IcuStay | None) -> MimicCase:
        notes = [*self._unlabelled(image)]
        if stay is None:
            notes.append("images were taken outside of all ICU stays; they have no measurements")
        if image.subject not in self._patients:
            notes.append("images are of a patient whom MIMIC-IV lacks; age and sex are unknown")
        return MimicCase(
            identity=("image", image.name),
            subject=image.subject,
            time=image.second,
            origin=image.second - self._rules.hours * HOUR,
            stay=stay,
            image=image,
            path=self._path(image),
            notes=tuple(notes),
            problem=self._problem(stay, image),
        )

    def _too_short(self, stay: IcuStay) -> bool:
        return stay.end - stay.start < self._rules.hours * HOUR

    def _path(self, image: Image | None) -> Path | None:
        return None if image is None else self._here[image.name]

    def _unlabelled(self, image: Image | None) -> Iterator[str]:
        if self._rules.of_findings and image is not None and image.study not in self._findings:
            yield "images are of a study without a line of labels; all its labels are unknown"

    def _problem(self, stay: IcuStay | None, image: Image | None) -> BadFile | None:
        """Why a case is left out: an identifier that its table lacks."""
        tables = self._tables
        if stay is not None:
            line = f"line {stay.line}: its"
            if stay.subject not in self._patients:
                return BadFile(
                    tables.icustays, f"{line} subject_id is in no line of {tables.patients.name}."
                )
            admission = self._admissions.get(stay.admission)
            if admission is None:
                return BadFile(
                    tables.icustays, f"{line} hadm_id is in no line of {tables.admissions.name}."
                )
            if admission.died is None and not self._rules.of_findings:
                reason = f"{line} admission has no hospital_expire_flag."
                return BadFile(tables.icustays, reason)
        if image is not None and self._rules.official and image.subject not in self._splits:
            return BadFile(
                self._here[image.name],
                f"its patient is in no line of {tables.split.name}. Complete that, or choose "
                "split=own.",
            )
        return None

    def _spans(self, cases: Sequence[MimicCase]) -> dict[IcuStay, Span]:
        spans: dict[IcuStay, Span] = {}
        for case in cases:
            if case.stay is None or case.problem is not None:
                continue
            if self._rules.by_image and case.image is not None:
                window = before(case.image, case.stay, self._rules.hours)
            else:
                window = stay_window(case.stay, self._rules.hours)
            first, last = window.first - case.stay.start, window.last - case.stay.start
            known = spans.get(case.stay, Span(first, last))
            spans[case.stay] = Span(min(first, known.first), max(last, known.last))
        return spans

    def _remarks(self) -> list[str]:
        images = self._images
        remarks = []
        if absent := len(images.places) - len(self._here):
            remarks.append(
                f"{absent} of {len(images.places)} listed images are not on disk (a part of the "
                "download); left out"
            )
        if images.others:
            views = " or ".join(FRONTAL)
            remarks.append(f"{images.others} listed images state no view {views}; not read")
        if images.timeless:
            remarks.append(f"{images.timeless} frontal images state no date or time; left out")
        return remarks + [
            f"{count} {what}; left out" for what, count in self._left.items() if count
        ]


def _on_disk(tables: Tables, images: ImageList) -> tuple[dict[str, Path], list[BadFile]]:
    """Name to file of the listed images that are here, and the files that are no such images."""
    here: dict[str, Path] = {}
    strays = []
    for path in walk(tables.cxr / "files", (".jpg", ".jpeg", DICOM)):
        listed = images.places.get(path.stem)
        if listed is None:
            reason = f"in no line of {tables.metadata.name}. Complete that, or take the image away."
            strays.append(BadFile(path, reason))
        elif listed != path.relative_to(tables.cxr).with_suffix("").as_posix():
            reason = f"not where its line of {tables.metadata.name} says (patient, study)."
            strays.append(BadFile(path, f"{reason} Move it there."))
        elif (first := here.setdefault(path.stem, path)) != path:
            reason = f"the image also exists as {first.name}. Keep one of the two."
            strays.append(BadFile(path, reason))
    return here, strays
