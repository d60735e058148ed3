"""The full name of a figure: a condition, a metric, perhaps a group, parsed and printed here alone.

Free of torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from trustsweep.trainables.conditions import ATTACKED, ConditionName

SKILL = "skill"
SHIFT = "shift"
_AREA = "_area"
_COST = "cost"
_GROUP = re.compile(r"(?P<name>[^\[]*)\[(?P<column>[^=\]]+)=(?P<value>[^\]]*)\]")


@dataclass(frozen=True)
class MetricName:
    """Such as ``clean.dice``, ``attacked@0.01.dice``, ``shift.auroc`` or ``dice_area``.

    Attributes:
        metric: Without its condition: "dice"; of a cost, "cost.seconds".
        condition: Of a shift, its kind is "shift"; None for areas and costs.
        area: Whether it is the mean height of the metric's curve against ε.
        skill: Whether it is the metric against that of the best trivial predictor.
        group: Column and value of the samples that it is of; None for all.

    >>> name = MetricName.parse("skill.attacked@0.01.dice_lesion")
    >>> name.metric, str(name.condition), name.skill
    ('dice_lesion', 'attacked@0.01', True)
    >>> str(MetricName("auroc", ConditionName("clean"), group=("sex", "F")))
    'clean.auroc[sex=F]'
    """

    metric: str
    condition: ConditionName | None = None
    area: bool = False
    skill: bool = False
    group: tuple[str, str] | None = None

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Parses any text; `catalog.metric_info` raises for a metric that does not exist."""
        if match := _GROUP.fullmatch(text):
            return replace(cls.parse(match["name"]), group=(match["column"], match["value"]))
        if text.startswith(f"{SKILL}."):
            return replace(cls.parse(text.removeprefix(f"{SKILL}.")), skill=True)
        condition, dot, metric = text.rpartition(".")
        if condition == _COST:
            return cls(text)
        if dot:
            return cls(metric, ConditionName.parse(condition))
        area = text.endswith(_AREA)
        return cls(text.removesuffix(_AREA), area=area)

    def __str__(self) -> str:
        text = f"{self.metric}{_AREA}" if self.area else self.metric
        if self.condition is not None:
            text = f"{self.condition}.{text}"
        if self.skill:
            text = f"{SKILL}.{text}"
        return text if self.group is None else f"{text}[{self.group[0]}={self.group[1]}]"

    @property
    def plain(self) -> MetricName:
        """The same figure itself, instead of its skill."""
        return replace(self, skill=False)

    @property
    def under_attack(self) -> bool:
        """Whether it is a figure of attacked images, as areas and shifts are too."""
        return self.area or (
            self.condition is not None and self.condition.kind in (ATTACKED, SHIFT)
        )
