"""How models are evaluated: the plan, free of torch, and the code that carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustsweep.data_pipelines.lazy import exports
from trustsweep.trainables.evaluation.plan import CLEAN, EvaluationPlan

if TYPE_CHECKING:
    from trustsweep.trainables.evaluation.split import Attack, Corrupt, Evaluation, evaluate, panel

__all__ = ["CLEAN", "Attack", "Corrupt", "Evaluation", "EvaluationPlan", "evaluate", "panel"]

__getattr__ = exports(
    __name__,
    dict.fromkeys(
        ("Attack", "Corrupt", "Evaluation", "evaluate", "panel"),
        "trustsweep.trainables.evaluation.split",
    ),
)
