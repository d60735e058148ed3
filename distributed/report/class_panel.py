"""Test images beside the class that a model gives them, clean and attacked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipelines.errors import UserError
from distributed.report.panel import IMAGES, Tile, colour, grey
from distributed.run_folder import Evaluation

ARRAYS = ("image", "probability", "uncertainty", "label")
ATTACKED = ("image_attacked", "probability_attacked", "uncertainty_attacked")


@dataclass(frozen=True)
class Answer:
    """What a model says of an image: its class, with what probability, and how unsure it is."""

    name: str
    probability: float
    uncertainty: float
    right: bool


@dataclass(frozen=True)
class ClassRow:
    """One test image: what it is, the image and the answer clean and attacked, what was moved."""

    truth: str
    clean: Tile
    answer: Answer
    attacked: Tile
    moved: Tile
    answer_attacked: Answer


@dataclass(frozen=True)
class ClassPanel:
    """Rows of one model; `epsilon` is the attack's budget on the [0, 1] pixel scale."""

    id: str
    epsilon: float
    rows: list[ClassRow]


def class_panel(evaluation: Evaluation) -> ClassPanel | None:
    """Up to three test images and their answers; None without arrays, or for those of masks.

    Raises `UserError` for arrays that are incomplete or do not fit each other.
    """
    stored = evaluation.panel
    if "label" not in stored:
        return None
    count = len(stored["label"])
    missing = [n for n in (*ARRAYS, *ATTACKED) if n not in stored]
    if missing or any(len(stored[n]) != count for n in (*ARRAYS, *ATTACKED)):
        raise UserError(
            f"evaluation/{evaluation.id}.npz: needs {', '.join((*ARRAYS, *ATTACKED))}, each with "
            "as many rows. Evaluate the front again."
        )
    epsilon = float(stored.get("epsilon", np.nan))
    rows = [_row(evaluation, i, epsilon) for i in range(min(IMAGES, count))]
    return ClassPanel(evaluation.id, epsilon, rows)


def _row(evaluation: Evaluation, i: int, epsilon: float) -> ClassRow:
    stored = evaluation.panel
    clean, attacked = (stored[n][i].astype(np.float32) for n in ("image", "image_attacked"))
    start = f"Test image {i + 1}"
    return ClassRow(
        truth=_name(evaluation, int(stored["label"][i])),
        clean=Tile(grey(clean), f"{start}, clean: the image"),
        answer=_answer(evaluation, i, ""),
        attacked=Tile(grey(attacked), f"{start}, attacked: the image"),
        moved=Tile(_moved(clean, attacked, epsilon), f"{start}: how far the attack moves pixels"),
        answer_attacked=_answer(evaluation, i, "_attacked"),
    )


def _moved(
    clean: NDArray[np.float32], attacked: NDArray[np.float32], epsilon: float
) -> NDArray[np.uint8]:
    """The attack from -ε (dark) to ε (bright); by its own largest step where ε is not known."""
    change = attacked - clean
    reach = epsilon if np.isfinite(epsilon) and epsilon > 0 else float(np.abs(change).max())
    return colour(0.5 + change / (2 * (reach or 1.0)))


def _answer(evaluation: Evaluation, i: int, suffix: str) -> Answer:
    probability = evaluation.panel[f"probability{suffix}"][i]
    best = int(np.argmax(probability))
    return Answer(
        name=_name(evaluation, best),
        probability=float(probability[best]),
        uncertainty=float(evaluation.panel[f"uncertainty{suffix}"][i]),
        right=best == int(evaluation.panel["label"][i]),
    )


def _name(evaluation: Evaluation, index: int) -> str:
    names = evaluation.classes
    return names[index] if index < len(names) else f"class {index}"
