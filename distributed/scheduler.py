"""Early stopping for several objectives as a Ray Tune scheduler, for any Tune run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from distributed.front import Direction, Objective
from distributed.stopping import make_policy
from distributed.stopping.policy import Figures, Policy, Verdict
from search_spaces.study import Constraint, Scheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial


class PolicyScheduler(FIFOScheduler):
    """Has a policy judge Tune's trials at their rungs; subclasses read trials and results.

    Attributes:
        policy: The policy, for who replays a past to it.
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
        rung = self.rung(result)
        name = self.name(trial)
        # A trial that was taken up from a checkpoint may pass a rung a second time.
        if rung is None or (name, rung) in self._passed:
            return str(TrialScheduler.CONTINUE)
        self._passed.add((name, rung))
        verdict = self.policy.report(name, rung, self.figures(result))
        if not verdict.stop:
            return str(TrialScheduler.CONTINUE)
        self.stopped[name] = verdict
        return str(TrialScheduler.STOP)

    def on_trial_complete(
        self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]
    ) -> None:
        name = self.name(trial)
        if name not in self.stopped:
            self.policy.end(name, self.figures(result) if self.finished(result) else None)

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        self.policy.end(self.name(trial), None)

    def debug_string(self) -> str:
        return f"{type(self.policy).__name__}: {len(self.stopped)} trials stopped"

    def name(self, trial: Trial) -> str:
        """The id that verdicts speak of."""
        return str(trial.trial_id)

    def figures(self, result: Mapping[str, Any]) -> Figures:
        """The metrics of a result, whose nested keys Tune has flattened."""
        return result

    @abstractmethod
    def rung(self, result: Mapping[str, Any]) -> int | None:
        """The rung that a result was measured at, if it is one."""

    @abstractmethod
    def finished(self, result: Mapping[str, Any]) -> bool:
        """Whether a result is that of a trial's full length."""


class ParetoScheduler(PolicyScheduler):
    """Stops trials that cannot reach the front of several objectives.

    ::

        tune.TuneConfig(scheduler=ParetoScheduler({"accuracy": "max", "ece": "min"}, max_t=64))

    Unlike Tune's own schedulers it has no `metric` and `mode`; leave those of `TuneConfig` out.

    Args:
        objectives: Names as results have them, and which way each is better.
        max_t: How long a full trial is, in units of `time_attr`.
        policy: A name of `distributed.stopping.POLICIES`.
        rungs: Shares of `max_t` at which trials are judged, in (0, 1); left out, those of a study.
        constraints: Such as ``"accuracy >= 0.7"``; who breaks one ranks below who breaks none.
        time_attr: Counts a trial's progress in its results.
        seed: Of what a policy draws.
    """

    def __init__(
        self,
        objectives: Mapping[str, Direction],
        *,
        max_t: int,
        policy: str = "forecast",
        rungs: Sequence[float] | None = None,
        constraints: Sequence[str] = (),
        time_attr: str = "training_iteration",
        seed: int = 0,
    ) -> None:
        """Raises ValueError for rungs outside (0, 1), an unknown policy or constraint."""
        settings = Scheduler.model_validate(
            {"policy": policy, "rungs": None if rungs is None else list(rungs)}
        )
        goals = [Objective(name, direction) for name, direction in objectives.items()]
        bounds = [Constraint.model_validate(text) for text in constraints]
        super().__init__(make_policy(settings, goals, bounds, seed))
        self._time = time_attr
        self._length = max_t
        self._ends = settings.rung_epochs(max_t)

    def rung(self, result: Mapping[str, Any]) -> int | None:
        return self._ends.get(int(result[self._time]))

    def finished(self, result: Mapping[str, Any]) -> bool:
        return int(result[self._time]) >= self._length
