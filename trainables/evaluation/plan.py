"""Under what a model is judged. Free of torch, as a study is checked against it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from trustsweep.data_pipelines.errors import UserError
from trustsweep.trainables.metrics.catalog import attacked_name
from trustsweep.trainables.registry import FAST, Norm

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What is measured beside the clean images.

    Attributes:
        epsilons: Attack budgets by `norm` on the [0, 1] scale, ascending, 0 among them.
        attack, attack_steps, restarts, norm: For whoever makes the attack.
        corruptions: (name, severity) pairs.
        suite: Gives the parameters of the severities, for whoever corrupts.
        uncertainty: The map that ause and shift judge; None for each method's own first.
    """

    epsilons: tuple[float, ...] = (0.0,)
    attack: str = FAST
    attack_steps: int = 7
    restarts: int = 1
    norm: Norm = "linf"
    corruptions: tuple[tuple[str, int], ...] = ()
    suite: str = "chest"
    uncertainty: str | None = None

    def __post_init__(self) -> None:
        if self.epsilons[:1] != (0.0,) or list(self.epsilons) != sorted(self.epsilons):
            raise UserError(f"epsilons {self.epsilons}: list them ascending, from 0 (clean).")
        if len({attacked_name(e) for e in self.epsilons}) < len(self.epsilons):
            raise UserError(f"epsilons {self.epsilons}: two are the same to six digits.")

    @property
    def budgets(self) -> tuple[float, ...]:
        """The ε above 0."""
        return tuple(e for e in self.epsilons if e > 0)

    def clean(self) -> EvaluationPlan:
        """The same without corruption and attack: what every epoch can afford."""
        return dataclasses.replace(self, epsilons=(0.0,), corruptions=())
