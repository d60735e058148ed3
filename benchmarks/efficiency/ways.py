"""The ways to search that are compared: each a sampler, a rule of stopping and its rungs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch
from replay import play

from efficiency.problem import Config, Floats, Problem
from efficiency.stopping import RULES, RUNGS, picked, policy_of
from trustsweep.distributed.search.sampling import directions, make_sampler
from trustsweep.distributed.search.stopping.unstopped import Unstopped
from trustsweep.search_spaces.study import Search

TRIALS = 64

SAMPLERS = {
    "guide": "Ray's OptunaSearch",
    "random": "random",
    "tpe": "TPE",
    "gp": "Gaussian process",
}


@dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        sampler: Of `SAMPLERS`: "guide" is Ray's OptunaSearch as its guide writes it, the others
            are a study's. A fixed pool is drawn from in random order.
        rule: Of `RULES`.
        rungs: Of `RUNGS`; "" without stopping.
        doubt: Of forecast, instead of its own.
    """

    sampler: Literal["guide", "random", "tpe", "gp"]
    rule: str = "none"
    rungs: str = ""
    doubt: float | None = None

    @property
    def name(self) -> str:
        """A key of its own."""
        parts = [self.sampler, self.rule, self.rungs]
        if self.doubt is not None:
            parts.append(f"{self.doubt:g}")
        return " ".join(part for part in parts if part)

    @property
    def label(self) -> str:
        """For readers, without the sampler."""
        rungs = {"": "", "four": ", four rungs"}.get(self.rungs, f", from {self.rungs}")
        return RULES[self.rule].label + rungs


class TrialOutcome(NamedTuple):
    """The outcome of a trial.

    Attributes:
        number: In order of the draws.
        rung: Where it was stopped; None where it ran to the end.
        training: What it cost to train, in the problem's unit.
        evaluations: How often it was evaluated.
        evaluation: What each of these cost.
        values: (m,) what it measured last.
    """

    number: int
    rung: int | None
    training: float
    evaluations: int
    evaluation: float
    values: list[float]


def sweep(
    problem: Problem, way: Way, seed: int, finals: Floats | None = None
) -> list[TrialOutcome]:
    """Search once, one trial at a time; each of the `TRIALS` trials in the order they ended.

    `finals` (n, m) are of a full-length sweep, from which a rule that needs them has its scale.
    """
    source = _source(problem, way, seed)
    rungs = RUNGS[way.rungs] if way.rungs else ()
    picks = picked(rungs, problem.steps)
    policy = (
        policy_of(way.rule, problem.objectives, rungs, finals, seed, way.doubt)
        if rungs
        else Unstopped(problem.objectives, rungs=0)
    )
    configs: list[Config] = []
    values: list[Floats] = []
    costs: list[Floats] = []

    def order() -> Iterator[int]:
        for number in range(min(TRIALS, problem.pool or TRIALS)):
            configs.append(source.draw(number))
            curve = problem.curve(configs[-1], seed)
            values.append(np.array([curve[i].values for i in picks]))
            costs.append(np.array([curve[i].cost for i in picks]))
            yield number

    history: list[TrialOutcome] = []
    for played in play(policy, values, costs, order()):
        source.tell(played.trial, None if played.stopped else played.values)
        point = len(picks) - 1 if played.rung is None else played.rung
        training, evaluation = costs[played.trial][point], problem.evaluation(configs[played.trial])
        history.append(
            TrialOutcome(
                played.trial,
                played.rung,
                float(training),
                point + 1,
                evaluation,
                played.values.tolist(),
            )
        )
    return history


class ConfigSource(ABC):
    """Draws configs, and learns the result of each before it draws the next."""

    @abstractmethod
    def draw(self, number: int) -> Config:
        """The config of that trial."""

    @abstractmethod
    def tell(self, number: int, values: Floats | None) -> None:
        """Its final values; None where it was stopped."""


class Shuffled(ConfigSource):
    """A pool of configs, each once, in a random order."""

    def __init__(self, pool: int, seed: int) -> None:
        self._order = np.random.default_rng(seed).permutation(pool).tolist()

    def draw(self, number: int) -> Config:
        return {"index": self._order[number]}

    def tell(self, number: int, values: Floats | None) -> None:
        """Nothing to learn."""


class Sampled(ConfigSource):
    """Optuna with ask and tell, as in a sweep of ours: stopped trials are pruned ones."""

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


class Guide(ConfigSource):
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
        # Ray tells it of a stopped trial what that measured last, as of one that ended.
        assert values is not None, "the guide's way stops nothing"
        result = dict(zip(self._names, values.tolist(), strict=True))
        self._search.on_trial_complete(str(number), result)


def _source(problem: Problem, way: Way, seed: int) -> ConfigSource:
    if problem.pool is not None:
        return Shuffled(problem.pool, seed)
    if way.sampler == "guide":
        return Guide(problem, seed)
    return Sampled(problem, way.sampler, seed)
