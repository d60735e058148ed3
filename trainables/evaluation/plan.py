"""The conditions of an evaluation. Free of torch, as a study is checked against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.schema import Split
from trustsweep.trainables.conditions import CLEAN, Condition, ConditionName, attacked_name
from trustsweep.trainables.metrics.names import SHIFT
from trustsweep.trainables.registry import CONDITIONS, FAST, Norm

__all__ = ["CLEAN", "EvaluationPlan", "PlannedCondition"]


class PlannedCondition(NamedTuple):
    """One condition of a plan.

    Attributes:
        name: Such as "attacked@0.01".
        condition: Its kind.
        value: The `member` that `Condition.perturb` gets.
    """

    name: str
    condition: Condition
    value: Any


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """What is measured beside the clean images.

    Attributes:
        epsilons: Attack budgets by `norm` on the [0, 1] scale, ascending, 0 among them.
        attack, attack_steps, restarts, norm: For whoever makes the attack.
        corruptions: (name, severity) pairs.
        suite: Gives the parameters of the severities, for whoever corrupts.
        conditions: Names of further members of registered conditions ("blurred@2").
        sites: Whether the split of unseen sites is evaluated as well ("ood").
        uncertainty: The map that ause and shift evaluate; None for each method's own first.
    """

    epsilons: tuple[float, ...] = (0.0,)
    attack: str = FAST
    attack_steps: int = 7
    restarts: int = 1
    norm: Norm = "linf"
    corruptions: tuple[tuple[str, int], ...] = ()
    suite: str = "chest"
    conditions: tuple[str, ...] = ()
    sites: bool = False
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

    @property
    def members(self) -> Iterator[PlannedCondition]:
        """Every condition, kind by kind in the order of the registry."""
        for name in CONDITIONS:
            condition: Condition = CONDITIONS[name]()
            for detail, value in condition.members(self).items():
                yield PlannedCondition(str(ConditionName(name, detail)), condition, value)

    def of_split(self, split: Split | None = None) -> list[PlannedCondition]:
        """The conditions with this `Condition.split`; for None, those of any split."""
        return [member for member in self.members if member.condition.split is split]

    @property
    def condition_names(self) -> list[str]:
        """Every condition, and before those of a kind that has several the name of their mean."""
        names: dict[str, None] = {}
        for name, condition, _ in self.members:
            if condition.several:
                names.setdefault(condition.name)
            names.setdefault(name)
        return list(names)

    @property
    def shift_names(self) -> list[str]:
        """What is compared with the clean images: the mean, then each member."""
        members = [member.name for member in self.members if member.condition.shifts]
        shifts = [ConditionName.parse(name).detail for name in members]
        if len({*shifts}) < len(shifts):
            raise UserError(f"conditions {', '.join(members)}: two share the name of their shift.")
        return [SHIFT, *(str(ConditionName(SHIFT, detail)) for detail in shifts)] if shifts else []

    def clean(self) -> EvaluationPlan:
        """The same without corruption and attack: what every epoch can afford."""
        return dataclasses.replace(self, epsilons=(0.0,), corruptions=(), conditions=())
