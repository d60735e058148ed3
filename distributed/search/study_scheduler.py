"""The scheduler of a sweep: knows what the ledger knows, and halts with the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler

from trustsweep.distributed.run.halt import Halt
from trustsweep.distributed.run.ledger import END, EPOCH, SEARCH, Ledger, State
from trustsweep.distributed.search.scheduler import PolicyScheduler
from trustsweep.distributed.search.stopping import make_policy
from trustsweep.distributed.search.stopping.policy import Metrics, Policy, Verdict
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.workers.outcome import RUNG, TRIAL, metrics_of, outcome
from trustsweep.search_spaces.study import Study

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class StudyScheduler(PolicyScheduler):
    """Applies the study's policy to the trials of slots at the rungs that their results name.

    Attributes:
        pending: Verdicts of an earlier session on trials that had not ended when it was left.
    """

    def __init__(
        self, study: Study, objectives: Sequence[Objective], ledger: Ledger, halt: Halt
    ) -> None:
        search = study.search
        super().__init__(make_policy(search.scheduler, objectives, study.constraints, search.seed))
        self._objectives = [o.name for o in objectives]
        self._halt = halt
        self.pending = replay(self.policy, ledger)
        for record in ledger.of(State.RUNNING):
            self._passed.update((record.id, rung) for rung in record.rungs)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler for `Tuner.restore`, which is never used here."""
        return {}

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.STOP) if self._halt else decision

    def name(self, trial: Trial) -> str:
        return str(trial.config[TRIAL])

    def metrics(self, result: Mapping[str, Any]) -> Metrics:
        return metrics_of(result)

    def rung(self, trial: Trial, result: Mapping[str, Any]) -> int | None:
        return result.get(RUNG)

    def finished(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        return outcome(result, self._objectives).state is State.COMPLETED


def replay(policy: Policy, ledger: Ledger) -> dict[str, Verdict]:
    """Bring a stopping policy to where the ledger is.

    Returns the verdicts on trials that were to stop but had not yet ended.
    """
    pending: dict[str, Verdict] = {}
    for event in ledger.events():
        record = ledger.records.get(event.get("id", ""))
        if record is None or record.stage != SEARCH:
            continue
        if event["event"] == EPOCH and "rung" in event:
            verdict = policy.report(record.id, event["rung"], event["figures"])
            if verdict.stop:
                pending[record.id] = verdict
        elif event["event"] == END:
            pending.pop(record.id, None)
            if record.state is not State.STOPPED:
                policy.end(record.id, record.metrics if record.state is State.COMPLETED else None)
    return pending
