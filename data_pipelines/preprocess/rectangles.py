"""Published rectangles to the boxes of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


def filled(boxes: Boxes, classes: int, size: int) -> NDArray[np.uint8]:
    """(classes, size, size) of 0 and 1: where each class has a box, whose edges round to pixels.

    A box has at least one pixel, however small it is.
    """
    masks = np.zeros((classes, size, size), np.uint8)
    for (rows, columns), kind in zip(_places(boxes, size), boxes.classes, strict=True):
        masks[kind, rows, columns] = 1
    return masks


def exclusive(boxes: Boxes, size: int) -> NDArray[np.uint8]:
    """(1, size, size) of 0 and the classes of boxes from 1, smaller boxes on larger ones."""
    mask = np.zeros((1, size, size), np.uint8)
    areas = np.prod(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], axis=1)
    places = _places(boxes, size)
    # Of equal ones the higher class, whatever the order in the file.
    for index in np.lexsort((boxes.classes, -areas)):
        mask[0, *places[index]] = boxes.classes[index] + 1
    return mask


def _places(boxes: Boxes, size: int) -> list[tuple[slice, slice]]:
    """Rows and columns of each box."""
    low = np.clip(np.rint(boxes.xyxy[:, :2]), 0, size - 1).astype(int)
    high = np.clip(np.rint(boxes.xyxy[:, 2:]), low + 1, size).astype(int)
    return [(slice(y0, y1), slice(x0, x1)) for (x0, y0), (x1, y1) in zip(low, high, strict=True)]


def _refusal(given: np.ndarray, cut: np.ndarray) -> str | None:
    if not np.isfinite(given).all():
        return "the box has a coordinate that is no finite number. Correct it, or remove the box."
    if (given[2:] <= given[:2]).any():
        return "the box has no area. Correct it, or remove the box."
    if (cut[2:] <= cut[:2]).any():
        return "the box is off the image. Correct it, or remove the box."
    return None
