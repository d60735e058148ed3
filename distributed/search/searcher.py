"""A Ray Tune searcher of a sweep: running trials first, then the search, then its repeats.

Ray's own `OptunaSearch` is not used: with several objectives it leaves a trial RUNNING for ever
when a metric is NaN, records a stopped or failed trial as COMPLETE with the values it had, so that
it reaches the front, and persists itself by pickle. Here the ledger is the only state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher

from trustsweep.distributed.run.halt import Halt
from trustsweep.distributed.run.ledger import SEARCH, Ledger, Record, State
from trustsweep.distributed.search.sampling import Sampling
from trustsweep.distributed.workers.outcome import CONFIG, STOPPABLE, TRIAL


class ParetoSearch(Searcher):
    """Suggests ``{"trial": id, "config": {flat parameters}, "stoppable": bool}``, each id once.

    First come the trials that the ledger knows as running, which go on from their last epoch; then
    new ones; and when all of these have ended, the `repeats` of the front.

    Args:
        trials: How many the search has.
        ledger: What is known, with its lock held. Every suggestion is noted there.
        sampling: Draws configs. Every trial of the ledger is entered.
        repeats: Gives the trials of the second stage; called once the first has ended.
        halt: When set, nothing more is suggested.
    """

    def __init__(
        self,
        trials: int,
        ledger: Ledger,
        sampling: Sampling,
        repeats: Callable[[], Sequence[Record]],
        halt: Halt,
    ) -> None:
        # No metric is named to Tune: it would require it in every epoch; only the last has them.
        super().__init__()
        self._trials = trials
        self._ledger = ledger
        self._sampling = sampling
        self._repeats = repeats
        self._halt = halt
        self._flying: dict[str, str] = {}
        self._waiting = deque(ledger.of(State.RUNNING))
        self._searching = True
        self._number = 0
        #: Known trials that the space does not have (any more): the sampler does without them.
        self.outside: list[Record] = []
        self._enter_known()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for `Tuner.restore`, which is never used here."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, None while it depends on those in flight, or `Searcher.FINISHED`."""
        if self._halt:
            return str(Searcher.FINISHED)
        if not self._waiting and self._searching:
            self._draw()
        if not self._waiting and self._searching:
            if self._flying:
                return None
            self._searching = False
            self._waiting.extend(self._repeats())
        if not self._waiting:
            return str(Searcher.FINISHED)
        record = self._waiting.popleft()
        self._ledger.start(record)
        self._flying[trial_id] = record.id
        return {TRIAL: record.id, CONFIG: record.config, STOPPABLE: record.stage == SEARCH}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: Optuna takes no intermediate values for several objectives."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Report the trial's result, as the ledger has it, to the sampler."""
        name = self._flying.pop(trial_id, None)
        if name is None:
            return
        record = self._ledger.records[name]
        if error:  # the ledger hears of it a moment later
            record = replace(record, state=State.FAILED)
        if record.state is not State.RUNNING:
            self._sampling.tell(record)

    def save(self, checkpoint_path: str) -> None:
        """Nothing beside the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing beside the ledger."""

    def _draw(self) -> None:
        """Put the next trial of the search into the queue, while there is one."""
        if self._number < self._trials:
            record = self._sampling.draw(self._number)
            self._number = self._trials if record is None else record.number + 1
            self._waiting.extend([] if record is None else [record])

    def _enter_known(self) -> None:
        """Enter the trials of earlier sessions and runs, in the order of their numbers."""
        known = [r for r in self._ledger.records.values() if r.stage == SEARCH]
        known.sort(key=lambda r: r.number)
        for record in [*self._ledger.priors, *known]:
            try:
                self._sampling.enter(record)
            except ValueError:
                self.outside.append(record)
        self._number = known[-1].number + 1 if known else 0
