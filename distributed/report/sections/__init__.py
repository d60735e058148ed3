"""The sections of the page, each a folder; see `trustsweep.distributed.report.section`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from trustsweep.distributed.report.section import Section

#: Their folders, in the order of the page. A new section is a folder and a line here.
NAMES = (
    "front",
    "choosing",
    "hypervolume",
    "beside",
    "seeds",
    "stopped",
    "cost",
    "parallel",
    "importances",
    "under_attack",
    "attacks",
    "corruptions",
    "unseen",
    "groups",
    "reliability",
    "referral",
    "weights",
    "images",
    "trials",
)


@cache
def sections() -> tuple[Section[Any], ...]:
    """All of them, in the order of the page."""
    return tuple(import_module(f"{__name__}.{name}").SECTION for name in NAMES)
