"""No early stopping: every trial runs to its end."""

from __future__ import annotations

from trustsweep.distributed.search.stopping.policy import Metrics, Policy, Verdict


class Unstopped(Policy):
    """Lets every trial go on."""

    def report(self, trial: str, rung: int, metrics: Metrics) -> Verdict:
        return Verdict()

    def end(self, trial: str, metrics: Metrics | None) -> None:
        """Nothing to learn."""
