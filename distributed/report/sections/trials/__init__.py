"""The table of all trials."""

from __future__ import annotations

from trustsweep.distributed.report.section import Section
from trustsweep.distributed.report.thinning import MOST_ROWS, evenly
from trustsweep.distributed.run.folder import Run
from trustsweep.distributed.run.ledger import Record, State


class TrialsSection(Section[list[Record]]):
    def gather(self, run: Run) -> list[Record]:
        return listed_trials(run)


def listed_trials(run: Run) -> list[Record]:
    """The rows of the table: the front, what is unfinished, and of the others the last."""
    if len(run.trials) <= MOST_ROWS:
        return run.trials
    front = {t.id for t in run.front}
    special = [t.id for t in run.trials if t.id in front or t.state is State.RUNNING]
    special = evenly(special, MOST_ROWS // 2)
    others = [t.id for t in run.trials if t.id not in front and t.state is not State.RUNNING]
    wanted = {*special, *others[len(special) - MOST_ROWS :]}
    return [t for t in run.trials if t.id in wanted]
