"""The conditions of an evaluation: clean, corrupted, attacked, on unseen sites, ...

Free of torch, as a study is checked against it. A condition is named by its kind, or by its kind
and one of its members: "clean", "attacked@0.01", "corrupted@gaussian-noise-3"; where a kind has
several members, its own name stands for the mean over them.

Adding one costs a subclass of `Condition` and a line in `registry.CONDITIONS`, from outside of the
repository `CONDITIONS.register`; a study lists its members under ``evaluation.conditions``.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trustsweep.data_pipelines.schema import Split

if TYPE_CHECKING:
    from torch import Tensor

    from trustsweep.data_pipelines.schema import Batch
    from trustsweep.trainables.evaluation.plan import EvaluationPlan

CLEAN, CORRUPTED, ATTACKED, SITES = "clean", "corrupted", "attacked", "ood"


@dataclass(frozen=True)
class ConditionName:
    """The name of a condition; `detail` is "" for a kind as a whole.

    >>> ConditionName.parse("attacked@0.01")
    ConditionName(kind='attacked', detail='0.01')
    >>> str(ConditionName("clean"))
    'clean'
    """

    kind: str
    detail: str = ""

    @classmethod
    def parse(cls, text: str) -> ConditionName:
        """Parses any text; `registry.CONDITIONS` lists the conditions that exist."""
        kind, _, detail = text.partition("@")
        return cls(kind, detail)

    def __str__(self) -> str:
        return f"{self.kind}@{self.detail}" if self.detail else self.kind


@dataclass(frozen=True)
class Tools:
    """What perturbs, for conditions that need more than the batch.

    Attributes:
        corrupt: (batch, corruption, severity 1 to 5) to the same samples corrupted.
        attack: (batch, ε, the images found within a smaller ε or None) to the same samples
            attacked; minds its own gradient mode.
    """

    corrupt: Callable[[Batch, str, int], Batch]
    attack: Callable[[Batch, float, Tensor | None], Batch]


class Condition(ABC):
    """A kind of condition."""

    name: ClassVar[str]
    #: The split that is evaluated under it, of those that no other condition is for (such as
    #: sites that training never saw); None for any.
    split: ClassVar[Split | None] = None
    #: Whether it has members, over which its own name is the mean.
    several: ClassVar[bool] = True
    #: How a study lists its members, where not under ``evaluation.conditions``.
    given_by: ClassVar[str] = ""
    #: Whether each member is compared with the clean images, as ``shift@<detail>``.
    shifts: ClassVar[bool] = False

    def members(self, plan: EvaluationPlan) -> Mapping[str, Any]:
        """Detail to the `member` that `perturb` gets, in order; empty if the plan leaves it out."""
        names = map(ConditionName.parse, plan.conditions)
        return {name.detail: name.detail for name in names if name.kind == self.name}

    @abstractmethod
    def describe(self, detail: str) -> str | None:
        """A member in words ("under attack with ε = 0.01"), or for "" the kind; None for what is no
        member of it, or not written as its name is."""

    @abstractmethod
    def perturb(self, batch: Batch, member: Any, tools: Tools, before: Batch | None) -> Batch:
        """The batch under a member. `before` is what the member before made of it, None of the
        first."""


class Clean(Condition):
    """Images as they are."""

    name = CLEAN
    several = False
    given_by = "clean images are always evaluated"

    def members(self, plan: EvaluationPlan) -> Mapping[str, Any]:
        return {"": None}

    def describe(self, detail: str) -> str | None:
        return None if detail else "clean images"

    def perturb(self, batch: Batch, member: Any, tools: Tools, before: Batch | None) -> Batch:
        return batch


class Corrupted(Condition):
    """Images under a corruption of a severity."""

    name = CORRUPTED
    given_by = "give evaluation.corruptions and evaluation.severities"

    def members(self, plan: EvaluationPlan) -> Mapping[str, tuple[str, int]]:
        return {f"{name}-{severity}": (name, severity) for name, severity in plan.corruptions}

    def describe(self, detail: str) -> str | None:
        if not detail:
            return "mean over all corruptions and severities"
        match = re.fullmatch(r"([a-z0-9]+(?:-[a-z0-9]+)*)-([1-5])", detail)
        return f"under {match[1]} of severity {match[2]}" if match else None

    def perturb(
        self, batch: Batch, member: tuple[str, int], tools: Tools, before: Batch | None
    ) -> Batch:
        return tools.corrupt(batch, *member)


class Attacked(Condition):
    """Images under the plan's attack within a radius ε."""

    name = ATTACKED
    shifts = True
    given_by = "give evaluation.epsilons"

    def members(self, plan: EvaluationPlan) -> Mapping[str, float]:
        return {epsilon_text(epsilon): epsilon for epsilon in plan.budgets}

    def describe(self, detail: str) -> str | None:
        if not detail:
            return "mean over all attack budgets ε > 0"
        return f"under attack with ε = {detail}" if canonical_epsilon(detail) == detail else None

    def perturb(self, batch: Batch, member: float, tools: Tools, before: Batch | None) -> Batch:
        # What is found within a smaller ε lies in the larger ball too.
        return tools.attack(batch, member, None if before is None else before.image)


class Sites(Condition):
    """Images of sites that training never saw."""

    name = SITES
    split = Split.OOD
    several = False
    given_by = "such sites are held out, and the models of the front are evaluated there at the end"

    def members(self, plan: EvaluationPlan) -> Mapping[str, Any]:
        return {"": None} if plan.sites else {}

    def describe(self, detail: str) -> str | None:
        return None if detail else "sites that training never saw"

    def perturb(self, batch: Batch, member: Any, tools: Tools, before: Batch | None) -> Batch:
        return batch


def epsilon_text(epsilon: float) -> str:
    """ε as it stands in names, six digits at most: ``0.01``, whatever way it was written."""
    return f"{epsilon:g}"


def canonical_epsilon(text: str) -> str | None:
    """The ε that `text` means, as names write it; None for no finite number above 0."""
    try:
        epsilon = float(text)
    except ValueError:
        return None
    return epsilon_text(epsilon) if 0 < epsilon < math.inf else None


def attacked_name(epsilon: float) -> str:
    """The condition of images attacked within ε; ε = 0 is "clean"."""
    return str(ConditionName(ATTACKED, epsilon_text(epsilon))) if epsilon else CLEAN


def corrupted_name(corruption: str, severity: int) -> str:
    """The condition of images under one corruption at one severity."""
    return str(ConditionName(CORRUPTED, f"{corruption}-{severity}"))
