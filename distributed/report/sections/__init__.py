"""The sections of the page, one line each; see `trustsweep.distributed.report.section`."""

from __future__ import annotations

from functools import cache
from typing import Any

from trustsweep.data_pipelines.errors import UserError
from trustsweep.data_pipelines.registry import Registry, nearest
from trustsweep.distributed.report.section import Section

#: In the order of the page. One from outside of this repository says which it comes `after`.
SECTIONS = Registry(
    "section of the report",
    {
        "front": "trustsweep.distributed.report.sections.front:FrontSection",
        "choosing": "trustsweep.distributed.report.sections.choosing:ChoosingSection",
        "hypervolume": "trustsweep.distributed.report.sections.hypervolume:HypervolumeSection",
        "beside": "trustsweep.distributed.report.sections.beside:BesideSection",
        "seeds": "trustsweep.distributed.report.sections.seeds:SeedsSection",
        "stopped": "trustsweep.distributed.report.sections.stopped:StoppedSection",
        "cost": "trustsweep.distributed.report.sections.cost:CostSection",
        "parallel": "trustsweep.distributed.report.sections.parallel:ParallelSection",
        "importances": "trustsweep.distributed.report.sections.importances:ImportancesSection",
        "under_attack": "trustsweep.distributed.report.sections.under_attack:UnderAttackSection",
        "attacks": "trustsweep.distributed.report.sections.attacks:AttacksSection",
        "corruptions": "trustsweep.distributed.report.sections.corruptions:CorruptionsSection",
        "unseen": "trustsweep.distributed.report.sections.unseen:UnseenSection",
        "groups": "trustsweep.distributed.report.sections.groups:GroupsSection",
        "reliability": "trustsweep.distributed.report.sections.reliability:ReliabilitySection",
        "survival": "trustsweep.distributed.report.sections.survival:SurvivalSection",
        "referral": "trustsweep.distributed.report.sections.referral:ReferralSection",
        "weights": "trustsweep.distributed.report.sections.weights:WeightsSection",
        "images": "trustsweep.distributed.report.sections.images:ImagesSection",
        "trials": "trustsweep.distributed.report.sections.trials:TrialsSection",
    },
    group="trustsweep.sections",
    after="",
)


def sections() -> tuple[Section[Any], ...]:
    """All of them, in the order of the page.

    Raises `UserError` for one that is to come after another that there is not, and for two that
    write the same figure.
    """
    return _made(tuple((name, SECTIONS[name]) for name in _ordered(list(SECTIONS))))


@cache
def _made(kinds: tuple[tuple[str, type[Section[Any]]], ...]) -> tuple[Section[Any], ...]:
    """Of what is registered now: a plug-in may have come since the last page."""
    made = tuple(kind(name) for name, kind in kinds)
    figures: dict[str, str] = {}
    for section in made:
        if section.figure and figures.setdefault(section.figure, section.name) != section.name:
            raise UserError(
                f"section of the report {section.name!r}: its figure {section.figure!r} is that of "
                f"{figures[section.figure]!r}. Rename it."
            )
    return made


def _ordered(names: list[str]) -> list[str]:
    """Each behind the one that it comes after, and behind those there already."""
    after = {name: SECTIONS.fact(name, "after") for name in names}
    order = [name for name in names if not after[name]]
    while waiting := [name for name in names if name not in order]:
        ready = [name for name in waiting if after[name] in order]
        if not ready:
            name = waiting[0]
            raise UserError(
                f"section of the report {name!r}: comes after {after[name]!r}, and there is no "
                f"such section{nearest(after[name], order)} Known: {', '.join(order)}."
            )
        for name in reversed(ready):
            order.insert(order.index(after[name]) + 1, name)
    return order
