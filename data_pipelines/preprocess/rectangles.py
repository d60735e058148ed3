"""Published rectangles to the boxes of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trustsweep.data_pipelines.preprocess import resize_boxes
from trustsweep.data_pipelines.problems import BadFile
from trustsweep.data_pipelines.sample import Boxes

BEYOND = "images have boxes that reach beyond them; cut at the edge"


@dataclass(frozen=True)
class Rectangle:
    """One finding.

    Attributes:
        xyxy: Pixel edges x0, y0, x1, y1, the last two exclusive.
        cls: Index into the layout's `box_classes`.
        path, where: The file it stands in and the place there ("line 7"), for messages.
    """

    xyxy: tuple[float, float, float, float]
    cls: int
    path: Path
    where: str


def to_boxes(
    rectangles: Sequence[Rectangle], shape: tuple[int, ...], size: int
) -> tuple[Boxes, tuple[str, ...]]:
    """The rectangles of an (H, W) image at `size`, cut at its edges, and notes.

    Raises `BadFile` for a rectangle without an area, off the image, or not finite.
    """
    height, width = shape[:2]
    edges = np.array([width, height, width, height], np.float64)
    corners = np.array([r.xyxy for r in rectangles], np.float64).reshape(-1, 4)
    inside = np.clip(corners, 0, edges)
    for rectangle, given, cut in zip(rectangles, corners, inside, strict=True):
        if reason := _refusal(given, cut):
            raise BadFile(rectangle.path, f"{rectangle.where}: {reason}")
    # Scaled in single precision, an edge of the image could come to lie just behind it.
    scaled = resize_boxes(inside.astype(np.float32), shape, size).clip(0, size)
    boxes = Boxes(
        xyxy=scaled,
        classes=np.array([r.cls for r in rectangles], np.int32),
    )
    return boxes, (BEYOND,) if (inside != corners).any() else ()


def _refusal(given: np.ndarray, cut: np.ndarray) -> str | None:
    if not np.isfinite(given).all():
        return "the box has a coordinate that is no finite number. Correct it, or remove the box."
    if (given[2:] <= given[:2]).any():
        return "the box has no area. Correct it, or remove the box."
    if (cut[2:] <= cut[:2]).any():
        return "the box is off the image. Correct it, or remove the box."
    return None
