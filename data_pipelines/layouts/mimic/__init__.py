"""MIMIC-CXR-JPG with MIMIC-IV: chest X-rays beside the vital signs and laboratory values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.layouts.base import Layout
from trustsweep.data_pipelines.layouts.mimic.alignment import HOUR
from trustsweep.data_pipelines.layouts.mimic.events import EventStore
from trustsweep.data_pipelines.layouts.mimic.items import CHANNELS, INDEX, LABS, VITALS, possible
from trustsweep.data_pipelines.layouts.mimic.plan import DICOM, MimicCase, Rules, plan
from trustsweep.data_pipelines.layouts.mimic.tables import CHEXPERT, Tables
from trustsweep.data_pipelines.preprocess.images import resize_image
from trustsweep.data_pipelines.preprocess.series import to_grid
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.readers.dicom import read_dicom
from trustsweep.data_pipelines.readers.files import digest, opaque
from trustsweep.data_pipelines.readers.images import read_grey
from trustsweep.data_pipelines.registry import nearest
from trustsweep.data_pipelines.sample import Sample, Series
from trustsweep.data_pipelines.schema import Feature, Kind, Modality, TaskName

_SEXES = ("female", "male")
_CHOICES = {
    "target": ("chexpert", "mortality"),
    "samples": ("stays", "images"),
    "uncertain": ("missing", "positive", "negative"),
    "unmentioned": ("missing", "negative"),
    "split": ("official", "own"),
}
_VALUE = {"missing": np.nan, "positive": 1.0, "negative": 0.0}
#: A month: beyond it, events are no longer a picture of the patient's state.
_MOST_HOURS = 24 * 31
_NAMES = tuple(CHANNELS)


class Mimic(Layout[MimicCase]):
    """MIMIC-CXR-JPG 2.x and MIMIC-IV 2 or 3, both below `folder`, each as downloaded.

    `folder` is searched, to the depth of a download with its `physionet.org/files`, for
    `mimic-cxr-2.0.0-{metadata,split,chexpert}.csv` beside `files/p10/p10000032/s50414267/*.jpg`
    (or the `*.dcm` of MIMIC-CXR in their place, which keep their 12 bits),
    and for `hosp/{patients,admissions,labevents}` and `icu/{icustays,chartevents}`; tables may be
    gzipped. Images that are listed and not on disk are counted and left out, so a part of the
    images will do.

    Images and events are brought together by patient and time. Of several images the last is
    taken; frontal views alone (AP, PA). Events are of the stay itself; their `itemid` fixes the
    unit (see `items`), impossible values count as missing. Each of the modalities xray, vitals,
    labs and demographics may be absent. Race and insurance are groups for fairness, no inputs.
    Ages above 89 are published as 91. What is known of the layout was taken from the publisher's
    descriptions and from MIT-LCP's mimic-code; the data themselves are under a use agreement and
    were not at hand.

    Options:
        target: "chexpert" (14 labels of the image's report) or "mortality" (death in hospital).
        samples: "stays" (one an ICU stay: the first `window_hours`, and the last image from a day
            before the stay to the window's end) or "images" (one an image: the `window_hours`
            before it, where a stay covers them).
        window_hours: Length of the series.
        step_hours: Width of its steps; divides `window_hours`.
        uncertain: A finding that the report calls uncertain is "missing", "positive" (U-ones) or
            "negative" (U-zeros).
        unmentioned: A finding that it does not mention is "missing" or "negative".
        split: "official" (that of MIMIC-CXR; patients without X-rays join training) or "own".

    Stays shorter than the window are left out for mortality, as the window would hold the outcome;
    stays without an image for chexpert, and images outside of all stays for mortality, as they have
    no label.
    """

    name = "mimic"
    licence = "PhysioNet Credentialed Health Data License 1.5.0"
    citation = (
        "Johnson, Lungren, Peng, Lu, Mark, Berkowitz, Horng (2019): MIMIC-CXR-JPG, arXiv "
        "1901.07042; Johnson et al. (2023): MIMIC-IV, a freely accessible electronic health "
        "record dataset. Scientific Data 10:1"
    )
    tabular = (Feature(name="age", unit="years"), Feature(name="sex", vocabulary=_SEXES))
    series = tuple(Feature(name=name, unit=channel.unit) for name, channel in CHANNELS.items())
    modalities = (
        Modality(name="xray", kind=Kind.IMAGE, column="image"),
        *(
            Modality(
                name=part,
                kind=Kind.SERIES,
                column="series",
                indices=tuple(INDEX[name] for name in names),
            )
            for part, names in (("vitals", VITALS), ("labs", LABS))
        ),
        Modality(name="demographics", kind=Kind.TABULAR, column="tabular"),
    )
    groups = ("site", "unit", "sex", "age", "race", "insurance")

    def __init__(
        self,
        folder: Path | None,
        *,
        size: int,
        seed: int,
        target: str = "chexpert",
        samples: str = "stays",
        window_hours: int = 48,
        step_hours: int = 1,
        uncertain: str = "missing",
        unmentioned: str = "missing",
        split: str = "official",
    ) -> None:
        chosen = dict(zip(_CHOICES, (target, samples, uncertain, unmentioned, split), strict=True))
        for option, value in chosen.items():
            _check_choice(option, value)
        _check_hours(window_hours, step_hours)
        if folder is None:
            raise UserError(f"layout {self.name}: give the folder that holds both data sets.")
        super().__init__(folder, size=size, seed=seed)
        self._tables = Tables(folder)
        self._rules = Rules(
            hours=window_hours,
            of_findings=target == "chexpert",
            by_image=samples == "images",
            official=split == "official",
        )
        if self._rules.of_findings:
            self.tasks, self.classes = (TaskName.MULTILABEL,), CHEXPERT
        else:
            self.tasks = (TaskName.CLASSIFICATION,)
            self.classes = ("left hospital alive", "died in hospital")
        self.series_hours = float(step_hours)
        self._steps = window_hours // step_hours
        self._codes = {-1.0: _VALUE[uncertain], 0.0: 0.0, 1.0: 1.0}
        self._blank = _VALUE[unmentioned]
        self._plan = plan(self._tables, self._rules)
        self._events = EventStore(
            self._tables.chartevents, self._tables.labevents, self._plan.spans
        )

    def cases(self) -> Iterator[MimicCase]:
        yield from self._plan.cases

    def load(self, case: MimicCase) -> Iterator[Sample]:
        if case.problem is not None:
            raise case.problem
        notes = list(case.notes)
        series = self._series(case, notes)
        patient = self._plan.patients.get(case.subject)
        admission = self._plan.admissions.get(case.stay.admission) if case.stay else None
        age = patient.age(case.time) if patient else None
        sex = patient.sex if patient else None
        tabular = np.array(
            [np.nan if age is None else age, np.nan if sex is None else _SEXES.index(sex)],
            np.float32,
        )
        image = np.zeros((1, self.size, self.size), np.uint8)
        if case.path is not None:
            image = resize_image(_pixels(case.path), self.size)
        present = self._present(case, series, tabular)
        if not any(present) and case.stay is not None:
            raise BadFile(
                self._tables.icustays,
                f"line {case.stay.line}: nothing is known of the stay, neither image nor "
                "measurement nor age nor sex. Take the line away.",
            )
        if not any(present[:-1]):
            notes.append("samples have neither image nor measurements; kept")
        yield Sample(
            sample_id=opaque(self.name, *case.identity),
            patient_id=opaque(self.name, "patient", str(case.subject)),
            site="bidmc",
            split=self._plan.splits.get(case.subject),
            image=image,
            label=self._label(case),
            tabular=tabular,
            series=series,
            present=present,
            groups={
                "unit": case.stay.unit if case.stay else None,
                "sex": sex,
                "age": age,
                "race": admission.race if admission else None,
                "insurance": admission.insurance if admission else None,
            },
            source=case.path or self._tables.icustays,
            notes=tuple(notes),
        )

    def source_digest(self) -> str:
        images = [case.path for case in self._plan.cases if case.path is not None]
        strays = [
            c.problem.path for c in self._plan.cases if c.problem and c.identity[0] == "stray"
        ]
        assert self.folder is not None
        return digest(self.folder, [*self._tables.all(), *images, *strays])

    def remarks(self) -> list[str]:
        remarks = [*self._plan.remarks]
        if timeless := self._events.timeless:
            remarks.append(f"{timeless} rows of events have no charttime; left out")
        items = {item for channel in CHANNELS.values() for item in channel.items}
        if unlisted := self._tables.unlisted(items):
            remarks.append(
                f"the dictionaries of items lack {', '.join(map(str, unlisted))}, which are looked "
                "for: another version of MIMIC-IV?"
            )
        return remarks

    def _series(self, case: MimicCase, notes: list[str]) -> Series:
        """On the grid that starts at the case's origin; adds what was found to `notes`."""
        if case.stay is None:
            second, channel, value = np.zeros(0), np.zeros(0, np.int16), np.zeros(0, np.float32)
        else:
            rows = self._events.of(case.stay)
            second = rows["second"] + float(case.stay.start - case.origin)
            channel, value = rows["channel"], rows["value"]
        # A stay's rows may belong to another image of it.
        here = (second >= 0) & (second < self._rules.hours * HOUR)
        second, channel, value = second[here], channel[here], value[here]
        blank = np.isnan(value)
        wrong = ~blank & ~possible(channel, value)
        if blank.any():
            notes.append("samples have events without a number; those are left out")
        notes += [
            f"samples have impossible values of {_NAMES[c]}, which are read as missing"
            for c in np.unique(channel[wrong])
        ]
        series, _ = to_grid(
            second / HOUR,
            channel,
            np.where(wrong, np.nan, value),
            steps=self._steps,
            step_hours=self.series_hours,
            channels=len(CHANNELS),
        )
        return series

    def _present(
        self, case: MimicCase, series: Series, tabular: NDArray[np.float32]
    ) -> tuple[bool, ...]:
        observed = set(np.flatnonzero(np.isfinite(series.value).any(axis=0)).tolist())
        return (
            case.path is not None,
            *(not observed.isdisjoint(modality.indices) for modality in self.modalities[1:-1]),
            bool(np.isfinite(tabular).any()),
        )

    def _label(self, case: MimicCase) -> int | NDArray[np.float32]:
        if not self._rules.of_findings:
            assert case.stay is not None
            return int(bool(self._plan.admissions[case.stay.admission].died))
        assert case.image is not None
        findings = self._plan.findings.get(case.image.study)
        if findings is None:
            return np.full(len(CHEXPERT), np.nan, np.float32)
        label = np.full(len(CHEXPERT), self._blank, np.float32)
        for place in np.flatnonzero(~np.isnan(findings.codes)):
            code = float(findings.codes[place])
            if code not in self._codes:
                raise BadFile(
                    self._tables.chexpert or self._tables.cxr,
                    f"line {findings.line}: {CHEXPERT[place]} is 1, 0, -1 or empty, not {code:g}.",
                )
            label[place] = self._codes[code]
        return label


def _check_choice(option: str, value: str) -> None:
    known = _CHOICES[option]
    if value not in known:
        raise UserError(
            f"layout {Mimic.name}: no {option} {value!r}{nearest(str(value), [*known])} "
            f"Known: {', '.join(known)}."
        )


def _pixels(path: Path) -> NDArray[Any]:
    return read_dicom(path).pixels if path.suffix.lower() == DICOM else read_grey(path)


def _check_hours(window_hours: int, step_hours: int) -> None:
    for option, value in (("window_hours", window_hours), ("step_hours", step_hours)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= _MOST_HOURS:
            raise UserError(
                f"layout {Mimic.name}: {option} is a whole number from 1 to {_MOST_HOURS}, "
                f"not {value!r}."
            )
    if window_hours % step_hours:
        raise UserError(
            f"layout {Mimic.name}: window_hours ({window_hours}) is no multiple of step_hours "
            f"({step_hours})."
        )
