"""Test images beside the class that a model gives them, clean and attacked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustsweep.data_pipelines.errors import UserError
from trustsweep.distributed.report.evaluated import ModelAnswer, answer, truth_of
from trustsweep.distributed.report.sections.images.panel import IMAGES, TRUTHS, Tile, colour, grey
from trustsweep.distributed.run.evaluation_card import EvaluationCard

ARRAYS = ("image", "probability", "uncertainty")
ATTACKED = ("image_attacked", "probability_attacked", "uncertainty_attacked")


@dataclass(frozen=True)
class AttackedImage:
    """An image under attack, how far its pixels were moved, and the answer to it."""

    image: Tile
    moved: Tile
    answer: ModelAnswer


@dataclass(frozen=True)
class ClassRow:
    """One test image: what it is, the image and the answer, and the same under attack if any."""

    truth: str
    clean: Tile
    answer: ModelAnswer
    attacked: AttackedImage | None


@dataclass(frozen=True)
class ClassPanel:
    """Rows of one model; `epsilon` is the attack's budget on the [0, 1] pixel scale, 0 for none."""

    id: str
    epsilon: float
    rows: list[ClassRow]


def class_panel(card: EvaluationCard) -> ClassPanel | None:
    """Up to three test images and their answers; None without arrays, or for those of masks.

    Raises `UserError` for arrays that are incomplete or do not fit each other.
    """
    stored = card.panel
    truth = next((name for name in TRUTHS if name in stored), None)
    if truth is None:
        return None
    epsilon = float(stored.get("epsilon", np.nan))
    needed = ARRAYS if epsilon == 0 else (*ARRAYS, *ATTACKED)
    count = len(stored[truth])
    if any(n not in stored or len(stored[n]) != count for n in needed):
        raise UserError(
            f"evaluation/{card.id}.npz: needs {', '.join(needed)}, each with as many rows. "
            "Evaluate the front again."
        )
    rows = [_row(card, i, epsilon) for i in range(min(IMAGES, count))]
    return ClassPanel(card.id, epsilon, rows)


def _row(card: EvaluationCard, i: int, epsilon: float) -> ClassRow:
    stored = card.panel
    clean = stored["image"][i].astype(np.float32)
    return ClassRow(
        truth=truth_of(card, i),
        clean=Tile(grey(clean), f"Test image {i + 1}, clean: the image"),
        answer=answer(card, i),
        attacked=None if epsilon == 0 else _attacked(card, i, clean, epsilon),
    )


def _attacked(
    card: EvaluationCard, i: int, clean: NDArray[np.float32], epsilon: float
) -> AttackedImage:
    image = card.panel["image_attacked"][i].astype(np.float32)
    start = f"Test image {i + 1}"
    return AttackedImage(
        image=Tile(grey(image), f"{start}, attacked: the image"),
        moved=Tile(_moved(clean, image, epsilon), f"{start}: how far the attack moves pixels"),
        answer=answer(card, i, suffix="_attacked"),
    )


def _moved(
    clean: NDArray[np.float32], attacked: NDArray[np.float32], epsilon: float
) -> NDArray[np.uint8]:
    """The attack from -ε (dark) to ε (bright); by its own largest step where ε is not known."""
    change = attacked - clean
    reach = epsilon if np.isfinite(epsilon) and epsilon > 0 else float(np.abs(change).max())
    return colour(0.5 + change / (2 * (reach or 1.0)))
