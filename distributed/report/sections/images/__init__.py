"""Test images beside the predictions of the spotlight models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.sections.images.class_panel import ClassPanel, class_panel
from trustsweep.distributed.report.sections.images.panel import SegmentationPanel, panel
from trustsweep.distributed.run.folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ImagePanels:
    """Panels of segmentations, and of classes or times to an event (`survival`)."""

    panels: list[SegmentationPanel]
    class_panels: list[ClassPanel]
    survival: bool


class ImagesSection(Section[ImagePanels]):
    figure = "panel"

    def gather(self, run: Run) -> ImagePanels | None:
        if not run.manifest.image_shape:
            return None
        return ImagePanels(
            panels=[p for p in map(panel, run.spotlight) if p is not None],
            class_panels=[p for p in map(class_panel, run.spotlight) if p is not None],
            survival=any(card.survival for card in run.spotlight),
        )

    def draw(self, run: Run, data: ImagePanels) -> Figure | None:
        from trustsweep.distributed.report.sections.images.figure import class_sheet, panel_sheet

        return panel_sheet(data.panels) or class_sheet(data.class_panels)
