"""The data of the page and the PNG figures, gathered once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.sections import sections
from trustsweep.distributed.run.folder import Run


@dataclass(frozen=True)
class Contents:
    """A run and what each section shows of it, in the order of the page.

    `data` is by the section's name; None where the page leaves the section out.
    """

    run: Run
    data: dict[str, Any]

    @property
    def shown(self) -> list[tuple[Section[Any], Any]]:
        """The sections on the page, each with its data."""
        return [(s, self.data[s.name]) for s in sections() if self.data[s.name] is not None]


def gather(run: Run) -> Contents:
    """Read and work out; nothing is written. Raises `UserError` for broken files."""
    return Contents(run, {section.name: section.gather(run) for section in sections()})
