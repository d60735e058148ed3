"""Test images beside a model's predictions, clean and attacked, as RGB tiles."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.run.evaluation_card import EvaluationCard

RGB = NDArray[np.uint8]
ARRAYS = ("image", "mask", "probability", "uncertainty")
ATTACKED = ("image_attacked", "probability_attacked", "uncertainty_attacked")
#: The array that holds the truth of images without a mask.
TRUTHS = ("label", "labels", "time")
IMAGES = 3
# Okabe and Ito's palette: the three stay apart for every kind of colour vision.
TRUTH, PREDICTED = (0, 158, 115), (86, 180, 233)
FALSE_ALARM, MISSED = (230, 159, 0), (0, 114, 178)


@dataclass(frozen=True)
class Tile:
    """An (H, W, 3) uint8 picture and the words that stand for it."""

    pixels: RGB
    alt: str

    @property
    def uri(self) -> str:
        """The picture as a data URI of a PNG."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, format="PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class SegmentationRow:
    """One test image: the truth, then image, prediction, uncertainty and error, clean, attacked.

    `attacked` is empty where nothing was attacked.
    """

    truth: Tile
    clean: list[Tile]
    attacked: list[Tile]


@dataclass(frozen=True)
class SegmentationPanel:
    """Rows of one model; `epsilon` is the attack's budget on the [0, 1] pixel scale, 0 for none."""

    id: str
    epsilon: float
    rows: list[SegmentationRow]


def panel(card: EvaluationCard) -> SegmentationPanel | None:
    """Tiles of up to three test images; None without arrays, or for those of classes.

    Raises `UserError` for arrays that are incomplete or of different shapes.
    """
    stored = card.panel
    if "image" not in stored or {*TRUTHS} & {*stored}:
        return None
    epsilon = float(stored.get("epsilon", np.nan))
    needed = ARRAYS if epsilon == 0 else (*ARRAYS, *ATTACKED)
    missing = [name for name in needed if name not in stored]
    shapes = {stored[name].shape for name in needed if name in stored}
    if missing or len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise UserError(
            f"evaluation/{card.id}.npz: needs {', '.join(needed)}, all of one shape "
            "(n, H, W). Evaluate the front again."
        )
    arrays = {name: stored[name].astype(np.float32) for name in needed}
    maps = [arrays[name].ravel() for name in needed if name.startswith("uncertainty")]
    # One scale for clean and attacked, or a rise in uncertainty could not be seen.
    low, high = (float(q) for q in np.nanquantile(np.concatenate(maps), [0.0, 0.995]))
    rows = [_row(arrays, i, low, high) for i in range(min(IMAGES, len(arrays["image"])))]
    return SegmentationPanel(card.id, epsilon, rows)


def _row(
    arrays: dict[str, NDArray[np.float32]], i: int, low: float, high: float
) -> SegmentationRow:
    mask = arrays["mask"][i] >= 0.5
    truth = Tile(
        overlay(arrays["image"][i], mask, TRUTH),
        f"Test image {i + 1}, truth: {mask.mean():.0%} of the image is foreground",
    )
    sides = []
    attacked = [("_attacked", "attacked")] if "image_attacked" in arrays else []
    for suffix, word in [("", "clean"), *attacked]:
        image, probability = arrays[f"image{suffix}"][i], arrays[f"probability{suffix}"][i]
        predicted = probability >= 0.5
        uncertainty = (arrays[f"uncertainty{suffix}"][i] - low) / ((high - low) or 1.0)
        start = f"Test image {i + 1}, {word}"
        wrong = (
            f"{(predicted & ~mask).mean():.1%} false alarm, {(mask & ~predicted).mean():.1%} missed"
        )
        sides.append(
            [
                Tile(grey(image), f"{start}: the image"),
                Tile(
                    overlay(image, predicted, PREDICTED),
                    f"{start}: prediction, Dice {_dice(predicted, mask):.2f}",
                ),
                Tile(
                    colour(uncertainty),
                    f"{start}: uncertainty, {uncertainty.mean():.0%} of its scale on average",
                ),
                Tile(error_map(image, predicted, mask), f"{start}: error, {wrong}"),
            ]
        )
    return SegmentationRow(truth, sides[0], sides[1] if attacked else [])


def _dice(predicted: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    total = int(predicted.sum()) + int(mask.sum())
    return 2 * int((predicted & mask).sum()) / total if total else 1.0


def grey(image: NDArray[np.float32]) -> RGB:
    """(H, W) in [0, 1] to grey (H, W, 3)."""
    levels = np.rint(np.clip(np.nan_to_num(image), 0.0, 1.0) * 255).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


def colour(values: NDArray[np.float32]) -> RGB:
    """(H, W) in [0, 1] through cividis, which is even for every kind of colour vision."""
    from matplotlib import colormaps

    rgba = colormaps["cividis"](np.clip(np.nan_to_num(values), 0.0, 1.0), bytes=True)
    return np.asarray(rgba, dtype=np.uint8)[..., :3]


def overlay(
    image: NDArray[np.float32], region: NDArray[np.bool_], tint: tuple[int, int, int]
) -> RGB:
    """The image with `region` tinted, half see-through."""
    pixels = grey(image).astype(np.float32)
    pixels[region] = 0.45 * pixels[region] + 0.55 * np.array(tint, dtype=np.float32)
    return np.rint(pixels).astype(np.uint8)


def error_map(
    image: NDArray[np.float32], predicted: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> RGB:
    """The darkened image with false alarms and missed pixels in full colour."""
    pixels = (grey(image).astype(np.float32) * 0.45).astype(np.uint8)
    pixels[predicted & ~mask] = FALSE_ALARM
    pixels[mask & ~predicted] = MISSED
    return pixels
