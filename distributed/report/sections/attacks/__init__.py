"""Attack settings, the gap between two attacks, and signs of gradient masking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.wording import attacked
from trustsweep.distributed.run.evaluation_card import AttackCard, EvaluationCard
from trustsweep.distributed.run.folder import Run
from trustsweep.trainables.conditions import attacked_name
from trustsweep.trainables.metrics.catalog import AREAS
from trustsweep.trainables.metrics.names import MetricName

#: By sign, what it is read off: figures of `trustsweep.trainables.attacks.masking.Masking`.
READINGS: Mapping[str, str] = {
    "single-step": "{single_step} after one step, {many_steps} after many",
    "black-box": "{black_box} without gradients, {many_steps} with, {both} with both",
    "more-steps": "{many_steps} after many, {more_steps} after more",
    "large-radius": "{large_radius} left",
    "zero-gradient": "{zero_gradient} of samples",
    "no-ascent": "{no_ascent} of samples",
}
#: Figures that are shares of the samples.
_SHARES = ("zero_gradient", "no_ascent")


@dataclass(frozen=True)
class Settings:
    """The members of both attacks, as `trustsweep.trainables.attacks.ensemble.settings` has them.

    Attributes:
        models: Those of the front that were attacked so.
        search, final: Of the attack of the search and of the final evaluation. One list where
            they are the same.
    """

    models: list[str]
    search: list[dict[str, Any]]
    final: list[dict[str, Any]]


@dataclass(frozen=True)
class Gap:
    """A figure under the attack of the search and under the full one; how much higher the first."""

    search: float
    full: float

    @property
    def value(self) -> float:
        return self.search - self.full


@dataclass(frozen=True)
class Robustness:
    """One model.

    Attributes:
        gaps: By metric, areas first, then those at the strongest ε.
        clean: Performance on the samples checked for signs, before any attack.
        readings: By sign, what it is read off, in words.
        signs: Those that are set.
    """

    id: str
    gaps: dict[str, Gap]
    clean: float
    readings: dict[str, str]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Attacks:
    """The front's attacked models.

    Attributes:
        search, final: Names of the two attacks.
        full: Whether the latter is the full ensemble.
        norm, epsilons: How ε is measured ("linf" or "l2"), and the budgets above 0.
        left_out: Members that need torchattacks, where it is not installed.
        meanings: Of the signs, by name.
        samples, epsilon: Samples of each model checked for signs, and the budget.
    """

    search: str
    final: str
    full: bool
    norm: str
    epsilons: list[float]
    left_out: list[str]
    settings: list[Settings]
    meanings: dict[str, str]
    samples: int
    epsilon: float
    models: list[Robustness]

    @property
    def compared(self) -> list[str]:
        """The metrics that have a gap."""
        return list(dict.fromkeys(name for model in self.models for name in model.gaps))


class AttacksSection(Section[Attacks]):
    def gather(self, run: Run) -> Attacks | None:
        return attacks(run)


def attacks(run: Run) -> Attacks | None:
    """None for a run that attacks nothing, or whose front is not evaluated yet."""
    cards = attacked(run)
    if not cards:
        return None
    first_card, first = cards[0]
    grouped: dict[str, Settings] = {}
    for card, attack in cards:
        search, final = attack.search, attack.final
        settings = grouped.setdefault(repr((search, final)), Settings([], search, final))
        settings.models.append(card.id)
    return Attacks(
        search=first.name.search,
        final=first.name.final,
        full=first_card.fully_attacked,
        norm=first.norm,
        epsilons=first.epsilons,
        left_out=list(dict.fromkeys(name for _, attack in cards for name in attack.left_out)),
        settings=list(grouped.values()),
        meanings={name: first.masking.meanings[name] for name in READINGS},
        samples=first.masking.samples,
        epsilon=first.masking.epsilon,
        models=[_robustness(card, attack) for card, attack in cards],
    )


def _robustness(card: EvaluationCard, attack: AttackCard) -> Robustness:
    figures, gap = attack.masking.figures, attack.gap
    strongest = attacked_name(max(attack.epsilons))
    hardest = [n for n in gap if str(MetricName.parse(n).condition) == strongest]
    shown = [n for n in AREAS if n in gap] + hardest
    words = {
        name: f"{100 * value:.0f} %" if name in _SHARES else f"{value:.2f}"
        for name, value in {
            **figures, "both": figures["many_steps"] - figures["black_box_beyond"],
        }.items()
    }  # fmt: skip
    return Robustness(
        id=card.id,
        gaps={n: Gap(card.metrics[n] + gap[n], card.metrics[n]) for n in shown},
        clean=figures["clean"],
        readings={sign: text.format_map(words) for sign, text in READINGS.items()},
        signs=tuple(card.signs),
    )
