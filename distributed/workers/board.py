"""The board between a slot and its workers: one command at a time, seen by every rank alike.

The slot posts a command and waits; each rank runs it and acknowledges. When a worker
dies, Ray Train restarts the whole group; the new group enters under a new token, learns which
trial is under way and how many epochs of it were acknowledged, and gets the pending command
again. Acknowledged commands are never replayed.

Free of torch and Ray: a slot, which only waits, would take seconds to load them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trustsweep.data_pipelines.schema import Manifest
from trustsweep.data_pipelines.streams.modes import SampleSource
from trustsweep.distributed.workers.fidelity import Level, Levels
from trustsweep.search_spaces.study import Fidelity, Scheduler
from trustsweep.trainables.evaluation.plan import EvaluationPlan
from trustsweep.trainables.metrics.catalog import COSTS
from trustsweep.trainables.metrics.prior import Prior

#: A group may die this often during one command before the command is given up.
MAX_RESTARTS = 2
#: Seconds that ranks may lag behind the first one that reported an error.
ERROR_GRACE = 10.0


@dataclass(frozen=True)
class WorkerSettings:
    """Settings that all workers of a study share."""

    manifest: Manifest
    plan: EvaluationPlan
    evaluation_batch_size: int
    threads: int
    source: SampleSource = field(default_factory=SampleSource)
    fidelity: Fidelity = field(default_factory=Fidelity)
    scheduler: Scheduler = field(default_factory=Scheduler)
    prior: Prior | None = None

    def levels(self, config: Mapping[str, Any]) -> Levels:
        """The fidelity levels of a trial."""
        return Levels(self.fidelity, self.scheduler, int(config["epochs"]))


@dataclass(frozen=True)
class AssignedTrial:
    """A trial assigned to a worker group. `folder` is on storage that every node sees."""

    id: str
    config: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Start:
    """Build `trial` from its last saved state and drop the trial before it; answers `Begun`."""

    trial: AssignedTrial


@dataclass(frozen=True)
class Begun:
    """How far a trial is: its epochs, and the metrics of its model if it is finished."""

    epochs: int = 0
    metrics: dict[str, float] | None = None


@dataclass(frozen=True)
class Epoch:
    """Train the next epoch and persist a checkpoint of it."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the validation split at `level`.

    `final` for the model that is kept: with patience, that of the best epoch.
    """

    level: Level
    final: bool = False


@dataclass(frozen=True)
class Finish:
    """Persist the model with its metrics and drop the training state."""

    metrics: dict[str, float]


@dataclass(frozen=True)
class Leave:
    """End the worker loop."""


Command = Start | Epoch | Evaluate | Finish | Leave


@dataclass(frozen=True)
class Standing:
    """Where a restarted group takes up: the trial under way and its acknowledged epochs.

    `cost` is what the trial had cost after an evaluation of the last of them, which no state keeps.
    """

    trial: AssignedTrial
    epochs: int
    cost: dict[str, float] | None = None


@dataclass(frozen=True)
class RankError:
    """An error on a rank; `outside` where the trial's config did not cause it."""

    reason: str
    outside: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a command failed.

    `group_usable` is False where ranks may be waiting for each other. `outside`: storage or
    network failed, not the trial, so it may be retried.
    """

    reason: str
    group_usable: bool
    outside: bool = False


@dataclass
class _Pending:
    sequence: int
    command: Command
    restarts: int = 0
    answers: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, RankError] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Board:
    """An asynchronous Ray actor, one for each slot. `world` is the number of ranks."""

    def __init__(self, world: int) -> None:
        self._world = world
        self._token: str | None = None
        self._standing: Standing | None = None
        self._sequence = 0
        self._pending: _Pending | None = None
        self._posted = asyncio.Condition()
        self._last_words = ""

    async def post(self, command: Command) -> Any:
        """Have every rank run `command`; returns rank 0's answer, or a `Failure`."""
        self._sequence += 1
        pending = _Pending(self._sequence, command)
        async with self._posted:
            self._pending = pending
            self._posted.notify_all()
        outcome = await self._outcome(pending)
        self._pending = None
        if isinstance(outcome, Failure):
            self._standing = None
            return outcome
        if isinstance(command, Start):
            self._standing = Standing(command.trial, outcome.epochs)
        elif isinstance(command, Epoch) and self._standing is not None:
            self._standing = Standing(self._standing.trial, self._standing.epochs + 1)
        elif isinstance(command, Evaluate) and self._standing is not None:
            cost = {name: outcome[name] for name in COSTS if name in outcome}
            self._standing = replace(self._standing, cost=cost or None)
        elif isinstance(command, Finish):
            self._standing = None
        return outcome

    async def enter(self, token: str) -> Standing | None:
        """A rank of the group `token` reports in; a new token voids what the old group began."""
        if token != self._token:
            first = self._token is None
            self._token = token
            if self._pending is not None and not first:
                self._pending.restarts += 1
                self._pending.answers.clear()
                self._pending.errors.clear()
                self._pending.changed.set()
        return self._standing

    async def leave(self, reason: str) -> None:
        """A rank could not start and ends, for this `reason`."""
        self._last_words = reason

    async def next(self, after: int) -> tuple[int, Command]:
        """Wait for the first command after number `after`."""
        async with self._posted:
            await self._posted.wait_for(
                lambda: self._pending is not None and self._pending.sequence > after
            )
            assert self._pending is not None
            return self._pending.sequence, self._pending.command

    async def acknowledge(
        self, token: str, rank: int, sequence: int, answer: Any, error: RankError | None
    ) -> None:
        """A rank has finished a command, with an answer or an error."""
        pending = self._pending
        if pending is None or pending.sequence != sequence or token != self._token:
            return
        if error is None:
            pending.answers[rank] = answer
        else:
            pending.errors[rank] = error
        pending.changed.set()

    async def _outcome(self, pending: _Pending) -> Any:
        while True:
            if pending.restarts > MAX_RESTARTS:
                why = f" ({self._last_words})" if self._last_words else ""
                reason = f"its workers died {pending.restarts} times{why}"
                return Failure(reason, group_usable=True)
            if len(pending.answers) == self._world:
                return pending.answers[0]
            if pending.errors:
                await self._hear_others(pending)
                if pending.errors:
                    return self._failure(pending)
                continue  # a new group runs the command; the old group's errors are void
            await pending.changed.wait()
            pending.changed.clear()

    async def _hear_others(self, pending: _Pending) -> None:
        """Wait for the ranks that have not answered, or for a new group."""
        deadline = asyncio.get_running_loop().time() + ERROR_GRACE
        while pending.errors and len(pending.errors) + len(pending.answers) < self._world:
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(pending.changed.wait(), left)
            except TimeoutError:
                return
            pending.changed.clear()

    def _failure(self, pending: _Pending) -> Failure:
        """Errors that all ranks report leave the group in step; a lone one may not."""
        usable = len(pending.errors) == self._world
        first = pending.errors[min(pending.errors)]
        return Failure(first.reason, group_usable=usable, outside=first.outside)
