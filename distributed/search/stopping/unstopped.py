"""No early stopping: every trial runs to its end."""

from __future__ import annotations

from trustsweep.distributed.search.stopping.policy import Figures, Policy, Verdict


class Unstopped(Policy):
    """Lets every trial go on."""

    def report(self, trial: str, rung: int, figures: Figures) -> Verdict:
        return Verdict()

    def end(self, trial: str, figures: Figures | None) -> None:
        """Nothing to learn."""
