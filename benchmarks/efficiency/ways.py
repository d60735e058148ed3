"""The ways to search that are compared: each a sampler and a rule of stopping."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch
from replay import Played, play

from distributed.front import Objective, pareto_mask
from distributed.sampling import directions, make_sampler
from distributed.stopping import make_policy
from distributed.stopping.policy import Figures, Policy, Verdict
from distributed.stopping.unstopped import Unstopped
from efficiency.asha import FACTOR, ScalarisedAsha
from efficiency.problem import Config, Floats, Point, Problem
from search_spaces.study import Scheduler, Search

TRIALS = 64


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        name, label: For the command line and figures, and for readers.
        sampler: "guide" is Ray's OptunaSearch as its guide writes it, the others are a study's.
        stopping: None runs every trial to its end; "foresight" is the bound of `Foresight`.
        untrained: Only there to tell sampler and stopping apart, where trials cost nothing.
        most: Runs at most, of a sampler that takes long.
    """

    name: str
    label: str
    sampler: Literal["guide", "random", "tpe", "gp"]
    stopping: Literal["asha", "halving", "forecast", "foresight"] | None = None
    untrained: bool = False
    most: int | None = None


WAYS = {
    way.name: way
    for way in (
        Way("optuna", "OptunaSearch, no stopping", "guide"),
        Way("random", "random, no stopping", "random"),
        Way("asha", "random, scalarised ASHA", "random", "asha"),
        Way("halving", "random, halving", "random", "halving"),
        Way("tpe", "TPE, no stopping", "tpe", untrained=True),
        Way("forecast-random", "random, forecast", "random", "forecast"),
        Way("forecast", "TPE, forecast", "tpe", "forecast"),
        Way("forecast-gp", "Gaussian process, forecast", "gp", "forecast", most=5),
        Way("foresight-random", "random, perfect foresight", "random", "foresight", untrained=True),
        Way("foresight", "TPE, perfect foresight", "tpe", "foresight", untrained=True),
    )
}


def sweep(problem: Problem, way: Way, seed: int, finals: Floats | None = None) -> list[Played]:
    """Search once, one trial at a time; what became of each of the `TRIALS` trials, in order.

    `finals` (n, m) are of a full-length sweep of random configs, from which a scalarised objective
    takes its scale.
    """
    source = _source(problem, way, seed)
    # Stand in for the arrays that `play` asks for, as a live curve is trained while it is read.
    values: list[Any] = []
    costs: list[Any] = []
    if way.stopping == "foresight":
        policy: Policy = Foresight(problem.objectives, lambda trial: values[trial][-1])
        picks = [0, len(problem.steps) - 1]
    else:
        policy, picks = _stopping(problem, way, seed, finals)

    def order() -> Iterator[int]:
        for number in range(TRIALS):
            curve = problem.curve(source.draw(number), seed)
            values.append(_Column(curve, picks, "values"))
            costs.append(_Column(curve, picks, "cost"))
            yield number

    history = []
    for played in play(policy, values, costs, order()):
        source.tell(played.trial, None if played.stopped else played.values)
        history.append(played)
    return history


class Source(ABC):
    """Draws configs, and hears what became of each before it draws the next."""

    @abstractmethod
    def draw(self, number: int) -> Config:
        """The config of that trial."""

    @abstractmethod
    def tell(self, number: int, values: Floats | None) -> None:
        """Its final values; None where it was stopped."""


class Shuffled(Source):
    """A pool of configs, each once, in a random order."""

    def __init__(self, pool: int, seed: int) -> None:
        self._order = np.random.default_rng(seed).permutation(pool).tolist()

    def draw(self, number: int) -> Config:
        return {"index": self._order[number]}

    def tell(self, number: int, values: Floats | None) -> None:
        """Nothing to learn."""


class Sampled(Source):
    """Optuna, asked and told as a sweep of ours does: stopped trials are pruned ones."""

    def __init__(
        self, problem: Problem, sampler: Literal["random", "tpe", "gp"], seed: int
    ) -> None:
        self._problem = problem
        self._search = Search(trials=TRIALS, sampler=sampler, seed=seed)
        self._study = optuna.create_study(directions=directions(problem.objectives))
        self._asked: dict[int, optuna.Trial] = {}

    def draw(self, number: int) -> Config:
        seed = np.random.SeedSequence([self._search.seed, number]).generate_state(1)
        self._study.sampler = make_sampler(self._search, int(seed[0]))
        self._asked[number] = self._study.ask()
        return self._problem.suggest(self._asked[number])

    def tell(self, number: int, values: Floats | None) -> None:
        trial = self._asked.pop(number)
        if values is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        elif np.isnan(values).any():
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, values.tolist())


class Guide(Source):
    """Ray's `OptunaSearch` for several objectives, as its guide writes it."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._names = [o.name for o in problem.objectives]
        self._search = OptunaSearch(
            problem.suggest,
            metric=self._names,
            mode=[o.direction for o in problem.objectives],
            seed=seed,
        )

    def draw(self, number: int) -> Config:
        config = self._search.suggest(str(number))
        assert isinstance(config, dict)
        return config

    def tell(self, number: int, values: Floats | None) -> None:
        assert values is not None
        result = dict(zip(self._names, values.tolist(), strict=True))
        self._search.on_trial_complete(str(number), result)


class Foresight(Policy):
    """Stops at its first rung what will end dominated: what no policy can better by much."""

    def __init__(self, objectives: Sequence[Objective], final: Callable[[int], Floats]) -> None:
        """`final` gives a trial's final values."""
        super().__init__(objectives, rungs=1)
        self._final = final
        self._ended: list[Floats] = []

    def report(self, trial: str, rung: int, figures: Figures) -> Verdict:
        values = [*self._ended, self._final(int(trial))]
        return Verdict(not pareto_mask(values, [o.direction for o in self.objectives])[-1])

    def end(self, trial: str, figures: Figures | None) -> None:
        self._ended.append(self._final(int(trial)))


class _Column(Sequence[Any]):
    """One field of some points of a curve, each read when it is asked for."""

    def __init__(self, curve: Sequence[Point], picks: Sequence[int], field: str) -> None:
        self._curve, self._picks, self._field = curve, picks, field

    def __len__(self) -> int:
        return len(self._picks)

    def __getitem__(self, index: Any) -> Any:
        return getattr(self._curve[self._picks[index]], self._field)


def _source(problem: Problem, way: Way, seed: int) -> Source:
    if problem.pool is not None:
        return Shuffled(problem.pool, seed)
    if way.sampler == "guide":
        return Guide(problem, seed)
    return Sampled(problem, way.sampler, seed)


def _stopping(
    problem: Problem, way: Way, seed: int, finals: Floats | None
) -> tuple[Policy, list[int]]:
    """The rule of stopping, and the points of a curve that it sees, the last among them.

    Forecast has the rungs that a study gives it; halving geometric ones from the first step on.
    """
    *steps, length = problem.steps
    if way.stopping is None:
        return Unstopped(problem.objectives, rungs=0), [len(steps)]
    if way.stopping == "forecast":
        settings = Scheduler(policy="forecast")
    else:
        settings = Scheduler(policy="halving", first=1 / length, factor=FACTOR)
    picks = [problem.steps.index(epoch) for epoch in settings.rung_epochs(length)] + [len(steps)]
    if way.stopping == "asha":
        assert finals is not None
        return ScalarisedAsha(problem.objectives, [problem.steps[i] for i in picks], finals), picks
    return make_policy(settings, problem.objectives, seed=seed), picks
