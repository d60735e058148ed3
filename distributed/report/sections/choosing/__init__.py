"""The front's test estimates beside the validation estimates that they were chosen by."""

from __future__ import annotations

from dataclasses import dataclass

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.optimism import (
    FrontEstimate,
    counted,
    counts,
    front_estimates,
    mean_optimism,
)


@dataclass(frozen=True)
class Choosing:
    """The estimates and their optimism.

    Attributes:
        optimism: Of choosing, by objective: mean over the models.
        counted: Images, patients and sites of each split, in a sentence; "" where not known.
    """

    estimates: list[FrontEstimate]
    optimism: dict[str, float]
    counted: str


class ChoosingSection(Section[Choosing]):
    def gather(self, run: Run) -> Choosing | None:
        estimates = front_estimates(run)
        if not estimates:
            return None
        return Choosing(estimates, mean_optimism(estimates), counted(counts(run)))
