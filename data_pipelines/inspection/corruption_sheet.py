"""One sample under every corruption of a suite, at its five severities."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.corruptions.suites import DEFAULT_SUITE, parameters, suite
from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.inspection.columns import IMAGE
from trustsweep.data_pipelines.inspection.composition import image_panels
from trustsweep.data_pipelines.inspection.examples import Example, SampleValues, choose
from trustsweep.data_pipelines.inspection.pages import GAP, MARGIN, STYLE, WIDTH, Page
from trustsweep.data_pipelines.inspection.panels import (
    QUIET,
    HeatPanel,
    ImagePanel,
    PresencePanel,
    SheetPanel,
)
from trustsweep.data_pipelines.schema import Feature, Manifest
from trustsweep.data_pipelines.storage import Folder

if TYPE_CHECKING:
    from trustsweep.data_pipelines.corruptions.base import Corruption
    from trustsweep.data_pipelines.schema import Batch

_CLEAN = 0
#: Inches.
_TITLE, _NAMES, _FOOT = 0.98, 1.25, 0.2
#: Number of samples searched for one with an image and a finding.
_LOOKED_AT = 24
#: Rows of a field that have room for a name.
_NAMED = 18


def default_suite(manifest: Manifest) -> str:
    """The one of studies for data with images, else the one of tables and series."""
    return DEFAULT_SUITE if manifest.image_shape or manifest.more_images else "clinical"


def corruption_sheet(
    location: str | Path | Folder, out: Path, *, suite_name: str | None = None
) -> Path:
    """Draw one sample clean and under the corruptions that act on the data, into a PNG.

    A row is a corruption, a column a severity, drawn as in an evaluation of the sample. Of an image
    with several channels the first that is present is shown, of a volume one slice; a series is a
    field of time by channel in standard deviations of the train split, a table is one of entries.

    Args:
        location: A prepared data set.
        out: The file to write; its folder is made.
        suite_name: A name of `corruptions.suites.SUITES`; None for `default_suite`.

    Raises:
        UserError: if there is no data set or if it is damaged; for an unknown suite, and for one
            that has nothing for these data.
    """
    from trustsweep.data_pipelines.corruptions import CORRUPTIONS

    folder = Folder(location)
    manifest = Manifest.load(folder)
    name = suite_name or default_suite(manifest)
    rows = [c for c in suite(name) if CORRUPTIONS[c].acts_on(manifest)]
    if not rows:
        raise UserError(
            f"suite {name}: nothing in it acts on {manifest.name}. Choose another with --suite; "
            "`trustsweep list suites` names them."
        )
    example = _telling(choose(folder, manifest, _LOOKED_AT))
    with matplotlib.rc_context(STYLE):
        return _draw(example, manifest, name, rows).save(out)


def _telling(examples: list[Example]) -> Example:
    """The first with every modality and a finding, or the nearest to that."""
    return max(
        examples,
        key=lambda e: (e.case.present.mean(), e.case.mask is not None and bool(e.case.mask.any())),
    )


def _draw(example: Example, manifest: Manifest, name: str, rows: list[str]) -> Page:
    from trustsweep.data_pipelines.corruptions import CORRUPTIONS
    from trustsweep.data_pipelines.corruptions.base import SEVERITIES
    from trustsweep.data_pipelines.corruptions.suite import corrupt

    columns = (_CLEAN, *SEVERITIES)
    tile = (WIDTH - 2 * MARGIN - _NAMES - GAP * (len(columns) - 1)) / len(columns)
    page = Page.blank(WIDTH, _TITLE + len(rows) * (tile + GAP) + _FOOT)
    _title(page, manifest, example, name, rows)
    batch = _batch(example, manifest)
    for line, corruption in enumerate(rows):
        top = _TITLE + line * (tile + GAP)
        page.text(MARGIN, top + 0.02, corruption, fontsize=8.5, fontweight="bold")
        listed = parameters(name, corruption)
        for column, severity in enumerate(columns):
            left = MARGIN + _NAMES + column * (tile + GAP)
            if line == 0:
                title = f"severity {severity}" if severity else "clean"
                page.text(left, top - 0.2, title, fontsize=8.5, color=QUIET)
            shown, note = batch, ""
            if severity:
                shown = corrupt(batch, corruption, severity, manifest=manifest, suite=name)
                note = _parameter(listed[severity - 1])
            panel = _panel(_case(shown, example.case), manifest, CORRUPTIONS[corruption], note)
            panel.draw(page.axes(left, top, tile, tile))
    return page


def _title(page: Page, manifest: Manifest, example: Example, name: str, rows: list[str]) -> None:
    from trustsweep.data_pipelines.corruptions import CORRUPTIONS

    sample = ", ".join(word for word in (example.label, example.split, example.site) if word)
    drawn = [_panel(example.case, manifest, CORRUPTIONS[corruption], "") for corruption in rows]
    words = [f"one sample ({sample})"]
    images = [panel for panel in drawn if isinstance(panel, ImagePanel)]
    words += [images[0].name.replace("\n", ", ")] if images and images[0].name else []
    words.append("the number in a picture is the corruption's parameter")
    if any(isinstance(panel, HeatPanel) for panel in drawn):
        words.append("blue is below and red above the train split's mean, grey is missing")
    page.text(MARGIN, 0.18, f"{manifest.name} under suite {name}", fontsize=14, fontweight="bold")
    page.text(MARGIN, 0.44, "; ".join(words), fontsize=8, color=QUIET)


def _parameter(value: float | tuple[float, ...]) -> str:
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"{number:g}" for number in values)


def _panel(
    case: SampleValues, manifest: Manifest, corruption: type[Corruption], note: str
) -> SheetPanel:
    """What the corruption changes most visibly."""
    touched = corruption.touches
    if "present" in touched:
        names = tuple(modality.name for modality in manifest.modalities)
        return PresencePanel(names=names, present=tuple(case.present.tolist()), note=note)
    if "image" in touched and case.images:
        image = next(iter(case.images))
        shown = image_panels(dataclasses.replace(case, mask=None, boxes=()), manifest, image)
        first = next((panel for panel in shown if isinstance(panel, ImagePanel)), shown[0])
        if not isinstance(first, ImagePanel):
            return first
        return dataclasses.replace(first, note=note, name=first.note)
    if "series" in touched and case.series is not None:
        return _heat(case.series.T, manifest.series, note)
    assert case.tabular is not None
    return _heat(case.tabular[:, None], manifest.tabular, note)


def _heat(values: NDArray[np.float32], features: tuple[Feature, ...], note: str) -> HeatPanel:
    """With names on the clean one, if they have room."""
    named = not note and len(features) <= _NAMED
    return HeatPanel(values=values, features=features, note=note, named=named)


def _batch(example: Example, manifest: Manifest) -> Batch:
    """The sample alone in a batch."""
    import torch

    from trustsweep.data_pipelines.schema import Batch

    case = example.case
    images = {name: torch.from_numpy(image)[None] for name, image in case.images.items()}
    series = None if case.series is None else torch.from_numpy(case.series.copy())[None]
    several = len(manifest.modalities) > 1
    return Batch(
        sample_id=(example.sample_id,),
        image=images.pop(IMAGE, torch.zeros(1, 0)),
        more_images=images,
        tabular=None if case.tabular is None else torch.from_numpy(case.tabular.copy())[None],
        series=series,
        series_mask=None if series is None else (~series.isnan()).float(),
        series_delta=None if series is None else torch.zeros_like(series),
        present=torch.from_numpy(case.present).float()[None] if several else None,
    )


def _case(batch: Batch, clean: SampleValues) -> SampleValues:
    """The only sample of a batch."""
    images = {IMAGE: batch.image[0].numpy()} if IMAGE in clean.images else {}
    return dataclasses.replace(
        clean,
        images=images | {name: image[0].numpy() for name, image in batch.more_images.items()},
        tabular=None if batch.tabular is None else batch.tabular[0].numpy(),
        series=None if batch.series is None else batch.series[0].numpy(),
        present=clean.present if batch.present is None else batch.present[0].numpy() > 0,
    )
