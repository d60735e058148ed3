"""Progress of a sweep: a live panel on a terminal, lines in a job's log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.run.optimism import FrontEstimate
from trustsweep.distributed.statistics.front import Objective
from trustsweep.distributed.statistics.inference import Estimate


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class SweepProgress:
    """Trials done, running, stopped and failed; the front so far; the time left.

    Time left is estimated from the epochs done since the slots were ready. `known` are the trials
    of earlier sessions.
    """

    def __init__(
        self,
        console: Console,
        objectives: Sequence[Objective],
        trials: int,
        known: Iterable[Record] = (),
    ) -> None:
        self._console = console
        self._objectives = objectives
        self._trials = trials
        self._began = time.monotonic()
        self._first_epoch: float | None = None
        self._running: dict[str, tuple[Record, int]] = {}
        self._counts: Counter[State] = Counter(r.state for r in known)
        del self._counts[State.RUNNING]
        self._earlier = self._counts.total()
        self._front: list[Record] = []
        self._live: Live | None = None

    def __enter__(self) -> SweepProgress:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._panel, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, record: Record) -> None:
        """A trial was given to a slot."""
        self._running[record.id] = (record, record.epochs)

    def expect(self, more: int) -> None:
        """So many trials come on top of those of the search."""
        self._trials += more

    def epoch(self, trial: str, epochs: int) -> None:
        """A running trial finished another epoch."""
        if self._first_epoch is None:
            self._first_epoch = time.monotonic()
        if trial in self._running:
            self._running[trial] = (self._running[trial][0], epochs)

    def ended(self, record: Record, front: list[Record]) -> None:
        """A trial ended; `front` is the front after it."""
        self._running.pop(record.id, None)
        self._counts[record.state] += 1
        self._front = front
        if self._live is None:
            self._console.print(self._line(record), highlight=False, soft_wrap=True)

    def _left(self) -> str:
        if self._first_epoch is None:
            return "..."
        ended = self._counts.total()
        done = (ended - self._earlier) + sum(
            epochs / max(record.config.get("epochs", 1), 1)
            for record, epochs in self._running.values()
        )
        elapsed = time.monotonic() - self._first_epoch
        left = max(0.0, self._trials - self._earlier - done)
        return duration(elapsed / done * left) if done else "..."

    def _summary(self) -> str:
        return (
            f"{self._counts.total()}/{self._trials} trials done, {len(self._running)} running, "
            f"{self._counts[State.STOPPED]} stopped, {self._counts[State.FAILED]} failed  "
            f"{duration(time.monotonic() - self._began)} elapsed, {self._left()} left"
        )

    def _line(self, record: Record) -> str:
        what = record.reason or ", ".join(
            f"{o.name} {record.metrics[o.name]:.3f}" for o in self._objectives
        )
        if not record.reason:
            what = f"on validation {what}"
        name = f"{record.id} {record.config['method']} {record.state.value}"
        return f"[{self._summary()}]  {name}: {what}  front: {len(self._front)} model(s)"

    def _panel(self) -> Group:
        bar = ProgressBar(total=self._trials, completed=self._counts.total(), width=60)
        parts: list[RenderableType] = [Text(self._summary()), bar]
        if self._front:
            title = "The front so far, by validation metrics"
            parts.append(front_table(self._front, self._objectives, title))
        return Group(*parts)


#: Heads of columns to the parameters that they show.
SHOWN = {"ρ": "attack_fraction", "ε": "epsilon", "lr": "learning_rate"}


def front_table(
    front: Sequence[Record],
    objectives: Sequence[Objective],
    title: str,
    remarks: Mapping[str, str] | None = None,
) -> Table:
    """The front as a table, best first by the first objective; `remarks` by trial, where any.

    Values are the trials' last validation metrics; `title` says so.
    """
    remarks = {r.id: remarks[r.id] for r in front if r.id in remarks} if remarks else {}
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in ("trial", "model", "regime", *SHOWN):
        # An id is there to be copied: on a narrow terminal it wraps rather than ends in dots.
        table.add_column(name, overflow="fold")
    for objective in objectives:
        arrow = "↑" if objective.direction == "max" else "↓"
        table.add_column(f"{objective.name} {arrow}", justify="right")
    if remarks:
        table.add_column("warning", style="yellow", overflow="fold")
    first = objectives[0]
    sign = -1.0 if first.direction == "max" else 1.0
    for record in sorted(front, key=lambda r: sign * r.metrics.get(first.name, np.nan)):
        config = record.config
        cells = [config.get(key) for key in SHOWN.values()]
        table.add_row(
            record.id,
            str(config["method"]),
            str(config.get("regime", "")),
            *("" if cell is None else f"{cell:.2g}" for cell in cells),
            *(f"{record.metrics[o.name]:.4f}" for o in objectives),
            *([remarks.get(record.id, "")] if remarks else []),
        )
    return table


def on_test_table(estimates: Sequence[FrontEstimate]) -> Table:
    """The front's test estimates beside the validation estimates that they were chosen by.

    Both are under the attack of the search; the last columns, if any, are under the full attack.
    """
    title = "On the test split, unused in the search (95 % intervals by patient bootstrap)"
    full = any(e.attacked for e in estimates)
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in ("trial", "objective"):
        table.add_column(name, overflow="fold")
    for name in ("validation", "test", "95 %", "optimism of choosing"):
        table.add_column(name, justify="right")
    if full:
        for name in ("test, full attack", "95 %"):
            table.add_column(name, justify="right")
    for e in estimates:
        arrow = "↑" if e.objective.direction == "max" else "↓"
        table.add_row(
            e.model,
            f"{e.objective.name} {arrow}",
            f"{e.validation.value:.4f}",
            *_with_interval(e.test),
            "" if np.isnan(e.optimism) else f"{e.optimism:+.4f}",
            *(_with_interval(e.full) if full else ()),
        )
    return table


def _with_interval(estimate: Estimate) -> tuple[str, str]:
    value = "" if np.isnan(estimate.value) else f"{estimate.value:.4f}"
    return value, "" if np.isnan(estimate.low) else f"{estimate.low:.3f} to {estimate.high:.3f}"
