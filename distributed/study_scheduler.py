"""The scheduler of a sweep: knows what the ledger knows, and halts with the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import TrialScheduler

from distributed.front import Objective
from distributed.halt import Halt
from distributed.ledger import Ledger, State
from distributed.outcome import RUNG, TRIAL, metrics_of, outcome
from distributed.resume import replay
from distributed.scheduler import PolicyScheduler
from distributed.stopping import make_policy
from distributed.stopping.policy import Figures
from search_spaces.study import Study

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class StudyScheduler(PolicyScheduler):
    """Judges the trials of slots at the rungs that their results name.

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

    def figures(self, result: Mapping[str, Any]) -> Figures:
        return metrics_of(result)

    def rung(self, trial: Trial, result: Mapping[str, Any]) -> int | None:
        return result.get(RUNG)

    def finished(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        return outcome(result, self._objectives).state is State.COMPLETED
