"""Test images beside a model's predictions, clean and attacked, as RGB tiles."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

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
FALSE_ALARM, MISSED, CONFUSED = (230, 159, 0), (0, 114, 178), (204, 121, 167)
#: Of several classes or regions, from the same palette; more of them begin anew.
TINTS = (
    (0, 158, 115), (240, 228, 66), (86, 180, 233), (213, 94, 0), (204, 121, 167), (0, 114, 178),
    (230, 159, 0),
)  # fmt: skip


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
    """Rows of one model.

    Attributes:
        epsilon: The attack's budget on the [0, 1] pixel scale, 0 for none.
        legend: Of several classes or regions, the name and the colour of each.
        outlined: Whether they may overlap, and are drawn as outlines.
    """

    id: str
    epsilon: float
    rows: list[SegmentationRow]
    legend: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)
    outlined: bool = False


@dataclass(frozen=True)
class _Masks:
    """Truth and prediction of one image, (C, H, W) bool: of a lesion, or each class or region."""

    truth: NDArray[np.bool_]
    predicted: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[np.float32], probability: NDArray[np.float32]) -> Self:
        """From the report's arrays: one more column of probability than of masks is classes that
        exclude each other, the background first, and the mask is their index."""
        if mask.ndim == 2:
            return cls(mask[None] >= 0.5, probability[None] >= 0.5)
        if len(mask) == len(probability):
            return cls(mask >= 0.5, probability >= 0.5)
        places = np.arange(1, len(probability))[:, None, None]
        return cls(mask == places, probability.argmax(axis=0) == places)


def panel(card: EvaluationCard) -> SegmentationPanel | None:
    """Tiles of up to three test images; None without arrays, or for those of classes.

    Raises `UserError` for arrays that are incomplete or of different shapes.
    """
    stored = card.panel
    if "image" not in stored or {*TRUTHS} & {*stored}:
        return None
    epsilon = float(stored.get("epsilon", np.nan))
    needed = ARRAYS if epsilon == 0 else (*ARRAYS, *ATTACKED)
    shapes = {name: stored[name].shape for name in needed if name in stored}
    if len(shapes) < len(needed) or not _fit(shapes):
        raise UserError(
            f"evaluation/{card.id}.npz: needs {', '.join(needed)}, all of one shape "
            "(n, H, W). Evaluate the front again."
        )
    arrays = {name: stored[name].astype(np.float32) for name in needed}
    maps = [arrays[name].ravel() for name in needed if name.startswith("uncertainty")]
    # One scale for clean and attacked, or a rise in uncertainty could not be seen.
    low, high = (float(q) for q in np.nanquantile(np.concatenate(maps), [0.0, 0.995]))
    several = arrays["mask"].ndim == 4
    outlined = several and arrays["mask"].shape == arrays["probability"].shape
    show = _Drawing(low, high, several, outlined)
    rows = [_row(arrays, i, show) for i in range(min(IMAGES, len(arrays["image"])))]
    names = card.classes if outlined else card.classes[1:]
    legend = [(name, tint_of(k)) for k, name in enumerate(names)] if several else []
    return SegmentationPanel(card.id, epsilon, rows, legend, outlined)


def _fit(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether arrays are pictures (n, H, W), and of several classes masks and probabilities
    (n, columns, H, W)."""
    size = shapes["image"]
    several = len(shapes["mask"]) == 4
    return len(size) == 3 and all(
        (len(shape) == 4) == (several and name.startswith(("mask", "probability")))
        and (shape[0], *shape[-2:]) == size
        for name, shape in shapes.items()
    )


@dataclass(frozen=True)
class _Drawing:
    """How masks and maps become tiles; `low` and `high` are the ends of the uncertainty's scale."""

    low: float
    high: float
    several: bool
    outlined: bool

    def masks(
        self, image: NDArray[np.float32], masks: NDArray[np.bool_], tint: tuple[int, int, int]
    ) -> RGB:
        """`masks` (C, H, W) on the image: a single one in `tint`, several in their own colours."""
        if not self.several:
            return overlay(image, masks[0], tint)
        pixels = grey(image)
        for k, mask in enumerate(masks):
            if self.outlined:
                pixels[outline(mask)] = tint_of(k)
            else:
                pixels[mask] = overlay(image, mask, tint_of(k))[mask]
        return pixels


def _row(arrays: dict[str, NDArray[np.float32]], i: int, show: _Drawing) -> SegmentationRow:
    clean = _Masks.of(arrays["mask"][i], arrays["probability"][i])
    foreground = clean.truth.any(axis=0)
    truth = Tile(
        show.masks(arrays["image"][i], clean.truth, TRUTH),
        f"Test image {i + 1}, truth: {foreground.mean():.0%} of the image is foreground",
    )
    sides = []
    attacked = [("_attacked", "attacked")] if "image_attacked" in arrays else []
    for suffix, word in [("", "clean"), *attacked]:
        image = arrays[f"image{suffix}"][i]
        masks = _Masks.of(arrays["mask"][i], arrays[f"probability{suffix}"][i])
        scale = (show.high - show.low) or 1.0
        uncertainty = (arrays[f"uncertainty{suffix}"][i] - show.low) / scale
        start = f"Test image {i + 1}, {word}"
        alarm, missed = _errors(masks)
        wrong = f"{alarm.mean():.1%} false alarm, {missed.mean():.1%} missed"
        sides.append(
            [
                Tile(grey(image), f"{start}: the image"),
                Tile(
                    show.masks(image, masks.predicted, PREDICTED),
                    f"{start}: prediction, Dice {_dice(masks)}",
                ),
                Tile(
                    colour(uncertainty),
                    f"{start}: uncertainty, {uncertainty.mean():.0%} of its scale on average",
                ),
                Tile(error_map(image, alarm, missed), f"{start}: error, {wrong}"),
            ]
        )
    return SegmentationRow(truth, sides[0], sides[1] if attacked else [])


def _errors(masks: _Masks) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(H, W) each: where anything is predicted that is not there, and where anything is missed."""
    alarm = (masks.predicted & ~masks.truth).any(axis=0)
    missed = (masks.truth & ~masks.predicted).any(axis=0)
    return np.asarray(alarm), np.asarray(missed)


def _dice(masks: _Masks) -> str:
    """Of each class or region."""
    both = (masks.truth & masks.predicted).sum(axis=(1, 2))
    total = masks.truth.sum(axis=(1, 2)) + masks.predicted.sum(axis=(1, 2))
    values = [2 * b / t if t else 1.0 for b, t in zip(both, total, strict=True)]
    return ", ".join(f"{value:.2f}" for value in values)


def tint_of(k: int) -> tuple[int, int, int]:
    """The colour of the class or region number k."""
    return TINTS[k % len(TINTS)]


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W): the pixels of a mask that touch what lies outside of it, or the image's edge."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


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
    image: NDArray[np.float32], alarm: NDArray[np.bool_], missed: NDArray[np.bool_]
) -> RGB:
    """The darkened image with false alarms and missed pixels in full colour; pixels that are both,
    another class in the place of the true one, in a third."""
    pixels = (grey(image).astype(np.float32) * 0.45).astype(np.uint8)
    pixels[alarm] = FALSE_ALARM
    pixels[missed] = MISSED
    pixels[alarm & missed] = CONFUSED
    return pixels
