"""Optuna's samplers over a conditional space; sampling is deterministic across restarts.

Each draw uses a fresh sampler seeded by the study's seed and the number of the trial: it depends on
these and on the known trials, never on the process. The Optuna study lives in memory and is rebuilt
from the ledger, the only source of truth.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from trustsweep.distributed.optuna_internals import SamplerState
from trustsweep.distributed.run.ledger import Record, State
from trustsweep.distributed.statistics.front import Objective
from trustsweep.search_spaces.space import METHOD, Space
from trustsweep.search_spaces.study import Constraint, Search, Study

#: Suggestions that repeat a known config are drawn again, at random after the first of these
#: numbers; after the second the space counts as used up.
_REPEATS_MODELLED, _REPEATS = 5, 50
_STATES = {
    State.COMPLETED: TrialState.COMPLETE,
    State.STOPPED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}


def make_sampler(search: Search, seed: int) -> BaseSampler:
    """The Optuna sampler that a study names, for one draw."""
    samplers = optuna.samplers
    # A third of the trials at random before TPE models them: its default of 10 would leave a short
    # sweep random.
    startup = min(10, max(4, search.trials // 3))
    makers: dict[str, Callable[[], BaseSampler]] = {
        # Grouped: parameters that exist together are modelled together. What is in flight counts
        # as bad for the moment (constant liar), so that parallel slots draw apart.
        "tpe": lambda: samplers.TPESampler(
            seed=seed,
            n_startup_trials=startup,
            multivariate=True,
            group=True,
            constant_liar=True,
        ),
        "random": lambda: samplers.RandomSampler(seed=seed),
        "grid": lambda: samplers.RandomSampler(seed=seed),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed, population_size=startup),
        "nsga3": lambda: samplers.NSGAIIISampler(seed=seed, population_size=startup),
        "gp": lambda: samplers.GPSampler(
            seed=seed, n_startup_trials=startup, warn_independent_sampling=False
        ),
        # One sequence for the whole study: its scrambling must not change from draw to draw.
        "qmc": lambda: samplers.QMCSampler(
            seed=search.seed,
            scramble=True,
            independent_sampler=samplers.RandomSampler(seed=seed),
            warn_independent_sampling=False,
        ),
    }
    return makers[search.sampler]()


class Sampling:
    """Draws configs, and learns from the results of the trials.

    Args:
        study: Its space, sampler and constraints.
        objectives: With their directions.
        identify: Gives a config its trial id.
    """

    def __init__(
        self,
        study: Study,
        objectives: Sequence[Objective],
        identify: Callable[[Mapping[str, Any]], str],
    ) -> None:
        # What Optuna calls experimental (grouped TPE) has been there since 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._search = study.search
        self._constraints = study.constraints
        self._names = [o.name for o in objectives]
        self._space = study.search_space()
        self._grid = self._space.grid() if study.search.sampler == "grid" else None
        self._identify = identify
        storage = InMemoryStorage()
        self._optuna = optuna.create_study(
            study_name=study.name, storage=storage, directions=directions(objectives)
        )
        self._state = SamplerState(storage, study.name)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._seen: set[str] = set()
        #: The storage's numbers of the trials that were drawn or entered.
        self._numbers: dict[str, int] = {}
        #: NSGA's choices of parents that some trial has noted.
        self._noted: set[str] = set()

    def draw(self, number: int) -> Record | None:
        """The trial of that number, with a new config; None if the space seems used up."""
        if self._grid is not None:
            return self._draw_from_grid(number)
        for attempt in range(_REPEATS):
            seed = np.random.SeedSequence([self._search.seed, number, attempt]).generate_state(1)
            modelled = attempt < _REPEATS_MODELLED
            self._optuna.sampler = (
                make_sampler(self._search, int(seed[0]))
                if modelled
                else optuna.samplers.RandomSampler(seed=int(seed[0]))
            )
            if (record := self._ask(number)) is not None:
                return record
        return None

    def enter(self, record: Record) -> None:
        """Take in a trial of an earlier session or run.

        Raises ValueError for a config outside the space; the sampler does without it then, and
        never draws it either.
        """
        self._seen.add(record.id)
        replayed = _Replay.of(self._space, record)
        self._state.restore_study(record.draw.get("study", {}))
        for key, names in record.draw.get("parents", {}).items():
            known = [self._numbers[name] for name in names if name in self._numbers]
            self._state.restore_parents(key, known)
            self._noted.add(key)
        if record.state is State.RUNNING:
            self._optuna.sampler = optuna.samplers.RandomSampler(seed=0)
            self._optuna.enqueue_trial(replayed.params)
            trial = self._optuna.ask()
            self._space.suggest(trial)
            self._state.restore(trial, record.draw.get("trial", {}))
            self._asked[record.id] = trial
            self._numbers[record.id] = self._state.number(trial)
        else:
            self._numbers[record.id] = self._state.add(self.as_optuna(record, replayed))

    def tell(self, record: Record) -> None:
        """Report the result of a trial that was drawn or entered, once."""
        trial = self._asked.pop(record.id, None)
        if trial is None:
            return
        for name, violation in self._violations(record).items():
            trial.set_constraint(name, violation)
        if record.state is State.COMPLETED:
            self._optuna.tell(trial, [record.metrics[name] for name in self._names])
        else:
            self._optuna.tell(trial, state=_STATES[record.state])

    def as_optuna(
        self, record: Record, replayed: _Replay | None = None
    ) -> optuna.trial.FrozenTrial:
        """An ended trial as Optuna and its dashboard know it.

        Raises ValueError for a config outside the space.
        """
        replayed = replayed or _Replay.of(self._space, record)
        completed = record.state is State.COMPLETED
        return create_trial(
            state=_STATES[record.state],
            values=[record.metrics[name] for name in self._names] if completed else None,
            params=replayed.params,
            distributions=replayed.distributions,
            user_attrs={"id": record.id, "config": record.config, "reason": record.reason},
            system_attrs=dict(record.draw.get("trial", {})),  # Optuna adds to it
            constraints=self._violations(record),
        )

    def _draw_from_grid(self, number: int) -> Record | None:
        assert self._grid is not None
        if number >= len(self._grid):
            return None
        self._optuna.sampler = make_sampler(self._search, self._search.seed)
        self._optuna.enqueue_trial(self._grid[number])
        return self._ask(number) or self._draw_from_grid(number + 1)

    def _ask(self, number: int) -> Record | None:
        """A trial that Optuna draws; None for a config that was drawn before."""
        trial = self._optuna.ask()
        config = self._space.suggest(trial)
        name = self._identify(config)
        if name in self._seen:
            # Optuna's samplers learn nothing from a failed trial: as if it had not been.
            self._optuna.tell(trial, state=TrialState.FAIL)
            return None
        self._seen.add(name)
        self._asked[name] = trial
        self._numbers[name] = self._state.number(trial)
        return Record(id=name, config=config, number=number, draw=self._notes(trial))

    def _notes(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        """The sampler state that a restart has to restore.

        QMC's place, NSGA's generation of the trial, and the parents if they were chosen just now:
        by then, more trials of the generation before may have ended.
        """
        self._state.settle(trial)
        chosen = {k: v for k, v in self._state.parents().items() if k not in self._noted}
        self._noted |= chosen.keys()
        names = {number: name for name, number in self._numbers.items()} if chosen else {}
        notes = {
            "trial": self._state.notes_of(trial),
            "study": self._state.sequence(),
            "parents": {k: [names[number] for number in v] for k, v in chosen.items()},
        }
        return {kind: note for kind, note in notes.items() if note}

    def _violations(self, record: Record) -> dict[str, float]:
        return violations(record, self._constraints)


def violations(record: Record, constraints: Sequence[Constraint]) -> dict[str, float]:
    """How far a completed trial is beyond each bound (at most 0 where it keeps it)."""
    if record.state is not State.COMPLETED:
        return {}
    by_constraint = {
        str(c): c.violation(record.metrics.get(c.metric, math.nan)) for c in constraints
    }
    # NaN violates every constraint; Optuna does not accept it.
    return {name: math.inf if math.isnan(value) else value for name, value in by_constraint.items()}


def directions(objectives: Sequence[Objective]) -> list[StudyDirection]:
    """As Optuna names them."""
    names = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    return [names[o.direction] for o in objectives]


class _Replay:
    """A `Suggester` that answers from a known config."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    @classmethod
    def of(cls, space: Space, record: Record) -> _Replay:
        """The suggestions that Optuna would have made for this trial.

        Raises ValueError for a config outside the space.
        """
        replay = cls(record.config)
        config = space.suggest(replay)
        if config != record.config:
            raise ValueError(f"trial {record.id} has other parameters than the space")
        # Checks each value against its distribution.
        create_trial(
            state=TrialState.FAIL, params=replay.params, distributions=replay.distributions
        )
        return replay

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        return float(self._known(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self._known(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._known(name, CategoricalDistribution(choices))

    def _known(self, name: str, distribution: BaseDistribution) -> Any:
        plain = name.removeprefix(f"{self._config.get(METHOD)}.")
        if plain not in self._config:
            raise ValueError(f"no {plain}")
        self.params[name], self.distributions[name] = self._config[plain], distribution
        return self._config[plain]
