"""Early stopping for several objectives as a Ray Tune scheduler, for any Tune run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from trustsweep.distributed.search.stopping import make_policy
from trustsweep.distributed.search.stopping.policy import Metrics, Policy, Verdict
from trustsweep.distributed.statistics.front import Direction, Objective
from trustsweep.search_spaces.study import Constraint, Scheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class PolicyScheduler(FIFOScheduler):
    """Applies a stopping policy to Tune's trials at rungs; subclasses read trials and results.

    A rung that a trial passes again after resuming from a checkpoint is evaluated only once.
    A trial that ends before its full length, or by an error, teaches the policy nothing.

    Attributes:
        policy: The policy, to which earlier trials can be replayed.
        stopped: The trials that were stopped, by id, with the reason and by what they are
            dominated.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.stopped: dict[str, Verdict] = {}
        self._passed: set[tuple[str, int]] = set()

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        if self.finished(trial, result):
            return str(TrialScheduler.STOP)
        rung, name = self.rung(trial, result), self.name(trial)
        if rung is None or (name, rung) in self._passed:
            return str(TrialScheduler.CONTINUE)
        self._passed.add((name, rung))
        verdict = self.policy.report(name, rung, self.metrics(result))
        if not verdict.stop:
            return str(TrialScheduler.CONTINUE)
        self.stopped[name] = verdict
        return str(TrialScheduler.STOP)

    def on_trial_complete(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> None:
        name = self.name(trial)
        if name not in self.stopped:
            whole = self.finished(trial, result)
            self.policy.end(name, self.metrics(result) if whole else None)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        self.policy.end(self.name(trial), None)

    def debug_string(self) -> str:
        return f"{type(self.policy).__name__}: {len(self.stopped)} trials stopped"

    def name(self, trial: Trial) -> str:
        """The id that verdicts speak of."""
        return str(trial.trial_id)

    def metrics(self, result: Mapping[str, Any]) -> Metrics:
        """The metrics of a result, whose nested keys Tune has flattened."""
        return result

    @abstractmethod
    def rung(self, trial: Trial, result: Mapping[str, Any]) -> int | None:
        """The rung that a result was measured at, if it is one."""

    @abstractmethod
    def finished(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        """Whether a result is that of a trial's full length."""


class ParetoScheduler(PolicyScheduler):
    """Stops trials that cannot reach the front of several objectives.

    ::

        tune.TuneConfig(scheduler=ParetoScheduler({"accuracy": "max", "ece": "min"}, max_t=64))

    Unlike Tune's own schedulers it has no `metric` and `mode`; leave those of `TuneConfig` out.

    Args:
        objectives: Names as results have them, and which way each is better.
        max_t: Length of a full trial in units of `time_attr`: the same for all, or a function of
            the trial. The trial is stopped there.
        policy: A name of `trustsweep.distributed.search.stopping.POLICIES`.
        rungs: Shares of `max_t` at which trials may be stopped, in (0, 1); default: a study's.
        constraints: Such as ``"accuracy >= 0.7"``; a trial that violates one ranks below all
            that violate none.
        time_attr: Counts a trial's progress in its results. Results
            between rungs are ignored.
        seed: Of what a policy draws.
        halting: Called at every result; once true, trials are stopped without a verdict.
        settings: Of the policy, as a study names them under ``search.scheduler``.
    """

    def __init__(
        self,
        objectives: Mapping[str, Direction],
        *,
        max_t: int | Callable[[Trial], int],
        policy: str = "forecast",
        rungs: Sequence[float] | None = None,
        constraints: Sequence[str] = (),
        time_attr: str = "training_iteration",
        seed: int = 0,
        halting: Callable[[], bool] = lambda: False,
        **settings: Any,
    ) -> None:
        """Raises ValueError for rungs outside (0, 1), an unknown policy, setting or constraint."""
        given = None if rungs is None else list(rungs)
        self._settings = Scheduler.model_validate({**settings, "policy": policy, "rungs": given})
        goals = [Objective(name, direction) for name, direction in objectives.items()]
        bounds = [Constraint.model_validate(text) for text in constraints]
        super().__init__(make_policy(self._settings, goals, bounds, seed))
        self._time = time_attr
        self._length = max_t
        self._halting = halting

    def on_trial_result(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> str:
        if self._halting():
            return str(TrialScheduler.STOP)
        return super().on_trial_result(tune_controller, trial, result)

    def rung(self, trial: Trial, result: Mapping[str, Any]) -> int | None:
        return self._settings.rung_epochs(self._whole(trial)).get(result.get(self._time, 0))

    def finished(self, trial: Trial, result: Mapping[str, Any]) -> bool:
        return bool(result.get(self._time, 0) >= self._whole(trial))

    def _whole(self, trial: Trial) -> int:
        return self._length(trial) if callable(self._length) else self._length
